"""Published settings of sampling: what they are, what a suite makes of them, and what records call them."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from diffusers import (
    CogVideoXDDIMScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    LCMScheduler,
    UniPCMultistepScheduler,
)
from test_suite import TEXT, error_of, write

from vdmini.requests import WRITTEN_WHERE_SET, SampleSettings
from vdmini.sample import scheduled
from vdmini_bench.cli import main
from vdmini_bench.config.distillation import DistillConfig
from vdmini_bench.config.models import SampleSpec
from vdmini_bench.config.sampling import find_preset, preset_name, sampling_presets
from vdmini_bench.config.suite import load_suite
from vdmini_bench.config.vbench import VBenchProfile, load_any_suite
from vdmini_bench.errors import SuiteError
from vdmini_bench.suites.training_clips import sampling_of

pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)
ROOT = Path(__file__).parents[2]
EMBEDDED = "      steps: 4\n      height: 32\n      width: 32\n"
# Frames, rate, height, width, steps, guidances, shift, boundary, as papers and model cards of these models say them.
KNOWN: dict[str, tuple[object, ...]] = {
    "wan2.1-t2v-1.3b": (81, 16, 480, 832, 50, 6.0, None, 8.0, None),
    "wan2.1-t2v-14b": (81, 16, 720, 1280, 50, 5.0, None, 5.0, None),
    "wan2.1-i2v-14b-480p": (81, 16, 480, 832, 40, 5.0, None, 3.0, None),
    # Of the expert for high noise first, as diffusers has them and Wan 2.2's configuration does not.
    "wan2.2-t2v-a14b": (81, 16, 720, 1280, 40, 4.0, 3.0, 12.0, 0.875),
    "wan2.2-i2v-a14b": (81, 16, 720, 1280, 40, 3.5, 3.5, 5.0, 0.9),
    "wan2.2-ti2v-5b": (121, 24, 704, 1280, 50, 5.0, None, 5.0, None),
    "hunyuanvideo": (129, 24, 720, 1280, 50, 6.0, None, 7.0, None),
    "hunyuanvideo1.5-720p-t2v": (121, 24, 720, 1280, 50, 6.0, None, 9.0, None),
    "cogvideox-5b": (49, 8, 480, 720, 50, 6.0, None, None, None),
    "svd-xt": (25, 7, 576, 1024, 30, None, None, None, None),
    "t2v-turbo-v2": (16, 8, 320, 512, 16, 7.5, None, None, None),
}
# The scheduler that a family's pipelines come with.
OWN = {
    "wan": lambda: UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0),
    "hunyuanvideo": lambda: FlowMatchEulerDiscreteScheduler(shift=7.0),
    "ltx": lambda: FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, base_shift=0.95, max_shift=2.05),
    "cogvideox": lambda: CogVideoXDDIMScheduler(timestep_spacing="trailing"),
    "svd": EulerDiscreteScheduler,
    "t2v": LCMScheduler,
}


@pytest.mark.parametrize("name", KNOWN)
def test_a_preset_is_what_the_authors_publish(name: str) -> None:
    sampled = find_preset(name).sampled
    assert KNOWN[name] == (
        sampled.frames, sampled.frames_per_second, sampled.height, sampled.width, sampled.steps, sampled.guidance,
        sampled.second_guidance, sampled.shift, sampled.boundary,
    )  # fmt: skip


def test_few_step_levels_follow_from_what_their_authors_write() -> None:
    """rCM's angles in TrigFlow, Self-Forcing's timesteps as it warps them, and FastGen's list, which is near these."""
    for name, sigma_max in (("t2v-480p", 80), ("t2v-14b-720p", 120)):
        angles = [math.atan(sigma_max), 1.5, 1.4, 1.0]
        expected = [math.sin(angle) / (math.cos(angle) + math.sin(angle)) for angle in angles]
        found = find_preset(f"rcm-wan2.1-{name}").sampled.sigmas
        assert found is not None
        assert np.allclose(found, expected, rtol=1e-12)
    forced = find_preset("self-forcing-wan2.1-t2v-1.3b").sampled
    assert forced.sigmas is not None
    assert forced.shift is not None
    # 1000 linear levels from 1 to 0, shifted; their steps 1000, 750, 500 and 250 are places from the end of these.
    linear = np.linspace(1, 0, 1001)
    table = forced.shift * linear / (1 + (forced.shift - 1) * linear)
    warped = [table[1000 - step] for step in (1000, 750, 500, 250)]
    assert np.allclose([forced.shift * s / (1 + (forced.shift - 1) * s) for s in forced.sigmas], warped)
    assert np.allclose(find_preset("fastgen-dmd2-wan2.1-t2v-1.3b").sampled.sigmas or (), warped, atol=2e-3)


@pytest.mark.parametrize("name", sampling_presets())
def test_a_pipelines_scheduler_becomes_what_a_preset_names(name: str) -> None:
    settings = find_preset(name).sampled
    family = next(family for family in OWN if family in name)
    own = OWN[family]()
    config = {"boundary_ratio": 0.5}
    pipeline: Any = SimpleNamespace(
        scheduler=own, config=config, register_to_config=lambda **changes: config.update(changes)
    )
    with scheduled(pipeline, settings):
        scheduler = pipeline.scheduler
        assert type(scheduler).__name__ == settings.scheduler or settings.scheduler is None
        assert config["boundary_ratio"] == (settings.boundary or 0.5)
        linear = np.linspace(1, 0, settings.steps + 1)[:-1]
        if isinstance(own, FlowMatchEulerDiscreteScheduler):
            # As pipelines of HunyuanVideo and LTX-Video ask.
            scheduler.set_timesteps(sigmas=linear, device="cpu", mu=1.0)
        else:
            scheduler.set_timesteps(settings.steps, device="cpu")
        assert len(scheduler.timesteps) == settings.steps
        if settings.shift is not None:
            levels = np.asarray(settings.sigmas or linear)
            expected = settings.shift * levels / (1 + (settings.shift - 1) * levels)
            # UniPC goes down to 0.001 before the shift.
            assert np.allclose(scheduler.sigmas[:-1].numpy(), expected, atol=0.02 if settings.sigmas is None else 1e-6)
            assert scheduler.sigmas[-1] == 0
    assert pipeline.scheduler is own
    assert config == {"boundary_ratio": 0.5}


def test_every_preset_says_where_it_was_read() -> None:
    for preset in sampling_presets().values():
        assert len(preset.source.commit) == 12
        assert preset.source.repository.count("/") == 1


def test_a_suite_that_names_no_preset_is_what_it_was(tmp_path: Path) -> None:
    """Keys of jobs and of suites are made of what sections are dumped as."""
    profile = load_suite(write(tmp_path, TEXT)).profile
    assert {*profile.sample.model_dump()} == {
        "steps", "height", "width", "guidance", "motion_bucket", "noise_strength", "min_guidance", "max_guidance",
        "batch_size", "seed",
    }  # fmt: skip
    assert not {*WRITTEN_WHERE_SET} & {*SampleSettings(1, 1, 1, 1).to_json()}
    assert profile.measures["teacher"] == []
    assert profile.sampling(profile.sample)["preset"] is None


def vbench(folder: Path, sample: str, *overrides: str, clip: str = "", rows: str = "teacher: {}") -> VBenchProfile:
    (folder / "prompts.txt").write_text("a cat\n")
    text = (
        "name: own\nversion: 1\nkind: vbench\ndefault_profile: all\nprofiles:\n  all:\n    teacher: wan2.1-t2v-14b\n"
        f"    dataset: {{kind: drawn-captions, train_clips: 2}}\n{clip}"
        f"    vbench: {{mode: t2v, prompts: {folder / 'prompts.txt'}}}\n    sample: {{{sample}, batch_size: 1}}\n"
        f"    models:\n      {rows}\n"
    )
    (folder / "own.yaml").write_text(text, encoding="utf-8")
    profile = load_any_suite(folder / "own.yaml", None, overrides).profile
    assert isinstance(profile, VBenchProfile)
    return profile


def test_a_preset_fills_a_suites_sample_and_clip(tmp_path: Path) -> None:
    profile = vbench(tmp_path, "preset: wan2.2-t2v-a14b")
    assert profile.sampler(profile.sample) == find_preset("wan2.2-t2v-a14b").sampled
    assert (profile.frames, profile.frames_per_second) == (81, 16)
    assert profile.measures["teacher"] == ["sampled by: wan2.2-t2v-a14b@1"]
    assert profile.sampling(profile.sample)["preset"] == "wan2.2-t2v-a14b@1"
    # The same, written out, is the same work.
    written = profile.sample.model_copy(update={"preset": None})
    assert profile.sampler(written) == profile.sampler(profile.sample)


def test_a_changed_preset_is_no_longer_that_preset(tmp_path: Path) -> None:
    profile = vbench(tmp_path, "preset: wan2.1-t2v-14b, shift: 3.0", clip="    clip: {frames: 41}\n")
    assert (profile.sample.shift, profile.frames, profile.frames_per_second) == (3.0, 41, 16)
    assert profile.measures["teacher"] == ["sampled by: wan2.1-t2v-14b@1 changed, frames=41, shift=3.0"]
    none = vbench(tmp_path, "preset: wan2.1-t2v-14b, negative_prompt: null")
    assert none.sampler(none.sample).negative_prompt is None
    assert none.measures["teacher"] == ["sampled by: wan2.1-t2v-14b@1 changed, negative_prompt=None"]
    # What is written as the preset has it changes nothing.
    same = vbench(tmp_path, "preset: wan2.1-t2v-14b, steps: 50", "sample.guidance=5.0")
    assert same.measures["teacher"] == ["sampled by: wan2.1-t2v-14b@1"]


def test_settings_without_a_preset_are_part_of_every_recipe(tmp_path: Path) -> None:
    clip = "    clip: {frames: 41, frames_per_second: 16}\n"
    own = "steps: 2, height: 32, width: 32, shift: 5, sigmas: [1, 0.5], negative_prompt: " + "x" * 50
    profile = vbench(tmp_path, own, clip=clip)
    (found,) = profile.measures["teacher"]
    assert found.startswith(f"sampled by: negative_prompt={'x' * 40}... (")
    assert found.endswith("shift=5, sigmas=[1, 0.5]") or found.endswith("shift=5.0, sigmas=[1.0, 0.5]")
    other = vbench(tmp_path, own + "y", clip=clip)
    assert other.measures["teacher"] != [found]


def test_an_entrys_own_preset_is_whole_but_for_the_clip_that_all_share(tmp_path: Path) -> None:
    profile = vbench(
        tmp_path, "preset: wan2.1-t2v-14b-480p",
        rows="{teacher: {}, few: {sample: {preset: rcm-wan2.1-t2v-480p}}, fewer: {from: few, sample: {guidance: 2.0}}}",
    )  # fmt: skip
    few, fewer = (profile.models[name].sample for name in ("few", "fewer"))
    assert profile.sampler(few) == dataclasses.replace(find_preset("rcm-wan2.1-t2v-480p").sampled, frames=81)
    assert few.negative_prompt is None
    assert profile.sampling(few)["preset"] == "rcm-wan2.1-t2v-480p@1 changed"
    assert profile.sampler(fewer) == dataclasses.replace(profile.sampler(few), guidance=2.0)
    own, common = profile.measures["few"]
    assert own.startswith("sample: preset=rcm-wan2.1-t2v-480p, steps=4, guidance=1.0, negative_prompt=None, ")
    assert common == "sampled by: wan2.1-t2v-14b-480p@1"


def test_an_unknown_preset_and_wrong_sigmas_are_named_with_their_place(tmp_path: Path) -> None:
    wrong = TEXT.replace(EMBEDDED, EMBEDDED + "      preset: wan2.1-t2v-14\n")
    assert wrong != TEXT
    found = error_of(tmp_path, wrong)
    assert "sample.preset: no preset 'wan2.1-t2v-14'; did you mean 'wan2.1-t2v-14b'?" in found
    with pytest.raises(SuiteError, match="one is needed for each of 4 steps, and here are 1"):
        load_suite(write(tmp_path, TEXT.replace(EMBEDDED, EMBEDDED + "      sigmas: [1.0]\n")))


def test_equal_settings_have_equal_keys_whatever_they_are_called() -> None:
    preset = SampleSpec.model_validate({"preset": "wan2.1-t2v-14b", "batch_size": 1})
    written = SampleSpec.model_validate(preset.model_dump(exclude={"preset"}))
    assert preset.model_dump(exclude={"preset"}) == written.model_dump()
    assert preset_name("wan2.1-t2v-14b", find_preset("wan2.1-t2v-14b").sampled) == "wan2.1-t2v-14b@1"


def test_a_distillation_draws_its_clips_by_a_preset(tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("a cat\n")
    asked: dict[str, Any] = {
        "kind": "distillation", "name": "own", "teacher": "wan2.1-t2v-14b",
        "clip": {"frames": 81, "frames_per_second": 16, "height": 720, "width": 1280},
        "data": {"kind": "generated", "prompts": str(tmp_path / "prompts.txt"), "preset": "wan2.1-t2v-14b"},
        "distill": {"steps": 1, "batch_size": 1, "learning_rate": 1e-4},
    }  # fmt: skip
    configuration = DistillConfig.model_validate(asked)
    requests, settings = sampling_of(configuration.teacher, configuration.clip, configuration.data)  # type: ignore[arg-type]
    assert [request.prompt for request in requests] == ["a cat"]
    assert settings == find_preset("wan2.1-t2v-14b").sampled
    asked["data"] |= {"steps": 10}
    changed = DistillConfig.model_validate(asked)
    _, settings = sampling_of(changed.teacher, changed.clip, changed.data)  # type: ignore[arg-type]
    assert settings == dataclasses.replace(find_preset("wan2.1-t2v-14b").sampled, steps=10)


def sample(folder: Path, *options: str) -> dict[str, Any]:
    command = ["sample", "embedded/t2v", "--clips", "1", "--dtype", "float32", "-o", str(folder), *options]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    record: dict[str, Any] = json.loads((folder / "samples.json").read_text())
    return record


def test_sample_takes_a_preset_and_records_what_became_of_it(tmp_path: Path) -> None:
    small = ("--size", "32x32", "--frames", "10", "--steps", "2")
    record = sample(tmp_path, "--preset", "t2v-turbo-v2", *small)
    assert record["preset"] == "t2v-turbo-v2@1 changed"
    expected = dataclasses.replace(
        find_preset("t2v-turbo-v2").sampled, height=32, width=32, frames=10, steps=2
    )  # fmt: skip
    assert record["settings"] == expected.to_json()
    # The same settings by their own names make no clip again.
    before = record["clips"]
    again = sample(tmp_path, *small, "--guidance", "7.5", "--fps", "8")
    assert again["preset"] is None
    assert {**again["settings"], "max_guidance": 3.0} == record["settings"]
    assert [clip["seed"] for clip in before] == [0]


def test_options_that_mean_nothing_end_with_2() -> None:
    for options, said in (
        (("--preset", "wan2.1-t2v-14"), "did you mean 'wan2.1-t2v-14b'?"),
        (("--sigmas", "1,x"), "write numbers such as 1,0.75,0.5"),
        (("--sigmas", "1,0.5", "--steps", "3"), "2 sigmas for 3 steps"),
    ):
        result = CliRunner().invoke(main, ["sample", "embedded/t2v", "-o", "unmade", *options])
        assert result.exit_code == 2
        assert said in result.output
