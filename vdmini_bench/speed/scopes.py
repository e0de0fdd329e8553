"""What is timed of a model: one denoiser pass, the VAE decode, a whole clip, and the phases inside it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import wraps
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from vdmini.blocks import ModelInput
from vdmini.cost import count_flops, is_shape
from vdmini.models.registry import DENOISERS, VideoModel, family_named, family_of, published_name
from vdmini.requests import ClipRequest, SampleSettings
from vdmini.sample import sample_video, to_pixels
from vdmini_bench.errors import SuiteError

if TYPE_CHECKING:
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline

ENCODERS = ("text_encoder", "text_encoder_2", "image_encoder")
# Inside a clip, in their order.
PHASES = ("encoders", "vae_encode", "steps")


@dataclass(frozen=True)
class ClipSize:
    """A clip in pixels, and the steps it is sampled in."""

    frames: int
    height: int
    width: int
    steps: int

    def __str__(self) -> str:
        return f"{self.frames}x{self.height}x{self.width}"


def compression(model: VideoModel) -> tuple[int, int]:
    """How many frames, and how many pixels along a side, one latent of a model stands for, as its VAE says.

    A denoiser without a VAE has that of its family's first published model.
    """
    family, vae = family_named(model.family), model.vae
    if vae is None:
        with torch.device("meta"):
            _, vae = family.build_official(published_name(model.family))
    return family.latent_compression(vae)


def default_size(model: VideoModel, steps: int) -> ClipSize:
    """The clip of a family's default input, in pixels."""
    family = family_of(model.denoiser)
    latents = family.default_input(model.denoiser)
    stride, pixels = compression(model)
    frames = family.clip_frames(model.denoiser, latents.frames, stride)
    return ClipSize(frames, latents.height * pixels, latents.width * pixels, steps)


def latent_size(model: VideoModel, size: ClipSize) -> ModelInput:
    """The latents of a clip.

    Raises:
        SuiteError: the model cannot make a clip of that size.
    """
    stride, pixels = compression(model)
    if size.height % pixels or size.width % pixels:
        raise SuiteError(f"{size.height}x{size.width} pixels do not divide by {pixels}: give a size that does")
    try:
        frames = family_named(model.family).latent_frames(model.denoiser, size.frames, stride)
    except ValueError as error:
        raise SuiteError(str(error)) from error
    return ModelInput(1, frames, size.height // pixels, size.width // pixels)


def denoiser_inputs(denoiser: nn.Module, latents: ModelInput, device: torch.device) -> dict[str, Any]:
    """Keyword arguments of one pass over one clip without guidance: seeded random values in the denoiser's dtype."""
    dtype: Any = next(denoiser.parameters()).dtype
    generator = torch.Generator().manual_seed(0)
    values: dict[str, Any] = {}
    for name, shape in family_of(denoiser).example_inputs(denoiser, latents).items():
        if not is_shape(shape):
            values[name] = shape
        elif name == "timestep":
            values[name] = torch.full(shape.shape, 500.0, device=device, dtype=dtype)
        elif "attention_mask" in name:
            values[name] = torch.ones(shape.shape, dtype=torch.bool, device=device)
        else:
            values[name] = torch.randn(shape.shape, generator=generator).to(device, dtype)
    return values


def denoiser_call(model: VideoModel, size: ClipSize, device: torch.device) -> Callable[[], object]:
    """One denoiser pass over one clip without guidance."""
    inputs = denoiser_inputs(model.denoiser, latent_size(model, size), device)
    return lambda: model.denoiser(**inputs)


class Decoding(nn.Module):
    """A VAE's decoder as a module: `forward(latents)` decodes one clip as the family's pipeline does."""

    def __init__(self, vae: nn.Module, frames: int) -> None:
        super().__init__()
        self.vae, self.frames = vae, frames

    def forward(self, latents: Tensor) -> Tensor:
        """Pixels of latents T C H W for a VAE of frames, 1 C T H W for one of clips."""
        vae: Any = self.vae
        more: dict[str, Any] = {}
        if type(vae).__name__.endswith("TemporalDecoder"):
            more["num_frames"] = self.frames
        if vae.config.get("timestep_conditioning"):
            # Later LTX's, which remove the rest of the noise too: from 0 on by default.
            more["temb"] = latents.new_zeros(len(latents))
        pixels: Tensor = vae.decode(latents, **more).sample
        return pixels


class Encoding(nn.Module):
    """A VAE's encoder as a module: `forward(pixels)` encodes one clip as its family's conditions are made."""

    def __init__(self, vae: nn.Module) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, pixels: Tensor) -> Tensor:
        """Latents of pixels T C H W for a VAE of frames, 1 C T H W for one of clips."""
        vae: Any = self.vae
        latents: Tensor = vae.encode(pixels).latent_dist.mode()
        return latents


def encode_pixels(model: VideoModel, size: ClipSize) -> Tensor:
    """A clip as the VAE encodes it, on the meta device."""
    frames, height, width = size.frames, size.height, size.width
    shape = (frames, 3, height, width) if _takes_frames(model.vae) else (1, 3, frames, height, width)
    return torch.empty(shape, device="meta")


def decode_latents(model: VideoModel, size: ClipSize) -> Tensor:
    """Latents as the VAE decodes them, on the meta device."""
    latents = latent_size(model, size)
    config: Any = model.vae.config if model.vae is not None else None
    channels = config.get("latent_channels") or config.get("z_dim")
    if _takes_frames(model.vae):
        return torch.empty(latents.frames, channels, latents.height, latents.width, device="meta")
    return torch.empty(1, channels, latents.frames, latents.height, latents.width, device="meta")


def _takes_frames(vae: Any) -> bool:
    """Whether a VAE's batch is one of frames; one of clips may keep every frame too."""
    # Allegro's convolves frames first, and joins them after.
    joins = vae.config.get("temporal_compression_ratio") or 1
    return joins == 1 and isinstance(getattr(vae.encoder, "conv_in", None), nn.Conv2d)


def decode_call(model: VideoModel, size: ClipSize, device: torch.device) -> Callable[[], object]:
    """The VAE decode of one clip."""
    assert model.vae is not None
    dtype: Any = next(model.vae.parameters()).dtype
    shape = decode_latents(model, size).shape
    latents = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device, dtype)
    decoding = Decoding(model.vae, size.frames)
    return lambda: decoding(latents)


def decode_flops(model: VideoModel, size: ClipSize) -> int:
    """FLOPs of the VAE decode of one clip."""
    assert model.vae is not None
    return count_flops(Decoding(model.vae, size.frames), {"latents": decode_latents(model, size)})


def clip_call(pipeline: DiffusionPipeline, family: str, size: ClipSize, guidance: float | None) -> Callable[[], object]:
    """One whole clip, from a prompt, and a grey image where one is needed, to uint8 pixels in memory."""
    grey = np.full((size.height, size.width, 3), 127, dtype=np.uint8)
    takes = family_named(family).images_for(pipeline)
    prompt = "a red fox runs through fresh snow"
    request = ClipRequest("timed", 0, image=grey if takes == "always" else None, prompt=prompt)
    strongest = 1.0 if guidance is None else guidance
    settings = SampleSettings(
        size.steps, size.frames, size.height, size.width, guidance=guidance, max_guidance=strongest
    )
    # Random weights may make clips of no numbers at all, which take no less time.
    return lambda: to_pixels(sample_video(pipeline, [request], settings))


@dataclass
class PhaseClock:
    """Times phases inside a call without waiting for the device: by CUDA events, or a monotonic clock."""

    device: torch.device
    marks: dict[str, list[tuple[Any, Any]]] = field(default_factory=dict)

    def mark(self) -> Any:
        """A point in time, on the device's own clock."""
        if self.device.type != "cuda":
            return time.perf_counter_ns()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self.device))
        return event

    def add(self, phase: str, start: Any, end: Any) -> None:
        """Note one occurrence of a phase."""
        self.marks.setdefault(phase, []).append((start, end))

    def listen(self, module: nn.Module, phase: str) -> list[RemovableHandle]:
        """Note every pass of a module as an occurrence of a phase, until the handles are removed."""
        started: list[Any] = []

        def leave(*_: Any) -> None:
            self.add(phase, started.pop(), self.mark())

        return [
            module.register_forward_pre_hook(lambda *_: started.append(self.mark())),
            module.register_forward_hook(leave),
        ]

    def take(self) -> dict[str, float]:
        """Milliseconds of each phase, all its occurrences together, and forget them; waits for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        found = {name: sum(self.between(*pair) for pair in pairs) for name, pairs in self.marks.items()}
        self.marks = {}
        return found

    def between(self, start: Any, end: Any) -> float:
        """Milliseconds between two marks."""
        return float(start.elapsed_time(end)) if self.device.type == "cuda" else (end - start) / 1e6


@contextmanager
def phases(pipeline: DiffusionPipeline, clock: PhaseClock) -> Iterator[list[int]]:
    """While active, a clip of the pipeline notes `PHASES` in the clock; the value gets each pass's batch size.

    `encoders` are those of texts and images, `vae_encode` the VAE's, `steps` lasts from the start of the first denoiser
    pass to the end of the last scheduler step.
    """
    run: Any = pipeline
    handles, begun, batches = [], list[Any](), list[int]()

    def enter(_: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        begun.append(clock.mark())
        batches.append(len(next(each for each in (*given, *named.values()) if isinstance(each, Tensor))))

    for name in ENCODERS:
        if isinstance(encoder := getattr(run, name, None), nn.Module):
            handles += clock.listen(encoder, "encoders")
    for name in DENOISERS:
        if isinstance(denoiser := getattr(run, name, None), nn.Module):
            handles.append(denoiser.register_forward_pre_hook(enter, with_kwargs=True))
    encode, step = run.vae.encode, run.scheduler.step

    # Pipelines look at the signatures to learn what they may pass.
    @wraps(encode)
    def timed_encode(*given: Any, **named: Any) -> Any:
        start = clock.mark()
        result = encode(*given, **named)
        clock.add("vae_encode", start, clock.mark())
        return result

    @wraps(step)
    def noted_step(*given: Any, **named: Any) -> Any:
        result = step(*given, **named)
        # Each step replaces what the one before it noted: the phase grows to the last.
        clock.marks["steps"] = [(begun[0], clock.mark())]
        return result

    run.vae.encode, run.scheduler.step = timed_encode, noted_step
    try:
        yield batches
    finally:
        for handle in handles:
            handle.remove()
        del run.vae.encode, run.scheduler.step


class TimedClip:
    """A clip's call that also keeps how long its phases took, a value a call.

    `passes` is how often the denoiser ran in the last call, one for each clip of its batch: guidance doubles it.
    """

    def __init__(self, pipeline: DiffusionPipeline, call: Callable[[], object], device: torch.device) -> None:
        self._pipeline, self._call, self._clock = pipeline, call, PhaseClock(device)
        self.samples: dict[str, list[float]] = {}
        self.passes = 0

    def __call__(self) -> None:
        """Make the clip."""
        with phases(self._pipeline, self._clock) as batches:
            self._call()
        self.passes = sum(batches)
        for name, milliseconds in self._clock.take().items():
            self.samples.setdefault(name, []).append(milliseconds)
