"""Train the classifier of drawn clips, and record beside it what it gets right."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import avg_pool2d, cross_entropy, interpolate

from vdmini_bench.data.captions import Scene, choose_scenes, draw_scenes
from vdmini_bench.embedded.training_loop import half_where_fast, train_steps
from vdmini_bench.metrics.scene_classifier import (
    RECORD,
    WEIGHTS,
    SceneClassifier,
    label_tensors,
    read_clips,
    to_network,
)
from vdmini_bench.metrics.semantic import Reading, mean_shares

CLIPS_PER_STEP = 32
LEARNING_RATE = 2e-3
# Seeds that no training clip is drawn with.
TEST_SEED = 2_000_000


def train_classifier(
    clips: NDArray[np.uint8], scenes: list[Scene], steps: int, checkpoint: Path, device: torch.device
) -> SceneClassifier:
    """Train for `steps` on clips N T H W C uint8 of the scenes; returns it in eval mode.

    A judge must know every combination: give scenes of the split "any".
    """
    torch.manual_seed(0)
    network = SceneClassifier().to(device)
    labels = label_tensors([Reading.of(scene) for scene in scenes])

    def loss_of_step(step: int) -> Tensor:
        chosen = torch.randint(0, len(scenes), (CLIPS_PER_STEP,))
        pixels = to_network(clips[chosen.numpy()]).to(device)
        with half_where_fast(device):
            logits = network(_worn(pixels))
        losses = [cross_entropy(logits[name].float(), labels[name][chosen].to(device)) for name in logits]
        return torch.stack(losses).sum()

    train_steps(network, loss_of_step, steps=steps, learning_rate=LEARNING_RATE, checkpoint=checkpoint)
    return network.eval()


def _worn(pixels: Tensor) -> Tensor:
    """Clips B C T H W with a little noise, half of them blurred: generated clips are less sharp than drawn ones."""
    shape = pixels.shape
    frames = pixels.transpose(1, 2).flatten(0, 1)
    blurred = interpolate(avg_pool2d(frames, 2), size=frames.shape[-2:], mode="bilinear", align_corners=False)
    blurred = blurred.unflatten(0, (shape[0], shape[2])).transpose(1, 2)
    share = torch.rand(shape[0], device=pixels.device) * (torch.rand(shape[0], device=pixels.device) < 0.5)
    amount = torch.rand(shape[0], device=pixels.device) * 0.1
    share, amount = (each.view(-1, 1, 1, 1, 1) for each in (share, amount))
    return pixels.lerp(blurred, share) + amount * torch.randn_like(pixels)


def save_classifier(folder: Path, network: SceneClassifier, vae: AutoencoderKL, test_clips: int) -> dict[str, object]:
    """Write the classifier with what it gets right of drawn clips that it never saw, and of the VAE's copies of them.

    Of a text-to-video model with this VAE no more can be expected than of the copies. Returns the record.
    """
    scenes = choose_scenes(test_clips, "any", skip=TEST_SEED)
    clips = draw_scenes(scenes, TEST_SEED)
    held_out = choose_scenes(test_clips, "held-out", skip=TEST_SEED)
    record: dict[str, object] = {
        "n": test_clips,
        "accuracy": mean_shares(scenes, read_clips(network, clips)),
        "accuracy_held_out_combinations": mean_shares(held_out, read_clips(network, draw_scenes(held_out, TEST_SEED))),
        "accuracy_on_vae_copies": mean_shares(scenes, read_clips(network, reconstruct(vae, clips))),
    }
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: tensor.cpu().contiguous() for name, tensor in network.state_dict().items()}
    save_file(weights, folder / WEIGHTS)
    (folder / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return record


@torch.inference_mode()
def reconstruct(vae: AutoencoderKL, clips: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Clips N T H W C uint8 through the VAE and back."""
    copies = []
    for clip in clips:
        frames = torch.from_numpy(clip).permute(0, 3, 1, 2).to(vae.device).float() / 127.5 - 1
        decoded = vae.decode(vae.encode(frames).latent_dist.mean).sample.cpu()
        copies.append((decoded * 127.5 + 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy())
    return np.stack(copies)
