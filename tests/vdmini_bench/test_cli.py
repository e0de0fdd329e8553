from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import forked
import pytest
from click.testing import CliRunner, Result

from vdmini_bench.assets.catalogue import ASSETS
from vdmini_bench.cli import main
from vdmini_bench.config.suite import load_suite
from vdmini_bench.data.synthetic import write_dataset
from vdmini_bench.results.score import Score
from vdmini_bench.results.store import Store
from vdmini_bench.suites.datasets import DRAWN, dataset_root

SUITE = Path(__file__).parents[2] / "suites" / "ucf101.yaml"


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return forked.run("-m", "vdmini_bench", *arguments)


@pytest.fixture
def nothing_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No assets, no downloaded models: the results folder, which does not exist yet."""
    monkeypatch.setenv("VDMINI_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "results"


def test_the_documentation_describes_every_command_with_click_and_yaml_alone() -> None:
    others = "import sys; sys.modules.update(dict.fromkeys(['pydantic', 'numpy', 'torch', 'diffusers']))"
    done = subprocess.run(
        [sys.executable, "-c", f"{others}; import vdmini_bench.cli"], stderr=subprocess.PIPE, text=True
    )
    assert done.returncode == 0, done.stderr


HEAVY = """
import sys
from click.testing import CliRunner
from vdmini_bench.cli import main

result = CliRunner().invoke(main, sys.argv[1:])
print(result.output)
heavy = {"torch", "diffusers", "transformers", "scipy", "cv2", "numpy", "av", "pandas"} & set(sys.modules)
sys.exit(f"imported {heavy}" if heavy else result.exit_code)
"""


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["--help"], "compare"),
        (["--version"], "0.1"),
        (["gate", "--help"], "--baseline"),
        (["compare", "--help"], "--allow-unlike"),
        (["leaderboard", "history", "--help"], "--metric"),
        (["leaderboard", "show", str(SUITE.parents[1] / "results" / "leaderboard.csv"), "--csv"], "fvd"),
        (["run", "--help"], "--profile"),
        (["assets", "verify"], "no assets here yet"),
        (["assets", "list", "--json"], "ucf101"),
    ],
)
def test_quick_commands_import_nothing_heavy(nothing_here: Path, arguments: list[str], shown: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", HEAVY, *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert shown in done.stdout


def test_a_gate_imports_nothing_heavy(tmp_path: Path) -> None:
    write_run(tmp_path, 30)
    arguments = ["gate", "latest", "--results", str(tmp_path), "--baseline", str(tmp_path / "baseline.csv")]
    for change, shown in (("--update", "baseline written"), ("--json", '"exit_code": 0')):
        command = [sys.executable, "-c", HEAVY, *arguments, change]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        assert shown in done.stdout


def test_the_version_comes_with_the_environment() -> None:
    first, *rest = invoke("--version").stdout.splitlines()
    assert first == f"vdmini-bench, version {version('vdmini')}"
    text = "\n".join(rest)
    assert f"torch {version('torch')}" in text
    assert platform.python_version() in text
    assert "code: " in text


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete_commands_and_options(shell: str) -> None:
    """As docs/command-line.md says: the script that a shell loads, then what it asks as somebody types."""
    code = "import sys; sys.argv[0] = 'vdmini-bench'; from vdmini_bench.cli import main; main(prog_name='vdmini-bench')"

    def ask(instruction: str, **typed: str) -> str:
        environment = {**os.environ, "_VDMINI_BENCH_COMPLETE": f"{shell}_{instruction}", **typed}
        command = [sys.executable, "-c", code]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False).stdout

    # fish is not asked for the number of the word but for the word.
    for words, number, current, expected in (
        ("vdmini-bench lead", "1", "lead", "leaderboard"),
        ("vdmini-bench gate --thr", "2", "--thr", "--thresholds"),
    ):
        cword = current if shell == "fish" else number
        assert expected in ask("complete", COMP_WORDS=words, COMP_CWORD=cword)
    if shell != "bash" or shutil.which("bash"):
        assert "vdmini-bench" in ask("source")


def test_a_misspelt_key_exits_2_with_its_place(tmp_path: Path) -> None:
    text = SUITE.read_text(encoding="utf-8").replace("learning_rate:", "learning_rte:", 1)
    path = tmp_path / "typo.yaml"
    path.write_text(text, encoding="utf-8")
    before = text[: text.index("learning_rte")]
    line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
    done = run("run", path, "--results", tmp_path / "results")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(f"error: {path}:{line}:{column}: unknown key 'distill.learning_rte'; did you mean")
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "results").exists()


def test_the_paper_profile_lists_all_that_is_missing_and_writes_nothing(nothing_here: Path) -> None:
    done = run("run", SUITE, "--profile", "paper", "--results", nothing_here)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert "nothing was run" in done.stderr
    assert "hf download stabilityai/stable-video-diffusion-img2vid" in done.stderr
    for name in ("ucf101", "pytorch-fid-inception"):
        assert f"vdmini-bench assets import {name} PATH" in done.stderr
        assert ASSETS[name].source in done.stderr
        assert ASSETS[name].licence in done.stderr
    assert not nothing_here.exists()


@pytest.mark.parametrize("name", ["vbench_t2v", "vbench_i2v"])
def test_what_is_missing_for_vbench_has_a_licence_and_a_source(
    name: str, nothing_here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VBENCH_CACHE_DIR", str(nothing_here / "weights"))
    monkeypatch.setenv("VDMINI_VBENCH_ENV", str(nothing_here / "environment"))
    result = invoke("run", SUITE.with_name(f"{name}.yaml"), "--profile", "paper", "--results", nothing_here)
    assert result.exit_code == 2
    licences, sources = (
        [
            line.removeprefix(f"    {what}").strip()
            for line in result.stderr.splitlines()
            if line.startswith(f"    {what} ")
        ]
        for what in ("licence", "from")
    )
    assert len(licences) == len(sources) > 5
    # "Of its authors" would tell nobody anything: it has a name, or a page that has it.
    assert not any("author" in told for told in (*licences, *sources))
    assert {"MIT", "Apache-2.0"} <= set(licences)


def test_the_paper_profile_can_be_planned_without_its_assets(nothing_here: Path) -> None:
    result = invoke("run", SUITE, "--profile", "paper", "--dry-run", "--json", "--results", nothing_here)
    assert result.exit_code == 0, result.output
    plan = json.loads(result.stdout)
    assert {item["name"] for item in plan["missing"]} == {"teacher", "ucf101", "pytorch-fid-inception"}
    assert all(item["command"] for item in plan["missing"])
    assert not nothing_here.exists()


def test_a_plan_of_a_first_run_says_what_comes_first_and_writes_nothing(nothing_here: Path) -> None:
    result = invoke("run", SUITE, "--profile", "smoke", "--dry-run", "--results", nothing_here)
    assert result.exit_code == 0, result.output
    assert "not comparable with published UCF101 numbers" in result.stdout
    assert "first: fetch i3d-kinetics400" in result.stdout
    assert "first: draw " in result.stdout
    assert "measure student" in result.stdout
    assert "cached" not in result.stdout
    assert not nothing_here.exists()


def files(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.mark.usefixtures("i3d_weights")
def test_a_plan_with_the_data_there_writes_nothing_either(tmp_path: Path) -> None:
    dataset = load_suite(SUITE, "smoke").profile.dataset
    root = dataset_root(dataset, Store(tmp_path))
    assert root is not None
    write_dataset(root, dataset.drawn_train_per_group, dataset.drawn_test_per_group)
    (root / DRAWN).touch()
    before = files(tmp_path)
    settings = ("--set", "protocol.reference=computed", "--set", "protocol.reference_clips=20")
    result = invoke("run", SUITE, "--profile", "smoke", *settings, "--dry-run", "--json", "--results", tmp_path)
    assert result.exit_code == 0, result.output
    plan = json.loads(result.stdout)
    assert plan["first"] == plan["missing"] == []
    assert plan["seconds"] == pytest.approx(sum(job["seconds"] for job in plan["jobs"]))
    assert files(tmp_path) == before


def test_compare_without_runs_exits_3_and_says_what_next(tmp_path: Path) -> None:
    done = run("compare", "teacher", "student", "--results", tmp_path / "none")
    assert done.returncode == 3
    assert "no finished run" in done.stderr
    assert "vdmini-bench run suites/ucf101.yaml" in done.stderr
    assert not (tmp_path / "none").exists()


def write_run(root: Path, n_of_student: int) -> None:
    scores = [
        Score(model, metric, "1", "p", value, "ms", "lower", None, n, 30, "ok", blocks)
        for model, n, values in (("teacher", 30, (20.0, 8.0)), ("student", n_of_student, (10.0, 9.0)))
        for metric, value, blocks in (
            ("latency_end_to_end", values[0], (values[0], values[0] + 1)),
            ("fvd", values[1], ()),
        )
    ]
    folder = root / "runs" / "20260101T000000_ucf101_abc"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"status": "complete", "suite": {"name": "ucf101"}}))
    (folder / "results.jsonl").write_text("".join(json.dumps(score.to_json()) + "\n" for score in scores))


def test_compare_shows_differences_as_table_and_json(tmp_path: Path) -> None:
    write_run(tmp_path, 30)
    table = invoke("compare", "teacher", "student", "--results", tmp_path)
    assert table.exit_code == 0, table.output
    assert "student is better" in table.stdout
    assert "student is worse" in table.stdout
    output = json.loads(invoke("compare", "teacher", "student", "--json", "--results", tmp_path).stdout)
    assert output["speedup"] == 2.0
    assert [row["metric"] for row in output["rows"]] == ["latency_end_to_end", "fvd"]


def test_compare_refuses_unlike_results_with_exit_5(tmp_path: Path) -> None:
    write_run(tmp_path, 20)
    result = invoke("compare", "teacher", "student", "--results", tmp_path)
    assert result.exit_code == 5
    assert "number of samples differs" in result.stderr
    assert result.stdout == ""


def test_assets_verify_on_an_empty_cache(nothing_here: Path) -> None:
    result = invoke("assets", "verify")
    assert result.exit_code == 0
    assert "no assets here yet; see: vdmini-bench assets list" in result.stdout
    named = invoke("assets", "verify", "ucf101")
    assert named.exit_code == 4
    assert "ucf101: it is not in the cache" in named.stdout
    unknown = invoke("assets", "verify", "../../etc/passwd")
    assert unknown.exit_code == 4
    assert "no asset has this name" in unknown.stderr


def test_assets_list_names_what_is_missing(nothing_here: Path) -> None:
    result = invoke("assets", "list")
    assert result.exit_code == 0
    assert all(name in result.stdout for name in ASSETS)
    assert result.stdout.count("missing") == len(ASSETS)


@pytest.mark.parametrize("arguments", [[], ["run"], ["rn"], ["compare", "teacher"], ["run", "x", "--profil", "y"]])
def test_wrong_usage_exits_2(arguments: list[str]) -> None:
    assert invoke(*arguments).exit_code == 2


def test_a_results_folder_that_cannot_be_is_refused_before_any_work(nothing_here: Path, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    result = invoke("run", SUITE, "--profile", "smoke", "--results", blocked / "results")
    assert result.exit_code == 4
    assert "choose another folder with --results" in result.stderr


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that nobody can write")
def test_a_folder_that_is_read_only_and_a_full_disk_are_refused_before_any_work(
    nothing_here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = invoke("run", SUITE, "--profile", "smoke", "--results", "/proc/results")
    assert result.exit_code == 4
    assert "/proc/results cannot be written" in result.stderr
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=499 * 2**20))
    result = invoke("run", SUITE, "--profile", "smoke", "--results", nothing_here)
    assert result.exit_code == 4
    assert "499 MiB free where a run needs 500" in result.stderr
    assert list(nothing_here.iterdir()) == []
    for command in (
        ("prune", "embedded/svd"),
        ("sample", "embedded/svd", "--steps", "1"),
        ("importance", "embedded/svd"),
        ("plan", "embedded/svd", "--importance", nothing_here),
    ):
        result = invoke(*command, "-o", "/proc/output")
        assert result.exit_code == 4, command
        assert "/proc/output cannot be written" in result.stderr
