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
from vdmini_bench.vbench.native.transformer import QuickGelu, filled, read_checkpoint, require_names
from vdmini_bench.vbench.native.vision import VisionTransformer

# The order in which features are put together, and the adapter's numbers for the networks.
DINO, CLIP, OPEN_CLIP = range(3)
_ADAPTED = re.compile(r"extractor_list\.(\d+)\..*?(blocks\.\d+\.attn\.qkv)\.lora_([AB])\.weight$")
WHAT = "network of DreamSim"


class DreamSim(nn.Module):
    """B 3 224 224 pixels from 0 to 255 to B D features of mean 0 and length 1."""

    def __init__(self, dino: nn.Module, clip: nn.Module, open_clip: nn.Module) -> None:
        super().__init__()
        self.dino, self.clip, self.open_clip = dino, clip, open_clip

    def forward(self, pixels: Tensor) -> Tensor:
        """Embed a batch."""
        for_clip = at.normalise(pixels, at.CLIP)
        seen = [self.dino(at.normalise(pixels, at.IMAGENET)), self.clip(for_clip), self.open_clip(for_clip)]
        features = torch.cat(seen, dim=-1)
        return F.normalize(features - features.mean(dim=-1, keepdim=True), dim=-1)


def load_dreamsim(dino: Path, clip: Path, open_clip: Path, settings: Path, adapter: Path) -> DreamSim:
    """Read `dino_vitbase16_pretrain.pth`, the two `*_vitb16_pretrain.pth.tar`, and `ensemble_lora`'s two files.

    Raises:
        MissingAssetsError: one of them is another file.
    """
    changes = _read_adapter(settings, adapter)
    # DINO's features are those before its last norm.
    of_dino = {name: value for name, value in read_checkpoint(dino).items() if not name.startswith("norm.")}
    return DreamSim(
        _network(of_dino, dino, changes[DINO], nn.GELU(), 1e-6),
        _network(_read_clip(clip), clip, changes[CLIP], QuickGelu(), 1e-5),
        _network(_read_clip(open_clip), open_clip, changes[OPEN_CLIP], nn.GELU(), 1e-5),
    )


def _network(
    state: Mapping[str, Tensor], path: Path, changes: Mapping[str, Tensor], activation: nn.Module, epsilon: float
) -> VisionTransformer:
    require_names(state, ("patch_embed.proj.weight", "pos_embed", "cls_token", *changes), path, WHAT)
    changed = {name: value + changes[name] if name in changes else value for name, value in state.items()}
    return filled(lambda: VisionTransformer(state, activation, epsilon), changed, path)


def _read_clip(path: Path) -> dict[str, Tensor]:
    content = read_checkpoint(path)
    require_names(content, ("state_dict",), path, WHAT)
    state: dict[str, Tensor] = content["state_dict"]
    require_names(state, ("proj", "pos_drop.weight", "norm.weight"), path, WHAT)
    return state


def _read_adapter(settings: Path, file: Path) -> list[dict[str, Tensor]]:
    """The changes of each of the three networks, by a weight's name, rows x columns."""
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
    changes: list[dict[str, Tensor]] = [{}, {}, {}]
    for (network, name), pair in halves.items():
        changes[network][name] = scale * pair["B"] @ pair["A"]
    return changes


def _tensors(file: Path) -> Mapping[str, Tensor]:
    if file.suffix != ".safetensors":
        return read_checkpoint(file)
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise MissingAssetsError(f"{file} cannot be read as weights ({error}): download it again") from error
