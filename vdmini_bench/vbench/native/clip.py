"""OpenAI's CLIP (Radford et al. 2021), its two halves apart, from the TorchScript archives it was published in.

In single precision: the official code computes so on CPUs, and in half precision on GPUs.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from vdmini_bench.assets.torchscript import open_script
from vdmini_bench.errors import MissingAssetsError
from vdmini_bench.vbench.native.transformer import (
    CLIP_NAMES,
    HEAD,
    Block,
    class_token,
    depth_of,
    filled,
    part_of,
    rename,
    require_names,
)


class ClipImages(nn.Module):
    """B 3 S S normalised pixels to B x D features, not normalised."""

    def __init__(self, width: int, depth: int, heads: int, patch: int, grid: int, features: int) -> None:
        super().__init__()
        self.conv1: nn.Module = nn.Conv2d(3, width, patch, patch, bias=False)
        self.class_embedding = nn.Parameter(torch.zeros(width))
        self.positional_embedding = nn.Parameter(torch.zeros(grid * grid + 1, width))
        self.ln_pre = nn.LayerNorm(width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.ln_post = nn.LayerNorm(width)
        self.proj = nn.Parameter(torch.zeros(width, features))

    def forward(self, pixels: Tensor) -> Tensor:
        """Embed a batch."""
        patches = self.conv1(pixels).flatten(2).transpose(1, 2)
        first = self.class_embedding.expand(len(pixels), 1, -1)
        tokens = self.ln_pre(torch.cat([first, patches], dim=1) + self.positional_embedding)
        return self.ln_post(class_token(self.blocks, tokens)) @ self.proj


class ClipTexts(nn.Module):
    """B L token numbers to B x D features, not normalised: those of the last token, which has the highest number."""

    def __init__(self, width: int, depth: int, heads: int, length: int, words: int, features: int) -> None:
        super().__init__()
        self.length = length
        self.token_embedding = nn.Embedding(words, width)
        self.positional_embedding = nn.Parameter(torch.zeros(length, width))
        self.blocks = nn.ModuleList(Block(width, heads, causal=True) for _ in range(depth))
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Parameter(torch.zeros(width, features))

    def forward(self, numbers: Tensor) -> Tensor:
        """Embed a batch."""
        tokens = self.token_embedding(numbers) + self.positional_embedding
        for block in self.blocks:
            tokens = block(tokens)
        last = numbers.argmax(dim=-1)
        return self.ln_final(tokens[torch.arange(len(numbers)), last]) @ self.text_projection


def read_clip_archive(path: Path) -> dict[str, Tensor]:
    """The tensors of a published archive under their own names.

    Raises:
        MissingAssetsError: it is no such archive.
    """
    try:
        return dict(open_script(path).state_dict())
    except ValueError as error:
        raise MissingAssetsError(f"{error}: download it again") from error


def clip_images(path: Path) -> ClipImages:
    """The half of a published archive that sees, of the sizes its tensors have.

    Raises:
        MissingAssetsError: it is no such archive, or of another network.
    """
    seen = rename(part_of(read_clip_archive(path), "visual."), CLIP_NAMES)
    return filled(lambda: ClipImages(*sizes_of(seen, path, "CLIP")), seen, path)


def sizes_of(seen: Mapping[str, Tensor], path: Path, what: str) -> tuple[int, int, int, int, int, int]:
    """What `ClipImages` is made of, as its tensors say; `path` is named where something is wrong.

    Raises:
        MissingAssetsError: the tensors are of another network.
    """
    require_names(seen, ("conv1.weight", "positional_embedding", "proj"), path, what)
    width, patch = len(seen["conv1.weight"]), seen["conv1.weight"].shape[-1]
    grid = round((len(seen["positional_embedding"]) - 1) ** 0.5)
    return width, depth_of(seen), width // HEAD, patch, grid, seen["proj"].shape[1]


def clip_texts(state: Mapping[str, Tensor], path: Path) -> ClipTexts:
    """The half that reads, and likewise.

    Raises:
        MissingAssetsError: the tensors are of another network.
    """
    others = ("visual.", "logit_scale", "input_resolution", "context_length", "vocab_size")
    read = rename({name: value for name, value in state.items() if not name.startswith(others)}, CLIP_NAMES)
    require_names(read, ("token_embedding.weight", "positional_embedding", "text_projection"), path, "CLIP")
    words, width = read["token_embedding.weight"].shape
    length, features = len(read["positional_embedding"]), read["text_projection"].shape[1]
    return filled(lambda: ClipTexts(width, depth_of(read), width // HEAD, length, words, features), read, path)
