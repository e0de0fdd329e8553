"""HunyuanVideo-1.5's family: one stack of blocks with a stream each for video and text, guided by a component."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from diffusers.models.autoencoders.autoencoder_kl_hunyuanvideo15 import AutoencoderKLHunyuanVideo15
from diffusers.models.transformers.transformer_hunyuan_video15 import HunyuanVideo15Transformer3DModel
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from numpy.typing import NDArray
from torch import nn

from vdmini.blocks import ModelInput
from vdmini.models.family import Images
from vdmini.models.parts import Stack
from vdmini.models.transformer import TransformerFamily
from vdmini.requests import ClipRequest, SampleSettings
from vdmini.tasks.base import Task
from vdmini.tasks.flow import FlowTask

TEXT_TOKENS, GLYPH_TOKENS, IMAGE_TOKENS = 1000, 256, 729

# Source: diffusers' scripts/convert_hunyuan_video1_5_to_diffusers.py, which lacks 480p_i2v and gives its task to
# 480p_t2v. The distilled models differ from these in their weights alone, but for the one distilled in steps.
SMALL, LARGE = {"target_size": 640}, {"target_size": 960}
CONFIGS: dict[str, dict[str, Any]] = {
    "hunyuanvideo-1.5-480p-t2v": {**SMALL, "task_type": "t2v"},
    "hunyuanvideo-1.5-480p-i2v": {**SMALL, "task_type": "i2v"},
    "hunyuanvideo-1.5-720p-t2v": {**LARGE, "task_type": "t2v"},
    "hunyuanvideo-1.5-720p-i2v": {**LARGE, "task_type": "i2v"},
    "hunyuanvideo-1.5-480p-i2v-step-distilled": {**SMALL, "task_type": "i2v", "use_meanflow": True},
}


class HunyuanVideo15(TransformerFamily):
    """Its networks are the same with an image and without; its pipelines differ."""

    name = "hunyuanvideo-1.5"
    guides_apart = True
    denoiser_class = HunyuanVideo15Transformer3DModel
    vae_class = AutoencoderKLHunyuanVideo15
    configs = CONFIGS
    stacks = (Stack("Dual", "transformer_blocks", "num_layers"),)
    # 121 frames of 480x848 pixels.
    published_size = (31, 30, 53)
    texts = MappingProxyType(
        {
            "encoder_hidden_states": (TEXT_TOKENS, "text_embed_dim"),
            "encoder_hidden_states_2": (GLYPH_TOKENS, "text_embed_2_dim"),
            "image_embeds": (IMAGE_TOKENS, "image_embed_dim"),
        }
    )
    masks = ("encoder_attention_mask",)
    # The masks of its VAE are for one clip.
    batches_images = batches_prompts = False

    def default_task(self, denoiser: nn.Module) -> Task:
        """Rectified flow, shifted as the published scheduler of its size and task is."""
        config: Any = denoiser.config
        if config.use_meanflow:
            return FlowTask(shift=7.0)
        large = 9.0 if config.task_type == "t2v" else 7.0
        return FlowTask(shift=5.0 if config.target_size == SMALL["target_size"] else large)

    def default_input(self, denoiser: nn.Module) -> ModelInput:
        """121 frames, of 480x848 pixels, or of 720x1280 for the larger models."""
        config: Any = denoiser.config
        small = config.target_size == SMALL["target_size"]
        return super().default_input(denoiser) if small else ModelInput(1, 31, 45, 80)

    def input_shapes(self, denoiser: nn.Module, size: ModelInput) -> dict[str, tuple[int, ...]]:
        config: Any = denoiser.config
        shapes = super().input_shapes(denoiser, size) | {"encoder_attention_mask_2": (size.batch, GLYPH_TOKENS)}
        return shapes | ({"timestep_r": (size.batch,)} if config.use_meanflow else {})

    def images(self, denoiser: nn.Module) -> Images:
        """As its pipeline has it: the task in a published configuration may be another."""
        return "optional"

    def sample(
        self, pipeline: DiffusionPipeline, requests: Sequence[ClipRequest], settings: SampleSettings
    ) -> NDArray[np.float32]:
        """As every transformer, but that sizes follow from the proportions of images, where there are images."""
        if self.images_for(pipeline) == "always":
            asked = settings.height, settings.width
            if (made := _made_of(pipeline, *asked)) != asked:
                raise ValueError(
                    f"this model makes clips of one area, not {asked[0]}x{asked[1]} pixels: ask for {made[0]}x{made[1]}"
                )
            for request in requests:
                shape = request.image.shape[:2] if request.image is not None else asked
                if _made_of(pipeline, *shape) != asked:
                    raise ValueError(
                        f"clip {request.name!r} has an image of {shape[0]}x{shape[1]} pixels, of which this model makes"
                        f" other proportions than {asked[0]}x{asked[1]}: crop it to these"
                    )
        return super().sample(pipeline, requests, settings)


def _made_of(pipeline: DiffusionPipeline, height: int, width: int) -> tuple[int, int]:
    """Height and width of the clips that a pipeline makes of an image."""
    run: Any = pipeline
    made = run.video_processor.calculate_default_height_width(max(1, height), max(1, width), run.target_size)
    return int(made[0]), int(made[1])


FAMILY = HunyuanVideo15()
