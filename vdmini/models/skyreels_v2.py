"""SkyReels-V2, Wan's architecture trained anew: from text, from an image, and by diffusion forcing."""

from __future__ import annotations

from typing import Any

from diffusers.models.transformers.transformer_skyreels_v2 import SkyReelsV2Transformer3DModel
from torch import nn

from vdmini.blocks import ModelInput
from vdmini.models.wan import FROM_IMAGE_BY_CLIP, SMALL, Wan
from vdmini.tasks.base import Task
from vdmini.tasks.flow import FlowTask

# Source: diffusers' scripts/convert_skyreelsv2_to_diffusers.py.
LARGE = {"num_attention_heads": 40, "ffn_dim": 13824, "num_layers": 40}
CONFIGS: dict[str, dict[str, Any]] = {
    "skyreels-v2-t2v-14b-540p": LARGE,
    "skyreels-v2-t2v-14b-720p": LARGE,
    "skyreels-v2-i2v-1.3b-540p": {**FROM_IMAGE_BY_CLIP, **SMALL, "added_kv_proj_dim": 1536},
    "skyreels-v2-i2v-14b-540p": {**FROM_IMAGE_BY_CLIP, **LARGE},
    "skyreels-v2-i2v-14b-720p": {**FROM_IMAGE_BY_CLIP, **LARGE},
    "skyreels-v2-df-1.3b-540p": {**SMALL, "inject_sample_info": True},
    "skyreels-v2-df-14b-540p": LARGE,
    "skyreels-v2-df-14b-720p": LARGE,
}


class SkyReelsV2(Wan):
    """Models for diffusion forcing, which denoise each frame from its own level, are sampled in step, from text."""

    name = "skyreels-v2"
    denoiser_class = SkyReelsV2Transformer3DModel
    configs = CONFIGS
    # 97 frames of 544x960 pixels, the pipelines' default.
    published_size = (25, 68, 120)
    image_pipeline = "SkyReelsV2ImageToVideoPipeline"
    # diffusers adds the frame rate's embedding to the levels of the frames of one clip.
    batches_prompts = False

    def default_task(self, denoiser: nn.Module) -> Task:
        """Rectified flow, shifted as the pipelines document from text and from an image."""
        return FlowTask(shift=5.0 if self.images(denoiser) == "always" else 8.0)

    def example_inputs(self, denoiser: nn.Module, size: ModelInput) -> dict[str, Any]:
        """With the number of a frame rate for each clip, where the denoiser is told one: 1 for 24 a second."""
        config: Any = denoiser.config
        rates = {"fps": [1] * size.batch} if config.inject_sample_info else {}
        return super().example_inputs(denoiser, size) | rates


FAMILY = SkyReelsV2()
