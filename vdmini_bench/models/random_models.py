"""Published models at their full size with random weights, and whole pipelines around them, without a hub.

Latency does not depend on trained weights: what such a model takes is what the published one takes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin
from torch import Tensor, nn

from vdmini.errors import nearest
from vdmini.models.registry import OFFICIAL, VideoModel, family_named, is_published, published_name
from vdmini_bench.errors import SuiteError

NORM_GROUPS = 32


def build_random(
    name: str,
    *,
    device: torch.device,
    dtype: torch.dtype,
    width: int | None = None,
    seed: int = 0,
    with_pipeline: bool = True,
) -> VideoModel:
    """A published model with random weights, made on the device in the dtype, in a pipeline where one is described.

    Without a pipeline there are no encoders, which may be larger than the denoiser.
    `width` asks for the same topology at other widths: the channels of a UNet's first stage (320 as published), or the
    hidden size of a transformer. Raises SuiteError for an unknown name, or a width that the family cannot have.
    """
    from vdmini_bench.models.random_pipelines import build_pipeline

    if not is_published(name):
        raise SuiteError(
            f"{name!r} is no published model's name{nearest(name, OFFICIAL)}: random weights need one of"
            f" {', '.join(OFFICIAL)}"
        )
    published = published_name(name)
    family = family_named(OFFICIAL[published])
    with torch.device("meta"):
        denoiser, vae = family.build_official(published)
        share = 1.0
        if width is not None:
            try:
                changes = family.narrowed(denoiser, width)
            except ValueError as error:
                raise SuiteError(f"width {width}: family {family.name!r} {error}") from error
            share = width / family.width(denoiser)
            denoiser, vae = _rebuilt(denoiser, changes), _rebuilt(vae, _narrower_vae(vae, share))
    pipeline = build_pipeline(published, denoiser, vae, share) if with_pipeline else None
    parts = [denoiser, vae] if pipeline is None else [*pipeline.components.values()]
    for place, part in enumerate(each for each in parts if isinstance(each, nn.Module)):
        materialise(part, device=device, dtype=dtype, seed=seed + place)
    return VideoModel(published, family.name, denoiser, vae, pipeline)


@torch.no_grad()
def materialise(module: nn.Module, *, device: torch.device, dtype: torch.dtype, seed: int) -> nn.Module:
    """Give every weight and buffer of a module on the meta device storage and values; the module itself, ready to run.

    Floating-point weights come in `dtype`, drawn on the device with the variance that keeps activations in range;
    norms scale by 1, biases and buffers of whole numbers are 0. No value passes through another format or device.
    """
    generator = torch.Generator(device).manual_seed(seed)
    made: dict[int, Tensor] = {}
    for owner in module.modules():
        for table in (owner._parameters, owner._buffers):
            for name, meta in table.items():
                if meta is None:
                    continue
                if id(meta) not in made:
                    value = _values(name, meta, device, dtype, generator)
                    made[id(meta)] = nn.Parameter(value, False) if isinstance(meta, nn.Parameter) else value
                table[name] = made[id(meta)]  # type: ignore[assignment]
    return module.eval()


def _values(name: str, meta: Tensor, device: torch.device, dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    if not meta.is_floating_point():
        return torch.zeros(meta.shape, dtype=meta.dtype, device=device)
    if meta.ndim > 1:
        fan_in = meta.numel() // meta.shape[0]
        value = torch.empty(meta.shape, dtype=dtype, device=device)
        return value.normal_(0, 1 / math.sqrt(fan_in), generator=generator)
    return torch.full(meta.shape, 1.0 if name == "weight" else 0.0, dtype=dtype, device=device)


def _rebuilt(module: nn.Module, changes: Mapping[str, Any]) -> nn.Module:
    assert isinstance(module, ConfigMixin)
    native: Any = type(module)
    # Without diffusers' own notes, one of which makes it forget settings that had been defaults.
    settings = {name: value for name, value in module.config.items() if not name.startswith("_")}
    rebuilt: nn.Module = native.from_config({**settings, **changes})
    return rebuilt


def _narrower_vae(vae: nn.Module, share: float) -> dict[str, Any]:
    config: Any = vae.config
    if "block_out_channels" not in config:
        return {}
    channels = [max(1, round(width * share / NORM_GROUPS)) * NORM_GROUPS for width in config.block_out_channels]
    return {"block_out_channels": tuple(channels)}
