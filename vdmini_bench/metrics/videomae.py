"""VideoMAE v2, the features with which cd-fvd makes FVD less blind to motion (Wang et al. 2023; Ge et al. 2024).

The network is the giant vision transformer that was fine-tuned on Something-Something v2; the features are its mean
token after the last norm, before the classifier.
"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from vdmini_bench.assets import AssetError, fetch_asset

VIDEOMAE = "videomae-ssv2"
VIDEOMAE_VERSION = "videomae2-giant-ssv2-1"
COMMAND = f"vdmini-bench assets import {VIDEOMAE} PATH"
# Something-Something v2; the fine-tunings on other data sets differ from it in their heads alone.
CLASSES = 174

SIDE = 224
PATCH = 14
FRAMES = 16
TUBELET = 2
EPSILON = 1e-6


@dataclass(frozen=True)
class Size:
    """Sizes of a vision transformer: channels of a token and within an MLP, blocks, and heads of attention."""

    width: int
    hidden: int
    depth: int
    heads: int


GIANT = Size(width=1408, hidden=6144, depth=40, heads=16)

# Modules of a block: the original's name and that of `transformers`.
BLOCK = {
    "norm1": "layernorm_before",
    "attn.proj": "attention.output.dense",
    "norm2": "layernorm_after",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}


class VideoMae(nn.Module):
    """The network behind the interface of `InceptionI3d`: B 3 T 224 224 float32 RGB in [-1, 1] to B x width float32."""

    def __init__(self, size: Size) -> None:
        from transformers import VideoMAEConfig, VideoMAEModel

        super().__init__()
        config = VideoMAEConfig(
            image_size=SIDE,
            patch_size=PATCH,
            num_frames=FRAMES,
            tubelet_size=TUBELET,
            hidden_size=size.width,
            intermediate_size=size.hidden,
            num_hidden_layers=size.depth,
            num_attention_heads=size.heads,
            layer_norm_eps=EPSILON,
        )
        self.transformer = VideoMAEModel(config)
        self.norm = nn.LayerNorm(size.width, eps=EPSILON)

    def forward(self, video: Tensor) -> Tensor:
        """Map clips of an even number of frames to features.

        Raises:
            ValueError: an odd number of frames, of which the last would be dropped.
        """
        if video.shape[2] % TUBELET:
            raise ValueError(f"clips of {video.shape[2]} frames: VideoMAE takes pairs, use one frame more or fewer")
        # cd-fvd gives it frames in [0, 1], with no mean taken off: kept.
        frames = ((video + 1) / 2).transpose(1, 2)
        tokens = self.transformer.embeddings.patch_embeddings(frames)
        positions = positions_for(self.transformer.embeddings.position_embeddings, video.shape[2])
        tokens = self.transformer.encoder(tokens + positions.to(tokens)).last_hidden_state
        features: Tensor = self.norm(tokens.mean(dim=1))
        return features


def positions_for(positions: Tensor, frames: int) -> Tensor:
    """The position embeddings 1 N C of 16 frames for clips of another length, resized over time as cd-fvd does."""
    if frames == FRAMES:
        return positions
    side, steps = SIDE // PATCH, FRAMES // TUBELET
    grid = positions.transpose(1, 2).reshape(1, -1, steps, side, side)
    # The tenth is theirs: it keeps the number of steps whole, and it shifts where they are read.
    scale = (frames // TUBELET + 0.1) / steps
    return functional.interpolate(grid, scale_factor=(scale, 1.0, 1.0), mode="trilinear").flatten(2).transpose(1, 2)


def load_videomae(cache: Path | None = None) -> VideoMae:
    """Load the imported network in float32 and eval mode, on the CPU, without gradients.

    Raises:
        AssetError: it was not imported, or has changed since.
    """
    from safetensors.torch import load_file

    state = load_file(fetch_asset(VIDEOMAE, cache))
    with torch.device("meta"):
        network = VideoMae(GIANT)
    network.load_state_dict(convert_weights(state), assign=True)
    network.eval().requires_grad_(False)
    return network


def convert_weights(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The original's weights, in whatever precision, as the float32 state dict of `VideoMae`; the head is left out."""
    converted: dict[str, Tensor] = {}
    for name, value in state.items():
        if not name.startswith("head."):
            parts = value.float().chunk(3) if name.endswith("attn.qkv.weight") else (value.float(),)
            converted.update(zip(_our_names(name), parts, strict=True))
    return converted


def _our_names(name: str) -> tuple[str, ...]:
    """What a tensor of the original is called here; query, key and value are one tensor there."""
    if name.startswith("fc_norm."):
        return (name.removeprefix("fc_"),)
    if name.startswith("patch_embed.proj."):
        return (name.replace("patch_embed.proj", "transformer.embeddings.patch_embeddings.projection"),)
    _, number, rest = name.split(".", 2)
    block = f"transformer.encoder.layer.{number}."
    attention = f"{block}attention.attention."
    if rest == "attn.qkv.weight":
        return tuple(f"{attention}{part}.weight" for part in ("query", "key", "value"))
    if rest in ("attn.q_bias", "attn.v_bias"):
        return (f"{attention}{'query' if rest == 'attn.q_bias' else 'value'}.bias",)
    module, _, parameter = rest.rpartition(".")
    return (f"{block}{BLOCK[module]}.{parameter}",)


def read_original_weights(path: Path) -> dict[str, Tensor]:
    """Read the published checkpoint, or a safetensors file of the same tensors, by the original's names and as stored.

    Raises:
        AssetError: the file needs more than tensors to be read, is damaged, or holds another network's weights.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if _is_safetensors(path):
            found: object = load_file(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path) or None)
    except (pickle.UnpicklingError, SafetensorError, RuntimeError, ValueError, EOFError, KeyError, OSError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise AssetError(VIDEOMAE, f"{path} cannot be read as weights and nothing else ({reason})", COMMAND) from error
    state = _unwrapped(found)
    problem = _difference(state, original_shapes(GIANT))
    if problem is not None:
        raise AssetError(VIDEOMAE, f"{path} is another network: {problem}", COMMAND)
    # Each in memory of its own: a checkpoint may hold slices of one buffer, which safetensors does not write.
    return {name: value.clone(memory_format=torch.contiguous_format) for name, value in state.items()}


def original_shapes(size: Size) -> dict[str, tuple[int, ...]]:
    """The tensors of the published checkpoint."""
    width, hidden = size.width, size.hidden
    shapes: dict[str, tuple[int, ...]] = {
        "patch_embed.proj.weight": (width, 3, TUBELET, PATCH, PATCH),
        "patch_embed.proj.bias": (width,),
        "fc_norm.weight": (width,),
        "fc_norm.bias": (width,),
        "head.weight": (CLASSES, width),
        "head.bias": (CLASSES,),
    }
    block: dict[str, tuple[int, ...]] = {
        "norm1.weight": (width,),
        "norm1.bias": (width,),
        "attn.q_bias": (width,),
        "attn.v_bias": (width,),
        "attn.qkv.weight": (3 * width, width),
        "attn.proj.weight": (width, width),
        "attn.proj.bias": (width,),
        "norm2.weight": (width,),
        "norm2.bias": (width,),
        "mlp.fc1.weight": (hidden, width),
        "mlp.fc1.bias": (hidden,),
        "mlp.fc2.weight": (width, hidden),
        "mlp.fc2.bias": (width,),
    }
    return shapes | {f"blocks.{n}.{name}": shape for n in range(size.depth) for name, shape in block.items()}


def _is_safetensors(path: Path) -> bool:
    """Whether a JSON header follows a length of 8 bytes: neither a zip archive nor a pickle has a brace there."""
    with path.open("rb") as file:
        return file.read(9)[8:] == b"{"


def _unwrapped(found: object) -> dict[str, Tensor]:
    for key in ("model", "module"):
        if isinstance(found, dict) and key in found:
            found = found[key]
            break
    return {str(k): v for k, v in found.items() if isinstance(v, Tensor)} if isinstance(found, dict) else {}


def _difference(state: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]]) -> str | None:
    """The first way in which a checkpoint is not the published one, or None."""
    for name in (*expected, *state):
        if name not in state:
            return f"it has no {name}"
        if name not in expected:
            return f"it has {name}, which VideoMAE v2 has not"
        if tuple(state[name].shape) != expected[name] or not state[name].is_floating_point():
            found = f"{name} is {state[name].dtype} of shape {tuple(state[name].shape)}"
            return f"{found} where floating point of shape {expected[name]} is wanted"
    return None
