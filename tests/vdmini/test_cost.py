"""Published sizes are reproduced from the architecture alone."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from torch import nn

from vdmini.cost import count_flops, count_parameters, flops_by_block
from vdmini.models.registry import VideoModel

# Millions of weights and TFLOP of each stage of SVD's UNet at 14x72x128 latents.
SVD_STAGES = {
    "D.0": (22.02, 7.04),
    "D.1": (77.83, 4.26),
    "D.2": (294.10, 3.92),
    "D.3": (85.23, 0.32),
    "Mid": (185.57, 0.65),
    "U.0": (196.68, 0.93),
    "U.1": (489.50, 7.64),
    "U.2": (132.93, 8.41),
    "U.3": (36.05, 11.61),
}


def test_svd_costs_what_is_published(official: VideoModel) -> None:
    assert f"{official.blocks.params / 1e6:.3f}" == "1524.623"
    assert f"{official.blocks.flops / 1e12:.2f}" == "44.80"
    assert str(official.blocks.input) == "batch 1, 14 frames, 72x128 latents"


@pytest.mark.parametrize("stage", SVD_STAGES)
def test_every_stage_costs_what_is_published(official: VideoModel, stage: str) -> None:
    blocks = official.blocks.stage(stage)
    params, tera_flops = SVD_STAGES[stage]
    assert sum(block.params for block in blocks) / 1e6 == pytest.approx(params, abs=0.006)
    assert sum(block.flops for block in blocks) / 1e12 == pytest.approx(tera_flops, abs=0.006)


def test_blocks_hold_all_weights_and_flops(official: VideoModel) -> None:
    assert official.blocks.params == count_parameters(official.denoiser)
    inputs = {
        "sample": torch.empty(1, 14, 8, 72, 128, device="meta"),
        "timestep": torch.empty(1, device="meta"),
        "encoder_hidden_states": torch.empty(1, 1, 1024, device="meta"),
        "added_time_ids": torch.empty(1, 3, device="meta"),
    }
    assert official.blocks.flops == count_flops(official.denoiser, inputs)


def test_vae_decoder_costs_what_is_published(official: VideoModel) -> None:
    assert official.vae is not None
    decoder = official.vae.get_submodule("decoder")
    inputs = {
        "sample": torch.empty(14, 4, 72, 128),
        "image_only_indicator": torch.empty(1, 14),
        "num_frames": 14,
    }
    assert f"{count_parameters(decoder) / 1e6:.3f}" == "63.579"
    assert f"{count_flops(decoder, inputs) / 1e12:.1f}" == "97.2"


class _Attention(nn.Module):
    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return nn.functional.scaled_dot_product_attention(tokens, tokens, tokens)


def test_products_are_counted_by_hand() -> None:
    assert count_flops(nn.Linear(3, 5), {"input": torch.empty(7, 3)}) == 2 * 7 * 3 * 5
    assert count_flops(nn.Conv2d(3, 5, 3, padding=1), {"input": torch.empty(2, 3, 4, 4)}) == 2 * 2 * 16 * 5 * 3 * 9
    # Two products of 16x16x8 for each of 2 x 4 heads.
    assert count_flops(_Attention(), {"tokens": torch.empty(2, 4, 16, 8)}) == 2 * 2 * 8 * 16 * 16 * 8


def test_counting_leaves_the_module_alone() -> None:
    module = nn.Linear(3, 5).eval()
    before = module.weight.clone()
    count_flops(module, {"input": torch.empty(7, 3)})
    assert torch.equal(module.weight, before)
    assert not module._forward_hooks


def test_flops_outside_all_blocks_are_an_error() -> None:
    module = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 2))
    with pytest.raises(ValueError, match="belong to no block"):
        flops_by_block(module, {"input": torch.empty(7, 3)}, lambda whole: {"first": [next(whole.children())]})


class _Block(nn.Module):
    """Attends in windows, whose size is a setting, and says that it ran."""

    ran: ClassVar[list[int]] = []

    def __init__(self, width: int, window: int) -> None:
        super().__init__()
        self.linear, self.window = nn.Linear(width, width), window

    def forward(self, tokens: torch.Tensor, **options: object) -> dict[str, torch.Tensor]:
        self.ran.append(self.window)
        windows = self.linear(tokens).unflatten(-2, (-1, self.window))
        return {"tokens": _Attention()(windows).flatten(-3, -2)}


class _Chain(nn.Module):
    def __init__(self, blocks: list[_Block], options: object = None) -> None:
        super().__init__()
        self.blocks, self.options = nn.ModuleList(blocks), options

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        for place, block in enumerate(self.blocks):
            # The last is given half of the tokens.
            tokens = block(tokens[:, : 16 if place == len(self.blocks) - 1 else 32], options=self.options)["tokens"]
        return tokens


def _by_place(chain: _Chain) -> dict[str, int]:
    _Block.ran.clear()
    named = {"tokens": torch.empty(2, 32, 8)}
    return flops_by_block(chain, named, lambda whole: {str(place): [each] for place, each in enumerate(whole.blocks)})


def test_of_blocks_that_are_alike_one_runs_and_all_count() -> None:
    chain = _Chain([_Block(8, 4), _Block(8, 4), _Block(8, 8), _Block(8, 4), _Block(8, 4)])
    found = _by_place(chain)
    # Another window, or fewer tokens, is another block.
    assert _Block.ran == [4, 8, 4]
    linear = 2 * 2 * 32 * 8 * 8
    narrow, wide = (linear + 2 * 2 * 2 * (32 // window) * window * window * 8 for window in (4, 8))
    assert found == {"0": narrow, "1": narrow, "2": wide, "3": narrow, "4": narrow // 2}
    assert sum(found.values()) == count_flops(chain, {"tokens": torch.empty(2, 32, 8)})
    # What a block is given and nobody can compare may decide what it does: each runs.
    _by_place(_Chain([_Block(8, 4), _Block(8, 4)], options=object()))
    assert _Block.ran == [4, 4]
