"""`protocol`: every setting that decides a result, and exactly those in which two results differ."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from contexts import context_of
from results_of_runs import FVD, ORIGIN, PARAMS, SPEEDUP, row, write_results

from vdmini_bench.cli import main
from vdmini_bench.config.sampling import find_preset
from vdmini_bench.config.suite import load_suite
from vdmini_bench.results.score import COLUMNS, Row, Score, result_line
from vdmini_bench.runs.run import _write_record
from vdmini_bench.suites.clip_selection import ChosenClips
from vdmini_bench.suites.jobs import Inputs

SUITE = Path(__file__).parents[2] / "suites" / "ucf101.yaml"
SCORES = [replace(score, model=model) for model in ("teacher", "student") for score in (FVD, SPEEDUP, PARAMS)]
# Of a row of results, what says how it was measured.
MEASURED = (
    "metric_version", "protocol", "n", "n_expected", "machine_id", "gpu", "torch", "commit", "dirty", "trainings"
)  # fmt: skip
Plant = tuple[str, Callable[[dict[str, Any], list[dict[str, Any]]], None]]


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["protocol", *map(str, arguments)])


def diff(a: object, b: object) -> tuple[int, list[str]]:
    """The exit code, and the settings that are said to differ."""
    result = invoke("diff", a, b, "--json")
    found = json.loads(result.output)
    assert found["same"] == (found["differences"] == [])
    return result.exit_code, [each["setting"] for each in found["differences"]]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run as `run` records it, with scores of two rows."""
    suite = load_suite(SUITE, "smoke", ("sample.shift=5", "sample.negative_prompt=blurry"))
    context = context_of(suite, tmp_path / "results", ChosenClips())
    inputs = Inputs(
        teacher="t", plans=dict(context.inputs.plans), sources={}, train_clips="c", versions={"torch": "2.13"},
        machine_id="m", condition_clips="cc", real_clips="rc", reference="r", i3d="i",
    )  # fmt: skip
    folder = tmp_path / "results" / "runs" / "first"
    folder.mkdir(parents=True)
    _write_record(folder, replace(context, inputs=inputs), "complete")
    (folder / "results.jsonl").write_text("".join(result_line(score, cells(score)) for score in SCORES))
    return folder


def cells(score: Score) -> Row:
    return row(score, checkpoint_sha=f"sha-{score.model}")


def leaves(value: Any, *path: str) -> Iterator[tuple[str, ...]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from leaves(inner, *path, key)
    else:
        yield path


def other(value: Any, generator: random.Random) -> Any:
    """Another value of the same kind; of none some text."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + generator.randint(1, 99)
    if isinstance(value, list):
        return [*value, generator.randint(1, 99)]
    return f"{value}-{generator.randint(0, 10**9)}"


def plants(record: dict[str, Any], lines: list[dict[str, Any]], generator: random.Random) -> list[Plant]:
    """All places in a run's two files that hold a setting of its student, each with the name it must be found by."""

    def of_record(name: str, *path: str) -> Plant:
        def plant(record: dict[str, Any], lines: list[dict[str, Any]]) -> None:
            *above, last = path
            for key in above:
                record = record[key]
            record[last] = other(record[last], generator)

        return name, plant

    def of_line(place: int, column: str) -> Plant:
        def plant(record: dict[str, Any], lines: list[dict[str, Any]]) -> None:
            line = lines[place]
            holder = line["origin"] if column in line["origin"] else line
            holder[column] = other(holder[column], generator)

        return f"metrics.{lines[place]['metric']}.{column}", plant

    profile, found = record["suite"]["profile"], []
    for key in ("name", "version", "profile_name"):
        found.append(of_record(f"suite.{key}", "suite", key))
    for key in profile:
        if key not in ("models", "published", "stand_in", "sample", "distill"):
            for path in leaves(profile[key], key):
                found.append(of_record(".".join(path), "suite", "profile", *path))
    for path in leaves(profile["models"]["student"]):
        # Another row's name, in the place of which stands how that is made.
        if path[0] not in ("sample", "teacher"):
            found.append(of_record(f"model.{'.'.join(path)}", "suite", "profile", "models", "student", *path))
    for key in record["models"]["student"]["sampling"]:
        found.append(of_record(f"sample.{key}", "models", "student", "sampling", key))
    for key in ("batch_size", "seed"):
        found.append(of_record(f"sample.{key}", "suite", "profile", "models", "student", "sample", key))
    for key in record["inputs"]:
        if key not in ("plans", "sources", "versions", "machine_id"):
            found.append(of_record(f"inputs.{key}", "inputs", key))
    found.append(of_record("model.plan_digest", "inputs", "plans", "student"))
    for section in ("fingerprint", "stages"):
        for path in leaves(record[section]):
            found.append(of_record(f"{section}.{'.'.join(path)}", section, *path))
    for place, line in enumerate(lines):
        if line["model"] == "student":
            found += [of_line(place, column) for column in MEASURED]
    return found


def read(run: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    record = json.loads((run / "run.json").read_text())
    return record, [json.loads(line) for line in (run / "results.jsonl").read_text().splitlines()]


def planted(run: Path, name: str, *chosen: Plant) -> Path:
    """A copy of a run with these differences."""
    folder = run.with_name(name)
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(run, folder)
    record, lines = read(run)
    for _, plant in chosen:
        plant(record, lines)
    (folder / "run.json").write_text(json.dumps(record))
    (folder / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.mark.parametrize("seed", range(3))
def test_a_hundred_planted_differences_are_found_and_no_other(run: Path, seed: int) -> None:
    generator = random.Random(seed)
    everywhere = plants(*read(run), generator)
    assert len({name for name, _ in everywhere}) == len(everywhere) > 120
    chosen = generator.sample(everywhere, 100)
    code, found = diff(f"{run}:student", f"{planted(run, 'second', *chosen)}:student")
    assert code == 5
    assert sorted(found) == sorted(name for name, _ in chosen)


def test_each_difference_alone_is_the_only_one_found(run: Path) -> None:
    for plant in plants(*read(run), random.Random(7)):
        assert diff(f"{run}:student", f"{planted(run, 'second', plant)}:student") == (5, [plant[0]])


def test_what_is_no_setting_is_no_difference(run: Path) -> None:
    """Values, dates and names of runs; other rows; where a model lay; notes and warnings."""
    second = planted(run, "second")
    record, lines = read(run)
    record |= {"argv": ["other"], "warnings": ["other"], "status": "failed", "jobs": []}
    record["suite"]["profile"] |= {"stand_in": "other", "published": ["other"]}
    record["suite"]["profile"]["models"]["teacher"]["plan"] = "other"
    record["models"]["teacher"]["sampling"]["steps"] = 99
    for line in lines:
        line |= {"value": 1.0, "standard_error": None, "blocks": []}
        line["origin"] |= {"date": "2027-01-01", "run_id": "other", "note": "other", "params_m": "1"}
    (second / "run.json").write_text(json.dumps(record))
    (second / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert diff(f"{run}:student", f"{second}:student") == (0, [])
    assert invoke("diff", f"{run}:student", f"{second}:student").output == "no setting differs\n"
    assert diff(run, second) == (5, ["rows.teacher.model.plan", "rows.teacher.sample.steps"])


def test_rows_of_one_run_differ_in_what_was_done_to_them(run: Path) -> None:
    code, found = diff(f"{run}:teacher", f"{run}:student")
    assert code == 5
    assert {"model.plan", "checkpoint_sha", "model.distill.steps"} <= {*found}
    assert all(name.startswith(("model.", "checkpoint_sha")) for name in found)


def test_a_row_built_on_another_has_what_that_is_made_of(run: Path) -> None:
    record, _ = read(run)
    record["suite"]["profile"]["models"]["student"]["teacher"] = "pruned"
    (run / "run.json").write_text(json.dumps(record))
    second = planted(run, "second")
    record["suite"]["profile"]["models"]["pruned"]["plan"] = "uniform"
    record["inputs"]["plans"]["pruned"] = "other"
    (second / "run.json").write_text(json.dumps(record))
    found = ["model.built_on.plan", "model.built_on.plan_digest"]
    assert diff(f"{run}:student", f"{second}:student") == (5, found)


def test_what_all_metrics_share_is_said_once(run: Path) -> None:
    second = planted(run, "second")
    _, lines = read(run)
    for line in lines:
        line["origin"]["commit"] = "d00d1e"
    (second / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert diff(f"{run}:student", f"{second}:student") == (5, ["metrics.*.commit"])
    assert diff(run, second) == (5, ["rows.teacher.metrics.*.commit", "rows.student.metrics.*.commit"])


def test_a_metric_that_one_of_them_lacks_is_named_once(run: Path) -> None:
    second = planted(run, "second")
    _, lines = read(run)
    kept = [line for line in lines if line["metric"] != "fvd"]
    for line in kept:
        line["origin"]["commit"] = "d00d1e"
    (second / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in kept))
    found = json.loads(invoke("diff", f"{run}:student", f"{second}:student", "--json").output)["differences"]
    assert found == [
        {"setting": "metrics.fvd", "a": "measured", "b": None},
        {"setting": "metrics.*.commit", "a": "c0ffee", "b": "d00d1e"},
    ]


def test_a_result_is_compared_with_a_preset_by_what_presets_say(run: Path) -> None:
    record, _ = read(run)
    sampled = find_preset("wan2.1-t2v-14b").sampled.to_json()
    record["models"]["student"]["sampling"] = {"preset": "wan2.1-t2v-14b@1", **sampled}
    (run / "run.json").write_text(json.dumps(record))
    assert diff(f"{run}:student", "wan2.1-t2v-14b") == (0, [])
    assert diff("wan2.1-t2v-14b-480p", f"{run}:student") == (5, ["sample.height", "sample.width", "sample.shift"])
    _, found = diff("sf-v", f"{run}:student")
    assert "protocol.name" in found
    assert all(name.startswith("protocol.") for name in found)
    mixed = invoke("diff", "ucf101/svd", "svd")
    assert (mixed.exit_code, "no setting in common" in mixed.output) == (2, True)


def test_a_result_that_was_shown_as_json_stands_for_the_result(run: Path, tmp_path: Path) -> None:
    shown = invoke("show", f"{run}:student", "--json")
    assert shown.exit_code == 0
    settings = json.loads(shown.output)["settings"]
    assert settings["sample.shift"] == 5
    assert settings["sample.negative_prompt"] == "blurry"
    assert settings["inputs.condition_clips"] == "cc"
    assert settings["metrics.fvd.n"] == "180"
    kept = tmp_path / "kept.json"
    kept.write_text(shown.output)
    assert diff(kept, f"{run}:student") == (0, [])
    assert diff(run / "run.json", run) == (0, [])
    (run / "run.json").unlink()
    _, found = diff(kept, f"{run}:student")
    assert "sample.shift" in found
    assert not any(name.startswith("metrics.") for name in found)


def test_rows_that_run_printed_are_compared(tmp_path: Path) -> None:
    for name, sha in (("a", "one"), ("b", "two")):
        rows = [row(score, checkpoint_sha=sha).to_json() for score in (FVD, PARAMS)]
        (tmp_path / f"{name}.json").write_text(json.dumps({"rows": rows, "status": "complete"}))
    assert diff(tmp_path / "a.json", tmp_path / "b.json") == (5, ["rows.student.checkpoint_sha"])


def test_sampled_clips_are_compared_by_what_they_were_asked_for(tmp_path: Path) -> None:
    clip = {"name": "0", "seed": 3, "prompt": "a cat", "image_sha256": None, "file": "0.mp4", "made_from": "x"}
    record = {
        "model": "m", "checkpoint_sha256": "s", "dtype": "float32", "device": "cpu", "preset": None,
        "settings": find_preset("wan2.1-t2v-14b").sampled.to_json(), "versions": {"torch": "2.13"}, "clips": [clip],
        "others": [],
    }  # fmt: skip
    for name, changed in (
        ("a", {}), ("same", {"others": [{"file": "x"}], "clips": [{**clip, "file": "y"}]}),
        ("seed", {"clips": [{**clip, "seed": 4}]}), ("prompt", {"clips": [{**clip, "prompt": "a dog"}]}),
        ("torch", {"versions": {"torch": "2.14"}}),
    ):  # fmt: skip
        (tmp_path / name).mkdir()
        (tmp_path / name / "samples.json").write_text(json.dumps({**record, **changed}))
    assert diff(tmp_path / "a", tmp_path / "same" / "samples.json") == (0, [])
    assert diff(tmp_path / "a", "wan2.1-t2v-14b") == (0, [])
    for name, setting in (("seed", "clips.seeds"), ("prompt", "clips.prompts"), ("torch", "versions.torch")):
        assert diff(tmp_path / "a", tmp_path / name) == (5, [setting])


def test_a_run_of_before_is_read(tmp_path: Path) -> None:
    """Nothing but a name and rows."""
    first = write_results(tmp_path / "a", [FVD])
    second = write_results(tmp_path / "b", [FVD], torch="2.14.0")
    assert diff(first, second) == (5, ["rows.student.metrics.fvd.torch"])
    assert {*ORIGIN} <= {*COLUMNS}


def test_presets_are_listed_and_shown_with_their_sources() -> None:
    listed = json.loads(invoke("show", "--json").output)["presets"]
    assert {"preset": "wan2.2-t2v-a14b", "version": "1", "source": "Wan-Video/Wan2.2"} in listed
    assert {each["preset"] for each in listed} >= {"ucf101/sf-v", "ucf101/svd", "svd"}
    shown = invoke("show", "wan2.2-t2v-a14b").output
    assert "wan2.2-t2v-a14b@1, github.com/Wan-Video/Wan2.2 at 42bf4cfaa384: " in shown
    assert "wan/configs/wan_t2v_A14B.py" in shown
    assert "the source does not say resizing" in invoke("show", "sf-v").output


@pytest.mark.parametrize(("name", "code"), [("nothing", 2), ("wan2.1-t2v-14", 2), ("RUN:nothing", 3), ("FILE", 4)])
def test_what_means_no_result_is_refused(run: Path, tmp_path: Path, name: str, code: int) -> None:
    (tmp_path / "broken.json").write_text("[1]")
    name = name.replace("RUN", str(run)).replace("FILE", str(tmp_path / "broken.json"))
    assert invoke("show", name).exit_code == code
    assert invoke("diff", name, "sf-v").exit_code == code
