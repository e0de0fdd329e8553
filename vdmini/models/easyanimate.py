"""EasyAnimate 5.1's family: blocks with a stream each for video and text, the 7B's later ones with one for both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
from diffusers.models.autoencoders.autoencoder_kl_magvit import AutoencoderKLMagvit
from diffusers.models.transformers.transformer_easyanimate import EasyAnimateTransformer3DModel
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from numpy.typing import NDArray
from torch import nn

from vdmini.blocks import ModelInput
from vdmini.models.parts import Stack
from vdmini.models.registry import pipeline_denoiser
from vdmini.models.transformer import TransformerFamily
from vdmini.requests import ClipRequest, SampleSettings
from vdmini.tasks.base import Task
from vdmini.tasks.flow import FlowTask

TEXT_TOKENS = 256

# Source: transformer/config.json of alibaba-pai/EasyAnimateV5.1-12b-zh, -12b-zh-InP and -7b-zh-InP: the weights of the
# last two count as their files say, 11,799,265,856 and 6,814,670,912.
_SHARED = {"in_channels": 16, "out_channels": 16, "patch_size": 2, "add_norm_text_encoder": True}
CONFIGS: dict[str, dict[str, Any]] = {
    "easyanimate-v5.1-12b": _SHARED,
    "easyanimate-v5.1-12b-inp": {**_SHARED, "in_channels": 33},
    "easyanimate-v5.1-7b-inp": {**_SHARED, "in_channels": 33, "num_layers": 36, "mmdit_layers": 18},
}


class EasyAnimate(TransformerFamily):
    """What completes masked videos ("inp") is pruned, not sampled here: its pipeline takes no image, but a video."""

    name = "easyanimate"
    denoiser_class = EasyAnimateTransformer3DModel
    vae_class = AutoencoderKLMagvit
    configs = CONFIGS
    stacks = (Stack("Block", "transformer_blocks", "num_layers"),)
    # 49 frames of 512x512 pixels, the pipeline's default.
    published_size = (13, 64, 64)
    chat = ({"role": "user", "content": [{"type": "text", "text": "{}"}]},)
    texts = MappingProxyType({"encoder_hidden_states": (TEXT_TOKENS, "text_embed_dim")})

    def default_task(self, denoiser: nn.Module) -> Task:
        return FlowTask(shift=3.0)

    def input_shapes(self, denoiser: nn.Module, size: ModelInput) -> dict[str, tuple[int, ...]]:
        """What completes videos takes the masked one and its mask beside the latents."""
        config: Any = denoiser.config
        latents = (size.batch, config.out_channels, size.frames, size.height, size.width)
        shapes = super().input_shapes(denoiser, size) | {"hidden_states": latents}
        if masked := config.in_channels - config.out_channels:
            shapes["inpaint_latents"] = (size.batch, masked, *latents[2:])
        return shapes

    def student_options(self, teacher: nn.Module, kept: Sequence[str]) -> dict[str, Any]:
        """How many of the blocks have two streams: those come first."""
        config: Any = teacher.config
        return {"mmdit_layers": sum(int(name.rpartition(".")[2]) < config.mmdit_layers for name in kept)}

    def sample(
        self, pipeline: DiffusionPipeline, requests: Sequence[ClipRequest], settings: SampleSettings
    ) -> NDArray[np.float32]:
        config: Any = pipeline_denoiser(pipeline).config
        if config.in_channels != config.out_channels:
            raise ValueError("this model completes a masked video, not a prompt or an image: call its pipeline itself")
        # Without one, its pipeline fails to guide.
        return super().sample(pipeline, requests, replace(settings, negative_prompt=settings.negative_prompt or ""))


FAMILY = EasyAnimate()
