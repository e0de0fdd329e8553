"""The environment: what it is made with, how it is called, and what is said where it or a part of it is missing."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from small_suite import write_weights

from vdmini_bench.config.vbench_dimensions import DIMENSIONS, VBENCH_VERSION
from vdmini_bench.errors import BenchError, ExitCode, MissingAssetsError
from vdmini_bench.vbench import environment as module
from vdmini_bench.vbench.environment import (
    Environment,
    call_driver,
    constraint_lines,
    create_environment,
    default_environment,
    packages_digest,
)
from vdmini_bench.vbench.requirements import examine_dimensions, weight_faults


def pretend(folder: Path, **problems: str) -> Environment:
    """An environment's record, as if it had been made."""
    environment = Environment(folder)
    environment.python.parent.mkdir(parents=True)
    environment.python.touch()
    found = {name: problems.get(name) for name in DIMENSIONS}
    record = {"vbench": VBENCH_VERSION, "versions": {"torch": "2.13.0"}, "device": "CPU", "problems": found}
    (folder / "vdmini-vbench.json").write_text(json.dumps({**record, "packages": []}), encoding="utf-8")
    return environment


def test_torch_is_pinned_and_a_users_build_of_it_replaces_ours_and_nothing_else(tmp_path: Path) -> None:
    ours = constraint_lines(None).splitlines()
    assert "torch==2.13.0" in ours
    assert "transformers==4.33.2" in ours
    own = tmp_path / "constraints.txt"
    own.write_text(
        "--extra-index-url https://example.org/cu126\ntorch==2.9.0+cu126\ntorchvision==0.24.0+cu126\n"
        "-c others.txt\ndiffusers==0.42.1\ntransformers==5.23.0\ntorchmetrics==1.9.0\n",
        encoding="utf-8",
    )
    lines = constraint_lines(str(own)).splitlines()
    assert {"--extra-index-url https://example.org/cu126", "torch==2.9.0+cu126", "torchvision==0.24.0+cu126"} <= {
        *lines
    }
    assert [line for line in lines if line.startswith("torch==")] == ["torch==2.9.0+cu126"]
    assert "transformers==4.33.2" in lines
    assert not [line for line in lines if line.startswith(("-c", "diffusers", "transformers==5", "torchmetrics"))]
    with pytest.raises(MissingAssetsError, match="VDMINI_CONSTRAINTS: cannot read"):
        constraint_lines(str(tmp_path / "none.txt"))


def test_the_place_is_the_users_or_the_asset_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VDMINI_VBENCH_ENV", raising=False)
    monkeypatch.setenv("VDMINI_CACHE", str(tmp_path / "cache"))
    assert default_environment().folder == tmp_path / "cache" / "vbench-env"
    monkeypatch.setenv("VDMINI_VBENCH_ENV", str(tmp_path / "mine"))
    assert default_environment().folder == tmp_path / "mine"
    with pytest.raises(MissingAssetsError, match="next: `vdmini-bench assets vbench`") as caught:
        default_environment().require()
    assert caught.value.exit_code == ExitCode.USAGE


def test_an_unfinished_environment_is_none(tmp_path: Path) -> None:
    environment = pretend(tmp_path / "env")
    assert environment.record() is not None
    marker = tmp_path / "env" / "vdmini-vbench.json"
    marker.write_text(marker.read_text().replace(VBENCH_VERSION, "0.1.4"))
    assert environment.record() is None
    marker.write_text("{")
    assert environment.record() is None


def test_a_whole_environment_is_left_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise AssertionError("nothing should run")

    environment = pretend(tmp_path / "env")
    monkeypatch.setattr(module, "_run", refuse)
    create_environment(environment)
    assert environment.record() is not None


def test_a_package_of_another_version_since_makes_other_scores(tmp_path: Path) -> None:
    environment = pretend(tmp_path / "env")
    marker = tmp_path / "env" / "vdmini-vbench.json"
    marker.write_text(json.dumps({**json.loads(marker.read_text()), "versions": {"opencv-python": "4.11.0.86"}}))
    before = packages_digest(environment.require())
    packages = tmp_path / "env" / "lib" / "python3.11" / "site-packages"
    (packages / "opencv_python-4.11.0.86.dist-info").mkdir(parents=True)
    assert packages_digest(environment.require()) == before
    (packages / "opencv_python-4.11.0.86.dist-info").rename(packages / "opencv_python-4.12.0.88.dist-info")
    assert packages_digest(environment.require()) != before


def test_a_python_that_the_package_does_not_install_on_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PYTHON", (3, 2))
    with pytest.raises(MissingAssetsError, match=r"wants Python 3\.2, .* is 3\.\d+: .* --python python3\.2"):
        create_environment(Environment(tmp_path / "env"))
    with pytest.raises(MissingAssetsError, match="is no Python interpreter"):
        create_environment(Environment(tmp_path / "env"), str(tmp_path / "python"))
    assert not (tmp_path / "env").exists()


def test_pip_that_fails_leaves_its_log_and_no_environment(tmp_path: Path) -> None:
    pip = tmp_path / "pip"
    pip.write_text('#!/bin/sh\necho "ERROR: No matching distribution found for vbench==0.1.5" >&2\nexit 1\n')
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\n[ "$1" = -c ] && echo 3 11 || {{ mkdir -p "$3/bin"; cp {pip} "$3/bin/python"; }}\n')
    for script in (pip, python):
        script.chmod(0o755)
    with pytest.raises(BenchError, match=r"pip install failed with exit code 1: ERROR: No matching.*env\.log"):
        create_environment(Environment(tmp_path / "env"), str(python))
    assert Environment(tmp_path / "env").record() is None
    assert "vbench==0.1.5" in (tmp_path / "env.log").read_text()


@pytest.mark.parametrize("foreign", ["pyvenv.cfg", "thesis.txt"])
def test_an_environment_of_the_users_is_never_removed(tmp_path: Path, foreign: str) -> None:
    (tmp_path / "env").mkdir()
    (tmp_path / "env" / foreign).write_text("theirs")
    with pytest.raises(BenchError, match="which are left as they are: choose another VDMINI_VBENCH_ENV"):
        create_environment(Environment(tmp_path / "env"))
    assert (tmp_path / "env" / foreign).read_text() == "theirs"


def test_a_place_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BenchError, match="holds other things"):
        create_environment(Environment(tmp_path / "file"))
    with pytest.raises(BenchError, match=r"nothing can be made in .*file"):
        create_environment(Environment(tmp_path / "file" / "env"))


def test_the_driver_runs_apart_from_our_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "driver.py"
    script.write_text(
        "import json, os, sys\n"
        "found = {name: value for name, value in os.environ.items() if name.startswith('PYTHON')}\n"
        "json.dump({'path': sys.path, 'environment': found, 'cwd': os.getcwd()}, open(sys.argv[2], 'w'))\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "ours"))
    answer = call_driver((sys.executable, "-I", str(script)), {"action": "inspect"}, tmp_path / "work", "inspect")
    assert str(tmp_path / "ours") not in answer["path"]
    assert str(script.parent) not in answer["path"]
    assert answer["environment"] == {"PYTHONUNBUFFERED": "1"}
    assert answer["cwd"] == str(tmp_path / "work")


def test_an_older_response_is_not_taken_for_a_new_one(tmp_path: Path) -> None:
    script = tmp_path / "driver.py"
    script.write_text("")
    (tmp_path / "inspect.response").write_text('{"old": true}')
    with pytest.raises(module.DriverError, match=r"ended without a result .*it printed nothing"):
        call_driver((sys.executable, str(script)), {"action": "inspect"}, tmp_path, "inspect")


def test_the_driver_imports_nothing_of_ours() -> None:
    text = Path(module.__file__).with_name("driver.py").read_text(encoding="utf-8")
    assert "import vdmini" not in text
    assert "from vdmini" not in text


def test_readiness_says_dimension_by_dimension_what_to_get(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VBENCH_CACHE_DIR", str(tmp_path / "weights"))
    monkeypatch.setenv("VDMINI_CACHE", str(tmp_path / "cache"))
    environment = pretend(tmp_path / "env", color="ModuleNotFoundError: No module named 'detectron2'")
    clip = tmp_path / "weights" / "clip_model" / "ViT-L-14.pt"
    write_weights(clip)
    found = examine_dimensions(environment)
    assert {*found} == {*DIMENSIONS}
    assert [*found["temporal_flickering"]] == ["raft_model/models/raft-things.pth (without --no-static-filter)"]
    raft = tmp_path / "weights" / "raft_model" / "models" / "raft-things.pth"
    write_weights(raft)
    found = examine_dimensions(environment)
    assert found["temporal_flickering"] == found["dynamic_degree"] == {}
    assert [*found["aesthetic_quality"]] == ["aesthetic_model/emb_reader/sa_0_4_vit_l_14_linear.pth"]
    (step,) = found["aesthetic_quality"].values()
    assert step.startswith(f"curl -L --create-dirs -o {tmp_path}/weights/aesthetic_model/emb_reader/")
    what, step = next(iter(found["color"].items()))
    assert "detectron2" in what
    assert "pip install" in step
    assert "git clone" in next(iter(found["subject_consistency"].values()))
    assert "vdmini-bench assets import vbench-i2v PATH" in found["i2v_subject"].values()
    without = examine_dimensions(Environment(tmp_path / "none"))
    assert all(next(iter(lacks)) == "the vbench environment" for lacks in without.values())


def test_the_filter_needs_a_network_that_temporal_flickering_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VBENCH_CACHE_DIR", str(tmp_path))
    assert weight_faults("temporal_flickering", filtered=False, native=False) == []
    (fault,) = weight_faults("temporal_flickering", filtered=True, native=False)
    assert (fault.file, fault.reason) == (tmp_path / "raft_model" / "models" / "raft-things.pth", "is missing")
