"""A fine-tuned decoder: losses fall, a training that was broken off ends as an unbroken one, and NaN stops it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderKLTemporalDecoder
from tiny_clips import NoiseClips, same, weights
from torch import Tensor

from vdmini.decoder_finetuning import FinetuneLosses, FinetuneSettings, PatchDiscriminator, finetune_decoder
from vdmini.distill.settings import DivergedError
from vdmini.vae import prune_decoder

CLIPS = NoiseClips(3, 4, 16, 16)
SETTINGS: dict[str, Any] = {
    "steps": 4, "batch_size": 2, "frames": 2, "learning_rate": 1e-3, "discriminator_start": 2, "checkpoint_every": 1
}  # fmt: skip


def edges(made: Tensor, real: Tensor) -> Tensor:
    """What stands for a perceptual network."""
    return (made - real).diff(dim=-1).abs().mean()


def student(temporal: bool = False) -> Any:
    """A pruned VAE with random weights, the same at every call."""
    torch.manual_seed(5)
    if temporal:
        vae: Any = AutoencoderKLTemporalDecoder(
            down_block_types=("DownEncoderBlock2D",) * 2, block_out_channels=(32, 32), layers_per_block=1
        )
        return prune_decoder(vae)
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(16, 16),
        norm_num_groups=8,
    )
    return prune_decoder(vae, widths=(16, 8))


def trained(checkpoint: Path, stop_after: int | None = None, temporal: bool = False, **changes: Any) -> Any:
    """A student after a training that is broken off after so many steps, with the losses of its steps."""
    vae, seen = student(temporal), list[FinetuneLosses]()

    def note(losses: FinetuneLosses) -> None:
        seen.append(losses)
        if losses.step == stop_after:
            raise KeyboardInterrupt

    settings = FinetuneSettings(**{**SETTINGS, **changes})
    try:
        finetune_decoder(vae, CLIPS, settings, checkpoint, edges, note)
    except KeyboardInterrupt:
        assert stop_after is not None
    return vae, seen


@pytest.mark.parametrize("temporal", [False, True])
def test_losses_fall_and_the_encoder_stays(tmp_path: Path, temporal: bool) -> None:
    before = weights(student(temporal))
    vae, losses = trained(tmp_path / "c.pt", temporal=temporal, steps=30, lambda_adversarial=0.0, checkpoint_every=100)
    assert [each.step for each in losses] == [*range(1, 31)]
    for name in ("reconstruction", "perceptual"):
        first, last = (sum(getattr(each, name) for each in part) for part in (losses[:5], losses[-5:]))
        assert last < 0.98 * first, name
    for name, weight in vae.state_dict().items():
        assert name.startswith("decoder.") or torch.equal(weight, before[name]), name
    assert not vae.training


def test_the_adversary_joins_when_it_is_told_to(tmp_path: Path) -> None:
    _, losses = trained(tmp_path / "with.pt")
    assert [each.discriminator > 0 for each in losses] == [False, False, True, True]
    pulled, _ = trained(tmp_path / "hard.pt", lambda_adversarial=5.0)
    alone, _ = trained(tmp_path / "without.pt", lambda_adversarial=0.0)
    assert not same(weights(pulled), weights(alone))
    assert PatchDiscriminator(8)(torch.zeros(2, 3, 5, 32, 24)).shape == (2, 1, 5, 4, 3)


def test_a_broken_training_ends_as_an_unbroken_one(tmp_path: Path) -> None:
    whole, losses = trained(tmp_path / "whole.pt")
    for stop_after in range(1, 5):
        path = tmp_path / f"{stop_after}.pt"
        trained(path, stop_after)
        resumed, rest = trained(path)
        # The step after which it stopped is not in its checkpoint yet.
        assert rest == losses[stop_after - 1 :]
        assert same(weights(resumed), weights(whole)), stop_after


def test_a_killed_training_ends_as_an_unbroken_one(tmp_path: Path) -> None:
    script = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_decoder_finetuning import CLIPS, SETTINGS, edges, student
from vdmini.decoder_finetuning import FinetuneSettings, finetune_decoder
def note(losses):
    if losses.step == 3:
        os.kill(os.getpid(), signal.SIGKILL)
finetune_decoder(student(), CLIPS, FinetuneSettings(**SETTINGS), Path(sys.argv[2]), edges, note)
"""
    path = tmp_path / "killed.pt"
    command = [sys.executable, "-c", script, str(Path(__file__).parent), str(path)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    resumed, rest = trained(path)
    assert [each.step for each in rest] == [3, 4]
    whole, _ = trained(tmp_path / "whole.pt")
    assert same(weights(resumed), weights(whole))


def test_what_cannot_go_on_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DivergedError, match=r"step 2: perceptual is nan.*last good checkpoint is .*c\.pt"):
        finetune_decoder(
            student(),
            CLIPS,
            FinetuneSettings(**SETTINGS),
            tmp_path / "c.pt",
            _nan_at_second_call(),
            lambda losses: None,
        )
    trained(tmp_path / "d.pt", 2)
    with pytest.raises(ValueError, match="other learning_rate, seed: remove it"):
        trained(tmp_path / "d.pt", learning_rate=1.0, seed=1)
    with pytest.raises(ValueError, match="other sizes"):
        finetune_decoder(student(True), CLIPS, FinetuneSettings(**SETTINGS), tmp_path / "d.pt", edges)
    with pytest.raises(ValueError, match="has 4 frames, a step needs 5"):
        trained(tmp_path / "e.pt", frames=5)
    with pytest.raises(ValueError, match="no clips"):
        finetune_decoder(student(), NoiseClips(0, 4, 16, 16), FinetuneSettings(**SETTINGS), tmp_path / "f.pt", edges)


def _nan_at_second_call() -> Any:
    calls = []

    def perceptual(made: Tensor, real: Tensor) -> Tensor:
        calls.append(None)
        return edges(made, real) * (float("nan") if len(calls) == 2 else 1.0)

    return perceptual
