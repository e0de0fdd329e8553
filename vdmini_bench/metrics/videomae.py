"""VideoMAE v2, the features with which cd-fvd makes FVD less blind to motion (Wang et al. 2023; Ge et al. 2024).

The network is the giant vision transformer that was fine-tuned on Something-Something v2; the features are its mean
token after the last norm, before the classifier.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from vdmini_bench.assets.cache import fetch_asset
from vdmini_bench.assets.videomae_checkpoint import GIANT, PATCH, TUBELET, VIDEOMAE, Size

VIDEOMAE_VERSION = "videomae2-giant-ssv2-1"

SIDE = 224
FRAMES = 16
EPSILON = 1e-6
# Parts of the original's names and what stands for them in those of `transformers`.
NAMES = {
    "fc_norm": "norm",
    "patch_embed.proj": "transformer.embeddings.patch_embeddings.projection",
    "blocks.": "transformer.encoder.layer.",
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "attn.proj": "attention.output.dense",
    "attn.qkv": "attention.attention.qkv",
    "attn.q_bias": "attention.attention.query.bias",
    "attn.v_bias": "attention.attention.value.bias",
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
        if name.startswith("head."):
            continue
        ours = name
        for part, whole in NAMES.items():
            ours = ours.replace(part, whole)
        # Query, key and value are one tensor in the original.
        parts = ("query", "key", "value") if "qkv" in ours else ("",)
        for part, rows in zip(parts, value.float().chunk(len(parts)), strict=True):
            converted[ours.replace("qkv", part)] = rows
    return converted
