"""`memory:` of a profile: what it does to sampling and to what is known of a job, and where it is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from test_suite import TEXT, error_of, place, write
from tiny_unets import videocrafter_pipeline

from vdmini.models.loading import load_model
from vdmini.requests import ClipRequest, SampleSettings
from vdmini.sample import sample_video
from vdmini_bench.config.suite import load_suite
from vdmini_bench.config.vbench import VBenchSuite, load_any_suite
from vdmini_bench.models.ready import load_ready
from vdmini_bench.models.source import model_folder
from vdmini_bench.results.store import Store
from vdmini_bench.runs.on_card import Stage, stages_on
from vdmini_bench.suites.kind import kind_of

pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)
SUITES = Path(__file__).parents[2] / "suites"
CPU = torch.device("cpu")
PICTURE = np.linspace(0, 255, 32 * 32 * 3, dtype=np.uint8).reshape(32, 32, 3)
SETTINGS = SampleSettings(steps=2, frames=4, height=32, width=32)
UNTIMED = TEXT.replace("    timing:\n      runs: 3\n", "")


def with_memory(text: str, memory: str) -> str:
    return text.replace("    models:", f"    memory: {{{memory}}}\n    models:")


@pytest.mark.parametrize("way", ["model", "group"])
def test_networks_that_wait_on_the_cpu_make_the_same_clips(way: str) -> None:
    requests = [ClipRequest("clip", 3, PICTURE)]
    plain = sample_video(load_model("embedded/svd", device=CPU).pipeline, requests, SETTINGS)
    ready = load_ready(model_folder("embedded/svd"), None, [], CPU, torch.float32, way)  # type: ignore[arg-type]
    assert np.array_equal(sample_video(ready.model.pipeline, requests, SETTINGS), plain)


@pytest.mark.parametrize("way", ["model", "group"])
def test_this_projects_own_pipeline_can_wait_on_the_cpu(way: str) -> None:
    asked, settings = [ClipRequest("clip", 3, None, "a cat")], SampleSettings(steps=2, frames=3, height=32, width=64)
    pipelines = [videocrafter_pipeline("ddim") for _ in range(2)]
    if way == "model":
        pipelines[1].enable_model_cpu_offload(device=CPU)
    else:
        pipelines[1].enable_group_offload(CPU, offload_type="leaf_level")
    first, second = (sample_video(each, asked, settings) for each in pipelines)
    assert np.array_equal(first, second)


def test_every_model_saves_memory_alike_and_is_known_by_what_changes_its_clips(tmp_path: Path) -> None:
    def sampled(*settings: str) -> dict[str, str]:
        suite = load_any_suite(SUITES / "vbench_t2v.yaml", "transformer", ("timing=null", *settings))
        context = kind_of(suite).open(Store(tmp_path), remember=False)
        return {name: job.key for name, job in context.jobs.items() if job.stage == "sample"}

    plain = sampled()
    assert sampled("memory={cpu_offload: model}") == plain
    tiled = sampled("memory={vae_tiling: true}")
    assert tiled.keys() == plain.keys()
    assert not {*tiled.values()} & {*plain.values()}
    both = with_memory(UNTIMED, "vae_tiling: true, vae_slicing: true").replace(
        "pruned: {plan: vdmini}", "pruned: {plan: vdmini, accelerate: [optimize]}"
    )
    profile = load_suite(write(tmp_path, both)).profile
    assert profile.models["teacher"].accelerate == ["vae_slicing", "vae_tiling"]
    assert profile.measures["pruned"][1:] == ["memory: vae_slicing", "memory: vae_tiling", "accelerate: optimize"]


def test_it_is_refused_where_it_would_be_timed_or_cannot_work(tmp_path: Path) -> None:
    timed = with_memory(TEXT, "cpu_offload: model")
    found = error_of(tmp_path, timed)
    assert found.startswith(f"FILE:{place(timed, 'memory:')}: ")
    assert "models that save memory are not timed: leave timing out" in found
    assert load_suite(write(tmp_path, timed), None, ("timing=null",)).profile.memory is not None

    quantized = UNTIMED.replace("pruned: {", "pruned: {accelerate: [{quantize: torchao}], ")
    assert "'pruned' is quantized" in error_of(tmp_path, with_memory(quantized, "cpu_offload: group"))
    assert load_suite(write(tmp_path, with_memory(quantized, "cpu_offload: model"))).profile.memory is not None

    listed = UNTIMED.replace("pruned: {", "pruned: {accelerate: [vae_tiling], ")
    found = error_of(tmp_path, listed)
    assert found.startswith(f"FILE:{place(listed, 'accelerate:')}: ")
    assert "write memory: {vae_tiling: true} in the profile" in found


def test_a_card_holds_the_largest_network_where_the_others_wait(tmp_path: Path) -> None:
    def sampling(memory: str) -> int:
        suite = load_suite(write(tmp_path, with_memory(UNTIMED, memory)), None, ("models={teacher: {}}",))
        return stages_on(suite, Store(tmp_path), "h100-80gb")[0].peak_bytes

    assert sampling("cpu_offload: model") < sampling("vae_tiling: false")


@pytest.mark.slow
def test_what_does_not_fit_together_is_told_to_take_turns_and_tiles_take_less(tmp_path: Path) -> None:
    def sampling(setting: str) -> Stage:
        overrides = ("models={teacher: {}}", "published=[]", "timing=null", setting)
        suite = load_any_suite(SUITES / "vbench_t2v.yaml", "hunyuanvideo", overrides)
        assert isinstance(suite, VBenchSuite)
        return stages_on(suite, Store(tmp_path), "l40s")[0]

    whole = sampling("memory=null")
    assert (whole.fits, whole.advice) == (False, "memory: {cpu_offload: model}")
    by_turns = sampling("memory={cpu_offload: model}")
    # HunyuanVideo's 12.8 billion weights in half precision are the largest of its networks.
    assert by_turns.fits
    assert 2 * 12.8e9 < by_turns.peak_bytes < 1.3 * 2 * 12.8e9
    assert by_turns.peak_bytes < sampling("memory={vae_tiling: true}").peak_bytes < whole.peak_bytes
