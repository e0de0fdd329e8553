"""Channel-pruned students of VideoCrafter2 and T2V-Turbo-v2: what goes, what stays, and that they reload."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import forked
import pytest
import torch
from diffusers.models.attention import FeedForward
from tiny_unets import videocrafter_pipeline
from torch import Tensor, nn

from vdmini.channels import prune_channels
from vdmini.cost import count_parameters
from vdmini.errors import PlanError
from vdmini.models.loading import load_model
from vdmini.models.registry import block_graph
from vdmini.models.videocrafter import FAMILY, TURBO_CONFIG, VideoCrafterUNet
from vdmini.prune import apply_plan
from vdmini.rules import make_plan, plan_removing

pytest.importorskip("torch_pruning")

# Two channels in each normalisation group, so that half of them can go.
SIZES: dict[str, Any] = {
    **TURBO_CONFIG, "sample_size": (8, 8), "block_out_channels": (64,) * 4, "cross_attention_dim": 32,
    "attention_head_dim": 16, "num_frames": 3,
}  # fmt: skip
# Torch-Pruning's time grows with the square of the number of layers.
SHALLOW = {
    **SIZES, "block_out_channels": (64, 64), "layers_per_block": 1,
    "down_block_types": ("CrossAttnDownBlock3D", "DownBlock3D"), "up_block_types": ("UpBlock3D", "CrossAttnUpBlock3D"),
}  # fmt: skip
GUIDANCE = ("time_cond_proj", "motion_cond_proj", "combine_proj")

# As in test_channels.py: a copy lies where the weights of the student in memory do.
READER = """
import copy
import sys
import torch
import vdmini
assert "torch_pruning" not in sys.modules
inputs, expected = torch.load(sys.argv[2], weights_only=True)
student, report = vdmini.VideoCrafterUNet.from_pretrained(sys.argv[1] + "/unet", output_loading_info=True)
assert not any(report.values()), report
for network in (student, vdmini.VideoCrafterPipeline.from_pretrained(sys.argv[1]).unet):
    with torch.no_grad():
        assert torch.equal(copy.deepcopy(network)(**inputs).sample, expected)
"""


@pytest.fixture(scope="module")
def teacher() -> VideoCrafterUNet:
    """T2V-Turbo-v2's four stages with random weights; no test may change it."""
    return random_network(SIZES)


@pytest.fixture(scope="module")
def small() -> VideoCrafterUNet:
    """Two stages with random weights; no test may change it."""
    return random_network(SHALLOW)


@pytest.fixture(scope="module")
def narrow(small: VideoCrafterUNet) -> Any:
    """The small network with half of its channels."""
    return prune_channels(small, ratio=0.5, pair_gates=True)


def random_network(config: dict[str, Any]) -> VideoCrafterUNet:
    """A network none of whose layers starts as zeros, as temporal convolutions do."""
    torch.manual_seed(0)
    network = VideoCrafterUNet(**config).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.02)
    return network


def inputs_of(network: nn.Module) -> dict[str, Tensor]:
    """One clip of three 8x8 frames, with all that the network is told."""
    generator = torch.Generator().manual_seed(1)
    shapes = FAMILY.input_shapes(network, FAMILY.default_input(network))
    values = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    return values | {"timestep": torch.tensor([700.0]), "fps": torch.tensor([8.0])}


@torch.no_grad()
def test_half_of_every_layer_goes_but_what_is_added_to_sinusoids(small: VideoCrafterUNet, narrow: Any) -> None:
    whole = dict(small.named_modules())
    for name, layer in narrow.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Conv3d | nn.Linear | nn.GroupNorm | nn.LayerNorm):
            share = 1.0 if name in ("conv_out", *GUIDANCE) else 0.5
            assert layer.weight.shape[0] == share * whole[name].weight.shape[0], name
    inputs = inputs_of(small)
    output = narrow(**inputs).sample
    assert output.shape == (1, 4, 3, 8, 8)
    assert output.std() > 0.0
    # Guidance is heard, alone too, and sides may be such that upsamplers must be told theirs.
    for name in ("timestep_cond", "motion_cond", "fps"):
        assert not torch.allclose(narrow(**{**inputs, name: inputs[name] + 3.0}).sample, output), name
    assert narrow(**{name: value for name, value in inputs.items() if name != "motion_cond"}).sample.std() > 0.0
    assert narrow(**{**inputs, "sample": torch.randn(1, 4, 3, 10, 13)}).sample.shape == (1, 4, 3, 10, 13)


def test_every_head_loses_the_same(small: VideoCrafterUNet, narrow: Any) -> None:
    """Each kept row of a value projection is a row of the teacher's same head."""
    checked = 0
    for name, attention in narrow.named_modules():
        if name.endswith("attn1"):
            before, after = small.get_submodule(f"{name}.to_v").weight, attention.to_v.weight
            columns = kept_columns(small, narrow, name)
            rows = [(before[:, columns] == row).all(dim=1).nonzero().item() for row in after]
            assert [row // 16 for row in rows] == [head for head in range(attention.heads) for _ in range(8)], name
            assert attention.inner_dim == 8 * attention.heads
            checked += 1
    assert checked == 9


def kept_columns(teacher: nn.Module, student: nn.Module, name: str) -> list[int]:
    """Which of the teacher's channels the layers inside a transformer still work on, found by its first biases."""
    transformer = name.partition(".transformer_blocks")[0]
    before, after = (network.get_submodule(f"{transformer}.proj_in").bias for network in (teacher, student))
    return [(before == value).nonzero().item() for value in after]


@torch.no_grad()
def test_feed_forwards_compute_what_the_teachers_do_with_the_lost_channels_silent(
    small: VideoCrafterUNet, narrow: Any
) -> None:
    checked = 0
    for name, after in narrow.named_modules():
        if not isinstance(after, FeedForward):
            continue
        before = copy.deepcopy(small.get_submodule(name))
        columns = kept_columns(small, narrow, name)
        rows = [
            (before.net[0].proj.weight[:, columns] == row).all(1).nonzero().item() for row in after.net[0].proj.weight
        ]
        hidden = before.net[2].in_features
        values, gates = rows[: len(rows) // 2], rows[len(rows) // 2 :]
        assert gates == [hidden + row for row in values], name
        silent = [channel for channel in range(hidden) if channel not in values]
        before.net[2].weight[:, silent] = 0.0
        whole = torch.zeros(1, 5, before.net[0].proj.in_features)
        whole[..., columns] = torch.randn(1, 5, len(columns), generator=torch.Generator().manual_seed(2))
        assert torch.allclose(after(whole[..., columns]), before(whole)[..., columns], atol=1e-6), name
        checked += 1
    assert checked == 9


def test_a_pipeline_with_the_student_reloads_bit_for_bit_without_torch_pruning(narrow: Any, tmp_path: Path) -> None:
    pipeline = videocrafter_pipeline("consistency")
    pipeline.unet = narrow
    inputs = inputs_of(narrow)
    with torch.no_grad():
        torch.save((inputs, narrow(**inputs).sample), tmp_path / "expected.pt")
    pipeline.save_pretrained(tmp_path / "student")
    done = forked.run("-c", READER, tmp_path / "student", tmp_path / "expected.pt")
    assert done.returncode == 0, done.stderr
    again = load_model(tmp_path / "student")
    assert (again.family, type(again.denoiser)) == ("videocrafter2", VideoCrafterUNet)


def test_blocks_then_channels_of_four_stages(teacher: VideoCrafterUNet, tmp_path: Path) -> None:
    """The rule `vdmini` takes the middle, the lowest resolution and pairs; half of the channels of the rest go then."""
    block_pruned = apply_plan(teacher, make_plan(teacher))
    both: Any = prune_channels(block_pruned, ratio=0.5, pair_gates=True)
    assert count_parameters(both) < 0.35 * count_parameters(block_pruned) < 0.35 * count_parameters(teacher)
    assert (both.mid_block, len(both.down_blocks)) == (None, 3)
    both.save_pretrained(tmp_path / "both")
    inputs = inputs_of(both)
    with torch.no_grad():
        assert torch.equal(load_model(tmp_path / "both").denoiser(**inputs).sample, both(**inputs).sample)
    weightless = load_model(tmp_path / "both", device="meta")
    assert weightless.blocks.params == count_parameters(both)
    assert weightless.blocks.flops < 0.4 * block_graph(block_pruned).flops


def test_videocrafter2_has_no_guidance_to_keep() -> None:
    network = random_network({name: value for name, value in SHALLOW.items() if name not in TURBO_CONFIG})
    narrow = prune_channels(network, importance="magnitude", ratio=0.5, pair_gates=True)
    assert count_parameters(narrow) < 0.35 * count_parameters(network)
    with torch.no_grad():
        assert narrow(**inputs_of(network)).sample.shape == (1, 4, 3, 8, 8)


def test_taylor_ranks_by_a_loss_that_reaches_every_weight(small: VideoCrafterUNet, narrow: Any) -> None:
    inputs = inputs_of(small)
    other = prune_channels(
        small,
        importance="depgraph-taylor",
        ratio=0.5,
        pair_gates=True,
        loss=lambda network: network(**inputs).sample.square().mean(),
    )
    assert {name: tensor.shape for name, tensor in other.state_dict().items() if ".ff." not in name} == {
        name: tensor.shape for name, tensor in narrow.state_dict().items() if ".ff." not in name
    }
    assert not torch.equal(other.state_dict()["conv_in.weight"], narrow.conv_in.weight)


def test_blocks_and_the_originals_names_cannot_follow_channels(small: VideoCrafterUNet, narrow: Any) -> None:
    with pytest.raises(PlanError, match="channels were pruned, so that Mid cannot go any more: prune blocks first"):
        apply_plan(narrow, plan_removing(narrow, {"Mid"}, "by hand"))
    copied = apply_plan(narrow, make_plan(narrow, "none"))
    inputs = inputs_of(narrow)
    with torch.no_grad():
        assert torch.equal(copied(**inputs).sample, narrow(**inputs).sample)
    with pytest.raises(ValueError, match="no layers of their own widths: prune blocks alone"):
        narrow.to_original()
    # Widths are a part of what a plan is for, and plans for usual widths are for what they were before.
    assert FAMILY.architecture(narrow) != FAMILY.architecture(small)
    assert "layer_channels" not in FAMILY.architecture(small)


def test_sizes_at_the_published_configuration() -> None:
    """T2V-Turbo-v2 without blocks, then without a fifth of its channels, in shapes alone."""
    model = load_model("t2v-turbo-v2", random_weights=True, device="meta")
    student = prune_channels(apply_plan(model.denoiser, make_plan(model)), ratio=0.2, pair_gates=True)
    found = block_graph(student, model.blocks.input)
    assert (found.params, found.flops) == (525_886_572, 5_811_512_139_776)
