"""DreamSim (Fu et al. 2023): DINO, CLIP and OpenCLIP side by side, tuned to how alike people find images.

From the files of the package's release 0.2: two networks in whole, DINO's own, and a low-rank change of all three
(Hu et al. 2021), which is added to their weights once, as it is read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vdmini_bench.errors import MissingAssetsError
from vdmini_bench.vbench.native import frames as at
from vdmini_bench.vbench.native.dino import PatchEmbedding
from vdmini_bench.vbench.native.transformer import (
    HEAD,
    Activation,
    Block,
    class_token,
    depth_of,
    filled,
    quick_gelu,
    read_checkpoint,
    require_names,
)

SIDE = 224
# The order in which features are put together, and the adapter's numbers for the networks.
DINO, CLIP, OPEN_CLIP = range(3)
_ADAPTED = re.compile(r"extractor_list\.(\d+)\..*?(blocks\.\d+\.attn\.qkv)\.lora_([AB])\.weight$")
Adapter = dict[tuple[int, str], Tensor]


class Branch(nn.Module):
    """B 3 224 224 normalised pixels to the class token B C after all blocks; `whole` has CLIP's norms around them."""

    def __init__(self, width: int, depth: int, patch: int, places: int, activation: Activation, *, whole: bool) -> None:
        super().__init__()
        epsilon = 1e-5 if whole else 1e-6
        self.patch_embed = PatchEmbedding(patch, width)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, places, width))
        self.pos_drop = nn.LayerNorm(width, epsilon) if whole else nn.Identity()
        blocks = (Block(width, width // HEAD, activation=activation, epsilon=epsilon) for _ in range(depth))
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(width, epsilon) if whole else nn.Identity()

    def forward(self, pixels: Tensor) -> Tensor:
        """Embed a batch."""
        patches = self.patch_embed(pixels).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls_token.expand(len(pixels), -1, -1), patches], dim=1)
        tokens = self.pos_drop(tokens + self.pos_embed)
        return self.norm(class_token(self.blocks, tokens))


class DreamSim(nn.Module):
    """B 3 224 224 pixels from 0 to 255 to B D features of mean 0 and length 1."""

    clip_proj: Tensor
    open_clip_proj: Tensor

    def __init__(self, dino: Branch, clip: Branch, open_clip: Branch, projections: tuple[Tensor, Tensor]) -> None:
        super().__init__()
        self.dino, self.clip, self.open_clip = dino, clip, open_clip
        self.register_buffer("clip_proj", projections[0].float())
        self.register_buffer("open_clip_proj", projections[1].float())

    def forward(self, pixels: Tensor) -> Tensor:
        """Embed a batch."""
        for_clip = at.normalise(pixels, at.CLIP)
        features = torch.cat(
            [
                self.dino(at.normalise(pixels, at.IMAGENET)),
                self.clip(for_clip) @ self.clip_proj,
                self.open_clip(for_clip) @ self.open_clip_proj,
            ],
            dim=-1,
        )
        return F.normalize(features - features.mean(dim=-1, keepdim=True), dim=-1)


def load_dreamsim(dino: Path, clip: Path, open_clip: Path, settings: Path, adapter: Path) -> DreamSim:
    """Read `dino_vitbase16_pretrain.pth`, the two `*_vitb16_pretrain.pth.tar`, and `ensemble_lora`'s two files.

    Raises:
        MissingAssetsError: one of them is another file.
    """
    changes = _read_adapter(settings, adapter)
    of_clip, of_open_clip = _read_clip(clip), _read_clip(open_clip)
    projections = of_clip.pop("proj"), of_open_clip.pop("proj")
    # DINO's features are those before its last norm.
    of_dino = {name: value for name, value in read_checkpoint(dino).items() if not name.startswith("norm.")}
    return DreamSim(
        _branch(of_dino, dino, _changes_of(changes, DINO), F.gelu, whole=False),
        _branch(of_clip, clip, _changes_of(changes, CLIP), quick_gelu, whole=True),
        _branch(of_open_clip, open_clip, _changes_of(changes, OPEN_CLIP), F.gelu, whole=True),
        projections,
    )


def _branch(
    state: dict[str, Tensor], path: Path, changes: Mapping[str, Tensor], activation: Activation, *, whole: bool
) -> Branch:
    require_names(state, ("patch_embed.proj.weight", "pos_embed", *changes), path, "network of DreamSim")
    width, _, patch, _ = state["patch_embed.proj.weight"].shape
    places = state["pos_embed"].shape[1]
    changed = {name: value + changes[name] if name in changes else value for name, value in state.items()}
    return filled(lambda: Branch(width, depth_of(state), patch, places, activation, whole=whole), changed, path)


def _changes_of(changes: Adapter, network: int) -> dict[str, Tensor]:
    return {name: value for (of, name), value in changes.items() if of == network}


def _read_clip(path: Path) -> dict[str, Tensor]:
    content = read_checkpoint(path)
    require_names(content, ("state_dict",), path, "network of DreamSim")
    state = dict(content["state_dict"])
    require_names(state, ("proj",), path, "network of DreamSim")
    return state


def _read_adapter(settings: Path, file: Path) -> Adapter:
    """The changes of all three networks: by a network's number and a weight's name, rows x columns."""
    try:
        chosen = json.loads(settings.read_text(encoding="utf-8"))
        scale = float(chosen["lora_alpha"]) / int(chosen["r"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MissingAssetsError(f"{settings} has no settings of an adapter ({error!r}): download it again") from error
    halves: dict[tuple[int, str], dict[str, Tensor]] = {}
    for name, value in _tensors(file).items():
        found = _ADAPTED.search(name)
        if found is None:
            raise MissingAssetsError(f"{file} is no DreamSim adapter of release 0.2: it has {name}; download it again")
        halves.setdefault((int(found[1]), f"{found[2]}.weight"), {})[found[3]] = value.float()
    networks = {network for network, _ in halves}
    if networks != {DINO, CLIP, OPEN_CLIP} or any(len(pair) != 2 for pair in halves.values()):
        raise MissingAssetsError(f"{file} is no DreamSim adapter of release 0.2: parts are missing; download it again")
    return {name: scale * pair["B"] @ pair["A"] for name, pair in halves.items()}


def _tensors(file: Path) -> Mapping[str, Tensor]:
    if file.suffix != ".safetensors":
        return read_checkpoint(file)
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise MissingAssetsError(f"{file} cannot be read as weights ({error}): download it again") from error
