"""The embedded image-to-video teacher: what its VAE shows, and how that came about."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLTemporalDecoder
from torch import Tensor

from vdmini.models.loading import load_model
from vdmini_bench.data.captions import parse_caption
from vdmini_bench.data.synthetic import ACTIONS, COLOURS, TEST_GROUPS, draw_clip
from vdmini_bench.embedded.architecture import build_vae
from vdmini_bench.embedded.vae import finetune_decoder, free_last_normalisation


def drawn(count: int) -> list[Any]:
    names = [(action, group, 1) for group in TEST_GROUPS for action in ACTIONS]
    return [draw_clip(*name) for name in names[:count]]


def as_pixels(frames: np.ndarray[Any, Any]) -> Tensor:
    return torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 127.5 - 1


@pytest.mark.parametrize("colour", COLOURS)
@torch.inference_mode()
def test_things_keep_their_colour_through_the_vae(colour: str) -> None:
    pipeline: Any = load_model("embedded/svd").pipeline
    ink = np.array(COLOURS[colour])
    shown = []
    for clip in [each for each in drawn(70) if parse_caption(each.caption).things[0].colour == colour][:3]:
        latents = pipeline.vae.encode(as_pixels(clip.frames)).latent_dist.mean
        decoded = pipeline.vae.decode(latents, num_frames=10).sample.clamp(-1, 1).permute(0, 2, 3, 1).numpy()
        inside = np.abs(clip.frames - ink).max(-1) < 8
        shown.append((decoded[inside].mean(0) + 1) * 127.5)
    assert np.abs(np.mean(shown, 0) - ink).max() < 30, "another colour is 60 away or more"


def last_normalisation(vae: AutoencoderKLTemporalDecoder, clips: Tensor) -> Tensor:
    """What comes out of a decoder's last normalisation: frames, 32 groups, channels, H, W."""
    norm: Any = vae.decoder.conv_norm_out
    seen = list[Tensor]()
    hook = norm.register_forward_hook(lambda module, inputs, output: seen.append(output))
    with torch.no_grad():
        for clip in clips:
            vae.decode(vae.encode(clip.float() / 127.5 - 1).latent_dist.mean, num_frames=len(clip))
    hook.remove()
    frames = torch.cat(seen)
    return frames.reshape(len(frames), 32, -1, *frames.shape[2:])


def test_a_freed_normalisation_tells_strong_from_weak_and_is_else_as_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Frames of an untrained decoder differ by 4 %, those of a trained one by 24 %.
    monkeypatch.setattr("vdmini_bench.embedded.vae.FREE_BELOW", 0.02)
    torch.manual_seed(0)
    vae = build_vae().eval()
    clips = torch.from_numpy(np.stack([clip.frames for clip in drawn(3)])).permute(0, 1, 4, 2, 3)
    before = last_normalisation(vae, clips)
    free_last_normalisation(vae, clips)
    after = last_normalisation(vae, clips)
    spreads = [groups.std((2, 3, 4), correction=0) for groups in (before, after)]
    assert float(spreads[0].std(0).max()) < 1e-3, "every frame was brought to one deviation"
    assert float((spreads[1].std(0) / spreads[1].mean(0)).mean()) > 0.02
    torch.testing.assert_close(after.mean((0, 3, 4)), before.mean((0, 3, 4)), atol=0.1, rtol=0)
    weights = {name: value.clone() for name, value in vae.state_dict().items()}
    free_last_normalisation(vae, clips)
    assert all(torch.equal(value, weights[name]) for name, value in vae.state_dict().items()), "once is enough"


def finetuned(clips: Tensor, folder: Path, hard: Tensor | None = None) -> AutoencoderKLTemporalDecoder:
    folder.mkdir()
    torch.manual_seed(0)
    vae = build_vae().eval()
    finetune_decoder(vae, clips, 2, folder / "decoder.pt", hard)
    return vae


def test_a_finetuned_decoder_leaves_latents_alone_and_learns_hard_clips(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    untrained = build_vae().eval()
    clips = torch.from_numpy(np.stack([clip.frames for clip in drawn(2)])).permute(0, 1, 4, 2, 3).contiguous()
    frames = as_pixels(drawn(1)[0].frames)
    monkeypatch.setattr("vdmini_bench.embedded.vae.HARD_SHARE", 1.0)
    last = torch.tensor([1])
    anything, hard = finetuned(clips, tmp_path / "anything"), finetuned(clips, tmp_path / "hard", last)
    nothing_else = finetuned(clips[[1, 1]], tmp_path / "nothing_else", last)
    before = untrained.encode(frames).latent_dist.mean
    for vae in (anything, hard, nothing_else):
        assert torch.equal(vae.encode(frames).latent_dist.mean, before)
        assert not vae.training
    weights = [next(vae.decoder.parameters()) for vae in (anything, hard, nothing_else)]
    assert torch.equal(weights[1], weights[2])
    assert not torch.equal(weights[1], weights[0])
