"""SVD's UNet as one file with diffusers' names: how AnimateLCM-SVD and other fine-tunes of SVD are published."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers.models.unets.unet_spatio_temporal_condition import UNetSpatioTemporalConditionModel
from torch import nn

from vdmini.errors import ModelLoadError
from vdmini.models.weights import names_that_do_not_fit, read_weights


def load_unet(path: str | Path, config: Mapping[str, Any]) -> nn.Module:
    """The UNet of a file, in the file's dtype; `config` holds the constructor's arguments.

    Its authors load AnimateLCM-SVD-xt.safetensors strictly into the UNet of SVD-XT (github.com/G-U-N/AnimateLCM,
    animatelcm_svd/app.py). Raises ModelLoadError for a file that is not that whole UNet.
    """
    weights = read_weights(path)
    with torch.device("meta"):
        unet: nn.Module = UNetSpatioTemporalConditionModel(**config)
    shapes = {name: weight.shape for name, weight in unet.state_dict().items()}
    if wrong := names_that_do_not_fit(shapes, {name: weight.shape for name, weight in weights.items()}):
        raise ModelLoadError(
            f"{str(path)!r} is not the UNet of SVD with diffusers' names: {wrong}: check the file, or give its"
            " diffusers version"
        )
    unet.load_state_dict(weights, assign=True)
    return unet
