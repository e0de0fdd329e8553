from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from numpy.typing import NDArray

from vdmini_bench.cli import main
from vdmini_bench.commands.clips import folder_of_clips
from vdmini_bench.data.synthetic import ACTIONS, draw_clip
from vdmini_bench.data.video import read_every_frame, write_video
from vdmini_bench.errors import IncompleteError, NotComparableError, NothingMeasuredError, SuiteError
from vdmini_bench.metrics.content import content_distance
from vdmini_bench.results.stats import mean_interval
from vdmini_bench.results.store import Store
from vdmini_bench.studies import clip_pairs
from vdmini_bench.studies.clip_pairs import ClipComparison, PairRow, clips_of_run, compare_clips, pair_videos
from vdmini_bench.studies.corruptions import at_speed, corrupt

COUNT = 8


class ColourHistogram:
    """Stands in for a network: which colours a frame has, not where in the frame they are."""

    version = "colours-1"

    def __call__(self, clip: NDArray[np.uint8]) -> NDArray[np.float32]:
        near = np.exp(-(((clip[..., None] - np.linspace(0, 255, 9)) / 32) ** 2)).mean(axis=(1, 2))
        rows = near.reshape(len(clip), -1)
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def footage() -> list[NDArray[np.uint8]]:
    time = 0.5 + np.arange(-36, 37) / 36
    return [draw_clip(action, 4, 1, time).frames for action in [*ACTIONS][:COUNT]]


@pytest.fixture(scope="module")
def teacher(footage: list[NDArray[np.uint8]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clips(tmp_path_factory.mktemp("teacher"), [at_speed(each, 1, 10) for each in footage])


def write_clips(folder: Path, clips: list[NDArray[np.uint8]]) -> Path:
    for number, clip in enumerate(clips):
        write_video(folder / f"{number:05d}.mkv", clip, 7)
    return folder


def rows(teacher: Path, student: Path) -> dict[str, PairRow]:
    return {row.measure: row for row in compare_clips(teacher, student, ColourHistogram()).rows}


def test_equal_clips_are_no_distance_apart(teacher: Path) -> None:
    found = compare_clips(teacher, teacher, ColourHistogram())
    assert found.pairs == COUNT
    assert [(row.value, row.interval) for row in found.rows] == [(0, (0, 0))] * 7
    assert found.motion_distance == pytest.approx(0, abs=1e-9)
    assert found.versions["content"] == "colours-1"
    assert all(
        row.unrelated > 0
        for row in found.rows
        if row.measure in ("content", "spectrum", "flow_field", "flow_magnitude")
    )


def test_a_late_student_lost_motion_and_a_recoloured_one_content(
    footage: list[NDArray[np.uint8]], teacher: Path, tmp_path: Path
) -> None:
    # A frame late: the same things on the same ways.
    late = rows(teacher, write_clips(tmp_path / "late", [each[22::4][:10] for each in footage]))
    recoloured = rows(
        teacher,
        write_clips(tmp_path / "other", [corrupt(each, "recolour", 60, 10, 0) for each in footage]),
    )
    assert recoloured["content"].value > 5 * late["content"].value
    assert late["flow_field"].value > 3 * recoloured["flow_field"].value
    assert late["content"].share is not None
    assert late["content"].share < 0.2
    assert recoloured["flow_field"].share is not None
    assert recoloured["flow_field"].share < 0.1
    low, high = late["flow_field"].interval
    assert 0 < low < late["flow_field"].value < high


def test_content_is_measured_without_a_network_too(
    footage: list[NDArray[np.uint8]], teacher: Path, tmp_path: Path
) -> None:
    late = write_clips(tmp_path / "late", [each[22::4][:10] for each in footage])
    recoloured = write_clips(tmp_path / "other", [corrupt(each, "recolour", 60, 10, 0) for each in footage])
    spectra = {}
    for folder in (late, recoloured):
        found = compare_clips(teacher, folder, None)
        assert [row.measure for row in found.rows] == [each.name for each in clip_pairs.MEASURES][1:]
        assert "content" not in found.versions
        spectra[folder] = found.rows[0]
    assert spectra[recoloured].value > 5 * spectra[late].value


def test_signed_measures_say_which_way(footage: list[NDArray[np.uint8]], teacher: Path, tmp_path: Path) -> None:
    still = write_clips(tmp_path / "still", [corrupt(each, "freeze", 1, 10, 0) for each in footage])
    there, back = rows(teacher, still), rows(still, teacher)
    for measure in ("speed", "dynamic_degree", "flicker"):
        assert there[measure].value < 0, measure
        assert back[measure].value == pytest.approx(-there[measure].value)
        assert there[measure].unrelated is None
        assert there[measure].share is None
    for measure in ("content", "flow_field", "flow_magnitude"):
        assert back[measure].value == pytest.approx(there[measure].value)
    assert there["dynamic_degree"].value < -0.5
    moved = compare_clips(teacher, still, ColourHistogram())
    assert moved.motion_distance is not None
    assert moved.motion_distance_error is not None
    assert moved.motion_distance > 5 * moved.motion_distance_error > 0


def test_neither_workers_nor_company_change_a_clip(
    teacher: Path, footage: list[NDArray[np.uint8]], tmp_path: Path
) -> None:
    student = write_clips(tmp_path / "student", [corrupt(each, "jitter", 1, 10, 0) for each in footage])
    together = compare_clips(teacher, student, ColourHistogram())
    assert compare_clips(teacher, student, ColourHistogram(), workers=2) == together
    halves = []
    for name, numbers in (("first", range(COUNT // 2)), ("second", range(COUNT // 2, COUNT))):
        for source in (teacher, student):
            (tmp_path / name / source.name).mkdir(parents=True)
            for number in numbers:
                clip = f"{number:05d}.mkv"
                (tmp_path / name / source.name / clip).write_bytes((source / clip).read_bytes())
        halves.append(rows(tmp_path / name / teacher.name, tmp_path / name / student.name))
    for row in together.rows:
        assert row.value == pytest.approx(np.mean([half[row.measure].value for half in halves])), row.measure


def test_the_interval_is_students_t_over_clips(teacher: Path, footage: list[NDArray[np.uint8]], tmp_path: Path) -> None:
    network = ColourHistogram()
    student = write_clips(tmp_path / "student", [corrupt(each, "noise", 8, 10, 0) for each in footage])
    values = []
    for paths in pair_videos(teacher, student):
        features = [network(read_every_frame(path)) for path in paths]
        values.append(content_distance(*features))
    row = rows(teacher, student)["content"]
    assert (row.value, *row.interval) == pytest.approx(mean_interval(values))


def test_clips_pair_by_name_whatever_their_suffix(teacher: Path, tmp_path: Path) -> None:
    student = tmp_path / "student"
    for number in range(COUNT):
        write_video(student / f"{number:05d}.mp4", np.zeros((10, 32, 32, 3), np.uint8), 7)
    names = [tuple(path.name for path in pair) for pair in pair_videos(teacher, student)]
    assert names == [(f"{number:05d}.mkv", f"{number:05d}.mp4") for number in range(COUNT)]
    (student / "00003.mp4").unlink()
    with pytest.raises(NotComparableError, match="lacks 1 of 8 clips, as 00003"):
        pair_videos(teacher, student)
    with pytest.raises(NotComparableError, match=f"{student} lacks"):
        pair_videos(student, teacher)
    with pytest.raises(SuiteError, match="no such folder"):
        pair_videos(teacher, tmp_path / "none")
    write_video(student / "00004.avi", np.zeros((10, 32, 32, 3), np.uint8), 7)
    with pytest.raises(SuiteError, match="holds 00004 twice"):
        pair_videos(student, student)


def test_copies_on_both_sides_are_counted_and_nested_folders_are_refused(
    teacher: Path, footage: list[NDArray[np.uint8]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    student = write_clips(tmp_path / "student", [corrupt(each, "noise", 8, 10, 0) for each in footage])
    compare_clips(teacher, student, None)
    assert "copies" not in capsys.readouterr().err
    (student / "00002.mkv").write_bytes((teacher / "00002.mkv").read_bytes())
    compare_clips(teacher, student, None)
    assert f"warning: 1 of {COUNT} pairs are copies of one file, byte by byte: 00002.mkv" in capsys.readouterr().err
    # A folder beside itself is the floor of every distance.
    floor = compare_clips(teacher, teacher, None)
    assert {row.measure: row.value for row in floor.rows if row.unrelated is not None} == pytest.approx(
        {"spectrum": 0, "flow_field": 0, "flow_magnitude": 0}
    )
    assert f"{COUNT} of {COUNT} pairs are copies" in capsys.readouterr().err
    below = write_clips(student / "below", footage)
    for sides in ((below, student), (student, below)):
        with pytest.raises(SuiteError, match="is inside"):
            compare_clips(*sides, None)


def test_unlike_and_unreadable_clips_are_named(teacher: Path, tmp_path: Path) -> None:
    network = ColourHistogram()
    shorter = write_clips(tmp_path / "shorter", [np.zeros((9, 32, 32, 3), np.uint8)] * COUNT)
    with pytest.raises(NotComparableError, match="10 frames of 32x32 and 9 frames of 32x32"):
        compare_clips(teacher, shorter, network)
    for path in shorter.iterdir():
        path.write_bytes((teacher / path.name).read_bytes())
    (shorter / "00002.mkv").write_bytes(b"")
    (shorter / "00005.mkv").write_bytes(b"no video")
    with pytest.raises(IncompleteError, match="2 unreadable clips"):
        compare_clips(teacher, shorter, network)
    single = write_clips(tmp_path / "single", [np.zeros((9, 32, 32, 3), np.uint8)])
    with pytest.raises(NothingMeasuredError, match="two or more"):
        compare_clips(single, single, network)
    tiny = write_clips(tmp_path / "tiny", [np.zeros((9, 8, 8, 3), np.uint8)] * 2)
    with pytest.raises(SuiteError, match="sides of 12"):
        compare_clips(tiny, tiny, network)


def write_run(root: Path, teacher: Path) -> Path:
    run = root / "runs" / "1"
    run.mkdir(parents=True)
    jobs = [{"name": f"sample {name}", "key": name[0], "needs": []} for name in ("teacher", "student")]
    (run / "run.json").write_text(json.dumps({"status": "complete", "suite": {"name": "x"}, "jobs": jobs}))
    (root / "work" / "sample-t").mkdir(parents=True)
    (root / "work" / "sample-t" / "clips").symlink_to(teacher)
    return run


def test_clips_of_a_run_are_found(teacher: Path, tmp_path: Path) -> None:
    run = write_run(tmp_path, teacher)
    assert clips_of_run(run, "teacher").samefile(teacher)
    with pytest.raises(NothingMeasuredError, match="no longer in"):
        clips_of_run(run, "student")
    with pytest.raises(NothingMeasuredError, match="no clips of 'real'; it has those of teacher, student"):
        clips_of_run(run, "real")


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_compare_shows_pairs_as_table_and_json(
    teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, footage: list[NDArray[np.uint8]]
) -> None:
    monkeypatch.setattr("vdmini_bench.commands.clips.frame_features", lambda name: ColourHistogram())
    student = write_clips(tmp_path / "student", [corrupt(each, "blur", 1, 10, 0) for each in footage])
    write_run(tmp_path, teacher)
    shown = invoke("compare", "teacher", student, "--clips", "--workers", 1, "--results", tmp_path)
    assert shown.exit_code == 0, shown.output
    assert f"{COUNT} pairs of clips" in " ".join(shown.stdout.split())
    assert "flow_magnitude" in shown.stdout
    assert "Frechet motion distance of the two sets" in shown.stdout
    # Two folders need no run.
    options = ("--clips", "--workers", 1, "--json", "--results", tmp_path / "none")
    data = json.loads(invoke("compare", teacher, student, *options).stdout)
    assert [row["measure"] for row in data["rows"]] == [measure.name for measure in clip_pairs.MEASURES]
    assert data["rows"][0]["value"] > 0
    assert data["pairs"] == COUNT
    lost = invoke("compare", "teacher", "studnt", "--clips", "--results", tmp_path)
    assert lost.exit_code == 3
    assert "studnt" in lost.stderr
    markdown = invoke("compare", teacher, student, "--clips", "--markdown", "--results", tmp_path).stdout
    assert markdown.startswith("| measure | about | mean |")
    assert len(markdown.splitlines()) == 2 + len(clip_pairs.MEASURES)
    refused = invoke("compare", "teacher", student, "--clips", "--allow-unlike", "--results", tmp_path)
    assert refused.exit_code == 2
    assert "leave --allow-unlike out" in refused.stderr


def test_names_of_clips_mean_models_before_folders(
    teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "results")
    run = write_run(store.root, teacher)
    (run / "results.jsonl").touch()
    clips = run.parents[1] / "work" / "sample-t" / "clips"
    here = tmp_path / "here"
    (here / "teacher").mkdir(parents=True)
    monkeypatch.chdir(here)
    for name in ("teacher", "1:teacher", "latest:teacher", f"{run}:teacher"):
        assert folder_of_clips(name, store, None, None).samefile(clips), name
    monkeypatch.chdir(run.parent)
    assert folder_of_clips("teacher", store, Path("1"), None).samefile(clips)
    monkeypatch.chdir(here)
    assert folder_of_clips("./teacher", store, None, None).samefile(here / "teacher")
    assert folder_of_clips("teacher", store, None, "other").samefile(here / "teacher")
    with pytest.raises(NothingMeasuredError, match="no clips of 'real'"):
        folder_of_clips("latest:real", store, None, None)


def test_a_comparison_reads_as_json(teacher: Path) -> None:
    found: ClipComparison = compare_clips(teacher, teacher, ColourHistogram())
    assert json.loads(json.dumps(found.to_json()))["frechet_motion"]["se"] == pytest.approx(0, abs=1e-9)
