from __future__ import annotations

from pathlib import Path

import pytest

from vdmini_bench.config.protocol import ProtocolSpec
from vdmini_bench.config.protocols import PRESETS
from vdmini_bench.config.suite import load_suite
from vdmini_bench.errors import SuiteError

SUITE = Path(__file__).parents[2] / "suites" / "ucf101.yaml"
TEXT = """\
name: small
version: 1
default_profile: base
profiles:
  base:
    teacher: embedded/svd
    dataset: {kind: drawn, train_clips: 8}
    protocol: {PROTOCOL}
    sample: {steps: 4, height: 32, width: 32, batch_size: 2}
    distill: {steps: 10, batch_size: 2, learning_rate: 1e-4}
    timing: {runs: 3}
    models: {teacher: {}}
"""


def load(folder: Path, protocol: str, *overrides: str) -> ProtocolSpec:
    path = folder / "suite.yaml"
    path.write_text(TEXT.replace("{PROTOCOL}", f"{{{protocol}}}"), encoding="utf-8")
    return load_suite(path, None, overrides).profile.protocol


PUBLISHED = {
    # frames, rate, resampled, chain, covariance, resizing to 224, real and generated offset, clips, blocks, reference
    "sf-v": (14, 7, True, "resize", "n-1", "antialiased", "start", "start", 13320, 1, 13320),
    "stylegan-v": (16, 25, False, "square-256-lanczos", "n", "plain", "random", "start", 2048, 1, 2048),
    "svd": (16, 25, False, "short-side-240-crop-320x240", "n-1", "antialiased", "start", "start", 13320, 1, 13320),
    "cd-fvd": (16, 25, False, "short-side-256-crop-square", "n", "plain", "random", "random", 2048, 1, 13320),
    "cd-fvd-videomae": (16, 25, False, "short-side-256-crop-square", "n", "plain", "random", "random", 2048, 1, 13320),
}


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_fills_a_protocol(tmp_path: Path, name: str) -> None:
    found = load(tmp_path, f"preset: {name}")
    assert (found.name, found.version, found.reference) == (name, 2 if name == "sf-v" else 1, "computed")
    assert PUBLISHED[name] == (
        found.frames, found.frames_per_second, found.resample, found.preprocessing, found.covariance,
        found.network_resize, found.reference_offset, found.generated_offset, found.clips_per_block, found.blocks,
        found.reference_clips,
    )  # fmt: skip
    assert (found.condition_split, found.reference_split) == ("all", "all")
    networks = {"cd-fvd-videomae": "videomae-ssv2", "stylegan-v": "i3d-torchscript"}
    assert found.network == networks.get(name, "i3d-kinetics400")
    assert found.sampling == ("first" if name == "stylegan-v" else "balanced")
    # What was resolved and written down can be read again.
    assert ProtocolSpec.model_validate(found.model_dump()) == found


def test_sf_v_is_scored_at_320x240(tmp_path: Path) -> None:
    found = load(tmp_path, "preset: sf-v")
    assert (found.resize_width, found.resize_height) == (320, 240)


def test_what_a_preset_suggests_can_be_changed_and_is_part_of_the_identity(tmp_path: Path) -> None:
    whole = load(tmp_path, "preset: cd-fvd")
    few = load(tmp_path, "preset: cd-fvd, clips_per_block: 4, blocks: 2, reference_split: test, frames: 128")
    assert whole.identity("ref13320") == "cd-fvd@1/n2048x1/ref13320/t16/balanced-all-all"
    assert few.identity("ref9") == "cd-fvd@1/n4x2/ref9/t128/balanced-all-test"


def test_the_identity_of_a_protocol_without_a_preset_names_splits_only_when_unusual(tmp_path: Path) -> None:
    own = "name: p, frames: 10, frames_per_second: 7, clips_per_block: 2, blocks: 2, reference: shipped,"
    own += " reference_clips: 20, inception: i3d-kinetics400"
    assert load(tmp_path, own).identity("ref20") == "p@1/n2x2/ref20"
    assert load(tmp_path, f"{own}, sampling: first").identity("ref20") == "p@1/n2x2/ref20/first-test-train"


@pytest.mark.parametrize(
    ("protocol", "said"),
    [
        ("preset: sfv", "no preset 'sfv'; did you mean 'sf-v'?"),
        ("preset: sf-v, frames_per_second: 8", "the preset sf-v has frames_per_second: 7, and here is 8"),
        ("preset: stylegan-v, covariance: n-1", "the preset stylegan-v has covariance: n, and here is n-1"),
        ("preset: stylegan-v, sampling: balanced", "has sampling: first"),
        ("preset: svd, name: other", "has name: svd, and here is other"),
        ("preset: sf-v, reference: shipped", "has reference: computed"),
        ("preset: stylegan-v, frames: 128", "clips of 16 frames, and here is 128"),
        ("preset: cd-fvd, frames: 17", "clips of 16 or 128 frames, and here is 17"),
        ("preset: cd-fvd, network: videomae-ssv2", "has network: i3d-kinetics400, and here is videomae-ssv2"),
        ("preset: cd-fvd-videomae, network: i3d-kinetics400", "has network: videomae-ssv2"),
        ("preset: cd-fvd-videomae, inception: i3d-kinetics400", "set inception: c3d-ucf101"),
        ("preset: sf-v, clips_per_blok: 3", "unknown key 'protocol.clips_per_blok'; did you mean 'clips_per_block'?"),
    ],
)
def test_what_a_preset_fixes_cannot_be_changed_under_its_name(tmp_path: Path, protocol: str, said: str) -> None:
    with pytest.raises(SuiteError) as caught:
        load(tmp_path, protocol)
    assert said in str(caught.value)
    assert f"{tmp_path / 'suite.yaml'}:8:" in str(caught.value)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (
            "reference: shipped, inception: c3d-ucf101, frames: 10",
            "holds features of i3d-kinetics400: set reference: computed",
        ),
        ("reference: computed, inception: i3d-kinetics400, frames: 10", "set inception: c3d-ucf101"),
        ("reference: computed, inception: c3d-ucf101, frames: 11", "it takes frames in pairs: set an even number"),
    ],
)
def test_what_does_not_go_with_another_network_is_refused(tmp_path: Path, changed: str, said: str) -> None:
    network = "videomae-ssv2" if "pairs" in said else "i3d-torchscript"
    own = f"name: p, network: {network}, frames_per_second: 7, clips_per_block: 2, blocks: 2, reference_clips: 20"
    with pytest.raises(SuiteError) as caught:
        load(tmp_path, f"{own}, {changed}")
    assert said in str(caught.value)


def test_a_preset_can_be_chosen_on_the_command_line(tmp_path: Path) -> None:
    found = load(tmp_path, "preset: svd, clips_per_block: 4", "protocol.preset=stylegan-v")
    assert (found.name, found.clips_per_block) == ("stylegan-v", 4)


def test_the_paper_profile_is_the_preset_on_fewer_clips() -> None:
    found = load_suite(SUITE, "paper").profile.protocol
    assert found.preset == found.name == "sf-v"
    assert found.identity("ref2048") == "sf-v@2/n512x3/ref2048/t14/balanced-test-train"
