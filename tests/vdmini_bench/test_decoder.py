"""A smaller decoder made in a folder: what lies there, and that a broken attempt ends as an unbroken one."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from pydantic import ValidationError

import vdmini
from vdmini.conditioning.base import TrainingClip
from vdmini.decoder_finetuning import FinetuneSettings
from vdmini_bench.config.decoder import DecoderSpec, FinetuneSpec
from vdmini_bench.distill.decoder import make_decoder


@dataclass
class Noise:
    """Clips of noise; reading one more than `readable` is an interrupt."""

    readable: int = 1000
    names: tuple[str, ...] = ("a", "b")

    def clip(self, index: int) -> TrainingClip:
        self.readable -= 1
        if self.readable < 0:
            raise KeyboardInterrupt
        frames = np.random.default_rng(index).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
        return TrainingClip(self.names[index], frames)


SPECIFICATION = DecoderSpec(
    widths=[16, 8], finetune=FinetuneSpec(steps=3, batch_size=1, frames=2, discriminator_start=1, checkpoint_every=1)
)


def teacher() -> Any:
    torch.manual_seed(0)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(16, 16),
        norm_num_groups=8,
    ).eval()


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_decoder_lies_there_with_what_it_took(tmp_path: Path) -> None:
    vae = teacher().to(torch.bfloat16)
    make_decoder(tmp_path, vae, Noise(), SPECIFICATION)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["perceptual"] == "efficientnet-lite0-imagenet-1"
    assert 0 < summary["flops_share"] < 1
    assert summary["steps"] == 3
    assert summary["seconds"] > 0
    found = vdmini.VDMiniAutoencoderKL.from_pretrained(tmp_path / "vae", torch_dtype=torch.bfloat16)  # type: ignore[attr-defined]
    assert summary["parameters"] == sum(weight.numel() for weight in found.decoder.parameters())
    assert found.config.decoder_block_out_channels == [16, 8]
    with (tmp_path / "losses.csv").open(newline="") as file:
        rows = [*csv.DictReader(file)]
    assert [row["step"] for row in rows] == ["1", "2", "3"]
    assert [float(row["discriminator"]) > 0 for row in rows] == [False, True, True]
    assert not (tmp_path / "checkpoint.pt").exists()


def test_a_broken_attempt_ends_as_an_unbroken_one(tmp_path: Path) -> None:
    make_decoder(tmp_path / "whole", teacher(), Noise(), SPECIFICATION)
    with pytest.raises(KeyboardInterrupt):
        # One clip is read for its size.
        make_decoder(tmp_path / "broken", teacher(), Noise(readable=3), SPECIFICATION)
    assert not (tmp_path / "broken" / "vae").exists()
    make_decoder(tmp_path / "broken", teacher(), Noise(readable=2), SPECIFICATION)
    whole, broken = files(tmp_path / "whole"), files(tmp_path / "broken")
    for name in ("diffusion_pytorch_model.safetensors", "config.json", "losses.csv"):
        assert whole[name] == broken[name], name


def test_without_fine_tuning_it_is_the_pruned_one(tmp_path: Path) -> None:
    make_decoder(tmp_path, teacher(), Noise(), DecoderSpec(layers=[2, 1], mid_block=True))
    found = vdmini.VDMiniAutoencoderKL.from_pretrained(tmp_path / "vae")  # type: ignore[attr-defined]
    weights = teacher().state_dict()
    assert all(torch.equal(weight, weights[name]) for name, weight in found.state_dict().items())
    assert not (tmp_path / "losses.csv").exists()


def test_what_files_say() -> None:
    assert DecoderSpec.model_validate({"parameters": 39.17e6}).parameters == 39_170_000
    assert {*FinetuneSpec.model_fields} == {*FinetuneSettings.__dataclass_fields__}
    with pytest.raises(ValidationError, match="give one of both"):
        DecoderSpec.model_validate({"parameters": 1000, "widths": [32]})
