"""ViCLIP (Wang et al. 2023, InternVid), which sees eight frames of a clip and reads what it should show."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

from vdmini_bench.vbench.native.clip import ClipTexts, clip_texts
from vdmini_bench.vbench.native.transformer import (
    CLIP_NAMES,
    HEAD,
    Block,
    class_token,
    depth_of,
    filled,
    part_of,
    read_checkpoint,
    rename,
    require_names,
)

FRAMES = 8


class ViClipVideos(nn.Module):
    """B T 3 S S normalised pixels to B x D features, not normalised; all patches of all frames see each other."""

    def __init__(self, width: int, depth: int, heads: int, patch: int, grid: int, features: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(3, width, (1, patch, patch), (1, patch, patch), bias=False)
        self.class_embedding = nn.Parameter(torch.zeros(width))
        self.positional_embedding = nn.Parameter(torch.zeros(grid * grid + 1, width))
        self.temporal_positional_embedding = nn.Parameter(torch.zeros(1, FRAMES, width))
        self.ln_pre = nn.LayerNorm(width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.ln_post = nn.LayerNorm(width)
        self.proj = nn.Parameter(torch.zeros(width, features))

    def forward(self, pixels: Tensor) -> Tensor:
        """Embed a batch of clips of eight frames."""
        patches = self.conv1(pixels.transpose(1, 2)).flatten(3).permute(0, 2, 3, 1)
        times = self.temporal_positional_embedding[:, :, None]
        # Trained with the patches of one place side by side, frame after frame; the order changes nothing here.
        patches = (patches + self.positional_embedding[1:] + times).flatten(1, 2)
        first = (self.class_embedding + self.positional_embedding[0]).expand(len(pixels), 1, -1)
        tokens = self.ln_pre(torch.cat([first, patches], dim=1))
        return self.ln_post(class_token(self.blocks, tokens)) @ self.proj


class ViClip(nn.Module):
    """Both halves."""

    def __init__(self, videos: ViClipVideos, texts: ClipTexts) -> None:
        super().__init__()
        self.vision_encoder, self.text_encoder = videos, texts


def middle_frames(count: int) -> list[int]:
    """The frames that ViCLIP sees: the middle ones of eight equal parts, the last again where there are fewer."""
    parts = min(FRAMES, count)
    edges = [int(part * (count / parts)) for part in range(parts)] + [count]
    middles = [(start + end - 1) // 2 for start, end in pairwise(edges)]
    return middles + [middles[-1]] * (FRAMES - parts)


def load_viclip(path: Path) -> ViClip:
    """Read `ViClip-InternVid-10M-FLT.pth`.

    Raises:
        MissingAssetsError: it is another file.
    """
    checkpoint = read_checkpoint(path)
    require_names(checkpoint, ("model",), path, "ViCLIP")
    state = rename(checkpoint["model"], CLIP_NAMES)
    texts = clip_texts(part_of(state, "text_encoder."), path)
    seen = part_of(state, "vision_encoder.")
    require_names(seen, ("conv1.weight", "positional_embedding", "proj"), path, "ViCLIP")
    width, patch, features = len(seen["conv1.weight"]), seen["conv1.weight"].shape[-1], seen["proj"].shape[1]
    grid = round((len(seen["positional_embedding"]) - 1) ** 0.5)
    videos = filled(lambda: ViClipVideos(width, depth_of(seen), width // HEAD, patch, grid, features), seen, path)
    return ViClip(videos, texts)
