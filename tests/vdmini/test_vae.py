"""A pruned VAE decoder equals the teacher's with the same layers and channels cut out."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import forked
import pytest
import torch
from diffusers import AutoencoderKLTemporalDecoder, StableVideoDiffusionPipeline
from torch import Tensor, nn

from vdmini.cost import count_flops, count_parameters
from vdmini.models.registry import VideoModel
from vdmini.models.svd import SVD_VAE_CONFIG
from vdmini.models.svd_vae import VDMiniAutoencoderKLTemporalDecoder
from vdmini.vae import (
    _channel_groups,
    _channel_scores,
    _decoder_sizes,
    _kept,
    prune_decoder,
)

WIDTHS = (128, 128, 96, 64)
WHOLE = (3, 3, 3, 3)

READERS = {
    "from_pretrained": """
from vdmini.models.svd_vae import VDMiniAutoencoderKLTemporalDecoder
vae, report = VDMiniAutoencoderKLTemporalDecoder.from_pretrained(sys.argv[1] + "/vae", output_loading_info=True)
assert not any(report.values()), report
""",
    "DiffusionPipeline": """
import vdmini
from diffusers import DiffusionPipeline
vae = DiffusionPipeline.from_pretrained(sys.argv[1]).vae
""",
}
COMPARISON = """
weights, latents, images = torch.load(sys.argv[2], weights_only=True)
assert type(vae).__name__ == "VDMiniAutoencoderKLTemporalDecoder"
assert vae.state_dict().keys() == weights.keys()
assert all(torch.equal(weight, weights[name]) for name, weight in vae.state_dict().items())
with torch.no_grad():
    assert torch.equal(vae.decode(latents, num_frames=2).sample, images)
"""


class PassOn(nn.Module):
    """Where an edited teacher had its middle block."""

    def forward(self, hidden_states: Tensor, image_only_indicator: Tensor) -> Tensor:
        return hidden_states


@pytest.fixture
def vae() -> AutoencoderKLTemporalDecoder:
    """A four-stage VAE with random weights whose decoder's widths are `WIDTHS`."""
    torch.manual_seed(3)
    config = {**SVD_VAE_CONFIG, "block_out_channels": tuple(reversed(WIDTHS)), "sample_size": 32}
    teacher = AutoencoderKLTemporalDecoder(**config).eval()
    for name, weight in teacher.named_parameters():
        if name.endswith("mix_factor"):
            nn.init.normal_(weight)
    return teacher


@pytest.fixture
def latents() -> Tensor:
    """Two clips of two 4x6 frames."""
    return torch.randn(4, 4, 4, 6, generator=torch.Generator().manual_seed(4))


@torch.no_grad()
def decoded(vae: Any, latents: Tensor) -> Tensor:
    return vae.decode(latents, num_frames=2).sample


def without_layers(vae: AutoencoderKLTemporalDecoder) -> AutoencoderKLTemporalDecoder:
    """The teacher with its middle block and the last two resnets of the last stage edited out."""
    edited = copy.deepcopy(vae)
    edited.decoder.mid_block = PassOn()
    edited.decoder.up_blocks[-1].resnets = edited.decoder.up_blocks[-1].resnets[:1]
    return edited


def test_the_published_size_is_reached(official: VideoModel) -> None:
    teacher: Any = official.vae
    inputs = {
        "sample": torch.empty(14, 4, 72, 128, device="meta"),
        "image_only_indicator": torch.empty(1, 14, device="meta"),
        "num_frames": 14,
    }
    whole = count_flops(teacher.decoder, inputs)
    fewer_layers = prune_decoder(teacher).decoder
    assert f"{count_parameters(fewer_layers) / 1e6:.2f}" == "49.14"
    assert f"{count_flops(fewer_layers, inputs) / whole:.3f}" == "0.805"
    student = prune_decoder(teacher, parameters=39_170_000)
    assert student.config.decoder_block_out_channels == [512, 448, 96, 32]
    assert f"{count_parameters(student.decoder) / 1e6:.2f}" == "39.18"
    assert f"{count_flops(student.decoder, inputs) / whole:.3f}" == "0.376"
    assert count_parameters(student.encoder) == count_parameters(teacher.encoder)


def test_keeping_everything_changes_nothing(vae: AutoencoderKLTemporalDecoder, latents: Tensor) -> None:
    student = prune_decoder(vae, layers=WHOLE, mid_block=True)
    assert torch.equal(decoded(student, latents), decoded(vae, latents))
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(student.encode(images).latent_dist.mode(), vae.encode(images).latent_dist.mode())


def test_layers_go_as_if_edited_out(vae: AutoencoderKLTemporalDecoder, latents: Tensor) -> None:
    expected = decoded(without_layers(vae), latents)
    assert torch.equal(decoded(prune_decoder(vae), latents), expected)
    assert not torch.equal(decoded(vae, latents), expected)


@pytest.mark.parametrize("widths", [(128, 128, 64, 32), (64, 64, 96, 32)])
def test_channels_go_as_torch_pruning_cuts_them(
    vae: AutoencoderKLTemporalDecoder, latents: Tensor, widths: tuple[int, ...]
) -> None:
    """Torch-Pruning finds by tracing which weights share a channel; the student must lose the same ones."""
    torch_pruning = pytest.importorskip("torch_pruning")
    student = prune_decoder(vae, widths=widths)
    edited = without_layers(vae)
    inputs = {"sample": latents, "image_only_indicator": torch.zeros(2, 2), "num_frames": 2}
    graph = torch_pruning.DependencyGraph().build_dependency(
        edited.decoder, inputs, forward_fn=lambda decoder, arguments: decoder(**arguments), verbose=False
    )
    groups = _channel_groups(vae.decoder)
    scores = _channel_scores(vae.decoder.state_dict(), groups)
    sizes = {name.removesuffix(".weight"): each.shape[0] for name, each in student.decoder.state_dict().items()}
    pruned = set()
    for name, layer in [*edited.decoder.named_modules()]:
        group = groups.get(name, ("",))[0]
        if not isinstance(layer, nn.Conv2d | nn.Conv3d) or not group or group in pruned:
            continue
        pruned.add(group)
        gone = {*range(layer.out_channels)} - {*_kept(scores[group], sizes[name], 32).tolist()}
        if gone:
            graph.get_pruning_group(layer, torch_pruning.prune_conv_out_channels, sorted(gone)).prune()
    for block in edited.decoder.up_blocks[:-1]:
        block.upsamplers[0].channels = block.upsamplers[0].conv.in_channels
    assert count_parameters(edited.decoder) == count_parameters(student.decoder)
    assert torch.equal(decoded(edited, latents), decoded(student, latents))


@pytest.mark.parametrize("widths", [(96, 96, 96, 64), (128, 96, 96, 64), (96, 128, 96, 64), (128, 96, 64, 64)])
@torch.no_grad()
def test_channels_that_carry_nothing_go_without_a_trace(
    vae: AutoencoderKLTemporalDecoder, latents: Tensor, widths: tuple[int, ...]
) -> None:
    """Also where the student needs a shortcut between stages that the teacher joins directly."""
    for name, weight in vae.decoder.named_parameters():
        if "norm" not in name and "shortcut" not in name and "upsamplers" not in name and "mix_factor" not in name:
            weight.mul_(float(name.startswith(("conv_", "time_conv"))))
    # The last channel of each group of a normalisation: 32 of 128, or of 96.
    for layer, size in (
        (vae.decoder.conv_in, 4),
        (vae.decoder.up_blocks[0].upsamplers[0].conv, 4),
        (vae.decoder.up_blocks[1].upsamplers[0].conv, 4),
        (vae.decoder.up_blocks[2].resnets[0].spatial_res_block.conv_shortcut, 3),
        (vae.decoder.up_blocks[2].upsamplers[0].conv, 3),
    ):
        layer.weight[size - 1 :: size] = 0.0
        layer.bias[size - 1 :: size] = 0.0
    for upsampler in (block.upsamplers[0].conv for block in vae.decoder.up_blocks[:-1]):
        upsampler.weight[:, (3 if upsampler.in_channels == 128 else 2) :: upsampler.in_channels // 32] = 0.0
    expected = decoded(vae, latents)
    student = prune_decoder(vae, widths=widths, layers=WHOLE)
    torch.testing.assert_close(decoded(student, latents), expected, rtol=1e-4, atol=1e-5)
    assert expected.std() > 1e-3


def test_all_widths_are_counted_right(vae: AutoencoderKLTemporalDecoder) -> None:
    student = prune_decoder(vae, widths=(96, 64, 64, 32), mid_block=True, layers=(3, 1, 2, 2))
    sizes = _decoder_sizes(AutoencoderKLTemporalDecoder, dict(student.config))
    assert sizes[96, 64, 64, 32] == count_parameters(student.decoder)
    assert prune_decoder(vae, parameters=sizes[96, 64, 64, 32], mid_block=True, layers=(3, 1, 2, 2)).config[
        "decoder_block_out_channels"
    ] == [96, 64, 64, 32]


def test_a_middle_block_is_narrowed_too(vae: AutoencoderKLTemporalDecoder, latents: Tensor) -> None:
    student = prune_decoder(vae, widths=(64, 64, 64, 32), mid_block=True)
    assert student.decoder.mid_block.attentions[0].to_v.weight.shape == (64, 64)
    assert torch.isfinite(decoded(student, latents)).all()
    other = prune_decoder(vae, widths=(64, 64, 64, 32))
    assert not torch.equal(decoded(student, latents), decoded(other, latents))


@pytest.mark.parametrize("reader", READERS)
def test_a_student_reloads_bit_for_bit(
    vae: AutoencoderKLTemporalDecoder,
    latents: Tensor,
    tiny_pipeline: StableVideoDiffusionPipeline,
    tmp_path: Path,
    reader: str,
) -> None:
    student = prune_decoder(vae, widths=(96, 96, 96, 32))
    tiny_pipeline.register_modules(vae=student)
    tiny_pipeline.save_pretrained(tmp_path / "student")
    torch.save((student.state_dict(), latents, decoded(student, latents)), tmp_path / "expected.pt")
    code = "import sys\nimport torch\n" + READERS[reader] + COMPARISON
    done = forked.run("-c", code, tmp_path / "student", tmp_path / "expected.pt")
    assert done.returncode == 0, done.stderr
    assert "newly initialized" not in done.stderr
    assert "Expected types" not in done.stderr


def test_teacher_and_student_share_nothing(vae: AutoencoderKLTemporalDecoder) -> None:
    before = {name: tensor.clone() for name, tensor in vae.state_dict().items()}
    student = prune_decoder(vae.requires_grad_(False).to(torch.bfloat16), widths=(128, 96, 64, 32))
    assert {parameter.dtype for parameter in student.parameters()} == {torch.bfloat16}
    assert not student.training
    assert all(parameter.requires_grad for parameter in student.parameters())
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.zero_()
    assert all(torch.equal(tensor, before[name].bfloat16()) for name, tensor in vae.state_dict().items())


def test_gradient_checkpointing_gives_the_same_gradients(vae: AutoencoderKLTemporalDecoder, latents: Tensor) -> None:
    gradients = []
    for checkpointing in (False, True):
        student = prune_decoder(vae.train(), widths=(64, 64, 64, 32))
        if checkpointing:
            student.enable_gradient_checkpointing()
        student.decode(latents, num_frames=2).sample.square().mean().backward()
        gradients.append({name: each.grad for name, each in student.decoder.named_parameters()})
    assert all(gradient is not None for gradient in gradients[0].values())
    assert all(torch.equal(gradient, gradients[1][name]) for name, gradient in gradients[0].items())


def test_sizes_that_do_not_fit_are_refused(vae: AutoencoderKLTemporalDecoder) -> None:
    refused: list[tuple[dict[str, Any], str]] = [
        ({"widths": (128, 128, 96)}, "4 stages, got 3 widths"),
        ({"widths": (128, 128, 96, 48)}, "stage 3 cannot be 48 wide: use a multiple of 32 up to 64"),
        ({"widths": (160, 128, 96, 64)}, "stage 0 cannot be 160 wide"),
        ({"widths": (0, 128, 96, 64)}, "stage 0 cannot be 0 wide"),
        ({"layers": (3, 3, 3, 0)}, "stage 3 cannot have 0 resnets"),
        ({"layers": (4, 3, 3, 1)}, "stage 0 cannot have 4 resnets"),
        ({"parameters": 10, "widths": WIDTHS}, "parameters or widths, not both"),
        ({"parameters": 10}, r"the nearest are \[32, 32, 32, 32\]"),
    ]
    for arguments, message in refused:
        with pytest.raises(ValueError, match=message):
            prune_decoder(vae, **arguments)
    with pytest.raises(TypeError, match="only those of a whole"):
        prune_decoder(VDMiniAutoencoderKLTemporalDecoder.from_config(prune_decoder(vae).config))
