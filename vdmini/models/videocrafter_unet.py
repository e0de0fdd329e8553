"""VideoCrafter2's network, whole or pruned, and how it is read from and written to the original's state dicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from diffusers.configuration_utils import register_to_config
from diffusers.models.embeddings import TimestepEmbedding
from diffusers.models.unets.unet_3d_condition import UNet3DConditionModel, UNet3DConditionOutput
from torch import Tensor, nn

from vdmini.errors import ModelLoadError
from vdmini.models import videocrafter_keys
from vdmini.models.narrow import channel_setting, narrow_layers
from vdmini.models.weights import names_that_do_not_fit, read_weights

MID_BLOCK_TYPE = "UNetMidBlock3DCrossAttn"
# What a pair is made of, in the order they run; a stage without attention has the first two alone.
PAIR_PARTS = ("resnets", "temp_convs", "attentions", "temp_attentions")


class VideoCrafterUNet(UNet3DConditionModel):
    """VideoCrafter2's UNet, whole or pruned; with guidance embeddings it is T2V-Turbo-v2's.

    `layers_per_block` counts the pairs of each down stage; the up stage of the same resolution has one more.
    `mid_block_type` is None or "UNetMidBlock3DCrossAttn". `time_cond_dim` and `motion_cond_dim` are the widths of the
    guidance embeddings, None without. `original_blocks` holds the numbers that the blocks of a pruned network have in
    the original's `input_blocks` and `output_blocks`, None where they are numbered through. `layer_channels`, which
    channel-pruned networks have, is that of `narrow_layers`.
    """

    # diffusers writes this name into model_index.json and asks the module of this name for the class when loading.
    __module__ = "vdmini"
    _supports_gradient_checkpointing = True

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        sample_size: tuple[int, int] = (40, 64),
        in_channels: int = 4,
        out_channels: int = 4,
        down_block_types: tuple[str, ...] = (*("CrossAttnDownBlock3D",) * 3, "DownBlock3D"),
        up_block_types: tuple[str, ...] = ("UpBlock3D", *("CrossAttnUpBlock3D",) * 3),
        block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280),
        layers_per_block: int | tuple[int, ...] = 2,
        norm_num_groups: int = 32,
        cross_attention_dim: int = 1024,
        attention_head_dim: int = 64,
        num_frames: int = 16,
        time_cond_dim: int | None = None,
        motion_cond_dim: int | None = None,
        mid_block_type: str | None = MID_BLOCK_TYPE,
        original_blocks: tuple[tuple[int, ...], tuple[int, ...]] | None = None,
        layer_channels: dict[str, list[int]] | None = None,
    ) -> None:
        if mid_block_type not in (None, MID_BLOCK_TYPE):
            raise ValueError(f"unknown mid_block_type {mid_block_type!r}: use None or {MID_BLOCK_TYPE!r}")
        if motion_cond_dim is not None and time_cond_dim is None:
            raise ValueError("motion_cond_dim needs time_cond_dim: the two embeddings are combined")
        stages = len(block_out_channels)
        layers = (layers_per_block,) * stages if isinstance(layers_per_block, int) else tuple(layers_per_block)
        if len(layers) != stages or min(layers) < 1:
            raise ValueError(f"layers_per_block {layers} must give {stages} stages one pair or more each")
        # Without its decorator, which would register the parent's own arguments over this class's.
        UNet3DConditionModel.__init__.__wrapped__(
            self,
            sample_size=sample_size,
            in_channels=in_channels,
            out_channels=out_channels,
            down_block_types=down_block_types,
            up_block_types=up_block_types,
            block_out_channels=block_out_channels,
            layers_per_block=max(layers),
            norm_num_groups=norm_num_groups,
            cross_attention_dim=cross_attention_dim,
            attention_head_dim=attention_head_dim,
        )
        # The parent builds stages of one depth only; leaving out the middle pairs fits any other.
        for pairs, down, up in zip(layers, self.down_blocks, reversed(self.up_blocks), strict=True):
            _thin(down, [*range(pairs)])
            _thin(up, [*range(pairs), max(layers)])
        if mid_block_type is None:
            self.mid_block = None
        width = block_out_channels[0]
        self.fps_embedding = TimestepEmbedding(width, 4 * width)
        self.time_cond_proj: nn.Linear | None = None
        self.motion_cond_proj: nn.Linear | None = None
        self.combine_proj: nn.Linear | None = None
        if time_cond_dim is not None:
            self.time_cond_proj = nn.Linear(time_cond_dim, width, bias=False)
        if motion_cond_dim is not None:
            self.motion_cond_proj = nn.Linear(motion_cond_dim, width, bias=False)
            self.combine_proj = nn.Linear(2 * width, width, bias=False)
        narrow_layers(self, layer_channels)
        self.gradient_checkpointing = False

    @classmethod
    def from_original(cls, state_dict: Mapping[str, Tensor], config: Mapping[str, Any]) -> Self:
        """The network with the weights of an original state dict, whole or pruned, whose tensors it takes over.

        `config` holds the original's own options; the shapes decide, and an option that contradicts them raises
        ModelLoadError, as do missing, unknown and misshapen weights.
        """
        native = videocrafter_keys.network_config({key: tuple(t.shape) for key, t in state_dict.items()}, config)
        with torch.device("meta"):
            network = cls(**native)
        names = videocrafter_keys.module_names(videocrafter_keys.layout_of(state_dict))
        weights = {
            videocrafter_keys.renamed(key, names): (
                tensor.squeeze(-1) if key in videocrafter_keys.POINTWISE_CONVOLUTIONS else tensor
            )
            for key, tensor in state_dict.items()
        }
        expected, found = (
            {key: tensor.shape for key, tensor in each.items()} for each in (network.state_dict(), weights)
        )
        if wrong := names_that_do_not_fit(expected, found):
            raise ModelLoadError(
                f"the state dict does not fit VideoCrafter2's UNet: by our names, {wrong}: give all of its weights,"
                " unchanged"
            )
        network.load_state_dict(weights, assign=True)
        return network

    def to_original(self) -> dict[str, Tensor]:
        """The weights under the original's names and in its shapes, sharing memory with this network.

        Raises ValueError for a channel-pruned network, whose shapes the original's code cannot build.
        """
        if channel_setting(self):
            raise ValueError("the original's code knows no layers of their own widths: prune blocks alone")
        names = {ours: theirs for theirs, ours in videocrafter_keys.module_names(original_layout(self)).items()}
        weights = {videocrafter_keys.renamed(key, names): tensor for key, tensor in self.state_dict().items()}
        for key in videocrafter_keys.POINTWISE_CONVOLUTIONS:
            weights[key] = weights[key].unsqueeze(-1)
        return weights

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor | float,
        encoder_hidden_states: Tensor,
        fps: Tensor | float = 16,
        timestep_cond: Tensor | None = None,
        motion_cond: Tensor | None = None,
        return_dict: bool = True,
    ) -> UNet3DConditionOutput | tuple[Tensor]:
        """Predict the noise of latents B C T H W from B timesteps, B N E context and B frame rates.

        `timestep_cond` and `motion_cond` are B x `time_cond_dim` and `motion_cond_dim` guidance embeddings. Height and
        width are best divisible by 2 ** (stages - 1).
        """
        frames = sample.shape[2]
        embedding, context = self.conditions(sample, timestep, encoder_hidden_states, fps, timestep_cond, motion_cond)
        features, skips = self.encode(sample, embedding, context)
        hidden = features[-1]
        if self.mid_block is not None:
            hidden = self._run(self.mid_block, hidden, embedding, context, None, frames)
        whole = all(size % 2**self.num_upsamplers == 0 for size in sample.shape[-2:])
        for stage in self.up_blocks:
            read, skips = skips[-len(stage.resnets) :], skips[: -len(stage.resnets)]
            size = skips[-1].shape[2:] if skips and not whole else None
            if hasattr(stage, "attentions"):
                hidden = self._run(stage, hidden, read, embedding, context, size, None, frames)
            else:
                hidden = self._run(stage, hidden, read, embedding, size, frames)
        hidden = self.conv_out(self.conv_act(self.conv_norm_out(hidden)))
        output = hidden.unflatten(0, (-1, frames)).transpose(1, 2)
        return UNet3DConditionOutput(sample=output) if return_dict else (output,)

    def conditions(
        self,
        sample: Tensor,
        timestep: Tensor | float,
        encoder_hidden_states: Tensor,
        fps: Tensor | float,
        timestep_cond: Tensor | None = None,
        motion_cond: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The embedding (B T) E of time, guidance and frame rate, and the context (B T) N E, one for each frame."""
        batch, _, frames = sample.shape[:3]
        time, rate = (
            self.time_proj(torch.as_tensor(value, device=sample.device).expand(batch)).to(sample.dtype)
            for value in (timestep, fps)
        )
        if timestep_cond is not None:
            time = time + self._guidance(timestep_cond, motion_cond)
        elif motion_cond is not None:
            raise ValueError("motion_cond is given without timestep_cond: give both")
        embedding = self.time_embedding(time) + self.fps_embedding(rate)
        return embedding.repeat_interleave(frames, dim=0), encoder_hidden_states.repeat_interleave(frames, dim=0)

    def _guidance(self, timestep_cond: Tensor, motion_cond: Tensor | None) -> Tensor:
        if self.time_cond_proj is None:
            raise ValueError("timestep_cond needs a network with time_cond_dim, such as T2V-Turbo-v2's")
        guidance: Tensor = self.time_cond_proj(timestep_cond)
        if motion_cond is None:
            return guidance
        if self.motion_cond_proj is None or self.combine_proj is None:
            raise ValueError("motion_cond needs a network with motion_cond_dim, such as T2V-Turbo-v2's")
        both: Tensor = self.combine_proj(torch.cat([guidance, self.motion_cond_proj(motion_cond)], dim=1))
        return both

    def encode(self, sample: Tensor, embedding: Tensor, context: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """The output of each down stage, and all skip connections, (B T) C H W each."""
        frames = sample.shape[2]
        hidden = self.conv_in(sample.transpose(1, 2).flatten(0, 1))
        hidden = self.transformer_in(hidden, num_frames=frames, return_dict=False)[0]
        features, skips = [], [hidden]
        for stage in self.down_blocks:
            if hasattr(stage, "attentions"):
                hidden, written = self._run(stage, hidden, embedding, context, None, frames)
            else:
                hidden, written = self._run(stage, hidden, embedding, frames)
            features.append(hidden)
            skips += written
        return features, skips

    def _run(self, stage: nn.Module, *inputs: Any) -> Any:
        if torch.is_grad_enabled() and self.gradient_checkpointing:
            return self._gradient_checkpointing_func(stage, *inputs)
        return stage(*inputs)


def _thin(stage: nn.Module, pairs: Sequence[int]) -> None:
    for part in PAIR_PARTS:
        if hasattr(stage, part):
            modules = getattr(stage, part)
            setattr(stage, part, nn.ModuleList(modules[pair] for pair in pairs))


def pairs_of_stages(denoiser: nn.Module) -> tuple[int, ...]:
    """The number of pairs of each down stage."""
    net: Any = denoiser
    return tuple(len(stage.resnets) for stage in net.down_blocks)


def original_layout(denoiser: nn.Module) -> videocrafter_keys.OriginalLayout:
    """Where the original's lists of blocks hold those of a network."""
    net: Any = denoiser
    layers = pairs_of_stages(denoiser)
    numbered = [range(len(names(layers))) for names in (videocrafter_keys.input_names, videocrafter_keys.output_names)]
    inputs, outputs = net.config.original_blocks or numbered
    return videocrafter_keys.OriginalLayout(
        layers=layers,
        down_attends=tuple(hasattr(stage, "attentions") for stage in net.down_blocks),
        up_attends=tuple(hasattr(stage, "attentions") for stage in net.up_blocks),
        mid=net.mid_block is not None,
        inputs=tuple(inputs),
        outputs=tuple(outputs),
    )


def load_original(path: str | Path) -> VideoCrafterUNet:
    """Read the denoiser out of a published checkpoint, whole or pruned, without running any code of the file's.

    Takes VideoCrafter2's `model.ckpt`, T2V-Turbo-v2's `unet_mg.pt` or a safetensors file of the same names. Raises
    ModelLoadError.
    """
    content = read_weights(path)
    first = "input_blocks.0.0.weight"
    found = [key for key in content if key.endswith(first)]
    if len(found) != 1:
        raise ModelLoadError(
            f"{path} holds {len(found) or 'no'} weights called {first!r}, of which a VideoCrafter2 UNet has one: give"
            " model.ckpt of VideoCrafter2 or the state dict of T2V-Turbo-v2's UNet"
        )
    prefix = found[0].removesuffix(first)
    weights = {key.removeprefix(prefix): tensor for key, tensor in content.items() if key.startswith(prefix)}
    try:
        return VideoCrafterUNet.from_original(weights, {})
    except ModelLoadError as error:
        raise ModelLoadError(f"{path}: {error}") from error
