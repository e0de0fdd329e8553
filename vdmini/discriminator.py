"""The multi-frame discriminator: the teacher's frozen encoder with small trainable heads after each down block."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

HIDDEN_CHANNELS = 64
NOISE_CHANNELS = 32


class DiscriminatorHead(nn.Module):
    """Scores features in space (`dimensions` 2) or in time (1), with a projection of the condition.

    Convolution, GroupNorm, LeakyReLU, then a 1x1 score plus the inner product with the projected condition
    (Miyato and Koyama 2018). SF-V publishes no kernel sizes; 3 works down to 1x1 maps.
    """

    def __init__(self, channels: int, condition_channels: int, dimensions: int) -> None:
        super().__init__()
        convolution = nn.Conv1d if dimensions == 1 else nn.Conv2d
        self.features = nn.Sequential(
            convolution(channels, HIDDEN_CHANNELS, 3, padding=1), nn.GroupNorm(8, HIDDEN_CHANNELS), nn.LeakyReLU(0.2)
        )
        self.score = convolution(HIDDEN_CHANNELS, 1, 1)
        self.condition = nn.Linear(condition_channels, HIDDEN_CHANNELS)

    def forward(self, features: Tensor, condition: Tensor) -> Tensor:
        """Score N C ... features under an N x `condition_channels` condition: N 1 ... scores."""
        hidden = self.features(features)
        projected = self.condition(condition).view(*hidden.shape[:2], *[1] * (hidden.dim() - 2))
        return self.score(hidden) + (hidden * projected).sum(1, keepdim=True) / math.sqrt(HIDDEN_CHANNELS)


class DiscriminatorHeads(nn.Module):
    """A spatial and a temporal head for every stage of the frozen encoder; both are needed (SF-V, table 3)."""

    def __init__(self, stage_channels: Sequence[int], embedding_channels: int) -> None:
        super().__init__()
        condition_channels = 2 * NOISE_CHANNELS + embedding_channels
        self.spatial = nn.ModuleList(DiscriminatorHead(channels, condition_channels, 2) for channels in stage_channels)
        self.temporal = nn.ModuleList(DiscriminatorHead(channels, condition_channels, 1) for channels in stage_channels)

    def forward(self, features: Sequence[Tensor], sigmas: Tensor, embedding: Tensor, frames: int) -> Tensor:
        """Score clips from encoder `features`, one (B T) C H W tensor a stage.

        `sigmas` (B) is the noise level the clips were noised to, `embedding` B E the image condition. Returns B x K
        with K = 2 * stages: the scores of a head are averaged over its map, so that large maps do not drown small ones.
        """
        condition = torch.cat([_noise_features(sigmas), embedding.to(sigmas.dtype)], dim=1)
        scores = []
        for stage, spatial, temporal in zip(features, self.spatial, self.temporal, strict=True):
            clips, (channels, height, width) = len(sigmas), stage.shape[1:]
            by_frame = spatial(stage, condition.repeat_interleave(frames, 0))
            scores.append(by_frame.view(clips, -1).mean(1))
            tracks = stage.view(clips, frames, channels, height * width).permute(0, 3, 2, 1).flatten(0, 1)
            by_place = temporal(tracks, condition.repeat_interleave(height * width, 0))
            scores.append(by_place.view(clips, -1).mean(1))
        return torch.stack(scores, dim=1)


def _noise_features(sigmas: Tensor) -> Tensor:
    """Fourier features of ln(sigma) / 4: B x 64; noise levels may be 0, as the first timestep is."""
    frequencies = torch.exp(torch.linspace(0, math.log(100.0), NOISE_CHANNELS, device=sigmas.device))
    angles = (sigmas.clamp(min=1e-3).log() / 4)[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1)
