"""AnimateDiff's family: Stable Diffusion 1.5's UNet, frame by frame, with motion modules between its blocks."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from diffusers.configuration_utils import register_to_config
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_motion_model import UNetMotionModel
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from numpy.typing import NDArray
from torch import nn

from vdmini.blocks import ModelInput
from vdmini.errors import ModelLoadError, PlanError
from vdmini.models.unet import STABLE_DIFFUSION_VAE, UNetFamily, pairs_in, settings_of, student_layout
from vdmini.requests import ClipRequest, SampleSettings
from vdmini.sample import draw_prompts, require_sides
from vdmini.tasks.base import Task
from vdmini.tasks.epsilon import EpsilonTask

# Stable Diffusion 1.5 with the motion adapter v1-5-2. SD 1.5's configuration calls its 8 heads "attention_head_dim".
# Source of the motion modules: github.com/guoyww/AnimateDiff, configs/inference/inference-v2.yaml and -v3.yaml.
# All else is the class's default.
UNET_CONFIG: dict[str, Any] = {"sample_size": 64, "cross_attention_dim": 768}

MID_BLOCK_TYPE = "UNetMidBlockCrossAttnMotion"
PIPELINE_FRAMES = 16
TEXT_TOKENS = 77

# Settings that may have one entry a stage, in the order the down stages run or, reversed, in that of the up stages.
DOWN_STAGE_SETTINGS = (
    "down_block_types",
    "block_out_channels",
    "cross_attention_dim",
    "transformer_layers_per_block",
    "temporal_transformer_layers_per_block",
    "num_attention_heads",
    "motion_num_attention_heads",
)
UP_STAGE_SETTINGS = (
    "up_block_types",
    "reverse_transformer_layers_per_block",
    "reverse_temporal_transformer_layers_per_block",
    "reverse_motion_num_attention_heads",
)
# The middle block splits its weights into as many heads as the last entry says; their shapes do not tell.
MID_BLOCK_SETTINGS = ("num_attention_heads", "motion_num_attention_heads")

StageSetting = int | tuple[int, ...] | tuple[tuple[int, ...], ...]


class VDMiniUNetMotionModel(UNetMotionModel):
    """AnimateDiff's UNet with a middle block only if asked for; the defaults are VDMini's student of it.

    `layers_per_block` counts the pairs of each down stage; the up stage of the same resolution has one more.
    `mid_block_type` is None or "UNetMidBlockCrossAttnMotion", to which `use_motion_mid_block` gives motion modules or
    not. Inputs and outputs are those of the parent: B C T H W latents, height and width best divisible by
    2 ** (stages - 1), and a text context for each frame, (B T) N C.
    """

    # diffusers writes this name into model_index.json and asks the module of this name for the class when loading.
    __module__ = "vdmini"

    # diffusers takes the settings of a config.json from this signature and drops those that it does not name, even
    # where the parent names them: so all of the parent's stand here, though the middle block alone differs.
    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        sample_size: int | None = None,
        in_channels: int = 4,
        out_channels: int = 4,
        down_block_types: tuple[str, ...] = ("CrossAttnDownBlockMotion",) * 3,
        up_block_types: tuple[str, ...] = ("CrossAttnUpBlockMotion",) * 3,
        block_out_channels: tuple[int, ...] = (320, 640, 1280),
        layers_per_block: int | tuple[int, ...] = (1, 1, 2),
        downsample_padding: int = 1,
        mid_block_scale_factor: float = 1,
        act_fn: str = "silu",
        norm_num_groups: int = 32,
        norm_eps: float = 1e-5,
        cross_attention_dim: int | tuple[int, ...] = 768,
        transformer_layers_per_block: StageSetting = 1,
        reverse_transformer_layers_per_block: StageSetting | None = None,
        temporal_transformer_layers_per_block: StageSetting = 1,
        reverse_temporal_transformer_layers_per_block: StageSetting | None = None,
        transformer_layers_per_mid_block: int | tuple[int, ...] | None = None,
        temporal_transformer_layers_per_mid_block: int | tuple[int, ...] = 1,
        use_linear_projection: bool = False,
        num_attention_heads: int | tuple[int, ...] = 8,
        motion_max_seq_length: int = 32,
        motion_num_attention_heads: int | tuple[int, ...] = 8,
        reverse_motion_num_attention_heads: StageSetting | None = None,
        use_motion_mid_block: bool = True,
        mid_block_layers: int = 1,
        encoder_hid_dim: int | None = None,
        encoder_hid_dim_type: str | None = None,
        addition_embed_type: str | None = None,
        addition_time_embed_dim: int | None = None,
        projection_class_embeddings_input_dim: int | None = None,
        time_cond_proj_dim: int | None = None,
        mid_block_type: str | None = None,
    ) -> None:
        if mid_block_type not in (None, MID_BLOCK_TYPE):
            raise ValueError(f"unknown mid_block_type {mid_block_type!r}: use None or {MID_BLOCK_TYPE!r}")
        super().__init__(**settings_of(UNetMotionModel, self.config))
        if mid_block_type is None:
            self.mid_block = None


SETTINGS = tuple(inspect.signature(VDMiniUNetMotionModel).parameters)


class AnimateDiff(UNetFamily):
    """`animatediff` has motion adapter v1-5-2, `animatediff-v3` v1-5-3, whose middle block has no motion modules."""

    name = "animatediff"
    classes = (UNetMotionModel, VDMiniUNetMotionModel)
    pair_parts = ("resnets", "attentions", "motion_modules")

    def matches(self, denoiser: nn.Module) -> bool:
        """That of Stable Diffusion XL does not belong to this family."""
        return isinstance(denoiser, UNetMotionModel) and denoiser.config.addition_embed_type is None

    def build_official(self, name: str) -> tuple[nn.Module, nn.Module]:
        config = UNET_CONFIG | ({"use_motion_mid_block": False} if name == "animatediff-v3" else {})
        return UNetMotionModel(**config), AutoencoderKL(**STABLE_DIFFUSION_VAE)

    def load_original(self, name: str, path: Path) -> nn.Module:
        """Raise ModelLoadError: an original file holds motion modules alone, without the UNet they go into."""
        raise ModelLoadError(
            f"{path}: original checkpoints of {name!r} are not read: put UNet and motion adapter together in"
            " diffusers' AnimateDiffPipeline, save it and give its folder"
        )

    def default_task(self, denoiser: nn.Module) -> Task:
        """Its noise is predicted, under a linear schedule."""
        return EpsilonTask(beta_schedule="linear")

    def default_input(self, denoiser: nn.Module) -> ModelInput:
        """One clip of the pipeline's own length at the model's own size: 16 frames of 64x64 latents."""
        config: Any = denoiser.config
        side = config.sample_size or UNET_CONFIG["sample_size"]
        return ModelInput(batch=1, frames=min(PIPELINE_FRAMES, config.motion_max_seq_length), height=side, width=side)

    def input_shapes(self, denoiser: nn.Module, size: ModelInput) -> dict[str, tuple[int, ...]]:
        config: Any = denoiser.config
        context = config.cross_attention_dim
        width = context if isinstance(context, int) else context[0]
        return {
            "sample": (size.batch, config.in_channels, size.frames, size.height, size.width),
            "timestep": (size.batch,),
            "encoder_hidden_states": (size.batch * size.frames, TEXT_TOKENS, width),
        }

    def architecture(self, denoiser: nn.Module) -> dict[str, object]:
        config: Any = denoiser.config
        return {name: config.get(name, MID_BLOCK_TYPE) for name in SETTINGS if name != "sample_size"}

    def build_student(self, teacher: nn.Module, kept: Sequence[str], removed: Sequence[str]) -> nn.Module:
        net: Any = teacher
        config = self.architecture(teacher) | {"sample_size": net.config.sample_size}
        return VDMiniUNetMotionModel(**_cut(config, kept, removed))

    def pixel_step(self, pipeline: DiffusionPipeline) -> int:
        """What a clip's sides in pixels must divide by."""
        run: Any = pipeline
        # The pipeline asks for 8, whatever its VAE.
        return math.lcm(8, run.vae_scale_factor)

    def sample(
        self, pipeline: DiffusionPipeline, requests: Sequence[ClipRequest], settings: SampleSettings
    ) -> NDArray[np.float32]:
        run: Any = pipeline
        require_sides(settings, self.pixel_step(pipeline))
        longest = run.unet.config.motion_max_seq_length
        if settings.frames > longest:
            raise ValueError(f"this model makes {longest} frames at most, not {settings.frames}: ask for {longest}")
        # A whole clip at a time, so that the batch it travels in does not choose what is decoded with it.
        options = {"decode_chunk_size": settings.frames, "output_type": "np"}
        return draw_prompts(pipeline, requests, settings, options)


FAMILY = AnimateDiff()


def _cut(config: dict[str, Any], kept: Sequence[str], removed: Sequence[str]) -> dict[str, Any]:
    """The settings of a teacher cut to those of its student."""
    layout = student_layout(kept, removed)
    down = {stage: _kept_pairs(kept, f"D.{stage}") for stage in range(len(layout.layers))}
    up = {stage: _kept_pairs(kept, f"U.{stage}") for stage in range(layout.dropped_stages, layout.teacher_stages)}
    for name in DOWN_STAGE_SETTINGS:
        whole, config[name] = config[name], _left_of(config[name], down)
        if layout.mid and name in MID_BLOCK_SETTINGS and _last(config[name]) != _last(whole):
            raise PlanError(f"Mid has the {name} of the lowest resolution, which the plan removes: remove Mid too")
    for name in UP_STAGE_SETTINGS:
        config[name] = _left_of(config[name], up)
    config["layers_per_block"] = list(layout.layers)
    config["mid_block_type"] = MID_BLOCK_TYPE if layout.mid else None
    return config


def _kept_pairs(kept: Sequence[str], stage: str) -> list[int]:
    return [int(name.rpartition(".")[2]) for name in pairs_in(kept, stage)]


def _left_of(setting: Any, pairs: Mapping[int, Sequence[int]]) -> Any:
    """A setting's entries for the stages of `pairs`; where a stage has an entry for each pair, those of its pairs."""
    if setting is None or isinstance(setting, int):
        return setting
    entries = [(setting[stage], kept) for stage, kept in pairs.items()]
    return [entry if isinstance(entry, (int, str)) else [entry[pair] for pair in kept] for entry, kept in entries]


def _last(setting: Any) -> Any:
    return setting if isinstance(setting, int) else setting[-1]
