"""What a row of the leaderboard says of the model that was scored."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import pytest
from diffusers import UNetSpatioTemporalConditionModel, WanTransformer3DModel
from safetensors import safe_open
from torch import nn

from vdmini_bench.runs.rows import denoiser_parameters


def numbers_in(file: Path) -> int:
    """How many numbers a file holds, from its header."""
    with safe_open(file, "np") as opened:
        return sum(math.prod(opened.get_slice(name).get_shape()) for name in opened.keys())  # noqa: SIM118


def transformer() -> nn.Module:
    return WanTransformer3DModel(
        num_attention_heads=2, attention_head_dim=12, text_dim=8, freq_dim=16, ffn_dim=32, num_layers=2
    )


@pytest.mark.parametrize("parts", [("transformer",), ("transformer", "transformer_2")])
def test_every_denoiser_of_a_transformer_counts(parts: tuple[str, ...], tmp_path: Path) -> None:
    for part in parts:
        transformer().save_pretrained(tmp_path / part)
    weights = sum(numbers_in(file) for file in tmp_path.rglob("*.safetensors"))
    assert denoiser_parameters(tmp_path) == weights > 0
    assert denoiser_parameters(tmp_path / "transformer") == weights // len(parts)


def test_a_variant_beside_the_plain_weights_counts_once(tmp_path: Path) -> None:
    UNetSpatioTemporalConditionModel(
        block_out_channels=(32, 64),
        down_block_types=("DownBlockSpatioTemporal",) * 2,
        up_block_types=("UpBlockSpatioTemporal",) * 2,
        num_attention_heads=(1, 2),
        layers_per_block=1,
    ).save_pretrained(tmp_path / "unet")
    file = tmp_path / "unet" / "diffusion_pytorch_model.safetensors"
    weights = numbers_in(file)
    shutil.copyfile(file, file.with_name("diffusion_pytorch_model.fp16.safetensors"))
    assert denoiser_parameters(tmp_path) == weights
