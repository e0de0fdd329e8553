"""A pruned frame-wise VAE decoder equals the teacher's with the same layers and channels cut out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderKLWan, DiffusionPipeline
from tiny_unets import animatediff_pipeline, animatediff_unet
from torch import Tensor, nn

import vdmini
from vdmini.cost import count_parameters
from vdmini.vae import _channel_groups, _channel_scores, _kept, decoder_flops, prune_decoder

WIDTHS = (32, 32, 16)
WHOLE = (2, 2, 2)


def frame_vae(**settings: Any) -> AutoencoderKL:
    """A three-stage VAE with random weights, whose decoder's widths are `WIDTHS` in steps of 8."""
    torch.manual_seed(3)
    config: dict[str, Any] = {
        "down_block_types": ("DownEncoderBlock2D",) * 3,
        "up_block_types": ("UpDecoderBlock2D",) * 3,
        "block_out_channels": tuple(reversed(WIDTHS)),
        "norm_num_groups": 8,
    }
    return AutoencoderKL(**{**config, **settings}).eval()


@pytest.fixture
def latents() -> Tensor:
    """Two 4x6 frames."""
    return torch.randn(2, 4, 4, 6, generator=torch.Generator().manual_seed(4))


@torch.no_grad()
def decoded(vae: Any, latents: Tensor) -> Tensor:
    return vae.decode(latents).sample


@pytest.mark.parametrize("settings", [{}, {"mid_block_add_attention": False, "use_post_quant_conv": False}])
def test_keeping_everything_changes_nothing(settings: dict[str, Any], latents: Tensor) -> None:
    vae = frame_vae(**settings)
    student = prune_decoder(vae, layers=WHOLE, mid_block=True)
    assert torch.equal(decoded(student, latents), decoded(vae, latents))
    images = torch.randn(2, 3, 16, 16)
    assert torch.equal(student.encode(images).latent_dist.mode(), vae.encode(images).latent_dist.mode())


def test_layers_and_channels_go_as_torch_pruning_cuts_them(latents: Tensor) -> None:
    torch_pruning = pytest.importorskip("torch_pruning")
    vae = frame_vae()
    student = prune_decoder(vae, widths=(24, 24, 8), layers=(2, 2, 1), mid_block=True)
    edited = frame_vae().decoder
    # Torch-Pruning does not follow channels through the attention's heads.
    edited.mid_block.attentions[0] = student.decoder.mid_block.attentions[0] = None
    edited.up_blocks[-1].resnets = edited.up_blocks[-1].resnets[:1]
    graph = torch_pruning.DependencyGraph().build_dependency(edited, latents, verbose=False)
    groups = _channel_groups(vae.decoder)
    scores = _channel_scores(vae.decoder.state_dict(), groups)
    sizes = {name.removesuffix(".weight"): each.shape[0] for name, each in student.decoder.state_dict().items()}
    pruned = set()
    for name, layer in [*edited.named_modules()]:
        group = groups.get(name, ("",))[0]
        if not isinstance(layer, nn.Conv2d) or not group or group in pruned:
            continue
        pruned.add(group)
        gone = {*range(layer.out_channels)} - {*_kept(scores[group], sizes[name], 8).tolist()}
        if gone:
            graph.get_pruning_group(layer, torch_pruning.prune_conv_out_channels, sorted(gone)).prune()
    for block in edited.up_blocks[:-1]:
        block.upsamplers[0].channels = block.upsamplers[0].conv.in_channels
    with torch.no_grad():
        assert torch.equal(student.decoder(latents), edited(latents))


def test_a_number_of_parameters_is_met_with_the_fewest_flops() -> None:
    vae = frame_vae()
    asked = count_parameters(prune_decoder(vae, widths=(24, 16, 16)).decoder)
    student = prune_decoder(vae, parameters=asked)
    assert abs(count_parameters(student.decoder) / asked - 1) < 0.0025
    assert decoder_flops(student, 1, 8, 8) <= decoder_flops(prune_decoder(vae, widths=(24, 16, 16)), 1, 8, 8)
    assert count_parameters(student.encoder) == count_parameters(vae.encoder)


def test_a_student_reloads_in_its_pipeline(tmp_path: Path, latents: Tensor, capsys: pytest.CaptureFixture[str]) -> None:
    pipeline = animatediff_pipeline(animatediff_unet())
    student = prune_decoder(frame_vae(), widths=(24, 16, 16))
    pipeline.register_modules(vae=student)
    pipeline.save_pretrained(tmp_path)
    found = DiffusionPipeline.from_pretrained(tmp_path).vae
    assert type(found) is vdmini.VDMiniAutoencoderKL  # type: ignore[attr-defined]
    assert torch.equal(decoded(found, latents), decoded(student, latents))
    alone = vdmini.VDMiniAutoencoderKL.from_pretrained(tmp_path / "vae")  # type: ignore[attr-defined]
    assert torch.equal(decoded(alone, latents), decoded(student, latents))
    assert "newly initialized" not in capsys.readouterr().err


def test_what_cannot_be_pruned_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match="the decoder of AutoencoderKLWan cannot be pruned"), torch.device("meta"):
        prune_decoder(AutoencoderKLWan(base_dim=8, num_res_blocks=1))
    with pytest.raises(TypeError, match="VDMiniAutoencoderKL cannot"):
        prune_decoder(prune_decoder(frame_vae()))
    attentive = ("UpDecoderBlock2D", "UpDecoderBlock2D", "AttnUpDecoderBlock2D")
    with pytest.raises(ValueError, match="a decoder with AttnUpDecoderBlock2D"):
        prune_decoder(frame_vae(up_block_types=attentive))
    with pytest.raises(ValueError, match="stage 2 cannot be 12 wide: use a multiple of 8 up to 16"):
        prune_decoder(frame_vae(), widths=(32, 32, 12))
