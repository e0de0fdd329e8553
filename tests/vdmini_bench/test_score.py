"""Videos made elsewhere, scored from the command line: a small network stands for I3D."""

from __future__ import annotations

import csv
import json
import shutil
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from contexts import context_of
from numpy.typing import NDArray
from results_of_runs import as_printed
from small_scoring import FEW, SUITE, SmallI3d, clip, fill, score
from torch import Tensor, nn

from vdmini_bench.cli import main
from vdmini_bench.config.protocols import PRESETS
from vdmini_bench.config.suite import load_suite
from vdmini_bench.data.video import read_frames, read_timeline, write_video
from vdmini_bench.data.video_folder import list_videos
from vdmini_bench.metrics.frechet import frechet_distance
from vdmini_bench.results.score import SCORES, number_text
from vdmini_bench.runs.stages import measure, reference
from vdmini_bench.suites.clip_selection import ChosenClips
from vdmini_bench.suites.folder import choose_videos
from vdmini_bench.suites.job_graph import Job

pytestmark = pytest.mark.usefixtures("small_network")


def shown(result: Result) -> dict[str, dict[str, Any]]:
    assert result.exit_code == 0, result.output
    return {row["metric"]: row for row in json.loads(result.stdout)["rows"]}


def test_a_folder_is_scored_as_a_table_as_json_and_as_rows(videos: Path) -> None:
    rows = shown(score(videos, "--json"))
    assert set(rows) == {"fvd", "flow_distance", "inception_score_i3d", "fid"}
    assert rows["fvd"]["protocol"] == "embedded-i2v@1/n3x2/ref2100"
    assert (rows["fvd"]["model"], rows["fvd"]["role"], rows["fvd"]["n"]) == ("videos", "scored", 6)
    assert all("not comparable with published" in row["note"] for row in rows.values())
    with (videos.parent / "results" / "scores.csv").open(newline="") as file:
        assert {row["metric"]: as_printed(row) for row in csv.DictReader(file)} == rows
    table = score(videos)
    assert table.exit_code == 0
    assert "scored before" in table.stdout
    assert "fvd" in table.stdout
    assert "embedded-i2v@1/n3x2/ref2100" in table.stdout


def test_fvd_is_the_same_number_without_the_flow_distance(videos: Path, tmp_path: Path) -> None:
    against = ("--against", fill(tmp_path / "real", 8, start=50))
    whole, alone = shown(score(videos, *against, "--json")), shown(score(videos, *against, "--json", "--no-flow"))
    assert set(whole) - set(alone) == {"flow_distance"}
    assert alone["fvd"]["protocol"] == whole["fvd"]["protocol"]
    assert {metric: row["value"] for metric, row in alone.items()} == {each: whole[each]["value"] for each in alone}
    # Asked for again, it is measured: what was left out is not taken from what was kept.
    assert shown(score(videos, *against, "--json"))["flow_distance"] == whole["flow_distance"]


def test_what_was_scored_is_not_scored_again_until_a_file_changes(videos: Path) -> None:
    first = json.loads(score(videos, "--json").stdout)
    again = json.loads(score(videos, "--json").stdout)
    assert (first["cached"], again["cached"]) == (False, True)
    assert again["rows"] == first["rows"]
    write_video(videos / "00.mkv", clip(40), 7)
    changed = json.loads(score(videos, "--json").stdout)
    assert not changed["cached"]
    assert changed["rows"] != first["rows"]


@pytest.mark.parametrize("workers", [2, 4])
def test_the_scores_are_the_same_for_any_number_of_workers(videos: Path, workers: int) -> None:
    one = shown(score(videos, "--json"))
    shutil.rmtree(videos.parent / "results")
    other = shown(score(videos, "--json", "--workers", workers))
    for metric, row in one.items():
        assert other[metric]["value"] == row["value"]


def test_real_videos_of_your_own_can_be_scored_against(videos: Path, tmp_path: Path) -> None:
    against = fill(tmp_path / "real", 8, start=50)
    rows = shown(score(videos, "--against", against, "--json"))
    assert set(rows) == {"fvd", "flow_distance", "kvd", "inception_score_i3d", "fid"}
    assert rows["fvd"]["protocol"].startswith("embedded-i2v@1/n3x2/against8-")
    same = fill(tmp_path / "same", 6)
    itself = shown(score(same, "--against", videos, "--json", "--set", "protocol.clips_per_block=6",
                         "--set", "protocol.blocks=1"))  # fmt: skip
    assert float(itself["fvd"]["value"]) == pytest.approx(0, abs=1e-4)
    # A single block has no standard error.
    assert itself["fvd"]["se"] is None


def test_videos_on_both_sides_are_counted_and_named_and_nested_folders_are_refused(
    videos: Path, tmp_path: Path
) -> None:
    against = fill(tmp_path / "real", 8, start=50)
    assert json.loads(score(videos, "--against", against, "--json").stdout)["warnings"] == []
    # One of equal bytes under another name, and one of equal size and other bytes.
    shutil.copy(videos / "02.mkv", against / "53.mkv")
    content = (videos / "04.mkv").read_bytes()
    (against / "54.mkv").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    found = score(videos, "--against", against, "--json")
    (warning,) = json.loads(found.stdout)["warnings"]
    assert warning.startswith("1 of 6 videos are on the real side too")
    assert warning.endswith(": 02.mkv")
    assert f"warning: {warning}" in found.stderr
    below = fill(against / "generated", 6)
    for sides in ((below, against), (against, below)):
        refused = score(sides[0], "--against", sides[1])
        assert refused.exit_code == 2, refused.output
        assert f"{below} is inside {against}" in refused.stderr


def test_two_folders_compare_only_under_one_protocol_and_reference(videos: Path, tmp_path: Path) -> None:
    other = fill(tmp_path / "other", start=20)
    results = ("--results", tmp_path / "results")

    def compare(*folders: str) -> Result:
        return CliRunner().invoke(main, [str(each) for each in ("compare", *folders, *results)])

    def folder(result: Result) -> str:
        assert result.exit_code == 0, result.output
        return str(json.loads(result.stdout)["folder"])

    first, second = folder(score(videos, "--json")), folder(score(other, "--json"))
    compared = compare(first, second)
    assert compared.exit_code == 0, compared.output
    assert "videos against" not in compared.stderr
    assert "fvd" in compared.stdout
    fewer = folder(score(other, "--json", "--set", "protocol.clips_per_block=2"))
    against = folder(score(other, "--json", "--against", videos))
    for unlike in (fewer, against):
        refused = compare(first, unlike)
        assert refused.exit_code == 5
        assert "the protocol differs" in refused.stderr


GOOD_NAMES = ("with space", 'quote\'s "double"', "snow ☃ é", "-dash", "=1+1", "semi;colon & $HOME", "line\nbreak")


def test_any_name_is_a_name(tmp_path: Path) -> None:
    folder = tmp_path / "a 'b' ☃"
    for number, name in enumerate(GOOD_NAMES):
        write_video(folder / "deep er" / f"{name}.MKV".lower(), clip(number), 7)
    rows = shown(score(folder, "--json"))
    assert rows["fvd"]["model"] == "a 'b' ☃"


def test_odd_sizes_other_suffixes_and_folders_are_read(tmp_path: Path) -> None:
    folder = tmp_path / "odd"
    for number in range(6):
        write_video(folder / f"{number % 2}" / f"{number}.mkv", clip(number, 64)[:, :33, :17], 7)
    (folder / "notes.txt").write_text("not a video")
    (folder / ".hidden.mkv").write_bytes(b"not a video either")
    (folder / ".cache").mkdir()
    (folder / ".cache" / "x.mkv").write_bytes(b"nor this")
    (folder / "link.mkv").symlink_to(folder / "0" / "0.mkv")
    result = score(folder, "--json")
    assert result.exit_code == 0, result.output
    warnings = " ".join(json.loads(result.stdout)["warnings"])
    assert "1 of 7 videos are not scored" in warnings
    assert "2 files are not videos by their suffix, or hidden" in warnings


def test_each_folder_gives_its_share_where_there_are_too_many(tmp_path: Path) -> None:
    folder = tmp_path / "classes"
    for label in ("a", "b", "c"):
        fill(folder / label, 4)
    result = score(folder, "--json")
    assert result.exit_code == 0, result.output
    (index,) = (tmp_path / "results" / "data").glob("index-*.json")
    chosen = [Path(name).parent.name for name in json.loads(index.read_text())]
    assert sorted(chosen) == ["a", "a", "b", "b", "c", "c"]


def test_another_rate_is_refused_resampled_or_ignored(tmp_path: Path) -> None:
    folder = tmp_path / "fast"
    for number in range(6):
        frames = np.concatenate([clip(number), clip(number)[::-1]])
        write_video(folder / f"{number}.mkv", frames, 14)
    refused = score(folder)
    assert refused.exit_code == 2
    assert "6 of 6 videos are not of 7 frames a second" in refused.stderr
    resampled, ignored = (shown(score(folder, "--rates", rates, "--json")) for rates in ("resample", "ignore"))
    assert resampled["flow_distance"]["value"] != ignored["flow_distance"]["value"]
    assert ignored["fvd"]["protocol"].endswith("/rates-ignored")


def write_variable(path: Path, frames: NDArray[np.uint8], gaps: list[int]) -> None:
    """A video whose frames are shown for `gaps` milliseconds each."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt, stream.codec_context.time_base = "yuv420p", Fraction(1, 1000)
        for frame, time in zip(frames, np.cumsum([0, *gaps]).tolist(), strict=False):
            image = av.VideoFrame.from_ndarray(frame, format="rgb24")
            image.pts, image.time_base = time, Fraction(1, 1000)
            container.mux(stream.encode(image))
        container.mux(stream.encode(None))


def test_a_variable_rate_is_refused_though_its_mean_is_the_protocols(tmp_path: Path) -> None:
    folder = fill(tmp_path / "videos", 5)
    # 13 gaps in 13 / 7 s: 25 frames a second, and then less than 4.
    write_variable(folder / "odd.mp4", np.concatenate([clip(1), clip(2)])[:14], [40] * 7 + [263] * 6 + [40])
    assert float(read_timeline(folder / "odd.mp4").frames_per_second) == pytest.approx(7, rel=0.001)
    refused = score(folder)
    assert refused.exit_code == 2
    assert "1 of 6 videos are not of 7 frames a second" in refused.stderr
    assert "odd.mp4 (a variable rate, from 40 to 263 ms between frames)" in refused.stderr
    assert "--rates resample" in refused.stderr


@pytest.mark.parametrize("rate", ["7", "30", "23.976", "30000/1001"])
def test_a_copy_scores_nothing_against_itself_at_any_rate(tmp_path: Path, rate: str) -> None:
    folder = tmp_path / "videos"
    for number, own in enumerate((Fraction(24000, 1001), Fraction(30000, 1001), 30, 50)):
        write_video(folder / f"{number}.mp4", np.concatenate([clip(number + each) for each in range(8)]), float(own))
    for number, gaps in ((4, [20, 35, 60] * 26), (5, [33] * 40 + [80] * 39)):
        write_variable(folder / f"{number}.mp4", np.concatenate([clip(number + each) for each in range(8)]), gaps)
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    asked = ("--set", f"protocol.frames_per_second={rate}", "--set", "protocol.blocks=1", "--set",
             "protocol.clips_per_block=6", "--against", folder, "--json")  # fmt: skip
    assert float(shown(score(copy, *asked, "--rates", "resample"))["fvd"]["value"]) == pytest.approx(0, abs=1e-4)
    if rate in ("30", "30000/1001"):
        # Those that pass for the rate are taken one by one, and so are their copies on the other side.
        for name in ("0.mp4", "3.mp4", "4.mp4", "5.mp4"):
            (folder / name).unlink()
            (copy / name).unlink()
        few = (*asked, "--set", "protocol.clips_per_block=2")
        assert float(shown(score(copy, *few))["fvd"]["value"]) == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("preset", ["sf-v", "stylegan-v", "svd", "cd-fvd"])
def test_every_preset_scores_a_folder_against_another(tmp_path: Path, preset: str) -> None:
    rate = 7 if preset == "sf-v" else 25
    for name, start, frames in (("made", 0, 16), ("real", 30, 20)):
        for number in range(start, start + 4):
            whole = np.concatenate([clip(number, 48), clip(number, 48)])[:frames]
            write_video(tmp_path / name / f"{number}.mkv", whole, rate)
    options = ("--against", tmp_path / "real", "--set", f"protocol.preset={preset}", "--profile", "paper",
               "--set", "protocol.clips_per_block=2", "--set", "protocol.network=i3d-kinetics400")  # fmt: skip
    rows = shown(score(tmp_path / "made", "--json", *options))
    assert float(rows["fvd"]["value"]) > 0
    assert rows["fvd"]["protocol"].startswith(f"{preset}@{PRESETS[preset].version}/n2x2/against4-")
    assert rows["kvd"]["status"] == "ok"
    for variant in ("tgan_v2", "stylegan_v"):
        assert rows[f"inception_score_{variant}"]["status"] == "unavailable"
    assert rows["fvd"]["metric_version"].endswith("-n") == (preset in ("stylegan-v", "cd-fvd"))


def test_a_network_that_was_not_imported_is_named_with_its_command(videos: Path, tmp_path: Path) -> None:
    done = score(videos, "--against", fill(tmp_path / "real"), "--profile", "paper", "--set",
                 "protocol.preset=stylegan-v")  # fmt: skip
    assert done.exit_code == 2, done.output
    assert "next     vdmini-bench assets import i3d-torchscript PATH" in done.stderr


class ChannelMeans(nn.Module):
    """Stands for FID's Inception: three numbers a frame."""

    def forward(self, frames: Tensor) -> Tensor:
        return frames.float().mean(dim=(2, 3))


def test_frame_fid_is_scored_against_frames_where_its_network_is(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    against = ("--against", fill(tmp_path / "real", 8, start=50))
    without = shown(score(videos, *against, "--json"))["fid"]
    assert (without["status"], without["value"], without["n"]) == ("unavailable", None, 0)
    assert "pip install pytorch-fid" in without["note"]
    assert "fid is unavailable: " in score(videos, *against).stdout
    monkeypatch.setattr("vdmini_bench.metrics.scorer.why_no_inception", lambda: None)
    monkeypatch.setattr("vdmini_bench.metrics.scorer.load_inception_features", ChannelMeans)
    # Now that it is there, what was scored without it is scored again.
    row = shown(score(videos, *against, "--json"))["fid"]
    assert (row["status"], row["n"], row["metric_version"]) == ("ok", 6, "torchmetrics-2")

    def means(folder: Path) -> NDArray[np.float64]:
        clips = [read_frames(path, 10) for path in sorted(folder.iterdir())]
        return np.stack(clips).astype(np.float64).mean(axis=(2, 3))

    chosen = choose_videos(list_videos(videos), load_suite(SUITE, "smoke", FEW[1::2]).profile.protocol)
    order = [int(video.path.stem) for video in chosen]
    blocks = [means(videos)[order[start : start + 3]].reshape(-1, 3) for start in (0, 3)]
    expected = np.mean([frechet_distance(means(tmp_path / "real").reshape(-1, 3), block) for block in blocks])
    assert float(row["value"]) == pytest.approx(expected, rel=1e-4)
    shipped = shown(score(videos, "--json"))["fid"]
    assert shipped["status"] == "unavailable"
    assert "holds no frames" in shipped["note"]


def test_a_run_has_the_frame_fid_that_score_has(videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vdmini_bench.metrics.scorer.why_no_inception", lambda: None)
    monkeypatch.setattr("vdmini_bench.metrics.scorer.load_inception_features", ChannelMeans)
    against = fill(tmp_path / "real", 4, start=50)
    whole = ("protocol.clips_per_block=6", "protocol.blocks=1", "protocol.reference=computed")
    options = [part for setting in whole for part in ("--set", setting)]
    scored = shown(score(videos, "--against", against, "--json", *options))["fid"]
    suite = load_suite(SUITE, "smoke", (*whole, "protocol.frame_fid=true"))
    clips = ChosenClips((), (), list_videos(videos).videos, list_videos(against).videos)
    bench = context_of(suite, tmp_path, clips, Job("reference", "", "key", (), 0))
    reference.run_stage(bench, "", bench.store.start("reference", "key"))
    # The real frames go through the network once, whatever the number of rows.
    monkeypatch.setattr("vdmini_bench.runs.stages.measure.real_frames", None)
    measure.run_stage(bench, "real", bench.store.start("measure", "key"))
    record = json.loads((bench.store.work_folder("measure", "key") / SCORES).read_text())
    (fid,) = [each for each in record["scores"] if each["metric"] == "fid"]
    assert float(number_text(fid["value"])) == scored["value"]
    assert (fid["status"], fid["metric_version"]) == ("ok", scored["metric_version"])


def test_the_small_network_tells_clips_apart() -> None:
    features = SmallI3d()(torch.stack([torch.zeros(3, 9, 20, 20), torch.ones(3, 9, 20, 20)]))
    assert features.shape == (2, 400)
    assert (features[0] != features[1]).all()


@pytest.mark.parametrize("side", ["videos", "real"])
def test_features_that_are_not_finite_fail_by_the_name_of_their_clip(
    videos: Path, tmp_path: Path, side: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(SmallI3d):
        def forward(self, video: Tensor) -> Tensor:
            return super().forward(video) / (video.mean() > -0.99)

    monkeypatch.setattr("vdmini_bench.metrics.features.load_i3d", lambda asset: Broken())
    real = fill(tmp_path / "real", 6, start=50)
    black = videos / "01.mkv" if side == "videos" else real / "51.mkv"
    write_video(black, np.zeros((10, 32, 32, 3), np.uint8), 7)
    done = score(videos, "--against", real, "--json")
    assert done.exit_code == 4, done.output
    assert f"features by i3d-kinetics400 of {black} are not finite (1 of 6)" in done.stderr
    assert not done.stdout
    assert not list((tmp_path / "results").glob("*.csv"))
