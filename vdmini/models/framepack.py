"""FramePack's family: HunyuanVideo's blocks, which make a clip in sections, each from an image and the others."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import torch
from diffusers.models.transformers.transformer_hunyuan_video_framepack import HunyuanVideoFramepackTransformer3DModel
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from torch import nn

from vdmini.blocks import ModelInput
from vdmini.models.family import Images
from vdmini.models.hunyuanvideo import TEXT_TOKENS, HunyuanVideo
from vdmini.requests import SampleSettings

# The latents of a section, and of what it sees of the clip: the image and its neighbour, two at half, 16 at a quarter.
SECTION, CLEAN, HALVED, QUARTERED = 9, 2, 2, 16
SECTION_FRAMES = 4 * SECTION
IMAGE_TOKENS = 729

# Source: config.json of lllyasviel/FramePackI2V_HY, as musubi-tuner's frame_pack/hunyuan_video_packed.py has it.
CONFIGS = {"framepack-i2v-hy": {"has_image_proj": True, "has_clean_x_embedder": True}}


class FramePack(HunyuanVideo):
    """One pass denoises one section, however long the clip is."""

    name = "framepack"
    cuts_text = False
    denoiser_class = HunyuanVideoFramepackTransformer3DModel
    configs = CONFIGS
    # 37 frames of 480x832 pixels: a section and the image.
    published_size = (1 + SECTION, 60, 104)
    texts = MappingProxyType(
        {"encoder_hidden_states": (TEXT_TOKENS, "text_embed_dim"), "image_embeds": (IMAGE_TOKENS, "image_proj_dim")}
    )
    latents_at_once = SECTION

    def input_shapes(self, denoiser: nn.Module, size: ModelInput) -> dict[str, tuple[int, ...]]:
        config: Any = denoiser.config
        shapes = super().input_shapes(denoiser, size)
        sides = size.height, size.width
        seen = {"latents_clean": CLEAN, "latents_history_2x": HALVED, "latents_history_4x": QUARTERED}
        latents = {name: (size.batch, config.in_channels, count, *sides) for name, count in seen.items()}
        return shapes | latents | {"hidden_states": (size.batch, config.in_channels, SECTION, *sides)}

    def example_inputs(self, denoiser: nn.Module, size: ModelInput) -> dict[str, Any]:
        """Places are those of the last section, which follows the image."""
        names = ("indices_latents", "indices_latents_clean", "indices_latents_history_2x", "indices_latents_history_4x")
        places = torch.arange(1 + SECTION + 1 + HALVED + QUARTERED)
        image, section, neighbour, halved, quartered = places.split((1, SECTION, 1, HALVED, QUARTERED))
        values = section, torch.cat([image, neighbour]), halved, quartered
        return super().example_inputs(denoiser, size) | dict(zip(names, values, strict=True))

    def images(self, denoiser: nn.Module) -> Images:
        """The first frame of every clip."""
        return "always"

    def passes_per_step(self, denoiser: nn.Module, settings: SampleSettings) -> int:
        return super().passes_per_step(denoiser, settings) * max(1, (settings.frames - 1) // SECTION_FRAMES)

    def frames_to_ask(self, pipeline: DiffusionPipeline, frames: int) -> int:
        """Sections overlap in the frames asked for, and not in those made."""
        if frames == 1:
            raise ValueError(f"this model makes clips, not 1 frame: ask for {SECTION_FRAMES + 1} frames")
        return (frames - 1) // SECTION_FRAMES * (SECTION_FRAMES - 3)


FAMILY = FramePack()
