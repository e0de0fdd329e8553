"""Channel-pruned UNets: what was asked for goes, the rest runs, and the result reloads."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNetSpatioTemporalConditionModel
from torch import Tensor, nn

from vdmini.channels import VDMiniChannelPrunedUNetSpatioTemporal, prune_channels
from vdmini.cost import count_parameters
from vdmini.models.svd import SVD_UNET_CONFIG, VDMiniUNetSpatioTemporal

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
from vdmini.channels import VDMiniChannelPrunedUNetSpatioTemporal
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
    return prune_channels(teacher, inputs, ratio=0.5)


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
    paired = prune_channels(small, inputs, ratio=0.5, pair_gates=True)
    apart = prune_channels(small, inputs, ratio=0.5)
    name = "mid_block.attentions.0.transformer_blocks.0.ff.net.0.proj"
    whole = small.get_submodule(name).out_features
    assert paired.get_submodule(name).out_features == whole // 2
    assert apart.get_submodule(name).out_features < whole // 3
    with torch.no_grad():
        assert torch.isfinite(paired(**inputs).sample).all()


def test_a_student_reloads_bit_for_bit_without_torch_pruning(
    student: Any, inputs: dict[str, Tensor], tmp_path: Path
) -> None:
    with torch.no_grad():
        torch.save((inputs, student(**inputs).sample), tmp_path / "expected.pt")
    student.save_pretrained(tmp_path / "student")
    done = subprocess.run(
        [sys.executable, "-c", READER, str(tmp_path / "student"), str(tmp_path / "expected.pt")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_l2_keeps_the_heaviest_channels(small: UNetSpatioTemporalConditionModel, inputs: dict[str, Tensor]) -> None:
    """Both kinds of importance must see a layer whose last channels weigh ten times the first."""
    heavy = copy.deepcopy(small)
    layer = heavy.mid_block.attentions[0].time_pos_embed.linear_1
    with torch.no_grad():
        layer.weight[128:] *= 10.0
    for importance in ("depgraph-l2", "magnitude"):
        student = prune_channels(heavy, inputs, importance=importance, ratio=0.5)
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
        student = prune_channels(deaf, inputs, importance="depgraph-taylor", ratio=0.5, loss=loss)
    pruned = student.get_submodule("mid_block.attentions.0.time_pos_embed.linear_1")
    assert torch.equal(pruned.weight, layers.linear_1.weight[128:])
    assert all(parameter.grad is None for parameter in deaf.parameters())


def test_a_ratio_that_cannot_be_reached_is_refused(
    small: UNetSpatioTemporalConditionModel, inputs: dict[str, Tensor]
) -> None:
    """Groups of two channels: a fifth of them is either none or half."""
    with pytest.raises(RuntimeError, match=r"asked to remove 0\.200 of the channels, 0\.\d+ could go"):
        prune_channels(small, inputs, ratio=0.2)


def test_graphs_deeper_than_torch_pruning_walks_are_walked(
    small: UNetSpatioTemporalConditionModel, inputs: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """SVD's graph is deeper than 500 steps; a limit of 5 makes a small graph too deep in the same way."""
    from torch_pruning.dependency import constants

    monkeypatch.setattr(constants, "MAX_RECURSION_DEPTH", 5)
    assert count_parameters(prune_channels(small, inputs, ratio=0.5)) < 0.35 * count_parameters(small)
    monkeypatch.setattr("vdmini.channels.WALK_LIMIT", 5)
    with pytest.raises((UserWarning, RuntimeError, TypeError)):
        prune_channels(small, inputs, ratio=0.5)


def test_limits_and_teacher_are_left_as_they_were(
    small: UNetSpatioTemporalConditionModel, inputs: dict[str, Tensor]
) -> None:
    from torch_pruning.dependency import constants

    before = {name: tensor.clone() for name, tensor in small.state_dict().items()}
    limits = sys.getrecursionlimit(), constants.MAX_RECURSION_DEPTH
    bad_inputs = {**inputs, "encoder_hidden_states": torch.randn(1, 1, 7)}
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        prune_channels(small, bad_inputs, ratio=0.5)
    assert limits == (sys.getrecursionlimit(), constants.MAX_RECURSION_DEPTH)
    assert all(torch.equal(tensor, before[name]) for name, tensor in small.state_dict().items())


def test_block_pruned_students_can_lose_channels_too(inputs: dict[str, Tensor]) -> None:
    block_pruned = VDMiniUNetSpatioTemporal(**SHALLOW, mid_block_type=None).requires_grad_(False)
    both = prune_channels(block_pruned, inputs, importance="magnitude", ratio=0.5)
    assert count_parameters(both) < 0.35 * count_parameters(block_pruned)
    assert both.training
    assert all(parameter.requires_grad for parameter in both.parameters())
    assert both.config.mid_block_type is None
    with torch.no_grad():
        assert both(**inputs).sample.shape == (1, 2, 4, 8, 8)


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
    with pytest.raises(TypeError, match="not Sequential"):
        prune_channels(nn.Sequential(small), inputs)
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
