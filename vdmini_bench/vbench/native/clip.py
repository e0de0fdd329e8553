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
from vdmini_bench.vbench.native.transformer import Block, QuickGelu, depth_of, filled, part_of, rename, require_names
from vdmini_bench.vbench.native.vision import VisionTransformer

SEEN = ("conv1.weight", "positional_embedding", "class_embedding", "ln_pre.weight", "ln_post.weight", "proj")
NAMES = {
    "transformer.resblocks.": "blocks.",
    "attn.in_proj_": "attn.qkv.",
    "attn.out_proj.": "attn.proj.",
    "ln_1.": "norm1.",
    "ln_2.": "norm2.",
    "mlp.c_fc.": "mlp.fc1.",
    "mlp.c_proj.": "mlp.fc2.",
    "conv1.": "patch_embed.proj.",
    "class_embedding": "cls_token",
    "positional_embedding": "pos_embed",
    "ln_pre.": "pos_drop.",
    "ln_post.": "norm.",
}


class ClipTexts(nn.Module):
    """B L token numbers to B x D features, not normalised: those of the last token, which has the highest number."""

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        words, width = state["token_embedding.weight"].shape
        self.length = len(state["pos_embed"])
        self.token_embedding = nn.Embedding(words, width)
        self.pos_embed = nn.Parameter(torch.zeros(self.length, width))
        self.blocks = nn.Sequential(*(Block(width, causal=True) for _ in range(depth_of(state))))
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Parameter(torch.zeros(state["text_projection"].shape))

    def forward(self, numbers: Tensor) -> Tensor:
        """Embed a batch."""
        tokens = self.blocks(self.token_embedding(numbers) + self.pos_embed)
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


def load_clip_images(path: Path) -> VisionTransformer:
    """The half that sees, from a published archive.

    Raises:
        MissingAssetsError: it is another file.
    """
    seen = part_of(read_clip_archive(path), "visual.")
    require_names(seen, SEEN, path, "CLIP")
    renamed = rename(seen, NAMES)
    return filled(lambda: VisionTransformer(renamed, QuickGelu(), 1e-5), renamed, path)


def clip_texts(state: Mapping[str, Tensor], path: Path) -> ClipTexts:
    """The half that reads, from its tensors; `path` is named where something is wrong.

    Raises:
        MissingAssetsError: the tensors are of another network.
    """
    require_names(state, ("token_embedding.weight", "positional_embedding", "text_projection"), path, "CLIP")
    others = ("visual.", "logit_scale", "input_resolution", "context_length", "vocab_size")
    read = rename({name: value for name, value in state.items() if not name.startswith(others)}, NAMES)
    return filled(lambda: ClipTexts(read), read, path)
