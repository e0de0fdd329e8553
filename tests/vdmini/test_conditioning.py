"""Training clips are encoded, and fed to the denoiser, just as the family's own pipeline does when it samples."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline, LTXConditionPipeline, StableVideoDiffusionPipeline
from PIL import Image
from tiny_animated import ANIMATED
from tiny_transformers import TINY
from tiny_unets import animatediff_pipeline, animatediff_unet, videocrafter_pipeline
from torch import Tensor, nn

from vdmini.blocks import ModelInput
from vdmini.conditioning import CONDITIONING, Conditioning, conditioning_of
from vdmini.conditioning.base import EncodeSettings, TrainingClip
from vdmini.errors import ModelLoadError
from vdmini.models.registry import FAMILIES, pipeline_denoiser

# Mochi asks for autocast to float32, which CPUs have no use for.
pytestmark = [
    pytest.mark.filterwarnings("ignore:In CPU autocast, but the target dtype is not supported:UserWarning"),
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"),
]
SETTINGS = EncodeSettings(frames_per_second=7, motion_bucket=63, noise_strength=0.5)
PROMPT = "a red dog runs"


@dataclass(frozen=True)
class Case:
    """A family's pipeline, the size of a small clip, how the pipeline is asked for one, and the guidance it embeds."""

    pipeline: Callable[[], DiffusionPipeline]
    frames: int
    height: int
    width: int
    call: dict[str, Any]
    guidance: float | None = None

    def clip(self, seed: int = 0, prompt: str = PROMPT) -> TrainingClip:
        """A clip of noise, another for each seed."""
        shape = (self.frames, self.height, self.width, 3)
        frames = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
        return TrainingClip(f"clip{seed}", frames, prompt, seed)


def transformer_pipeline(name: str) -> DiffusionPipeline:
    return TINY[name].build_pipeline(TINY[name].build_denoiser())


TEXT_CALL = {"prompt": [PROMPT], "num_inference_steps": 2, "output_type": "latent"}
CASES = {
    "t2v-turbo-v2": Case(
        lambda: videocrafter_pipeline("consistency"),
        3,
        16,
        24,
        {"prompt": [PROMPT], "num_inference_steps": 2, "guidance_scale": 9.0, "fps": 7},
        9.0,
    ),
    "videocrafter2": Case(
        lambda: videocrafter_pipeline("ddim"), 3, 16, 24, {"prompt": [PROMPT], "num_inference_steps": 2, "fps": 7}
    ),
    "animatediff": Case(
        lambda: animatediff_pipeline(animatediff_unet()), 3, 16, 40, {**TEXT_CALL, "guidance_scale": 3.0}
    ),
    "hunyuanvideo": Case(
        lambda: transformer_pipeline("hunyuanvideo"), 9, 16, 48, {**TEXT_CALL, "guidance_scale": 4.5}, 4.5
    ),
    "wan": Case(lambda: transformer_pipeline("wan"), 9, 16, 48, {**TEXT_CALL, "guidance_scale": 3.0}),
    "cogvideox-2b": Case(lambda: transformer_pipeline("cogvideox-2b"), 9, 16, 48, {**TEXT_CALL, "guidance_scale": 3.0}),
    "cogvideox-5b": Case(lambda: transformer_pipeline("cogvideox-5b"), 9, 16, 48, {**TEXT_CALL, "guidance_scale": 3.0}),
    "mochi": Case(lambda: transformer_pipeline("mochi"), 13, 16, 48, {**TEXT_CALL, "guidance_scale": 3.0}),
    "ltx": Case(lambda: transformer_pipeline("ltx"), 9, 96, 128, {**TEXT_CALL, "guidance_scale": 3.0, "frame_rate": 7}),
}
GUIDED = {**TEXT_CALL, "guidance_scale": 3.0}
# Those that animate the clip's first frame, and TI2V from text, which times every token as well.
CASES |= {
    "wan2.1-i2v": Case(ANIMATED["wan2.1-i2v"], 9, 16, 48, GUIDED),
    "wan2.2-i2v": Case(ANIMATED["wan2.2-i2v"], 9, 16, 48, GUIDED),
    "wan2.2-ti2v": Case(ANIMATED["wan2.2-ti2v"], 13, 16, 48, GUIDED),
    "wan2.2-ti2v-text": Case(ANIMATED["wan2.2-ti2v-text"], 13, 16, 48, GUIDED),
    "cogvideox-i2v": Case(ANIMATED["cogvideox-i2v"], 9, 16, 48, GUIDED),
    "ltx-i2v": Case(ANIMATED["ltx-i2v"], 17, 96, 128, {**GUIDED, "frame_rate": 7}),
    "hunyuanvideo-i2v-concat": Case(
        ANIMATED["hunyuanvideo-i2v-concat"], 9, 16, 48, {**TEXT_CALL, "true_cfg_scale": 3.0, "negative_prompt": [""]}
    ),
    "hunyuanvideo-skyreels": Case(
        ANIMATED["hunyuanvideo-skyreels"], 9, 16, 48, {**TEXT_CALL, "guidance_scale": 4.5}, 4.5
    ),
    "hunyuanvideo-i2v-replace": Case(
        ANIMATED["hunyuanvideo-i2v-replace"], 13, 16, 48, {**TEXT_CALL, "guidance_scale": 4.5}, 4.5
    ),
}
# Those that call their denoiser with the text, then without.
APART = ("wan", "hunyuanvideo-i2v-concat")
CONTEXTS = ("t2v-turbo-v2", "videocrafter2", "animatediff")
every_case = pytest.mark.parametrize("name", ["svd", *CASES])


@pytest.fixture
def case(name: str, request: pytest.FixtureRequest) -> Case:
    """The family's case; SVD's pipeline is the shared one."""
    if name != "svd":
        return CASES[name]
    image = Image.fromarray(Case(DiffusionPipeline, 3, 64, 48, {}).clip().frames[0])
    call = {
        "image": image,
        "num_inference_steps": 2,
        "max_guidance_scale": 1.0,
        "fps": 7,
        "motion_bucket_id": 63,
        "noise_aug_strength": 0.5,
        "output_type": "latent",
    }
    return Case(lambda: request.getfixturevalue("tiny_pipeline"), 3, 64, 48, call)


@pytest.fixture
def pipeline(case: Case) -> DiffusionPipeline:
    """The family's tiny pipeline."""
    built = case.pipeline()
    built.set_progress_bar_config(disable=True)
    return built


@pytest.fixture
def conditioning(pipeline: DiffusionPipeline) -> Conditioning:
    """The family's conditioning."""
    return conditioning_of(pipeline_denoiser(pipeline))


def batched(*clips: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: torch.stack([clip[name] for clip in clips]) for name in clips[0]}


def pipeline_animates(pipeline: DiffusionPipeline) -> bool:
    return "image" in inspect.signature(type(pipeline).__call__).parameters


def own_calls(pipeline: DiffusionPipeline, case: Case) -> list[tuple[dict[str, Any], Tensor]]:
    """What the pipeline hands its denoiser by argument name, and gets back, at each call."""
    denoiser = pipeline_denoiser(pipeline)
    names = inspect.signature(type(denoiser).forward)
    calls: list[tuple[dict[str, Any], Tensor]] = []

    def look(module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
        arguments = names.bind(module, *inputs, **named).arguments
        for absent in ("self", "return_dict"):
            arguments.pop(absent, None)
        calls.append(({key: value for key, value in arguments.items() if value is not None}, output[0]))

    handle = denoiser.register_forward_hook(look, with_kwargs=True)
    many = "prompt" in case.call
    generator = torch.Generator().manual_seed(0)
    shown = {"image": Image.fromarray(case.clip().frames[0])} if pipeline_animates(pipeline) and many else {}
    pipeline(
        **case.call,
        **shown,
        height=case.height,
        width=case.width,
        num_frames=case.frames,
        generator=[generator] if many else generator,
    )
    handle.remove()
    return calls


def as_latents(name: str, given: Tensor, arguments: dict[str, Any]) -> Tensor:
    """What the pipeline gives its denoiser or gets from it, B T C H W."""
    if name.startswith("ltx"):
        given = given.unflatten(1, [arguments[size] for size in ("num_frames", "height", "width")]).movedim(-1, 1)
    return given if frames_first(name) else given.transpose(1, 2)


def given_latents(name: str, arguments: dict[str, Any], encoded: dict[str, Tensor]) -> Tensor:
    """The noisy latents in the pipeline's own arguments, without those of a condition, B T C H W."""
    given = as_latents(name, arguments["sample" if "sample" in arguments else "hidden_states"], arguments)
    frames, channels = encoded["latents"].shape[:2]
    return given[:, -frames:, :channels]


def frames_first(name: str) -> bool:
    """Whether the denoiser's own layout is B T C H W."""
    return name == "svd" or name.startswith("cogvideox")


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        *((name, torch.float32) for name in ("svd", *CASES)),
        *((name, torch.bfloat16) for name in ANIMATED),
        ("svd", torch.bfloat16),
        ("svd", torch.float16),
        ("t2v-turbo-v2", torch.bfloat16),
        ("hunyuanvideo", torch.bfloat16),
    ],
)
@torch.no_grad()
def test_the_denoiser_gets_what_the_pipeline_gives_it(
    name: str, dtype: torch.dtype, case: Case, pipeline: DiffusionPipeline, conditioning: Conditioning
) -> None:
    pipeline.to(dtype)
    denoiser = pipeline_denoiser(pipeline)
    encoded = conditioning.encode_clip(pipeline, case.clip(), SETTINGS)
    empty = {**encoded, **(conditioning.unconditional(pipeline) or {})}
    calls = own_calls(pipeline, case)
    for position, (arguments, output) in enumerate(calls):
        latents = given_latents(name, arguments, encoded)
        if name.startswith(APART):
            # One call with the text, one without.
            conditions = batched(empty if position % 2 else encoded)
        else:
            conditions = batched(encoded) if len(latents) == 1 else batched(empty, encoded)
        timesteps = arguments["timestep"].float()
        # Tokens of a still frame have timestep 0.
        timesteps = timesteps.amax(1) if timesteps.dim() == 2 else timesteps.expand(len(latents))
        if case.guidance is not None:
            conditions["guidance"] = torch.full((len(latents),), case.guidance)
        inputs = conditioning.denoiser_inputs(denoiser, latents, timesteps, conditions)
        assert inputs.keys() == arguments.keys()
        for key, value in inputs.items():
            if isinstance(value, tuple):
                pairs = zip(value, map(torch.as_tensor, arguments[key]), strict=True)
                assert all(torch.equal(one, other) for one, other in pairs)
                continue
            if isinstance(value, int):
                assert value == arguments[key]
                continue
            own = torch.as_tensor(arguments[key])
            own = own.expand(value.shape) if own.dim() == 0 else own
            same_type = key not in ("timestep", "fps")
            torch.testing.assert_close(value, own, rtol=0, atol=0, check_dtype=same_type)
        prediction = conditioning.prediction(denoiser(**inputs), latents)
        own = as_latents(name, output, arguments)[:, -latents.shape[1] :]
        torch.testing.assert_close(prediction, own, rtol=0, atol=0)
    assert len(calls) > 1


@every_case
@torch.no_grad()
def test_an_encoded_clip_passes_through_the_denoiser(
    name: str, case: Case, pipeline: DiffusionPipeline, conditioning: Conditioning
) -> None:
    denoiser = pipeline_denoiser(pipeline)
    clips = [conditioning.encode_clip(pipeline, case.clip(seed), SETTINGS) for seed in (0, 1)]
    assert {value.dtype for clip in clips for value in clip.values()} == {torch.float32}
    assert all(value.is_contiguous() for clip in clips for value in clip.values())
    conditions = batched(*clips)
    latents = conditions.pop("latents")
    assert len({*latents.shape[1:]}) == 4, "each axis of its own size, so that none can be taken for another"
    noisy = latents + 1e-4 * torch.randn(latents.shape, generator=torch.Generator().manual_seed(3))
    inputs = conditioning.denoiser_inputs(denoiser, noisy, torch.tensor([1.0, 5.0]), conditions)
    prediction = conditioning.prediction(denoiser(**inputs), noisy)
    assert prediction.shape == latents.shape
    assert prediction.isfinite().all()
    embedding = conditioning.condition_embedding(conditions)
    assert embedding.shape[0] == 2
    assert embedding.dim() == 2
    assert embedding.dtype == torch.float32


@pytest.mark.parametrize("name", [name for name in CASES if name != "t2v-turbo-v2"])
@torch.no_grad()
def test_sizes_are_known_without_encoding(
    name: str, case: Case, pipeline: DiffusionPipeline, conditioning: Conditioning
) -> None:
    encoded = conditioning.encode_clip(pipeline, case.clip(), SETTINGS)
    frames, _, height, width = encoded["latents"].shape
    shapes = conditioning.clip_shapes(pipeline_denoiser(pipeline), ModelInput(1, frames, height, width))
    for key in ("latents", "condition", "rope_scale"):
        assert shapes.get(key) == (tuple(encoded[key].shape) if key in encoded else None)


@pytest.mark.parametrize(("name", "advice"), [("ltx-i2v", 9), ("wan2.2-ti2v", 5), ("hunyuanvideo-i2v-replace", 5)])
def test_a_clip_that_is_its_first_frame_alone_is_refused(name: str, advice: int, pipeline: DiffusionPipeline) -> None:
    clip = replace(CASES[name], frames=1).clip()
    with pytest.raises(ValueError, match=f"'clip0' has no latents beyond its first frame's: give {advice} frames"):
        conditioning_of(pipeline_denoiser(pipeline)).encode_clip(pipeline, clip, SETTINGS)


class DecodedError(Exception):
    """Carries what a VAE was to decode, and ends the pipeline there."""


def decode(pipeline: DiffusionPipeline, case: Case, latents: Tensor) -> None:
    """Have the pipeline decode latents T C H W, as if its denoiser had left them as they are."""
    if hasattr(pipeline, "_decode"):
        pipeline._decode(latents[None].transpose(1, 2))
    elif isinstance(pipeline, StableVideoDiffusionPipeline):
        pipeline.decode_latents(latents[None], len(latents))
    elif hasattr(pipeline, "decode_latents"):
        pipeline.decode_latents(latents[None].transpose(1, 2) if hasattr(pipeline, "unet") else latents[None])
    else:
        given = latents[None].transpose(1, 2)
        if "frame_rate" in case.call:
            given = given.flatten(2).transpose(1, 2)
        call = {**case.call, "output_type": "np", "latents": given}
        pipeline(**call, height=case.height, width=case.width, num_frames=case.frames)


def stop_before_the_vae(pipeline: DiffusionPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(latents: Tensor, *_: object, **__: object) -> None:
        raise DecodedError(latents)

    def still(hidden_states: Tensor, **_: object) -> tuple[Tensor]:
        return (torch.zeros_like(hidden_states),)

    monkeypatch.setattr(pipeline.vae, "decode", stop)
    monkeypatch.setattr(pipeline_denoiser(pipeline), "forward", still)


@pytest.mark.parametrize("name", [name for name in ("svd", *CASES) if name not in ANIMATED])
@torch.no_grad()
def test_the_pipeline_would_decode_what_the_vae_encoded(
    name: str, case: Case, pipeline: DiffusionPipeline, conditioning: Conditioning, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = case.clip()
    latents = conditioning.encode_clip(pipeline, clip, SETTINGS)["latents"]
    images = [Image.fromarray(frame) for frame in clip.frames]
    processor = getattr(pipeline, "video_processor", None)
    if processor is None:
        pixels = torch.stack([torch.tensor(np.asarray(image)) for image in images]).permute(0, 3, 1, 2) / 255 * 2 - 1
    else:
        pixels = processor.preprocess(images)
    frame_vae = name in ("svd", "t2v-turbo-v2", "videocrafter2", "animatediff")
    means = pipeline.vae.encode(pixels if frame_vae else pixels.transpose(0, 1)[None]).latent_dist.mode()
    means = means if frame_vae else means[0].transpose(0, 1)
    stop_before_the_vae(pipeline, monkeypatch)
    with pytest.raises(DecodedError) as caught:
        decode(pipeline, case, latents)
    decoded: Tensor = caught.value.args[0]
    torch.testing.assert_close(decoded if frame_vae else decoded[0].transpose(0, 1), means, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(latents, means, atol=1e-3)


@every_case
def test_a_clips_tensors_do_not_depend_on_the_clips_before_it(
    name: str, case: Case, pipeline: DiffusionPipeline, conditioning: Conditioning
) -> None:
    def encode(clip: TrainingClip) -> dict[str, Tensor]:
        return conditioning.encode_clip(pipeline, clip, SETTINGS)

    alone = encode(case.clip(1))
    encode(case.clip(2, prompt="a cat"))
    again = encode(replace(case.clip(1), name="other"))
    assert alone.keys() == again.keys()
    assert all(torch.equal(alone[key], again[key]) for key in alone)
    other = encode(replace(case.clip(2, prompt="a cat sleeps"), seed=1))
    changed = {key for key in alone if not torch.equal(alone[key], other[key])}
    expected = {"svd": {"condition", "embeddings"}, **{key: {"context"} for key in CONTEXTS}}
    assert changed == {"latents"} | expected.get(name, changed - {"latents"})
    assert len(changed) > 1


@pytest.mark.parametrize("case", [CASES["t2v-turbo-v2"]])
def test_frames_may_be_read_only_or_mirrored(case: Case, pipeline: DiffusionPipeline) -> None:
    clip = case.clip()
    mirrored = clip.frames.copy()[:, :, ::-1]
    clip.frames.flags.writeable = False
    encode = conditioning_of(pipeline.unet).encode_clip
    one = encode(pipeline, replace(clip, frames=clip.frames[:, :, ::-1].copy()), SETTINGS)
    assert torch.equal(encode(pipeline, replace(clip, frames=mirrored), SETTINGS)["latents"], one["latents"])
    assert not torch.equal(encode(pipeline, clip, SETTINGS)["latents"], one["latents"])


def test_svds_noise_belongs_to_the_clips_seed(tiny_pipeline: StableVideoDiffusionPipeline) -> None:
    conditioning = conditioning_of(tiny_pipeline.unet)
    clip = Case(DiffusionPipeline, 2, 32, 32, {}).clip()
    one, other = (conditioning.encode_clip(tiny_pipeline, replace(clip, seed=seed), SETTINGS) for seed in (0, 1))
    assert {key for key in one if not torch.equal(one[key], other[key])} == {"condition"}
    still = replace(SETTINGS, noise_strength=0.0)
    one, other = (conditioning.encode_clip(tiny_pipeline, replace(clip, seed=seed), still) for seed in (0, 1))
    assert torch.equal(one["condition"], other["condition"])
    torch.testing.assert_close(one["condition"] * 0.18215, one["latents"][0])


@pytest.mark.parametrize("name", ["svd", "t2v-turbo-v2"])
def test_float16_is_lifted_where_the_vae_would_overflow(
    name: str, case: Case, pipeline: DiffusionPipeline, conditioning: Conditioning
) -> None:
    pipeline.to(torch.float16)
    # Beyond what float16 holds within the VAE, not after it.
    first, last = pipeline.vae.encoder.conv_in, pipeline.vae.encoder.conv_norm_out
    first.weight.data.fill_(6e4)
    last.weight.data.zero_()
    latents = conditioning.encode_clip(pipeline, case.clip(), SETTINGS)["latents"]
    assert latents.isfinite().all()
    assert pipeline.vae.dtype == torch.float16
    pipeline.vae.register_to_config(force_upcast=False)
    assert not conditioning.encode_clip(pipeline, case.clip(), SETTINGS)["latents"].isfinite().all()


@pytest.mark.parametrize(
    ("name", "frames", "advice"),
    [
        ("hunyuanvideo", 8, 9),
        ("hunyuanvideo", 2, 1),
        ("wan", 10, 9),
        ("cogvideox-5b", 12, 9),
        ("mochi", 11, 13),
        ("ltx", 10, 9),
    ],
)
def test_clips_of_another_length_are_refused(name: str, frames: int, advice: int, pipeline: DiffusionPipeline) -> None:
    clip = replace(CASES[name], frames=frames).clip()
    with pytest.raises(ValueError, match=rf"'clip0': {frames} frames, .*: give {advice} frames"):
        conditioning_of(pipeline.transformer).encode_clip(pipeline, clip, SETTINGS)


@every_case
def test_clips_that_do_not_divide_are_refused(
    name: str, case: Case, pipeline: DiffusionPipeline, conditioning: Conditioning
) -> None:
    clip = replace(case, width=case.width - 3).clip()
    with pytest.raises(ValueError, match=rf"'clip0': {case.height}x{case.width - 3} pixels do not divide by"):
        conditioning.encode_clip(pipeline, clip, SETTINGS)


@pytest.mark.parametrize("case", [CASES["cogvideox-5b"]])
def test_cogvideox_of_version_1_5_is_refused(case: Case, pipeline: DiffusionPipeline) -> None:
    pipeline.transformer.register_to_config(patch_size_t=2)
    with pytest.raises(ModelLoadError, match=r"CogVideoX 1\.5, .*: give CogVideoX 2B or 5B"):
        conditioning_of(pipeline.transformer).encode_clip(pipeline, case.clip(), SETTINGS)


@pytest.mark.parametrize("case", [CASES["ltx"]])
def test_ltx_with_other_places_is_refused(case: Case, pipeline: DiffusionPipeline) -> None:
    other = LTXConditionPipeline(**pipeline.components)
    with pytest.raises(ModelLoadError, match=r"LTXConditionPipeline, .*, is not yet distilled: give an LTXPipeline"):
        conditioning_of(other.transformer).encode_clip(other, case.clip(), SETTINGS)


def test_every_family_with_a_module_is_found_and_the_others_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, module in CONDITIONING.items():
        assert name in FAMILIES
        assert importlib.import_module(f"vdmini.conditioning.{module}").CONDITIONING.family.name == name
    for name, tiny in TINY.items():
        if tiny.family in CONDITIONING:
            assert conditioning_of(TINY[name].build_denoiser()).family.name == tiny.family
    monkeypatch.delitem(CONDITIONING, "animatediff")
    with pytest.raises(ModelLoadError, match=r"'animatediff' can be pruned .*, not yet distilled: .*svd, videocraft"):
        conditioning_of(animatediff_unet())
    with pytest.raises(ModelLoadError, match="no family knows Linear"):
        conditioning_of(nn.Linear(1, 1))
