"""ViCLIP (Wang et al. 2023, InternVid), which sees eight frames of a clip and reads what it should show."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

from vdmini_bench.vbench.native.clip import ClipImages, ClipTexts, clip_texts, sizes_of
from vdmini_bench.vbench.native.transformer import (
    CLIP_NAMES,
    class_token,
    filled,
    part_of,
    read_checkpoint,
    rename,
    require_names,
)  # fmt: skip

FRAMES = 8


class ViClipVideos(ClipImages):
    """B T 3 S S normalised pixels to B x D features, not normalised; all patches of all frames see each other."""

    def __init__(self, width: int, depth: int, heads: int, patch: int, grid: int, features: int) -> None:
        super().__init__(width, depth, heads, patch, grid, features)
        self.conv1 = nn.Conv3d(3, width, (1, patch, patch), (1, patch, patch), bias=False)
        self.temporal_positional_embedding = nn.Parameter(torch.zeros(1, FRAMES, width))

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
    return ViClip(filled(lambda: ViClipVideos(*sizes_of(seen, path, "ViCLIP")), seen, path), texts)
