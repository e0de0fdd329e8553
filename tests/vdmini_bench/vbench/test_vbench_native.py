"""Our own code of VBench's dimensions beside the official one, whose answers for small networks are recorded.

`make_native_golden.py` records them; the networks are small where a file shows its network's size, and their weights
follow from their names, so that both sides have the same. test_vbench_native_official.py compares the whole ones.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import forked
import numpy as np
import pytest
import torch
from click.testing import Result
from hypothesis import given
from hypothesis import strategies as st
from official_request import SCENE
from safetensors.torch import load_file
from seeded_weights import seeded_state
from small_networks import save_tag2text, write_small_cache
from small_suite import ENTRIES, draw_video, expect, invoke, leave_the_users_folders, write_words

from vdmini_bench.commands import doctor
from vdmini_bench.data.video import read_scaled
from vdmini_bench.errors import ExitCode, MissingAssetsError
from vdmini_bench.vbench.native import catalogue
from vdmini_bench.vbench.native.catalogue import FILES, STATIC
from vdmini_bench.vbench.native.frames import IMAGENET, Clip, normalise, read_clip
from vdmini_bench.vbench.native.networks import Networks
from vdmini_bench.vbench.native.questions import Question
from vdmini_bench.vbench.native.raft import FlowMeter, Raft, is_static, reached
from vdmini_bench.vbench.native.scorers import SCORERS, VideoScore
from vdmini_bench.vbench.native.tokens import Tokenizer
from vdmini_bench.vbench.native.viclip import middle_frames
from vdmini_bench.vbench.results import kept_result

GOLDEN = Path(__file__).parents[2] / "golden"
CLIPS = sorted(GOLDEN.glob("vbench-*.mp4"))
# In the official scale; the largest difference seen is 2.4e-7. The style's cosines are of the order of 1e-4 here.
TOLERANCES = {"appearance_style": 1e-7}
TOLERANCE = 1e-5
THREE = "subject_consistency,temporal_flickering,aesthetic_quality"


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    return json.loads((GOLDEN / "vbench_native.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def cache(golden: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    write_small_cache(folder, golden["shapes"])
    write_words(folder / catalogue.WORDS, golden["merges"])
    save_tag2text((folder / catalogue.TAG2TEXT).parent, golden["tag2text"])
    return folder


@pytest.fixture(scope="module")
def networks(cache: Path) -> Networks:
    # Loaded when asked for, by tests that have the weights' folder in their environment.
    return Networks(torch.device("cpu"))


@pytest.mark.parametrize("dimension", FILES)
def test_every_clips_score_is_the_official_one(
    dimension: str, golden: dict[str, Any], cache: Path, networks: Networks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VBENCH_CACHE_DIR", str(cache))
    official = golden["scores"][dimension]
    assert len(official) == len(CLIPS) == 2
    for path in CLIPS:
        texts = {"appearance_style": golden["style"], "scene": SCENE}
        text = texts.get(dimension, path.stem.removeprefix("vbench-"))
        image = GOLDEN / "vbench-image.png" if dimension.startswith("i2v") else None
        score = SCORERS[dimension](read_clip(path), Question(dimension, path, "", text, image), networks)
        assert score.value == pytest.approx(official[path.name], abs=TOLERANCES.get(dimension, TOLERANCE))


def test_flow_is_the_official_networks(
    golden: dict[str, Any], cache: Path, networks: Networks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VBENCH_CACHE_DIR", str(cache))
    meter = FlowMeter(networks.raft, read_clip(CLIPS[0]).frames, torch.device("cpu"))
    found = [meter.speed(place, place + 1, 0.05) for place in range(len(golden["speeds"]))]
    assert found == pytest.approx(golden["speeds"], rel=1e-4)
    assert max(found) - min(found) > 0.01


def test_sentences_are_the_official_ones(
    golden: dict[str, Any], cache: Path, networks: Networks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VBENCH_CACHE_DIR", str(cache))
    frames = torch.from_numpy(np.stack(read_scaled(CLIPS[1], 384))).permute(0, 3, 1, 2)
    with torch.inference_mode():
        sentences = networks.tag2text(normalise(frames[[0, 2]].float(), IMAGENET))
    # Of frames 0 to 15 the official code has captions of 0, 0, 0, 1, 1, 1, 2, ...
    assert sentences == [golden["tag2text"]["sentences"][1][place] for place in (0, 6)]
    assert sentences[0] != sentences[1]


def test_texts_have_the_official_tokens(golden: dict[str, Any], cache: Path) -> None:
    tokenizer = Tokenizer(cache / catalogue.WORDS)
    for text, numbers in golden["tokens"].items():
        row = tokenizer.numbers(text, 77, cut=False)[0].tolist()
        assert row == [49406, *numbers, 49407, *[0] * (75 - len(numbers))], text
    longest = max(golden["tokens"], key=lambda text: len(golden["tokens"][text]))
    assert tokenizer.numbers(longest, 6, cut=True)[0].tolist() == [49406, *golden["tokens"][longest][:4], 49407]
    with pytest.raises(ValueError, match="tokens where the network reads 6"):
        tokenizer.numbers(longest, 6, cut=False)


def test_motion_is_decided_as_if_all_pairs_were_looked_at() -> None:
    for needed in range(4):
        for bits in range(16):
            fast = [bool(bits >> place & 1) for place in range(4)]
            assert reached(needed, 4, iter(fast)) == any(sum(fast[: end + 1]) >= needed for end in range(4))
    # Clips of three frames or fewer need no fast pair, but they need one.
    assert reached(0, 2, iter([False, False]))
    assert not reached(0, 0, iter([]))


@given(
    speeds=st.lists(st.floats(0, 8), min_size=1, max_size=24),
    ends=st.tuples(st.floats(0, 20), st.floats(0, 20)),
    side=st.sampled_from([128, 256]),
)
def test_the_filter_decides_as_the_official_rule_does(
    speeds: list[float], ends: tuple[float, float], side: int
) -> None:
    last = len(speeds)
    pairs = {(place, place + 1): speed for place, speed in enumerate(speeds)}
    if last > 1:
        pairs |= {(0, last): ends[0], (last, 0): ends[1]}
    else:
        pairs[(1, 0)] = ends[1]
        ends = (speeds[0], ends[1])

    class Told(FlowMeter):
        def speed(self, first: int, second: int, share: float) -> float:
            assert share == 0.02
            return pairs[(first, second)]

    clip = Clip(np.zeros((last + 1, side, side, 3), dtype=np.uint8), 8.0)
    limit, allowed = 3 * side / 256, round(2 * (last + 1) / 16)
    few = sum(speed > limit for speed in speeds) <= allowed
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vdmini_bench.vbench.native.raft.FlowMeter", Told)
        found = is_static(clip, Raft.__new__(Raft), torch.device("cpu"))
    assert found == (few and max(ends) <= limit * allowed * 2)


def test_eight_frames_are_taken_from_the_middles() -> None:
    assert middle_frames(16) == [0, 2, 4, 6, 8, 10, 12, 14]
    assert middle_frames(49) == [2, 8, 14, 20, 26, 32, 38, 45]
    assert middle_frames(3) == [0, 1, 2, 2, 2, 2, 2, 2]


def test_files_of_other_networks_are_named(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VBENCH_CACHE_DIR", str(tmp_path))
    dino, raft = tmp_path / catalogue.DINO, tmp_path / catalogue.RAFT
    for file in (dino, raft):
        file.parent.mkdir(parents=True)
    shutil.copyfile(cache / catalogue.AMT, dino)
    with pytest.raises(MissingAssetsError, match=r"dino_vitbase16_pretrain\.pth is no DINO: it lacks"):
        Networks(torch.device("cpu")).dino  # noqa: B018
    torch.save(seeded_state({"module.fnet.conv1.weight": [64, 3, 7, 7]}), raft)
    with pytest.raises(MissingAssetsError, match="holds another network than Raft"):
        Networks(torch.device("cpu")).raft  # noqa: B018
    raft.write_bytes((cache / catalogue.RAFT).read_bytes()[:1000])
    with pytest.raises(MissingAssetsError, match="cannot be read as weights"):
        Networks(torch.device("cpu")).raft  # noqa: B018
    assert sum(value.numel() for value in Raft().state_dict().values()) > 5e6


def test_an_adapter_is_read_in_both_formats_and_of_its_release_alone(cache: Path, tmp_path: Path) -> None:
    shutil.copytree(cache / "dreamsim_model", tmp_path / "dreamsim_model")
    (tmp_path / "dino_model").mkdir()
    shutil.copyfile(cache / catalogue.DINO, tmp_path / catalogue.DINO)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VBENCH_CACHE_DIR", str(cache))
        whole = Networks(torch.device("cpu")).dreamsim
        patch.setenv("VBENCH_CACHE_DIR", str(tmp_path))
        file = tmp_path / catalogue.ADAPTER
        adapter = load_file(file)
        file.unlink()
        torch.save(adapter, file.with_suffix(".bin"))
        again = Networks(torch.device("cpu")).dreamsim
        assert all(
            torch.equal(ours, theirs) for ours, theirs in zip(whole.parameters(), again.parameters(), strict=True)
        )
        # As release 0.1 named its parts, of which there are three adapters.
        torch.save({"base_model.model.blocks.0.attn.qkv.lora_A.weight": torch.zeros(1)}, file.with_suffix(".bin"))
        with pytest.raises(MissingAssetsError, match=r"no DreamSim adapter of release 0\.2"):
            Networks(torch.device("cpu")).dreamsim  # noqa: B018
        adapter.popitem()
        torch.save(adapter, file.with_suffix(".bin"))
        with pytest.raises(MissingAssetsError, match="parts are missing"):
            Networks(torch.device("cpu")).dreamsim  # noqa: B018


def test_the_doctor_says_of_each_native_dimension_what_it_lacks(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VBENCH_CACHE_DIR", str(cache))
    ready = doctor.native_findings()
    assert [found.what for found in ready] == [f"vbench --native {name}" for name in catalogue.native_dimensions()]
    assert {(found.state, found.next) for found in ready} == {("ready", "")}
    (tmp_path / catalogue.DINO).parent.mkdir()
    (tmp_path / catalogue.DINO).write_text("<html>not found</html>")
    monkeypatch.setenv("VBENCH_CACHE_DIR", str(tmp_path))
    lacking = {found.what.removeprefix("vbench --native "): found for found in doctor.native_findings()}
    assert "which is a web page" in lacking["subject_consistency"].state
    # Nothing of the official package: no clone of DINO's code, no environment.
    assert "hubconf" not in lacking["subject_consistency"].state
    assert "dino_vitbase16_pretrain.pth https://dl.fbaipublicfiles.com" in lacking["subject_consistency"].next
    # Flickering without its filter reads nothing, with it RAFT.
    assert "raft-things.pth (without --no-static-filter)" in lacking["temporal_flickering"].state
    # Four files that one archive holds.
    assert lacking["i2v_background"].state.count("dreamsim_model/") == 4
    assert lacking["i2v_background"].next.count("unzip -d dreamsim_model") == 1


class NativeBench:
    """A folder of small videos, scored natively in dimensions that are fast."""

    def __init__(self, root: Path, cache: Path) -> None:
        self.videos, self.output, self.cache = root / "videos", root / "scores", cache
        for seed in range(3):
            draw_video(self.videos / f"a lake-{seed}.mp4", seed, frames=3 + seed, side=40)

    def score(
        self, *more: str, dimensions: str = "subject_consistency,temporal_flickering,aesthetic_quality"
    ) -> Result:
        where = ("--mode", "custom", "-o", self.output, "--dimensions", dimensions)
        return invoke("vbench", "score", self.videos, *where, "--native", "--json", *more)

    def record(self, dimension: str) -> dict[str, Any]:
        return json.loads((self.output / "records" / f"{dimension}.json").read_text(encoding="utf-8"))

    def lines(self) -> list[dict[str, Any]]:
        text = "".join(file.read_text(encoding="utf-8") for file in sorted((self.output / "native").glob("*.jsonl")))
        return [json.loads(line) for line in text.splitlines() if line]


@pytest.fixture
def bench(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> NativeBench:
    leave_the_users_folders(tmp_path, monkeypatch)
    monkeypatch.setenv("VBENCH_CACHE_DIR", str(cache))
    return NativeBench(tmp_path, cache)


def test_native_scores_need_no_environment_and_are_marked(bench: NativeBench) -> None:
    done = bench.score()
    expect(done, ExitCode.OK)
    report = json.loads(done.stdout)
    assert {entry["code"] for entry in report["dimensions"].values()} == {"native-2"}
    for dimension in report["dimensions"]:
        record = bench.record(dimension)
        assert record["versions"]["native"] == "native-2"
        found = kept_result(bench.output, dimension)
        assert found is not None
        weights = [2, 3, 4] if dimension == "subject_consistency" else [1, 1, 1]
        values = [found.videos[f"a lake-{seed}.mp4"] for seed in range(3)]
        mean = sum(value * weight for value, weight in zip(values, weights, strict=True)) / sum(weights)
        assert found.score == pytest.approx(mean, abs=1e-12)
    # A dimension without native code is still the official package's.
    refused = bench.score(dimensions="human_action,temporal_flickering")
    expect(refused, ExitCode.USAGE, "no environment for vbench")


def test_what_was_scored_is_not_scored_again(bench: NativeBench) -> None:
    expect(bench.score(dimensions="temporal_flickering"), ExitCode.OK)
    assert len(bench.lines()) == 3
    # One more dimension, and one video anew.
    draw_video(bench.videos / "a lake-1.mp4", 9, frames=4, side=40)
    expect(bench.score(dimensions="temporal_flickering,subject_consistency"), ExitCode.OK)
    asked = [(line["dimension"], line["video"]) for line in bench.lines()[3:]]
    subject = [("subject_consistency", f"a lake-{seed}.mp4") for seed in range(3)]
    assert sorted(asked) == sorted([*subject, ("temporal_flickering", "a lake-1.mp4")])
    # A line that a kill cut short is asked again, and only that one.
    (file,) = (bench.output / "native").glob("*.jsonl")
    file.write_text(file.read_text(encoding="utf-8")[:-20], encoding="utf-8")
    (bench.output / "records" / "subject_consistency.json").unlink()
    before = len(file.read_text(encoding="utf-8").splitlines())
    expect(bench.score(dimensions="temporal_flickering,subject_consistency"), ExitCode.OK)
    added = file.read_text(encoding="utf-8").splitlines()[before:]
    assert len([line for line in added if line]) == 1


def test_weights_that_are_not_there_stop_before_anything_is_scored(
    bench: NativeBench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VBENCH_CACHE_DIR", str(tmp_path / "none"))
    done = bench.score("--download")
    expect(done, ExitCode.USAGE, "subject_consistency", "dino_vitbase16_pretrain.pth", "ViT-L-14.pt")
    assert "hubconf" not in done.stderr
    assert not (bench.output / "native").exists()


def test_a_dimension_that_fails_stands_alone(
    bench: NativeBench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "weights"
    shutil.copytree(bench.cache, other, copy_function=os.link)
    (other / catalogue.DINO).unlink()
    torch.save({"pos_embed": torch.zeros(1, 197, 8)}, other / catalogue.DINO)
    monkeypatch.setenv("VBENCH_CACHE_DIR", str(other))
    done = bench.score()
    expect(done, ExitCode.FAILED, "subject_consistency: ", "is no DINO")
    report = json.loads(done.stdout)["dimensions"]
    assert [report[name]["status"] for name in sorted(report)] == ["ok", "failed", "ok"]
    assert "Traceback" in (bench.output / "logs" / "subject_consistency.log").read_text(encoding="utf-8")


def test_still_videos_are_chosen_by_the_native_filter(
    bench: NativeBench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = tmp_path / "prompts.json"
    prompts.write_text(json.dumps(ENTRIES), encoding="utf-8")
    folder = tmp_path / "still"
    for index in range(25):
        draw_video(folder / f"a still lake.-{index}.mp4", index, frames=2, side=128)
    still = {0, 3, 10, 11, 12, 20, 21}

    def chosen(clip: Clip, question: Question, networks: Networks) -> VideoScore:
        return VideoScore(float(int(question.video.stem.rpartition("-")[2]) in still))

    monkeypatch.setitem(SCORERS, STATIC, chosen)
    where = ("--mode", "t2v", "--prompts", prompts, "-o", bench.output, "--dimensions", "temporal_flickering")
    done = invoke("vbench", "score", folder, *where, "--native", "--json")
    expect(done, ExitCode.OK)
    found = kept_result(bench.output, "temporal_flickering")
    assert found is not None
    # Of the still ones the first five in the order of names as text.
    assert {*found.videos} == {f"a still lake.-{index}.mp4" for index in (0, 10, 11, 12, 20)}


@pytest.mark.parametrize("count", [2, 4])
def test_processes_of_a_launch_share_the_videos(bench: NativeBench, count: int) -> None:
    alone = bench.score()
    expect(alone, ExitCode.OK)
    together = bench.output.with_name("together")
    where = ("--mode", "custom", "-o", together, "--dimensions", THREE, "--native", "--json")
    with forked.group(count, "-m", "vdmini_bench", "vbench", "score", bench.videos, *where) as processes:
        for done in [process.finish() for process in processes]:
            assert done.returncode == 0, done.stderr
    assert sorted(file.name for file in (together / "native").glob("*.jsonl")) == [
        f"{each}.jsonl" for each in range(count)
    ]
    for name in THREE.split(","):
        of_one, of_all = kept_result(bench.output, name), kept_result(together, name)
        assert of_one is not None
        assert of_one == of_all
