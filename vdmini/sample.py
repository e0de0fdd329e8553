"""Sample clips from a video pipeline, one generator for each clip's seed."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import wraps
from pathlib import Path
from types import MethodType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from vdmini.blocks import ModelInput
from vdmini.finite import NotFiniteError, is_finite
from vdmini.requests import ClipRequest, SampleSettings

if TYPE_CHECKING:
    import torch
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline


def require_sides(settings: SampleSettings, multiple: int) -> None:
    """Raise ValueError, with the nearest size that works, unless height and width divide by `multiple`."""
    sides = settings.height, settings.width
    if min(sides) < 1 or any(side % multiple for side in sides):
        nearest = "x".join(str(max(1, round(side / multiple)) * multiple) for side in sides)
        raise ValueError(
            f"this model makes sides that divide by {multiple}, not {settings.height}x{settings.width} pixels: ask for"
            f" {nearest}"
        )


def require_clip(settings: SampleSettings, grid: Sequence[tuple[int, int]]) -> None:
    """Raise ValueError, with the nearest that works, unless frames, height and width are each in `grid`.

    That has the least number of each and the step to the next, which is 0 where there is one number only.
    """
    wanted = settings.frames, settings.height, settings.width
    frames, height, width = (
        first + max(0, round((size - first) / max(step, 1))) * step
        for size, (first, step) in zip(wanted, grid, strict=True)
    )
    length, rows, columns = (f"{first} + {step}k" for first, step in grid)
    if (height, width) != wanted[1:]:
        raise ValueError(
            f"this model makes {rows} rows of {columns} pixels, not {settings.height}x{settings.width} pixels: ask for"
            f" {height}x{width}"
        )
    if frames != settings.frames:
        raise ValueError(f"this model makes {length} frames, not {settings.frames}: ask for {frames} frames")


# What pipelines call the number of frames, the scale of a second guidance, and the rate that a denoiser is told.
FRAMES = ("num_frames", "video_length", "frames")
SECOND_GUIDANCE = ("guidance_scale_2", "true_cfg_scale", "audio_guidance_scale")
RATES = ("frame_rate", "fps")
# The option of a scheduler that says how far noise levels are shifted.
SHIFTS = ("flow_shift", "shift")


def draw(
    pipeline: DiffusionPipeline,
    requests: Sequence[ClipRequest],
    settings: SampleSettings,
    options: Mapping[str, object],
    alone: bool = False,
) -> NDArray[np.float32]:
    """What a diffusers pipeline makes of requests: B T H W C float32 RGB in [0, 1]; `options` are more arguments.

    `alone` gives it one request in no list, which some pipelines do not take. Raises ValueError for a setting that the
    pipeline does not have.
    """
    from vdmini.models.registry import pipeline_denoiser

    run: Any = pipeline
    sizes = {"height": settings.height, "width": settings.width}
    generators = [request.generator() for request in requests]
    if settings.latents is not None:
        start = read_latents(settings.latents, pipeline_denoiser(pipeline), run.vae, settings)
        repeats = (len(requests), *[1] * (start.ndim - 1))
        options = {**options, _argument(pipeline, ("latents",)): start.repeat(repeats)}
    with scheduled(pipeline, settings, generators), guided(pipeline, settings):
        return np.asarray(
            run(
                **{_argument(pipeline, FRAMES): settings.frames},
                **{name: side for name, side in sizes.items() if name in _arguments(pipeline)},
                num_inference_steps=settings.steps,
                generator=generators[0] if alone else generators,
                **options,
            ).frames
        )


def draw_prompts(
    pipeline: DiffusionPipeline,
    requests: Sequence[ClipRequest],
    settings: SampleSettings,
    options: Mapping[str, object],
    alone: bool = False,
) -> NDArray[np.float32]:
    """What a pipeline makes of each request's prompt, by its own guidance where the settings have none."""
    texts = [request.text() for request in requests]
    chosen: dict[str, object] = {"prompt": texts[0] if alone else texts}
    if settings.negative_prompt is not None:
        undesired = settings.negative_prompt
        chosen[_argument(pipeline, ("negative_prompt",))] = undesired if alone else [undesired] * len(requests)
    guidance = None if hasattr(pipeline, "guider") else settings.guidance
    for value, names in ((guidance, ("guidance_scale",)), (settings.second_guidance, SECOND_GUIDANCE)):
        if value is not None:
            chosen[_argument(pipeline, names)] = value
    rate = {name: settings.frames_per_second for name in RATES if name in _arguments(pipeline)}
    return draw(pipeline, requests, settings, {**chosen, **rate, **options}, alone)


def read_latents(file: str, denoiser: nn.Module, vae: nn.Module, settings: SampleSettings) -> Tensor:
    """The latents in a file, in the number format that they have there, which a clip of these settings can start from.

    Raises ModelLoadError for a file that cannot be read, and ValueError for one that holds anything but one finite
    tensor of the shape that the denoiser takes.
    """
    from vdmini.models.registry import family_of
    from vdmini.models.weights import read_content

    family = family_of(denoiser)
    stride, pixels = family.latent_compression(vae)
    frames = family.latent_frames(denoiser, settings.frames, stride)
    size = ModelInput(1, frames, settings.height // pixels, settings.width // pixels)
    shape = next(iter(family.input_shapes(denoiser, size).values()))
    latents = read_content(Path(file))
    found = tuple(latents.shape) if isinstance(latents, Tensor) else type(latents).__name__
    if not isinstance(latents, Tensor) or found != shape or not is_finite(latents):
        raise ValueError(f"{file} holds {found}, where a clip of this model starts from {shape}, all finite")
    return latents


def _arguments(pipeline: DiffusionPipeline) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(type(pipeline).__call__).parameters


def _argument(pipeline: DiffusionPipeline, names: Sequence[str]) -> str:
    """The first of these arguments that a pipeline takes."""
    takes = _arguments(pipeline)
    for name in names:
        if name in takes:
            return name
    raise ValueError(f"a {type(pipeline).__name__} takes no {names[0]}: leave it out")


@contextmanager
def scheduled(
    pipeline: DiffusionPipeline, settings: SampleSettings, generators: Sequence[torch.Generator] = ()
) -> Iterator[None]:
    """Have a pipeline sample by the scheduler, shift, sigmas and boundary of the settings; afterwards by its own again.

    Such a scheduler draws what noise it adds from the `generators`. Raises ValueError for one that it cannot have.
    """
    import diffusers

    run: Any = pipeline
    own, boundary = run.scheduler, run.config.get("boundary_ratio")
    native: Any = type(own) if settings.scheduler is None else getattr(diffusers, settings.scheduler, None)
    if not hasattr(native, "set_timesteps"):
        raise ValueError(f"diffusers has no scheduler {settings.scheduler!r}: name one of its classes")
    if settings.boundary is not None and boundary is None:
        raise ValueError(f"a {type(pipeline).__name__} with one expert has no boundary: leave it out")
    try:
        if (settings.scheduler, settings.shift, settings.sigmas) != (None, None, None):
            run.scheduler = _like(own, native, settings.shift)
            _seed(run.scheduler, generators)
            if settings.sigmas is not None:
                _set_levels(run.scheduler, settings.sigmas, settings.steps)
        if settings.boundary is not None:
            run.register_to_config(boundary_ratio=settings.boundary)
        yield
    finally:
        run.scheduler = own
        if settings.boundary is not None:
            run.register_to_config(boundary_ratio=boundary)


@contextmanager
def guided(pipeline: DiffusionPipeline, settings: SampleSettings) -> Iterator[None]:
    """Have a pipeline that guides by a component guide by the settings, and by its own again afterwards.

    It gets a copy in any case, since a guider remembers what it did last. Raises ValueError for one that has no scale.
    """
    run: Any = pipeline
    own: Any = getattr(pipeline, "guider", None)
    if own is None:
        yield
        return
    used = copy.deepcopy(own)
    if settings.guidance is not None:
        if not hasattr(own, "guidance_scale"):
            raise ValueError(f"a {type(own).__name__} takes no guidance_scale: leave guidance out")
        used.guidance_scale = settings.guidance
    run.guider = used
    try:
        yield
    finally:
        run.guider = own


def _seed(scheduler: Any, generators: Sequence[torch.Generator]) -> None:
    """Have a scheduler draw from these generators where it draws noise: most pipelines give it none."""
    step = type(scheduler).step

    @wraps(step)
    def seeded(scheduler: Any, *arguments: Any, **options: Any) -> Any:
        return step(scheduler, *arguments, **{"generator": [*generators], **options})

    if generators and "generator" in inspect.signature(step).parameters:
        # Bound, so that a pipeline's copy of the scheduler steps by itself.
        scheduler.step = MethodType(seeded, scheduler)


def _set_levels(scheduler: Any, sigmas: Sequence[float], steps: int) -> None:
    """Have a scheduler go through these noise levels, which it shifts as its own, whatever its pipeline asks for."""
    choose = type(scheduler).set_timesteps
    if "sigmas" not in inspect.signature(choose).parameters:
        raise ValueError(f"a {type(scheduler).__name__} takes no sigmas: leave them out, or name another scheduler")
    if len(sigmas) != steps:
        raise ValueError(f"{len(sigmas)} sigmas for {steps} steps: give one for each step")

    @wraps(choose)
    def set_timesteps(
        scheduler: Any, num_inference_steps: object = None, device: object = None, **options: Any
    ) -> None:
        choose(scheduler, **{**options, "sigmas": [*sigmas], "device": device})

    scheduler.set_timesteps = MethodType(set_timesteps, scheduler)


def _like(own: Any, native: Any, shift: float | None) -> Any:
    """A scheduler of another class in the place of a pipeline's own, with its settings, on flows where it is on them.

    Raises ValueError for a shift that the class does not have.
    """
    takes, config = inspect.signature(native).parameters, own.config
    shifts = [name for name in SHIFTS if name in takes]
    if shift is not None and not shifts:
        raise ValueError(f"a {native.__name__} has no shift: leave it out, or name another scheduler")
    chosen = {key: value for key, value in config.items() if key in takes}
    matches_flows = type(own).__name__.startswith("FlowMatch") or config.get("use_flow_sigmas")
    if matches_flows and "use_flow_sigmas" in takes:
        chosen |= {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
    wanted = next((config[name] for name in SHIFTS if name in config), None) if shift is None else shift
    if shifts and wanted is not None:
        chosen[shifts[0]] = wanted
    if shift is not None and config.get("use_dynamic_shifting"):
        # Which shifts by the size of the clip instead.
        chosen["use_dynamic_shifting"] = False
    return native(**chosen)


def pipeline_of_class(pipeline: DiffusionPipeline, name: str) -> DiffusionPipeline:
    """The same networks in a pipeline of another class of diffusers; itself where it has that class."""
    import diffusers

    native = getattr(diffusers, name)
    if isinstance(pipeline, native):
        return pipeline
    wanted = inspect.signature(native).parameters
    parts = {part: value for part, value in pipeline.components.items() if part in wanted}
    settings = {key: value for key, value in pipeline.config.items() if key in wanted and key not in parts}
    made: DiffusionPipeline = native(**parts, **settings)
    made.set_progress_bar_config(disable=True)
    return made


def sample_clips(
    pipeline: DiffusionPipeline, requests: Sequence[ClipRequest], settings: SampleSettings
) -> NDArray[np.uint8]:
    """Sample one batch: B T H W C uint8 RGB, clip i from requests[i].

    All of a clip's noise comes from a CPU generator seeded with the clip's own seed, so the batch it travels in, the
    device and the order of work do not choose its noise; batch sizes differ by float rounding alone.

    Raises:
        ValueError: the model cannot make that size; one that it can make is named.
        NotFiniteError: a clip's latents or frames are not finite; the clip is named, and the denoising step.
    """
    video = sample_video(pipeline, requests, settings)
    bad = [request for request, frames in zip(requests, video, strict=True) if not np.isfinite(frames).all()]
    if bad:
        where = _first_not_finite(pipeline, bad[0], settings)
        others = f" (and those of {len(bad) - 1} more clips of its batch)" if len(bad) > 1 else ""
        raise NotFiniteError(
            f"clip {bad[0].name!r}: its {where}{others}: sample in float32, or in bfloat16 where it was float16"
        )
    return to_pixels(video)


def sample_video(
    pipeline: DiffusionPipeline, requests: Sequence[ClipRequest], settings: SampleSettings
) -> NDArray[np.float32]:
    """The same as the model gives it: B T H W C float32 RGB in [0, 1], finite or not."""
    from vdmini.models.registry import family_of, pipeline_denoiser

    pipeline.set_progress_bar_config(disable=True)
    return family_of(pipeline_denoiser(pipeline)).sample(pipeline, requests, settings)


def to_pixels(video: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Values in [0, 1] as uint8."""
    return np.rint(video * 255).clip(0, 255).astype(np.uint8)


def _first_not_finite(pipeline: DiffusionPipeline, request: ClipRequest, settings: SampleSettings) -> str:
    """Sample a clip again, alone, and watch: which of its values are the first that are not finite.

    Only a clip that went wrong is watched, so that no other waits for the device after every step.
    """
    from vdmini.models.registry import DENOISERS

    finite: list[bool] = []

    def watch(denoiser: nn.Module, inputs: object, output: Any) -> None:
        finite.append(is_finite(output[0]))

    with ExitStack() as hooks:
        for name in DENOISERS:
            denoiser = getattr(pipeline, name, None)
            if isinstance(denoiser, nn.Module):
                hooks.callback(denoiser.register_forward_hook(watch).remove)
        sample_video(pipeline, [request], settings)
    if all(finite):
        return "frames are not finite, though the latents that they are decoded from are"
    # Some pipelines call their denoiser twice a step.
    step = 1 + finite.index(False) * settings.steps // len(finite)
    return f"latents are not finite from denoising step {step} of {settings.steps} on"


def batches(requests: Sequence[ClipRequest], batch_size: int) -> Iterator[Sequence[ClipRequest]]:
    """Cut `requests` into consecutive batches of at most `batch_size`."""
    for start in range(0, len(requests), batch_size):
        yield requests[start : start + batch_size]
