"""The commands: what they print, what they leave and how they end."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
from small_suite import Bench, invoke, leave_the_users_folders, write_prompts

from vdmini_bench.assets.cache import import_asset
from vdmini_bench.config.vbench_dimensions import T2V


@pytest.fixture(autouse=True)
def nothing_of_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leave_the_users_folders(tmp_path, monkeypatch)


def test_without_the_environment_the_next_command_is_named(tmp_path: Path) -> None:
    done = invoke("vbench", "score", tmp_path, "--mode", "t2v", "-o", tmp_path / "scores")
    assert done.exit_code == 2
    assert "next: `vdmini-bench assets vbench`" in done.stderr


def test_a_score_is_printed_kept_and_ends_with_its_exit_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("subject_consistency", "imaging_quality")
    bench = Bench(tmp_path, names)
    bench.use(monkeypatch)
    arguments = ["vbench", "score", bench.videos, "--mode", "t2v", "--prompts", bench.prompt_file, "-o", bench.output]
    arguments += ["--dimensions", ",".join(names)]
    without_weights = invoke(*arguments)
    assert without_weights.exit_code == 2
    assert f"imaging_quality: {tmp_path}/weights/pyiqa_model" in without_weights.stderr
    done = invoke(*arguments, "--download", "--json")
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["dimensions"]["imaging_quality"] == {
        "status": "ok", "code": "official", "score": 3 / 32, "n": 5, "expected": 5, "skipped": 0, "cached": False,
    }  # fmt: skip
    assert found["total"] is None
    assert "no total without background_consistency" in done.stderr
    assert "| imaging_quality | quality | 9.3750% |" in (bench.output / "table.md").read_text(encoding="utf-8")
    bench.plan(subject_consistency="silent")
    (bench.videos / "a cat, by Hokusai-1.mp4").write_bytes((bench.videos / "a cat, by Hokusai-0.mp4").read_bytes())
    failed = invoke(*arguments, "--download")
    assert failed.exit_code == 4
    assert "error: subject_consistency: ended without a result" in failed.stderr
    assert "a cat, by Hokusai-0.mp4 = a cat, by Hokusai-1.mp4" in failed.stderr
    (bench.videos / "a cat, by Hokusai-4.mp4").unlink()
    assert invoke(*arguments, "--download").exit_code == 3
    assert invoke("vbench", "zip", bench.output).exit_code == 3


def test_all_dimensions_have_a_total_and_a_zip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = [{"prompt_en": "a cat", "dimension": [name], "auxiliary_info": {}} for name in T2V]
    bench = Bench(tmp_path, ("color",))
    bench.prompt_file.write_text(json.dumps(prompts), encoding="utf-8")
    for path in bench.videos.iterdir():
        path.rename(path.with_name(path.name.replace("a red bicycle", "a cat")))
    bench.use(monkeypatch)
    arguments = ["vbench", "score", bench.videos, "--mode", "t2v", "--prompts", bench.prompt_file, "-o", bench.output]
    done = invoke(*arguments, "--download", "--no-static-filter", "--json")
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["total"] == pytest.approx((4 * found["quality"] + found["semantic"]) / 5)
    packed = invoke("vbench", "zip", bench.output)
    assert packed.exit_code == 0, packed.stderr
    with zipfile.ZipFile(tmp_path / "scores_eval_results.zip") as archive:
        assert len(archive.namelist()) == 16


def test_prompts_are_written_with_names_seeds_and_images(tmp_path: Path) -> None:
    target = tmp_path / "videos.jsonl"
    file = write_prompts(tmp_path)
    done = invoke("vbench", "prompts", "--mode", "t2v", "--prompts", file, "--dimensions", "color", "-o", target)
    assert done.exit_code == 0, done.stderr
    assert "5 videos of 1 prompts" in done.stdout
    lines = [json.loads(line) for line in target.read_text(encoding="utf-8").splitlines()]
    assert lines[3] == {
        "name": "a red bicycle-3.mp4", "prompt": "a red bicycle", "index": 3, "seed": 3028016548, "image": None,
    }  # fmt: skip


def test_image_to_video_reads_the_imported_folder(tmp_path: Path) -> None:
    target = tmp_path / "videos.jsonl"
    arguments = ["vbench", "prompts", "--mode", "i2v", "-o", target]
    assert "--ratio 1-1, 8-5, 7-4, 16-9" in invoke(*arguments).stderr
    missing = invoke(*arguments, "--ratio", "16-9")
    assert missing.exit_code == 2
    assert "vdmini-bench assets import vbench-i2v PATH" in missing.stderr
    folder = tmp_path / "vbench2_beta_i2v"
    folder.mkdir()
    entries = [{"prompt_en": "a beach", "dimension": ["i2v_background"], "image_name": "a beach.jpg"}]
    (folder / "vbench2_i2v_full_info.json").write_text(json.dumps(entries), encoding="utf-8")
    import_asset("vbench-i2v", folder)
    assert invoke(*arguments, "--ratio", "16-9").exit_code == 0
    (first, *_) = [json.loads(line) for line in target.read_text(encoding="utf-8").splitlines()]
    assert first["image"] == str(folder / "data" / "crop" / "16-9" / "a beach.jpg")


def test_a_dimension_of_another_mode_is_a_usage_error(tmp_path: Path) -> None:
    done = invoke(
        "vbench", "prompts", "--mode", "i2v", "--dimensions", "color", "-o", tmp_path / "videos.jsonl", "--ratio", "1-1"
    )
    assert done.exit_code == 2
    assert "color: not scored in mode i2v" in done.stderr
