"""Channel-pruned UNets: what was asked for goes, the rest runs, and the result reloads."""

from __future__ import annotations

import copy
import sys
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import forked
import pytest
import torch
from diffusers import UNetSpatioTemporalConditionModel
from tiny_transformers import mochi
from tiny_unets import animatediff_unet
from torch import Tensor, nn

from vdmini.blocks import ModelInput
from vdmini.channels import RatioError, prune_channels
from vdmini.cost import count_flops, count_parameters
from vdmini.errors import ModelLoadError, PlanError
from vdmini.models.loading import load_model
from vdmini.models.registry import block_graph
from vdmini.models.svd import FAMILY, SVD_UNET_CONFIG
from vdmini.models.svd_channels import VDMiniChannelPrunedUNetSpatioTemporal
from vdmini.models.svd_unet import VDMiniUNetSpatioTemporal
from vdmini.prune import apply_plan
from vdmini.rules import make_plan, plan_removing

torch_pruning = pytest.importorskip("torch_pruning")

# Two channels in each normalisation group, so that half of them can go; four stages, so that graph walks are deep.
DEEP = {
    **SVD_UNET_CONFIG,
    "sample_size": 8,
    "block_out_channels": (64, 64, 64, 64),
    "layers_per_block": 1,
    "num_attention_heads": (1, 2, 2, 2),
    "cross_attention_dim": 32,
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 24,
    "num_frames": 4,
}
# Torch-Pruning's time grows with the square of the number of layers: what needs no depth takes two stages.
SHALLOW = {
    **DEEP,
    "down_block_types": ("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
    "up_block_types": ("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
    "block_out_channels": (64, 64),
    "num_attention_heads": (1, 2),
}

# Weights mapped from a file lie at any address, and the last bit of a matrix product may depend on the address: a copy
# lies where those of the student in memory do.
READER = """
import copy
import sys
import torch
import vdmini
from vdmini import VDMiniChannelPrunedUNetSpatioTemporal
assert "torch_pruning" not in sys.modules
inputs, expected = torch.load(sys.argv[2], weights_only=True)
student, report = VDMiniChannelPrunedUNetSpatioTemporal.from_pretrained(sys.argv[1], output_loading_info=True)
assert not any(report.values()), report
with torch.no_grad():
    assert torch.equal(copy.deepcopy(student)(**inputs).sample, expected)
"""


@pytest.fixture(scope="module")
def teacher() -> UNetSpatioTemporalConditionModel:
    """A four-stage UNet with random weights; no test may change it."""
    torch.manual_seed(0)
    return UNetSpatioTemporalConditionModel(**DEEP).eval()


@pytest.fixture(scope="module")
def small() -> UNetSpatioTemporalConditionModel:
    """A two-stage UNet with random weights; no test may change it."""
    torch.manual_seed(0)
    return UNetSpatioTemporalConditionModel(**SHALLOW).eval()


@pytest.fixture(scope="module")
def inputs() -> dict[str, Tensor]:
    """One clip of two 8x8 frames."""
    generator = torch.Generator().manual_seed(1)
    return {
        "sample": torch.randn(1, 2, 8, 8, 8, generator=generator),
        "timestep": torch.tensor([0.3]),
        "encoder_hidden_states": torch.randn(1, 1, 32, generator=generator),
        "added_time_ids": torch.tensor([[6.0, 127.0, 0.02]]),
    }


@pytest.fixture(scope="module")
def student(
    teacher: UNetSpatioTemporalConditionModel, inputs: dict[str, Tensor]
) -> VDMiniChannelPrunedUNetSpatioTemporal:
    """The teacher with half of its channels."""
    return prune_channels(teacher, inputs, ratio=0.5, pair_gates=True)


@torch.no_grad()
def test_half_of_every_layer_goes_and_the_rest_runs(
    teacher: UNetSpatioTemporalConditionModel, student: Any, inputs: dict[str, Tensor]
) -> None:
    whole = dict(teacher.named_modules())
    for name, layer in student.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Conv3d | nn.Linear) and not name.endswith("net.0.proj"):
            share = 1.0 if name == "conv_out" else 0.5
            assert layer.weight.shape[0] == share * whole[name].weight.shape[0], name
    output = student(**inputs).sample
    assert output.shape == (1, 2, 4, 8, 8)
    assert output.std() > 0.0
    # Heights and widths that the upsamplers must be told, which looks at what the samplers remember of their width.
    assert student(**{**inputs, "sample": torch.randn(1, 2, 8, 10, 12)}).sample.shape == (1, 2, 4, 10, 12)


def test_modules_remember_their_new_widths(teacher: UNetSpatioTemporalConditionModel, student: Any) -> None:
    attention = student.mid_block.attentions[0].transformer_blocks[0].attn1
    assert (attention.heads, attention.inner_dim, attention.query_dim) == (2, 32, 32)
    assert attention.scale == pytest.approx(16**-0.5)
    assert student.down_blocks[0].downsamplers[0].channels == 32
    assert student.up_blocks[0].upsamplers[0].channels == 32
    layers = [each for each in student.modules() if isinstance(each, nn.Linear)]
    assert all(each.weight.shape == (each.out_features, each.in_features) for each in layers)
    assert teacher.config.block_out_channels == student.config.block_out_channels


def test_every_head_loses_the_same(teacher: UNetSpatioTemporalConditionModel, student: Any) -> None:
    """Each kept row of a query projection is a row of the teacher's same head."""
    name = "mid_block.attentions.0.transformer_blocks.0.attn1.to_v"
    before, after = teacher.get_submodule(name).weight, student.get_submodule(name).weight
    columns = kept_columns(teacher, student)
    rows = [(before[:, columns] == row).all(dim=1).nonzero().item() for row in after]
    assert rows == sorted(rows)
    assert [row // 32 for row in rows] == [0] * 16 + [1] * 16


def kept_columns(teacher: nn.Module, student: nn.Module) -> list[int]:
    """Which of the teacher's channels the student's middle attention still works on, found by their biases."""
    before = teacher.get_submodule("mid_block.attentions.0.proj_in").bias
    after = student.get_submodule("mid_block.attentions.0.proj_in").bias
    return [(before == value).nonzero().item() for value in after]


def test_gates_go_in_pairs_when_asked(small: UNetSpatioTemporalConditionModel, inputs: dict[str, Tensor]) -> None:
    paired, apart = (
        prune_channels(small, inputs, ratio=0.4, pair_gates=pair_gates, tolerance=0.2) for pair_gates in (True, False)
    )
    name = "mid_block.attentions.0.transformer_blocks.0.ff.net.0.proj"
    whole = small.get_submodule(name).out_features
    assert paired.get_submodule(name).out_features == pytest.approx(0.6 * whole, abs=2)
    assert apart.get_submodule(name).out_features < 0.5 * whole
    with torch.no_grad():
        assert torch.isfinite(paired(**inputs).sample).all()
    with pytest.raises(RatioError, match="would leave nothing of it: set pair_gates"):
        prune_channels(small, inputs, ratio=0.5)


def test_sizes_are_known_without_weights(small: UNetSpatioTemporalConditionModel) -> None:
    shapes = prune_channels(copy.deepcopy(small).to("meta"), ratio=0.5, pair_gates=True)
    assert count_parameters(shapes) == count_parameters(prune_channels(small, ratio=0.5, pair_gates=True))


def test_a_student_reloads_bit_for_bit_without_torch_pruning(
    student: Any, inputs: dict[str, Tensor], tmp_path: Path
) -> None:
    with torch.no_grad():
        torch.save((inputs, student(**inputs).sample), tmp_path / "expected.pt")
    student.save_pretrained(tmp_path / "student")
    done = forked.run("-c", READER, tmp_path / "student", tmp_path / "expected.pt")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("importance", ["magnitude", "depgraph-taylor"])
def test_the_other_importances_narrow_four_stages_too(
    teacher: UNetSpatioTemporalConditionModel, student: Any, inputs: dict[str, Tensor], importance: str
) -> None:
    """The same shapes but for gated feed-forwards, and an output that other channels than the L2 norm's give."""

    def loss(network: nn.Module) -> Tensor:
        return network(**inputs).sample.square().mean()

    taylor = importance == "depgraph-taylor"
    other = prune_channels(teacher, importance=importance, ratio=0.5, pair_gates=True, loss=loss if taylor else None)
    whole = {name: tensor.shape for name, tensor in student.state_dict().items() if ".ff" not in name}
    assert {name: tensor.shape for name, tensor in other.state_dict().items() if ".ff" not in name} == whole
    with torch.no_grad():
        output = other(**inputs).sample
        assert torch.isfinite(output).all()
        assert not torch.allclose(output, student(**inputs).sample)


def test_a_clip_of_its_own_gives_the_same_student_as_one_that_is_given(
    small: UNetSpatioTemporalConditionModel, inputs: dict[str, Tensor]
) -> None:
    given_inputs, own = (
        prune_channels(small, inputs, ratio=0.5, pair_gates=True),
        prune_channels(small, ratio=0.5, pair_gates=True),
    )
    assert all(torch.equal(tensor, own.state_dict()[name]) for name, tensor in given_inputs.state_dict().items())


def test_l2_keeps_the_heaviest_channels(small: UNetSpatioTemporalConditionModel, inputs: dict[str, Tensor]) -> None:
    """Both kinds of importance must see a layer whose last channels weigh ten times the first."""
    heavy = copy.deepcopy(small)
    layer = heavy.mid_block.attentions[0].time_pos_embed.linear_1
    with torch.no_grad():
        layer.weight[128:] *= 10.0
    for importance in ("depgraph-l2", "magnitude"):
        student = prune_channels(heavy, inputs, importance=importance, ratio=0.5, pair_gates=True)
        pruned = student.get_submodule("mid_block.attentions.0.time_pos_embed.linear_1")
        assert torch.equal(pruned.weight, layer.weight[128:]), importance


def test_taylor_keeps_the_channels_that_the_loss_feels(
    small: UNetSpatioTemporalConditionModel, inputs: dict[str, Tensor]
) -> None:
    deaf = copy.deepcopy(small)
    layers = deaf.mid_block.attentions[0].time_pos_embed
    with torch.no_grad():
        layers.linear_2.weight[:, :128] = 0.0
        layers.linear_1.weight[:128] *= 10.0

    def loss(network: nn.Module) -> Tensor:
        return network(**inputs).sample.square().mean()

    with torch.no_grad():
        student = prune_channels(deaf, inputs, importance="depgraph-taylor", ratio=0.5, pair_gates=True, loss=loss)
    pruned = student.get_submodule("mid_block.attentions.0.time_pos_embed.linear_1")
    assert torch.equal(pruned.weight, layers.linear_1.weight[128:])
    assert all(parameter.grad is None for parameter in deaf.parameters())


def test_a_ratio_that_cannot_be_reached_is_refused(
    small: UNetSpatioTemporalConditionModel, inputs: dict[str, Tensor]
) -> None:
    """Groups of two channels: a fifth of them is either none or half."""
    with pytest.raises(RuntimeError, match=r"asked to remove 0\.200 of the channels, 0\.\d+ could go"):
        prune_channels(small, inputs, ratio=0.2)


def test_rounding_stops_all_that_a_normalisation_sees_and_is_caught(
    small: UNetSpatioTemporalConditionModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Torch-Pruning rounds within each of a normalisation's 32 groups: asked for multiples of 32, it takes nothing."""
    pruner = torch_pruning.pruner.BasePruner
    network = copy.deepcopy(small)
    shapes = FAMILY.example_inputs(small, ModelInput(batch=1, frames=2, height=4, width=4))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Unwrapped parameters detected")
        pruner(
            network,
            {name: torch.zeros_like(shape, device="cpu") for name, shape in shapes.items()},
            importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
            pruning_ratio=0.5,
            round_to=32,
            ignored_layers=[network.conv_out],
            in_channel_groups={},
            out_channel_groups={},
            forward_fn=lambda model, inputs: model(**inputs).sample,
        ).step()
    whole = dict(small.named_modules())
    layers = (nn.Conv2d, nn.Conv3d, nn.GroupNorm)
    assert all(
        module.weight.shape == whole[name].weight.shape
        for name, module in network.named_modules()
        if isinstance(module, layers)
    )
    monkeypatch.setattr(torch_pruning.pruner, "BasePruner", partial(pruner, round_to=32))
    with pytest.raises(RatioError, match=r"asked to remove 0\.500 of the channels, 0\.[0-3]\d+ could go"):
        prune_channels(small, ratio=0.5, pair_gates=True)


def test_graphs_deeper_than_torch_pruning_walks_are_walked(
    small: UNetSpatioTemporalConditionModel, inputs: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """SVD's graph is deeper than 500 steps; a limit of 5 makes a small graph too deep in the same way."""
    from torch_pruning.dependency import constants

    monkeypatch.setattr(constants, "MAX_RECURSION_DEPTH", 5)
    assert count_parameters(prune_channels(small, inputs, ratio=0.5, pair_gates=True)) < 0.35 * count_parameters(small)
    monkeypatch.setattr("vdmini.channels.WALK_LIMIT", 5)
    with pytest.raises((UserWarning, RuntimeError, TypeError)):
        prune_channels(small, inputs, ratio=0.5, pair_gates=True)


def test_limits_are_raised_for_the_walk_alone_and_the_teacher_is_left_as_it_was(
    small: UNetSpatioTemporalConditionModel, inputs: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch_pruning.dependency import constants

    before = {name: tensor.clone() for name, tensor in small.state_dict().items()}
    limits = sys.getrecursionlimit(), constants.MAX_RECURSION_DEPTH
    seen = set()

    def score(group: Any) -> Tensor:
        seen.add((sys.getrecursionlimit(), constants.MAX_RECURSION_DEPTH))
        return torch.arange(len(group[0].idxs), dtype=torch.float32)

    monkeypatch.setattr("vdmini.channels._score", lambda importance: score)
    prune_channels(small, inputs, ratio=0.5, pair_gates=True)
    ((python_limit, walk_limit),) = seen
    assert python_limit >= 20_000 > limits[0]
    assert walk_limit > limits[1]
    bad_inputs = {**inputs, "encoder_hidden_states": torch.randn(1, 1, 7)}
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        prune_channels(small, bad_inputs, ratio=0.5, pair_gates=True)
    assert limits == (sys.getrecursionlimit(), constants.MAX_RECURSION_DEPTH)
    assert all(torch.equal(tensor, before[name]) for name, tensor in small.state_dict().items())


def test_block_pruned_students_can_lose_channels_too(inputs: dict[str, Tensor]) -> None:
    block_pruned = VDMiniUNetSpatioTemporal(**SHALLOW, mid_block_type=None).requires_grad_(False)
    both = prune_channels(block_pruned, inputs, importance="magnitude", ratio=0.5, pair_gates=True)
    assert count_parameters(both) < 0.35 * count_parameters(block_pruned)
    assert both.training
    assert all(parameter.requires_grad for parameter in both.parameters())
    assert both.config.mid_block_type is None
    with torch.no_grad():
        assert both(**inputs).sample.shape == (1, 2, 4, 8, 8)


def test_blocks_then_channels_makes_a_student_that_reloads(
    teacher: UNetSpatioTemporalConditionModel, inputs: dict[str, Tensor], tmp_path: Path
) -> None:
    """A stage, the middle and a sampler of four stages, then half of the channels of what is left."""
    lowest = block_graph(teacher).blocks_of(["Mid", "D.3+U.0"])
    block_pruned = apply_plan(teacher, plan_removing(teacher, lowest, "by hand"))
    both = prune_channels(block_pruned, ratio=0.5, pair_gates=True)
    assert count_parameters(both) < 0.35 * count_parameters(block_pruned) < 0.35 * count_parameters(teacher)
    assert len(both.down_blocks) == 3
    both.save_pretrained(tmp_path / "both")
    again = load_model(tmp_path / "both")
    assert again.family == "svd"
    assert type(again.denoiser) is VDMiniChannelPrunedUNetSpatioTemporal
    with torch.no_grad():
        assert torch.equal(copy.deepcopy(again.denoiser)(**inputs).sample, both(**inputs).sample)
    weightless = load_model(tmp_path / "both", device="meta")
    assert weightless.blocks.params == count_parameters(both)
    assert weightless.blocks.flops == count_flops(both, FAMILY.example_inputs(both, FAMILY.default_input(both)))
    assert weightless.blocks.flops < 0.4 * block_graph(teacher).flops


def test_channels_can_go_twice(small: UNetSpatioTemporalConditionModel, inputs: dict[str, Tensor]) -> None:
    """Layers that the second pruning leaves alone stay as narrow as the first one made them."""
    once = prune_channels(small, ratio=0.5, pair_gates=True)
    # One channel is left in each normalisation group, so that only what no normalisation sees can lose more.
    twice = prune_channels(once, ratio=0.5, pair_gates=True, tolerance=0.99)
    assert twice.conv_in.weight.shape == once.conv_in.weight.shape == (32, 8, 3, 3)
    assert count_parameters(twice) < count_parameters(once)
    with torch.no_grad():
        assert torch.isfinite(twice(**inputs).sample).all()


def test_blocks_cannot_go_after_channels(small: UNetSpatioTemporalConditionModel, inputs: dict[str, Tensor]) -> None:
    narrow = prune_channels(small, ratio=0.5, pair_gates=True)
    plan = plan_removing(narrow, {"Mid"}, "by hand")
    with pytest.raises(PlanError, match="channels were pruned, so that Mid cannot go any more: prune blocks first"):
        apply_plan(narrow, plan)
    copied = apply_plan(narrow, make_plan(narrow, "none"))
    with torch.no_grad():
        assert torch.equal(copied(**inputs).sample, narrow(**inputs).sample)
    # Widths are a part of what a plan is for, and plans for usual widths are for what they were before.
    with pytest.raises(PlanError, match="the plan is for a teacher with configuration"):
        apply_plan(narrow, make_plan(small, "none"))
    assert "layer_channels" not in FAMILY.architecture(small)
    usual = VDMiniChannelPrunedUNetSpatioTemporal(**SHALLOW)
    assert FAMILY.architecture(usual) == FAMILY.architecture(small)


def test_arguments_that_do_not_fit_are_refused(
    small: UNetSpatioTemporalConditionModel, inputs: dict[str, Tensor]
) -> None:
    refused: list[tuple[dict[str, Any], str]] = [
        ({"importance": "l3"}, "unknown importance 'l3'"),
        ({"ratio": 1.0}, "between 0 and 1, got 1.0"),
        ({"importance": "depgraph-taylor"}, "'depgraph-taylor' needs a loss"),
        ({"loss": lambda network: network(**inputs).sample.mean()}, "no other does, got 'depgraph-l2'"),
        (
            {"importance": "depgraph-taylor", "loss": lambda network: network.conv_in.weight.mean()},
            "the loss does not depend on conv_in.bias",
        ),
    ]
    for arguments, message in refused:
        with pytest.raises(ValueError, match=message):
            prune_channels(small, inputs, **arguments)
    with pytest.raises(ModelLoadError, match="no family knows Sequential"):
        prune_channels(nn.Sequential(small), inputs)
    with pytest.raises(TypeError, match="of family 'animatediff': prune its blocks alone, without channels"):
        prune_channels(animatediff_unet(), inputs)
    with pytest.raises(TypeError, match="of family 'mochi', a transformer, whose channels Torch-Pruning loses"):
        prune_channels(mochi(), inputs)
    for channels, message in (
        ({"conv_nowhere": [1, 1]}, "names 'conv_nowhere'"),
        ({"conv_in": [65, 8]}, r"conv_in has \[64, 8\] channels, which \[65, 8\]"),
    ):
        with pytest.raises(ValueError, match=message), torch.device("meta"):
            VDMiniChannelPrunedUNetSpatioTemporal(**SHALLOW, layer_channels=channels)


def test_missing_torch_pruning_is_named(
    small: UNetSpatioTemporalConditionModel, inputs: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    with pytest.raises(ImportError, match=r"pip install 'vdmini\[channels\]'"):
        prune_channels(small, inputs)
