"""Sample clips from a video pipeline, one generator for each clip's seed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from vdmini.finite import NotFiniteError, is_finite
from vdmini.requests import ClipRequest, SampleSettings

if TYPE_CHECKING:
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


def draw(
    pipeline: DiffusionPipeline,
    requests: Sequence[ClipRequest],
    settings: SampleSettings,
    options: Mapping[str, object],
) -> NDArray[np.float32]:
    """What a diffusers pipeline makes of requests: B T H W C float32 RGB in [0, 1]; `options` are more arguments."""
    run: Any = pipeline
    return np.asarray(
        run(
            height=settings.height,
            width=settings.width,
            num_frames=settings.frames,
            num_inference_steps=settings.steps,
            generator=[request.generator() for request in requests],
            **options,
        ).frames
    )


def draw_prompts(
    pipeline: DiffusionPipeline,
    requests: Sequence[ClipRequest],
    settings: SampleSettings,
    options: Mapping[str, object],
) -> NDArray[np.float32]:
    """What a pipeline makes of each request's prompt, by its own guidance where the settings have none."""
    guidance = {} if settings.guidance is None else {"guidance_scale": settings.guidance}
    prompts = [request.text() for request in requests]
    return draw(pipeline, requests, settings, {"prompt": prompts, **guidance, **options})


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
