"""SVD's UNet as one file with diffusers' names: how AnimateLCM-SVD and other fine-tunes of SVD are published."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers.models.unets.unet_spatio_temporal_condition import UNetSpatioTemporalConditionModel
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from vdmini.models import ModelLoadError


def load_unet(path: str | Path, config: Mapping[str, Any]) -> nn.Module:
    """The UNet of a .safetensors file, in the file's dtype; `config` holds the constructor's arguments.

    Its authors load AnimateLCM-SVD-xt.safetensors strictly into the UNet of SVD-XT (github.com/G-U-N/AnimateLCM,
    animatelcm_svd/app.py). Raises ModelLoadError for a file that is not safetensors or not that whole UNet.
    """
    try:
        weights = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelLoadError(
            f"{str(path)!r} cannot be read ({error}): give its diffusers version, or a .safetensors file of the UNet"
        ) from error
    with torch.device("meta"):
        unet: nn.Module = UNetSpatioTemporalConditionModel(**config)
    shapes = {name: weight.shape for name, weight in unet.state_dict().items()}
    found = {name: weight.shape for name, weight in weights.items()}
    wrong = sorted(name for name in {*shapes, *found} if shapes.get(name) != found.get(name))
    if wrong:
        raise ModelLoadError(
            f"{str(path)!r} is not the UNet of SVD with diffusers' names: {len(wrong)} weights are missing, unknown or"
            f" of another shape, {wrong[0]} first: check the file, or give its diffusers version"
        )
    unet.load_state_dict(weights, assign=True)
    return unet
