from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from results_of_runs import FVD, SPEEDUP, row, scaled, write_results

from vdmini import checkpoint_sha256
from vdmini_bench.cli import main
from vdmini_bench.compare.deltas import compare_result_sets, notable_differences
from vdmini_bench.compare.result_sets import find_result_set
from vdmini_bench.errors import BenchError, NotComparableError, NothingMeasuredError, SuiteError
from vdmini_bench.results.leaderboard import add_rows
from vdmini_bench.results.store import Store

TEACHER = replace(FVD, model="teacher", value=336.0, blocks=(326.0, 336.0, 346.0))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Two runs of a teacher and a student; the second student's FVD is a tenth higher."""
    store = Store(tmp_path / "results")
    write_results(store.root / "runs" / "run-1", (TEACHER, FVD))
    write_results(store.root / "runs" / "run-2", (TEACHER, scaled(FVD, 1.1)), run_id="run-2", commit="abcdef")
    return store


def invoke(store: Store, *arguments: object) -> Result:
    return CliRunner().invoke(main, ["compare", *map(str, arguments), "--results", str(store.root)])


def test_a_model_is_that_of_the_newest_run_or_the_one_named(store: Store) -> None:
    assert find_result_set("student", store).source == "run-2"
    assert find_result_set("student", store, store.root / "runs" / "run-1").source == "run-1"
    assert find_result_set("run-1:student", store).records[0].score == FVD
    with pytest.raises(NothingMeasuredError, match="run-2 has no results of 'studnt'; it has student, teacher"):
        find_result_set("studnt", store)


def test_runs_compare_by_folder_and_by_name(store: Store) -> None:
    folder = store.root / "runs" / "run-1"
    for first in (str(folder), "run-1"):
        deltas = compare_result_sets(find_result_set(first, store), find_result_set("run-2", store))
        assert [(delta.model, delta.ratio) for delta in deltas] == [("teacher", 1.0), ("student", pytest.approx(1.1))]
        assert [delta.verdict for delta in deltas] == ["equal", "no difference shown"]
    (delta,) = compare_result_sets(find_result_set("run-1", store), find_result_set("student", store))
    assert (delta.model, delta.a) == ("student", FVD.value)
    assert find_result_set("latest", store) == replace(find_result_set("run-2", store), name="latest")
    assert find_result_set("latest:student", store).records == find_result_set("run-2:student", store).records
    told = notable_differences(find_result_set("run-1", store), find_result_set("run-2", store))
    assert told == ["code differs: c0ffee and abcdef"]


def test_samples_of_two_runs_pair_where_their_conditions_are_the_same(store: Store) -> None:
    def basis(*digests: str, name_of_digest: str = "condition_clips", seeds: tuple[int, int] = (0, 0)) -> str:
        for name, digest, seed in zip(("run-1", "run-2"), digests, seeds, strict=True):
            path = store.root / "runs" / name / "run.json"
            record = json.loads(path.read_text())
            suite = {**record["suite"], "profile": {"sample": {"seed": seed}}}
            path.write_text(json.dumps({**record, "suite": suite, "inputs": {name_of_digest: digest}}))
        (delta,) = compare_result_sets(find_result_set("run-1:student", store), find_result_set("run-2:student", store))
        return delta.basis

    assert basis("same", "same") == "paired blocks"
    assert basis("one", "other") == "unpaired blocks"
    assert basis("same", "same", name_of_digest="asked") == "paired blocks"
    # Of the same first frames, but from other noise.
    assert basis("same", "same", seeds=(0, 1)) == "unpaired blocks"
    assert basis("same", "same", seeds=(1, 1)) == "paired blocks"


def test_names_of_any_kind_are_found(store: Store) -> None:
    names = ("6 steps", "student, small decoder", "<b>odd</b>", "a: b", '"quoted"', "é|x")
    write_results(store.root / "runs" / "run-3", (TEACHER, *(replace(FVD, model=name) for name in names)))
    for name in names:
        assert find_result_set(name, store).models == (name,)
        assert find_result_set(f"run-3:{name}", store).models == (name,)
        done = invoke(store, "teacher", name, "--format", "csv")
        assert done.exit_code == 0, done.output
        assert next(csv.reader(done.stdout.splitlines()))[1:3] == ["teacher", name]


def test_a_role_stands_for_its_only_model(store: Store) -> None:
    mine = [replace(score, model=name) for name, score in (("big", TEACHER), ("small", FVD), ("tiny", FVD))]
    folder = store.root / "runs" / "run-3"
    write_results(folder, mine[:1], role="teacher")
    lines = (folder / "results.jsonl").read_text()
    for number, role in ((1, "student"), (2, "student")):
        write_results(store.root / role / str(number), [mine[number]], role=role)
        lines += (store.root / role / str(number) / "results.jsonl").read_text()
        (folder / "results.jsonl").write_text(lines)
        assert find_result_set("teacher", store).models == ("big",)
        if number == 1:
            assert find_result_set("student", store).models == ("small",)
    with pytest.raises(SuiteError, match="several models of role 'student': name one of small, tiny") as caught:
        find_result_set("student", store)
    assert caught.value.exit_code == 2


def weights(folder: Path, content: bytes) -> str:
    (folder / "unet").mkdir(parents=True)
    (folder / "model_index.json").write_text("{}")
    (folder / "unet" / "model.safetensors").write_bytes(content)
    return checkpoint_sha256(folder)[:16]


def test_a_checkpoint_is_the_model_that_a_run_scored(store: Store, tmp_path: Path) -> None:
    student = tmp_path / "my-student"
    sha = weights(student, b"weights")
    write_results(store.root / "runs" / "run-3", [replace(TEACHER, value=336.0)])
    write_results(store.root / "runs" / "run-4", [replace(FVD, value=400.0)], checkpoint_sha=sha)
    write_results(store.root / "runs" / "run-5", [TEACHER])
    side = find_result_set(str(student), store)
    assert (side.source, side.records[0].score.value) == ("run-4", 400.0)
    weights(tmp_path / "unknown", b"others")
    with pytest.raises(NothingMeasuredError, match=r"is a checkpoint .* that no run under .* has scored"):
        find_result_set(str(tmp_path / "unknown"), store)


def test_a_folder_of_checkpoints_or_a_whole_disk_is_none(store: Store, tmp_path: Path) -> None:
    weights(tmp_path / "shelf" / "student", b"weights")
    for name in (str(tmp_path / "shelf"), "/", str(Path.home())):
        with pytest.raises(NothingMeasuredError, match="has no results of"):
            find_result_set(name, store)


def test_a_checkpoint_that_vanishes_meanwhile_is_said_in_words(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def vanish(folder: str) -> str:
        raise FileNotFoundError(folder)

    weights(tmp_path / "mine", b"weights")
    monkeypatch.setattr("vdmini.checkpoint_sha256", vanish)
    with pytest.raises(BenchError, match="the checkpoint cannot be read"):
        find_result_set(str(tmp_path / "mine"), store)


def test_a_checkpoint_of_an_older_run_is_found_by_the_leaderboard(store: Store, tmp_path: Path) -> None:
    sha = weights(tmp_path / "old", b"weights")
    add_rows(store.root / "leaderboard.csv", [row(FVD, checkpoint_sha=sha, run_id="run-1")])
    assert find_result_set(str(tmp_path / "old"), store).source == "run-1"


def test_a_folder_of_weights_does_not_hide_the_model_of_a_run(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights(tmp_path / "student", b"weights")
    monkeypatch.chdir(tmp_path)
    assert find_result_set("student", store).source == "run-2"
    with pytest.raises(NothingMeasuredError, match="is a checkpoint"):
        find_result_set("./student", store)


def test_another_machine_is_refused_with_exit_5_and_marked_where_allowed(store: Store) -> None:
    write_results(store.root / "runs" / "run-3", (TEACHER, FVD), machine_id="machine-2")
    with pytest.raises(NotComparableError, match=r"fvd: the machine differs .student machine-1, student machine-2."):
        compare_result_sets(find_result_set("run-1:student", store), find_result_set("student", store))
    refused = invoke(store, "run-1", "run-3")
    assert (refused.exit_code, refused.stdout) == (5, "")
    assert "--allow-unlike" in refused.stderr
    allowed = invoke(store, "run-1", "run-3", "--allow-unlike", "--json")
    assert allowed.exit_code == 0
    output = json.loads(allowed.stdout)
    assert output["status"] == "unlike"
    assert all("machine-2" in mark for each in output["rows"] for mark in each["unlike"])
    table = invoke(store, "run-1", "run-3", "--allow-unlike", "--markdown").stdout.splitlines()
    assert table[0].endswith("| unlike |")
    assert all("the machine differs" in line for line in table[2:])


def test_the_size_of_a_model_is_the_same_on_every_machine(store: Store) -> None:
    size = replace(SPEEDUP, metric="params_m", model="student")
    write_results(store.root / "runs" / "run-3", [size])
    write_results(store.root / "runs" / "run-4", [size], machine_id="machine-2")
    (delta,) = compare_result_sets(find_result_set("run-3", store), find_result_set("run-4", store))
    assert delta.unlike == ()


def test_markdown_and_csv_hold_the_numbers_and_nothing_that_runs(store: Store) -> None:
    hostile = replace(FVD, model="=a|<b>")
    write_results(store.root / "runs" / "run-3", [TEACHER, hostile])
    markdown = invoke(store, "teacher", "=a|<b>", "--markdown")
    assert markdown.exit_code == 0, markdown.output
    header, rule, line = markdown.stdout.splitlines()
    assert "=a\\|&lt;b&gt;" in header
    assert line.startswith("| fvd | 336 | 393 | 57 | ")
    assert line.replace("\\|", "").count("|") == rule.count("|") == header.replace("\\|", "").count("|")
    found = invoke(store, "teacher", "=a|<b>", "--csv").stdout.splitlines()
    assert found[0].startswith("metric,teacher,'=a|<b>,difference")
    assert found[1].startswith("fvd,336,393,57,")
    both = invoke(store, "teacher", "student", "--csv", "--json")
    assert both.exit_code == 2


def test_a_suite_may_be_named_by_its_file(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "other.yaml"
    path.write_text("name: other\n")
    assert invoke(store, "teacher", "student", "--suite", path).exit_code == 3
    path.write_text("name: ucf101\n")
    assert invoke(store, "teacher", "student", "--suite", path, "--run", "run-1").exit_code == 0
    assert invoke(store, "teacher", "student", "--run", "nowhere").exit_code == 2
