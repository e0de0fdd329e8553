"""Timing a teacher beside its student: scopes, phases, blocks, records, and what the command says."""

from __future__ import annotations

import inspect
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from diffusers import AutoencoderKLWan
from PIL import Image
from torch import nn

from vdmini.models.loading import load_model
from vdmini.models.registry import OFFICIAL, VideoModel, family_named
from vdmini.optimization import compile_denoiser
from vdmini.vae import prune_decoder
from vdmini_bench.cli import main
from vdmini_bench.compare.deltas import compare_result_sets
from vdmini_bench.compare.result_sets import find_result_set
from vdmini_bench.config.timing import SpeedRequest
from vdmini_bench.errors import BenchError, SuiteError
from vdmini_bench.results.store import Store
from vdmini_bench.speed.benchmark import SpeedReport, time_models
from vdmini_bench.speed.blocks import OUTSIDE, BlockTime, block_costs, stage_lines, time_blocks
from vdmini_bench.speed.gpu_sensor import SensorWatch
from vdmini_bench.speed.memory_traffic import elements_by_block
from vdmini_bench.speed.models import TimedModel, attention_backend, load_models
from vdmini_bench.speed.roofline import Roofline, measure_roofline
from vdmini_bench.speed.rows import make_rows, verdict
from vdmini_bench.speed.scopes import (
    PHASES,
    ClipSize,
    PhaseClock,
    TimedClip,
    clip_call,
    compression,
    decode_flops,
    default_size,
    denoiser_call,
    latent_size,
    phases,
)
from vdmini_bench.speed.timing import time_interleaved

pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)
CPU = torch.device("cpu")
SMALL = ClipSize(4, 32, 32, 2)


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)


@pytest.fixture(scope="module")
def embedded() -> VideoModel:
    return load_model("embedded/svd")


@pytest.fixture(scope="module")
def report() -> SpeedReport:
    asked = SpeedRequest("embedded/svd", ("vdmini",), size=(32, 32), frames=2, steps=2, projected_steps=25)
    return time_models(replace(asked, runs=3, warmup=1), CPU)


def rows_by_place(report: SpeedReport) -> dict[tuple[str, str], Any]:
    return {(row.timing.model, row.timing.scope): row for row in report.rows}


def test_every_scope_of_every_model_keeps_every_sample(report: SpeedReport) -> None:
    scopes = {"denoiser", "steps_projected", "vae_decode", "end_to_end", "encoders", "vae_encode", "steps"}
    assert {*rows_by_place(report)} == {(model, scope) for model in ("teacher", "vdmini") for scope in scopes}
    assert {len(row.timing.samples_ms) for row in report.rows} == {3}
    assert all(sample > 0 for row in report.rows for sample in row.timing.samples_ms)


def test_the_phases_of_a_clip_lie_inside_it(report: SpeedReport) -> None:
    rows = rows_by_place(report)
    for model in ("teacher", "vdmini"):
        whole = rows[model, "end_to_end"].timing.samples_ms
        parts = [rows[model, phase].timing.samples_ms for phase in PHASES]
        for clip, *phases_of_clip in zip(whole, *parts, strict=True):
            assert min(phases_of_clip) > 0
            assert sum(phases_of_clip) < clip


def test_flops_are_those_of_the_blocks_and_of_the_passes_that_were_made(report: SpeedReport) -> None:
    rows = rows_by_place(report)
    for model in ("teacher", "vdmini"):
        one_pass = rows[model, "denoiser"].flops
        assert one_pass == report.models[model]["flops"]
        assert rows[model, "steps"].flops == 2 * one_pass
        assert rows[model, "steps_projected"].flops == 25 * one_pass
        assert rows[model, "end_to_end"].flops == 2 * one_pass + rows[model, "vae_decode"].flops
    ratio = rows["teacher", "denoiser"].flops / rows["vdmini", "denoiser"].flops
    assert rows["vdmini", "denoiser"].flop_speedup == pytest.approx(ratio)
    assert rows["vdmini", "vae_decode"].flop_speedup == 1


def test_a_projection_multiplies_each_sample(report: SpeedReport) -> None:
    rows = rows_by_place(report)
    one, many = (rows["teacher", scope].timing.samples_ms for scope in ("denoiser", "steps_projected"))
    assert many == pytest.approx([25 * sample for sample in one])


def test_the_record_is_plain_json_and_compare_reads_its_folder(report: SpeedReport, tmp_path: Path) -> None:
    report.write(tmp_path)
    found = json.loads((tmp_path / "speed.json").read_text())
    assert {"model", "fingerprint", "rows", "blocks", "roofline", "throttled"} <= found.keys()
    promised = {"model", "scope", "median_ms", "mad_ms", "samples_ms", "peak_bytes", "flops", "speedup", "speedup_ci"}
    assert all(promised <= row.keys() for row in found["rows"])
    teacher, student = (find_result_set(f"{tmp_path}:{model}", Store(tmp_path)) for model in ("teacher", "vdmini"))
    deltas = {delta.metric: delta for delta in compare_result_sets(teacher, student)}
    assert deltas["latency_denoiser"].ratio is not None
    low, high = deltas["latency_denoiser"].ratio_interval or (0.0, 0.0)
    assert low <= deltas["latency_denoiser"].ratio <= high
    for name in ("blocks.png", "roofline.png"):
        with Image.open(tmp_path / name) as picture:
            assert min(picture.size) > 150


def test_a_model_against_itself_shows_no_difference(embedded: VideoModel) -> None:
    call = denoiser_call(embedded, ClipSize(2, 32, 32, 1), CPU)
    found = []
    # One interval in twenty leaves out what is so, and a machine at other work adds some.
    for _ in range(6):
        timings = time_interleaved({"teacher": call, "same": call}, scope="denoiser", runs=10, warmup=1, device=CPU)
        found.append(make_rows(timings, {}, SensorWatch(None))[1].verdict)
        if found[-1] == "no difference shown":
            break
    assert found[-1] == "no difference shown", found


@pytest.mark.parametrize(
    ("low", "high", "said"), [(0.9, 1.1, "no difference shown"), (1.1, 1.4, "faster"), (0.8, 0.9, "slower")]
)
def test_the_verdict_is_the_intervals(low: float, high: float, said: str) -> None:
    assert verdict(low, high) == said


def test_guidance_doubles_the_passes_and_the_pipeline_is_left_as_it_was(embedded: VideoModel) -> None:
    pipeline: Any = embedded.pipeline
    for guidance, passes in ((None, 2), (3.0, 4)):
        clip = TimedClip(pipeline, clip_call(pipeline, "svd", SMALL, guidance), CPU)
        clip()
        assert clip.passes == passes
    assert "encode" not in vars(pipeline.vae)
    assert "step" not in vars(pipeline.scheduler)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in pipeline.unet.modules())


def test_the_student_leaves_the_teachers_pipeline_alone() -> None:
    models = load_models(SpeedRequest("embedded/svd", ("vdmini",), decoder=(128, 64, 32)), CPU)
    teacher, student = models["teacher"], models["vdmini"]
    first: Any = teacher.pipeline
    second: Any = student.pipeline
    assert first.unet is teacher.denoiser
    assert first.vae is teacher.vae
    assert second.unet is student.denoiser
    assert second.vae is student.vae
    assert second.image_encoder is first.image_encoder
    assert sum(map(torch.numel, second.vae.parameters())) < sum(map(torch.numel, first.vae.parameters()))


def test_watched_pipelines_still_show_what_they_may_be_passed(embedded: VideoModel) -> None:
    pipeline: Any = embedded.pipeline
    expected = inspect.signature(pipeline.scheduler.step)
    with phases(pipeline, PhaseClock(CPU)):
        assert inspect.signature(pipeline.scheduler.step) == expected


def test_a_slow_block_is_found_slow_and_blocks_add_up(embedded: VideoModel) -> None:
    denoiser: Any = embedded.denoiser
    call = denoiser_call(embedded, SMALL, CPU)
    costs = block_costs(denoiser, latent_size(embedded, SMALL))
    # Inside the block, not at its border.
    inner = denoiser.down_blocks[1].resnets[0].spatial_res_block
    handle = inner.register_forward_pre_hook(lambda *_: time.sleep(0.3))
    try:
        blocks = time_blocks({"m": (denoiser, call)}, {"m": costs}, runs=3, warmup=1, device=CPU)
    finally:
        handle.remove()
    by_name = {block.block: block for block in blocks}
    assert by_name["D.1.0"].median_ms > 250
    assert max(block.median_ms for block in blocks) == by_name["D.1.0"].median_ms
    assert sum(block.flops for block in blocks) == costs.graph.flops
    assert by_name[OUTSIDE].flops == 0
    assert {len(block.samples_ms) for block in blocks} == {3}


def test_stages_beside_each_other_by_hand() -> None:
    def block(model: str, name: str, stage: str, milliseconds: float, flops: int) -> BlockTime:
        return BlockTime(model, name, stage, (milliseconds,), flops, 1)

    teacher = [block("teacher", "D.0.0", "D.0", 3, 4 * 10**9), block("teacher", "D.0.1", "D.0", 3, 2 * 10**9)]
    teacher += [block("teacher", "Mid", "Mid", 2, 10**9), block("teacher", OUTSIDE, OUTSIDE, 2, 0)]
    student = [block("vdmini", "D.0.0", "D.0", 4, 4 * 10**9), block("vdmini", OUTSIDE, OUTSIDE, 1, 0)]
    _, lines = stage_lines([*teacher, *student], peak=4e12)
    assert lines == [
        ["D.0", "teacher", "6", "60.0%", "0.006", "1", "25.0%"],
        ["D.0", "vdmini", "4", "80.0%", "0.004", "1", "25.0%"],
        ["Mid", "teacher", "2", "20.0%", "0.001", "0.5", "12.5%"],
        [OUTSIDE, "teacher", "2", "20.0%", "-", "-", "-"],
        [OUTSIDE, "vdmini", "1", "20.0%", "-", "-", "-"],
    ]


def test_traffic_of_a_linear_layer_by_hand() -> None:
    layer = nn.Linear(8, 16)
    found = elements_by_block(layer, {"input": torch.zeros(4, 8)}, lambda whole: {"all": (whole,)})
    # Input, weight and bias are read, the output is written.
    assert found == {"all": 4 * 8 + 8 * 16 + 16 + 4 * 16}


def test_traffic_of_attention_leaves_its_scores_out() -> None:
    class Attend(nn.Module):
        def forward(self, query: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.scaled_dot_product_attention(query, query, query).transpose(1, 2)

    found = elements_by_block(Attend(), {"query": torch.zeros(1, 2, 1000, 4)}, lambda whole: {"all": (whole,)})
    assert found == {"all": 4 * 2 * 1000 * 4}


# (frames, pixels) of a latent, as the families' papers have them.
COMPRESSION = {
    "svd": (1, 8),
    "videocrafter2": (1, 8),
    "animatediff": (1, 8),
    "hunyuanvideo": (4, 8),
    "wan": (4, 8),
    "cogvideox": (4, 8),
    "ltx": (8, 32),
    "mochi": (6, 8),
    "wan-vace": (4, 8),
    "wan-animate": (4, 8),
    "skyreels-v2": (4, 8),
    "chronoedit": (4, 8),
    "anyflow": (4, 8),
    "helios": (4, 8),
    "ltx2": (8, 32),
    "cosmos": (8, 8),
    "sana-video": (4, 8),
    "easyanimate": (4, 8),
    "allegro": (4, 8),
    "latte": (1, 8),
    "consisid": (4, 8),
    "hunyuanvideo-1.5": (4, 16),
    "framepack": (4, 8),
    "motif-video": (4, 8),
    "kandinsky5": (4, 8),
    "kandinsky6": (4, 8),
}


@pytest.mark.parametrize("family", sorted({*OFFICIAL.values()}))
def test_a_published_models_own_clip_gives_its_default_input(family: str) -> None:
    name = next(name for name, its_family in OFFICIAL.items() if its_family == family)
    with torch.device("meta"):
        denoiser, vae = family_named(family).build_official(name)
    model = VideoModel(name, family, denoiser, vae, None)
    assert latent_size(model, default_size(model, 1)) == family_named(family).default_input(denoiser)
    # Without a VAE beside it, a denoiser has that of its family.
    alone = VideoModel("folder", family, denoiser, None, None)
    assert compression(alone) == compression(model) == COMPRESSION[family]


@pytest.mark.parametrize(
    ("name", "frames", "latents"), [("cogvideox1.5-5b", 81, 22), ("cogvideox-5b", 49, 13), ("allegro", 88, 22)]
)
def test_a_clip_of_the_published_length_is_as_many_latents_as_its_pipeline_makes_of_it(
    name: str, frames: int, latents: int
) -> None:
    model = load_model(name, random_weights=True, device="meta")
    size = default_size(model, 1)
    assert size.frames == frames
    assert latent_size(model, size).frames == latents
    with pytest.raises(SuiteError, match=f"k frames, not {frames + 1}"):
        latent_size(model, replace(size, frames=frames + 1))


def test_a_model_is_timed_by_what_its_own_vae_says() -> None:
    vae = AutoencoderKLWan(base_dim=4, num_res_blocks=1, scale_factor_spatial=16, scale_factor_temporal=2)
    assert compression(VideoModel("folder", "wan", nn.Identity(), vae, None)) == (2, 16)


def test_the_decoders_flops_are_the_known_ones() -> None:
    model = load_model("svd", random_weights=True, device="meta")
    size = ClipSize(14, 576, 1024, 1)
    whole = decode_flops(model, size)
    assert whole == pytest.approx(97.2e12, rel=1e-3)
    narrow = prune_decoder(model.vae, widths=(512, 448, 96, 32))  # type: ignore[arg-type]
    student = VideoModel("s", "svd", model.denoiser, narrow, None)
    assert decode_flops(student, size) / whole == pytest.approx(0.376, abs=1e-3)


def test_the_roofline_is_above_what_a_small_product_reaches() -> None:
    found = measure_roofline(CPU, torch.float32)
    assert found.side == 1024
    # A core of the last twenty years and one of the next ten.
    assert 1e8 < found.flops_per_second < 1e14
    assert 1e7 < found.bytes_per_second < 1e13


def test_a_missing_attention_kernel_is_said_plainly() -> None:
    query = torch.zeros(1, 1, 4, 8)
    with attention_backend("math"):
        torch.nn.functional.scaled_dot_product_attention(query, query, query)
    with pytest.raises(BenchError, match="--attention cudnn"), attention_backend("cudnn"):
        raise RuntimeError("No available kernel. Aborting execution.")


def test_the_command_prints_one_json_object_and_refuses_what_does_not_fit(tmp_path: Path) -> None:
    small = ("--resolution", "32x32", "--frames", 2, "--scope", "denoiser", "--device", "cpu", "--no-blocks")
    traced = ("--trace", tmp_path / "traces")
    found = json.loads(invoke("time", "embedded/svd", *small, *traced, "--json", "-o", tmp_path / "out").stdout)
    assert [(row["model"], row["scope"]) for row in found["rows"]] == [("teacher", "denoiser")]
    assert found["rows"][0]["speedup"] is None
    assert len(found["rows"][0]["samples_ms"]) == 10
    events = json.loads((tmp_path / "traces" / "teacher-denoiser.json").read_text())["traceEvents"]
    assert any(event["name"] == "aten::scaled_dot_product_attention" for event in events)
    for arguments, said in (
        (("embedded/svd", "--resolution", "32"), "576x1024"),
        (("embedded/svd", "--runs", "3"), "--runs"),
        (("embedded/svd", "--resolution", "30x32"), "do not divide by 4"),
        (("embedded/svd", "--plan", "vdmin"), "did you mean 'vdmini'"),
        (("embedded/svd", "--decoder", "a,b"), "512,448,96,32"),
        (("svdd", "--random-weights"), "did you mean 'svd'"),
        (("embedded/svd", "--channels", "64"), "random weights"),
    ):
        result = invoke("time", *arguments)
        assert result.exit_code == 2, result.output
        assert said in result.output


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What torch was asked to compile, and left as it was."""
    found: list[object] = []

    def as_it_is(function: Any) -> Any:
        found.append(function)
        return function

    monkeypatch.setattr(torch, "compile", as_it_is)
    return found


def test_compiling_is_for_all_models_and_is_said(compiled: list[object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "vdmini_bench.speed.benchmark.measure_roofline", lambda *_: Roofline("float32", 1e11, 1e10, 1024)
    )
    asked = SpeedRequest("embedded/svd", ("vdmini",), size=(32, 32), frames=2, scopes=("denoiser",), compiled=True)
    report = time_models(replace(asked, runs=2, warmup=1), CPU)
    assert len(compiled) == 2, "the teacher too"
    assert not report.blocks
    assert "compiled" in report.protocol


def test_each_model_samples_in_its_own_steps_and_is_counted_so(
    embedded: VideoModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "vdmini_bench.speed.benchmark.measure_roofline", lambda *_: Roofline("float32", 1e11, 1e10, 1024)
    )
    asked = SpeedRequest("embedded/svd", size=(32, 32), frames=2, steps=3, guidance=2.0, attributed=False)
    models = {
        "whole": TimedModel(embedded, steps=3, guidance=2.0),
        "fewer": TimedModel(embedded, steps=1, guidance=None),
        "cached": TimedModel(embedded, steps=1, guidance=None, passes_vary=True),
    }
    report = time_models(replace(asked, runs=2, warmup=1), CPU, models=models)
    rows = rows_by_place(report)
    # Guidance doubles each of its three passes.
    assert rows["whole", "steps"].flops == 6 * rows["fewer", "steps"].flops
    assert rows["fewer", "end_to_end"].speedup is not None
    assert ("cached", "denoiser") not in rows
    assert rows["cached", "end_to_end"].flops is None


def test_the_phases_of_a_compiled_clip_are_timed(embedded: VideoModel, compiled: list[object]) -> None:
    undo = compile_denoiser(embedded.denoiser)
    try:
        pipeline: Any = embedded.pipeline
        clip = TimedClip(pipeline, clip_call(pipeline, "svd", SMALL, None), CPU)
        clip()
    finally:
        undo()
    assert len(compiled) == 1
    assert {*clip.samples} == {*PHASES}
    assert clip.passes == 2
