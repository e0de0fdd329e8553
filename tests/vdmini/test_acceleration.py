"""Engines that `accelerate` puts on draw what diffusers draws with them, and leave nothing behind."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from diffusers import (
    AutoencoderKLTemporalDecoder,
    FasterCacheConfig,
    FirstBlockCacheConfig,
    GGUFQuantizationConfig,
    MagCacheConfig,
    PyramidAttentionBroadcastConfig,
    QuantoConfig,
    SeaCacheConfig,
    TaylorSeerCacheConfig,
    TorchAoConfig,
    WanPipeline,
)
from diffusers.models.attention_dispatch import _AttentionBackendRegistry
from numpy.typing import NDArray
from tiny_clips import svd_unet
from tiny_others import ltx_vae
from tiny_transformers import TINY
from tiny_unets import animatediff_unet, videocrafter_pipeline
from torch import nn

from vdmini.acceleration import accelerate, check_measures
from vdmini.errors import AccelerationError
from vdmini.measures import parse_measure
from vdmini.requests import ClipRequest, SampleSettings
from vdmini.sample import sample_clips, sample_video, to_pixels

pytestmark = [
    # Mochi asks for autocast to float32, which CPUs have no use for.
    pytest.mark.filterwarnings("ignore:In CPU autocast, but the target dtype is not supported:UserWarning"),
    pytest.mark.filterwarnings("ignore:torch.meshgrid. in an upcoming release:UserWarning"),
    pytest.mark.filterwarnings("ignore:.Quanto(Config|Quantizer). is deprecated:FutureWarning"),
]
STEPS = 4
ONE, TWO = ClipRequest("one", 3, prompt="a cat runs"), ClipRequest("two", 4, prompt="a red dog sleeps")
EVER = [-1, 999]
DISTILLED = {"is_guidance_distilled": True, "spatial_attention_timestep_skip_range": EVER}
LITE = {"cache_interval": 2, "disable_cache_before_step": 1, "use_lite_mode": True}
GUIDED = {"unconditional_batch_timestep_skip_range": EVER, "spatial_attention_timestep_skip_range": EVER}
PYRAMID = {"spatial_attention_block_skip_range": 2, "spatial_attention_timestep_skip_range": EVER}
MAG = {"threshold": 10.0, "num_inference_steps": STEPS, "mag_ratios": [1.0] * STEPS}
CONFIGS: dict[str, Callable[..., Any]] = {
    "first_block": FirstBlockCacheConfig,
    "faster": FasterCacheConfig,
    "pyramid": PyramidAttentionBroadcastConfig,
    "taylor_seer": TaylorSeerCacheConfig,
    "mag": MagCacheConfig,
    "sea": SeaCacheConfig,
}
FIRST = {"threshold": 10.0}
FAMILIES = ("wan", "hunyuanvideo", "cogvideox-5b", "ltx", "mochi")
# What diffusers 0.42 supports, found by trying, with settings by which each acts in four steps.
SUPPORTED: dict[tuple[str, str], dict[str, Any]] = {
    **{(name, "first_block"): FIRST for name in FAMILIES},
    **{(name, "taylor_seer"): LITE for name in FAMILIES},
    **{(name, "mag"): MAG for name in FAMILIES},
    **{(name, "pyramid"): PYRAMID for name in FAMILIES if name != "wan"},
    **{(name, "faster"): GUIDED for name in ("cogvideox-5b", "mochi")},
    ("hunyuanvideo", "faster"): DISTILLED,
    ("ltx", "faster"): DISTILLED,
    ("wan", "sea"): FIRST,
}
OTHERS: dict[str, Callable[[], nn.Module]] = {
    "svd": svd_unet,
    "animatediff": animatediff_unet,
    "videocrafter2": lambda: videocrafter_pipeline("ddim").unet,
}


def settings_of(name: str) -> SampleSettings:
    return dataclasses.replace(TINY[name].settings, steps=STEPS)


@cache
def pipeline_of(name: str) -> Any:
    """One pipeline of a family for all tests, which each leave it as it was."""
    return TINY[name].build_pipeline(TINY[name].build_denoiser())


@cache
def plain(name: str) -> NDArray[np.float32]:
    return sample(name)


def sample(name: str, request: ClipRequest = ONE) -> NDArray[np.float32]:
    return sample_video(pipeline_of(name), [request], settings_of(name))


def direct(name: str, pipeline: Any, request: ClipRequest = ONE) -> NDArray[np.float32]:
    """A call of diffusers' own."""
    settings = settings_of(name)
    more = {"frame_rate": settings.frames_per_second} if name == "ltx" else {}
    return pipeline(
        prompt=[request.prompt],
        height=settings.height,
        width=settings.width,
        num_frames=settings.frames,
        num_inference_steps=STEPS,
        generator=[torch.Generator().manual_seed(request.seed)],
        output_type="np",
        **more,
    ).frames


def refuse(name: str, *data: Any, match: str, settings: SampleSettings | None = None) -> None:
    with pytest.raises(AccelerationError, match=match):
        check(name, *data, settings=settings)


def check(name: str, *data: Any, settings: SampleSettings | None = None) -> None:
    denoiser = (OTHERS.get(name) or TINY[name].build_denoiser)().to("meta")
    check_measures(denoiser, None, [parse_measure(each) for each in data], device_type="cpu", settings=settings)


@pytest.mark.parametrize(("name", "engine"), SUPPORTED, ids=map("-".join, SUPPORTED))
def test_a_cache_draws_what_diffusers_draws_with_it(name: str, engine: str) -> None:
    chosen, before = SUPPORTED[name, engine], plain(name)
    reference = TINY[name].build_pipeline(TINY[name].build_denoiser())
    timestep = {"current_timestep_callback": lambda: reference.current_timestep}
    config = CONFIGS[engine](**chosen, **(timestep if engine in ("faster", "pyramid") else {}))
    reference.transformer.enable_cache(config)
    done = accelerate(pipeline_of(name), [parse_measure({"cache": engine, **chosen})])
    try:
        first, second = sample(name), sample(name, TWO)
    finally:
        done.undo()
    assert done.passes_vary
    assert done.one_clip_at_a_time == (engine in ("first_block", "sea"))
    assert np.abs(first - before).max() > 1e-4, "the cache skipped nothing"
    assert np.array_equal(second, direct(name, reference, TWO))
    assert np.array_equal(first, direct(name, reference))
    assert np.array_equal(sample(name), before)


def test_clips_of_a_cache_are_those_of_diffusers_as_pixels() -> None:
    done = accelerate(pipeline_of("wan"), [parse_measure({"cache": "first_block", **FIRST})])
    video = sample("wan")
    assert np.array_equal(sample_clips(pipeline_of("wan"), [ONE], settings_of("wan")), to_pixels(video))
    done.undo()


@pytest.mark.parametrize("engine", ["first_block", "faster", "pyramid", "taylor_seer", "mag"])
def test_reset_forgets_a_clip_that_broke_off(engine: str) -> None:
    name = "cogvideox-5b"
    pipeline = pipeline_of(name)
    done = accelerate(pipeline, [parse_measure({"cache": engine, **SUPPORTED[name, engine]})])
    expected = sample(name)
    calls: list[object] = []

    def break_off(module: nn.Module, inputs: object, output: object) -> None:
        calls.append(output)
        if len(calls) == 2:
            raise KeyboardInterrupt

    handle = pipeline.transformer.register_forward_hook(break_off)
    with pytest.raises(KeyboardInterrupt):
        sample(name, TWO)
    handle.remove()
    done.reset()
    assert np.array_equal(sample(name), expected)
    done.undo()


@pytest.mark.parametrize("engine", CONFIGS)
@pytest.mark.parametrize("name", [*FAMILIES, *OTHERS])
def test_the_caches_that_a_family_cannot_have_are_refused(name: str, engine: str) -> None:
    data = {"cache": engine, **SUPPORTED.get((name, engine), MAG if engine == "mag" else {})}
    if (name, engine) in SUPPORTED:
        check(name, data, settings=settings_of(name))
    else:
        refuse(name, data, match=rf"^accelerate: \{{cache: {engine}, .*: leave it out$")


def test_what_is_refused_would_have_done_nothing() -> None:
    pipeline = TINY["ltx"].build_pipeline(TINY["ltx"].build_denoiser())
    pipeline.transformer.enable_cache(SeaCacheConfig(threshold=10.0))
    assert np.array_equal(direct("ltx", pipeline), plain("ltx"))


def test_settings_that_do_nothing_or_break_are_refused_with_what_to_change() -> None:
    mag, few = {"cache": "mag", **MAG}, dataclasses.replace(settings_of("wan"), steps=3)
    refuse("wan", mag, match="sampled in 3 steps: set num_inference_steps", settings=few)
    refuse("wan", {"cache": "taylor_seer"}, match="finds no layers of WanTransformer3DModel")
    refuse("ltx", {"cache": "faster"}, match="add is_guidance_distilled: true")
    unguided = dataclasses.replace(settings_of("mochi"), guidance=1.0)
    refuse("mochi", {"cache": "faster"}, match="add is_guidance_distilled: true", settings=unguided)
    late = {**DISTILLED, "spatial_attention_timestep_skip_range": [-1, 1001]}
    refuse("ltx", {"cache": "faster", **late}, match="range at 999")
    refuse("wan", {"cache": "sea", "threshold": -1}, match="must be non-negative")
    one_block = TINY["wan"].build_denoiser()
    one_block.blocks = one_block.blocks[:1]
    with pytest.raises(AccelerationError, match="cannot have it"):
        check_measures(one_block, None, [parse_measure({"cache": "first_block"})], device_type="cpu")


def test_combinations_that_an_engine_does_not_support_are_refused() -> None:
    refuse("wan", {"cache": "first_block"}, {"cache": "sea"}, match="one cache at a time")
    refuse("wan", {"quantize": "bitsandbytes"}, match="needs a GPU")
    refuse("cogvideox-5b", {"quantize": "gguf", "file": "a.gguf"}, match="reads no GGUF files of CogVideoX")
    refuse("wan", {"quantize": "gguf", "file": "absent.gguf"}, match=r"absent\.gguf")
    refuse("cogvideox-5b", {"attention": "native"}, match="does not choose its attention this way")
    refuse("wan", {"attention": "_native_cudnn"}, match="cannot have it here")
    refuse("hunyuanvideo", {"attention": "_native_flash"}, match="attn_mask")
    vae = AutoencoderKLTemporalDecoder(block_out_channels=(32,), down_block_types=("DownEncoderBlock2D",))
    with pytest.raises(AccelerationError, match="AutoencoderKLTemporalDecoder has no tiling"):
        check_measures(svd_unet(), vae, [parse_measure("vae_tiling")], device_type="cpu")
    with pytest.raises(AccelerationError, match="AutoencoderKLLTXVideo has no slicing that works"):
        check_measures(svd_unet(), ltx_vae(), [parse_measure("vae_slicing")], device_type="cpu")
    pytest.importorskip("torchao")
    refuse("hunyuanvideo", "optimize", {"quantize": "torchao"}, match="joins layers")
    check("wan", "optimize", {"quantize": "torchao"}, {"cache": "first_block"}, "compile", {"attention": "native"})


def test_a_package_that_is_missing_is_named_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchao.quantization", None)
    refuse("wan", {"quantize": "torchao"}, match="pip install torchao")
    monkeypatch.setattr("diffusers.quantizers.quanto.quanto_quantizer.is_optimum_quanto_available", lambda: False)
    refuse("wan", {"quantize": "quanto"}, match="pip install optimum-quanto")


@pytest.mark.parametrize("kind", ["int8_weight_only", "int8_dynamic_activation_int8_weight"])
@pytest.mark.parametrize("name", FAMILIES)
def test_torchao_draws_what_diffusers_draws_with_it(name: str, kind: str, tmp_path: Path) -> None:
    quantization = pytest.importorskip("torchao.quantization")
    native = {
        "int8_weight_only": quantization.Int8WeightOnlyConfig,
        "int8_dynamic_activation_int8_weight": quantization.Int8DynamicActivationInt8WeightConfig,
    }[kind]
    denoiser, before = pipeline_of(name).transformer, plain(name)
    denoiser.save_pretrained(tmp_path)
    quantized = type(denoiser).from_pretrained(
        tmp_path, quantization_config=TorchAoConfig(native()), dtype=torch.float32
    )
    done = accelerate(pipeline_of(name), [parse_measure({"quantize": "torchao", "type": kind})], tmp_path)
    found = sample(name)
    done.undo()
    assert done.one_clip_at_a_time == ("dynamic" in kind)
    assert not done.passes_vary
    assert np.abs(found - before).max() > 1e-5, "nothing was quantized"
    assert np.array_equal(found, direct(name, TINY[name].build_pipeline(quantized)))
    assert pipeline_of(name).transformer is denoiser
    assert np.array_equal(sample(name), before)


def test_quanto_draws_what_diffusers_draws_with_it(tmp_path: Path) -> None:
    pytest.importorskip("optimum.quanto", reason="pip install optimum-quanto")
    denoiser = pipeline_of("wan").transformer
    denoiser.save_pretrained(tmp_path)
    quantized = type(denoiser).from_pretrained(tmp_path, quantization_config=QuantoConfig("int4"), dtype=torch.float32)
    done = accelerate(pipeline_of("wan"), [parse_measure({"quantize": "quanto", "type": "int4"})], tmp_path)
    found = sample("wan")
    done.undo()
    assert np.array_equal(found, direct("wan", TINY["wan"].build_pipeline(quantized)))


def write_gguf(denoiser: nn.Module, file: Path) -> None:
    gguf: Any = pytest.importorskip("gguf", reason="pip install gguf")
    int8 = gguf.GGMLQuantizationType.Q8_0
    writer = gguf.GGUFWriter(str(file), "tiny")
    for key, tensor in denoiser.state_dict().items():
        small = int8 if tensor.dim() == 2 and tensor.shape[1] % 32 == 0 else None
        weight = tensor.numpy()
        writer.add_tensor(key, gguf.quants.quantize(weight, small) if small else weight, raw_dtype=small)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize("name", ["wan", "ltx"])
def test_gguf_files_draw_what_diffusers_draws_with_them(name: str, tmp_path: Path) -> None:
    denoiser, file = pipeline_of(name).transformer, tmp_path / "tiny.gguf"
    denoiser.save_pretrained(tmp_path)
    write_gguf(denoiser, file)
    config = GGUFQuantizationConfig(compute_dtype=torch.float32)
    quantized = type(denoiser).from_single_file(
        str(file), config=str(tmp_path), quantization_config=config, dtype=torch.float32
    )
    done = accelerate(pipeline_of(name), [parse_measure({"quantize": "gguf", "file": str(file)})], tmp_path)
    found = sample(name)
    done.undo()
    assert np.abs(found - plain(name)).max() > 1e-5
    assert np.array_equal(found, direct(name, TINY[name].build_pipeline(quantized)))


def test_a_failure_leaves_the_pipeline_as_it_was(tmp_path: Path) -> None:
    pytest.importorskip("torchao")
    pipeline = pipeline_of("wan")
    int8 = [parse_measure({"quantize": "torchao"}), parse_measure("vae_tiling")]
    with pytest.raises(AccelerationError, match="save it first"):
        accelerate(pipeline, int8, tmp_path / "absent")
    pipeline.transformer.save_pretrained(tmp_path)
    (tmp_path / "diffusion_pytorch_model.safetensors").write_bytes(b"damaged")
    with pytest.raises(AccelerationError, match="does not load"):
        accelerate(pipeline, int8, tmp_path)
    assert not pipeline.vae.use_tiling
    assert np.array_equal(sample("wan"), plain("wan"))


def test_an_attention_backend_is_that_of_diffusers_and_of_this_model_alone() -> None:
    reference = TINY["wan"].build_pipeline(TINY["wan"].build_denoiser())
    before, expected = _AttentionBackendRegistry.get_active_backend(), plain("wan")
    done = accelerate(pipeline_of("wan"), [parse_measure({"attention": "_native_math"})])
    found = sample("wan")
    done.undo()
    assert _AttentionBackendRegistry.get_active_backend() == before
    try:
        reference.transformer.set_attention_backend("_native_math")
        assert np.array_equal(found, direct("wan", reference))
    finally:
        _AttentionBackendRegistry.set_active_backend(before[0])
    assert np.array_equal(sample("wan"), expected)


def test_several_measures_go_on_together_and_come_off_together(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("torchao")
    monkeypatch.setattr(nn.Module, "compile", lambda module, **options: None)
    pipeline, expected = pipeline_of("ltx"), plain("ltx")
    pipeline.transformer.save_pretrained(tmp_path)
    plain_ones = ("compile", "optimize", "vae_tiling", "vae_slicing")
    data = (*plain_ones, {"quantize": "torchao"}, {"cache": "first_block", **FIRST})
    done = accelerate(pipeline, [parse_measure(each) for each in data], tmp_path)
    assert pipeline.vae.use_tiling
    assert pipeline.vae.use_slicing
    assert pipeline.transformer.is_cache_enabled
    assert np.abs(sample("ltx") - expected).max() > 1e-4
    done.undo()
    assert not pipeline.vae.use_tiling
    assert not pipeline.vae.use_slicing
    assert not pipeline.transformer.is_cache_enabled
    assert np.array_equal(sample("ltx"), expected)


def test_both_denoisers_of_a_pipeline_get_what_one_would(tmp_path: Path) -> None:
    pytest.importorskip("torchao")
    parts = dict(pipeline_of("wan").components)
    parts |= {"transformer_2": TINY["wan"].build_denoiser(), "boundary_ratio": 0.5}
    pipeline = WanPipeline(**parts)
    pipeline.save_pretrained(tmp_path)
    plain_ones = pipeline.transformer, pipeline.transformer_2
    data = ({"quantize": "torchao"}, {"cache": "first_block"})
    done = accelerate(pipeline, [parse_measure(each) for each in data], tmp_path / "transformer")
    for part in (pipeline.transformer, pipeline.transformer_2):
        assert part.is_cache_enabled
        assert part.hf_quantizer is not None
    done.undo()
    assert (pipeline.transformer, pipeline.transformer_2) == plain_ones
    with pytest.raises(AccelerationError, match="for one denoiser"):
        accelerate(pipeline, [parse_measure({"cache": "mag", **MAG})])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("{cache: first_block}", "{threshold: 5.0e-2, cache: first_block}"),
        ("{cache: pyramid}", "{cache: pyramid, spatial_attention_block_skip_range: 2}"),
        ("{cache: mag, mag_ratios: [1, 0.9]}", "{cache: mag, num_inference_steps: 28, mag_ratios: [1.0, 0.9]}"),
        ("{cache: taylor_seer, cache_identifiers: [a, b]}", "{cache: taylor_seer, cache_identifiers: ['a', 'b']}"),
        ("{quantize: torchao}", "{quantize: torchao, type: int8_weight_only}"),
        ("{attention: native}", "{attention: native}"),
        ("optimize", "optimize"),
    ],
)
def test_the_identity_is_the_same_for_every_way_of_writing_and_can_be_read_again(one: str, other: str) -> None:
    first, second = (parse_measure(yaml.safe_load(each)) for each in (one, other))
    assert str(first) == str(second)
    assert {first, second} == {parse_measure(yaml.safe_load(str(first)))}
    assert "\n" not in str(first)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("optimise", "did you mean 'optimize'"),
        ("{cache: first_blok}", "did you mean 'first_block'"),
        ("{cache: first_block, treshold: 1}", "did you mean 'threshold'"),
        ("{cache: first_block, threshold: high}", "'threshold': .*valid number"),
        ("{cache: mag}", "'mag_ratios': Field required"),
        ("{quantize: quanto, type: int16}", "did you mean 'int8'"),
        ("{quantize: gguf}", "'file': Field required"),
        ("{attention: nativ}", "did you mean 'native'"),
        ("{attention: flash_hub}", "unknown 'flash_hub'"),
        ("{cache: sea, quantize: torchao}", "one only"),
        ("{}", "must have one of cache, quantize, attention"),
        ("[1]", "choose one of optimize"),
    ],
)
def test_a_measure_that_is_not_known_is_refused_with_the_nearest(data: str, said: str) -> None:
    with pytest.raises(AccelerationError, match=said):
        parse_measure(yaml.safe_load(data))
