"""ViCLIP (Wang et al. 2023, InternVid), which sees eight frames of a clip and reads what it should show."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

from vdmini_bench.vbench.native.clip import NAMES, SEEN, ClipTexts, clip_texts
from vdmini_bench.vbench.native.transformer import QuickGelu, filled, part_of, read_checkpoint, rename, require_names
from vdmini_bench.vbench.native.vision import VisionTransformer

FRAMES = 8


class ViClipVideos(VisionTransformer):
    """B T 3 S S normalised pixels to B x D features, not normalised; all patches of all frames see each other."""

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        super().__init__(state, QuickGelu(), 1e-5)
        self.temporal_pos_embed = nn.Parameter(torch.zeros(1, FRAMES, len(self.cls_token)))

    def tokens(self, pixels: Tensor) -> Tensor:
        """Those of eight frames: B N C."""
        patches = self.patch_embed["proj"](pixels.flatten(0, 1)).flatten(2).transpose(1, 2)
        patches = patches.unflatten(0, pixels.shape[:2])
        # Trained with the patches of one place side by side, frame after frame; the order changes nothing here.
        patches = (patches + self.pos_embed[1:] + self.temporal_pos_embed[:, :, None]).flatten(1, 2)
        first = (self.cls_token + self.pos_embed[0]).expand(len(pixels), 1, -1)
        return torch.cat([first, patches], dim=1)


class ViClip(nn.Module):
    """Both halves."""

    def __init__(self, videos: ViClipVideos, texts: ClipTexts) -> None:
        super().__init__()
        self.vision_encoder, self.text_encoder = videos, texts


def middle_frames(count: int, wanted: int = FRAMES) -> list[int]:
    """The frames that ViCLIP sees: the middle ones of eight equal parts, the last again where there are fewer."""
    parts = min(wanted, count)
    edges = [int(part * (count / parts)) for part in range(parts)] + [count]
    middles = [(start + end - 1) // 2 for start, end in pairwise(edges)]
    return middles + [middles[-1]] * (wanted - parts)


def load_viclip(path: Path) -> ViClip:
    """Read `ViClip-InternVid-10M-FLT.pth`.

    Raises:
        MissingAssetsError: it is another file.
    """
    checkpoint = read_checkpoint(path)
    require_names(checkpoint, ("model",), path, "ViCLIP")
    texts = clip_texts(part_of(checkpoint["model"], "text_encoder."), path)
    seen = part_of(checkpoint["model"], "vision_encoder.")
    require_names(seen, SEEN, path, "ViCLIP")
    # Kernels of one frame.
    seen["conv1.weight"] = seen["conv1.weight"].squeeze(2)
    renamed = rename(seen, NAMES)
    return ViClip(filled(lambda: ViClipVideos(renamed), renamed, path), texts)
