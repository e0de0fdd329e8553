"""Kandinsky 5's family: blocks over the video that read a text which two or four blocks of its own have read."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_hunyuan_video import AutoencoderKLHunyuanVideo
from diffusers.models.transformers.transformer_kandinsky import Kandinsky5Transformer3DModel
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from torch import nn

from vdmini.blocks import ModelInput
from vdmini.models.family import Images
from vdmini.models.parts import Stack
from vdmini.models.transformer import TransformerFamily
from vdmini.tasks.flow import FlowTask

TEXT_TOKENS = 512
FEWEST_FROM_IMAGE = 17

# Source: configs/ of the authors' repository kandinskylab/kandinsky-5, with full attention.
LITE = {"in_visual_dim": 16, "out_visual_dim": 16, "visual_cond": True, "model_dim": 1792, "ff_dim": 7168}
PRO = {
    **LITE, "model_dim": 4096, "ff_dim": 16384, "time_dim": 1024, "num_text_blocks": 4, "num_visual_blocks": 60,
    "axes_dims": (32, 48, 48),
}  # fmt: skip


class Kandinsky(TransformerFamily):
    """What Kandinsky 5 and 6 share: the text's blocks count as embeddings."""

    guides_apart = True
    vae_class = AutoencoderKLHunyuanVideo
    stacks = (Stack("Visual", "visual_transformer_blocks", "num_visual_blocks"),)
    # 121 frames of 512x768 pixels, the pipelines' default.
    published_size = (31, 64, 96)
    batches_images = False
    # As the authors' code shifts unless told otherwise.
    task = FlowTask(shift=5.0)

    def width(self, denoiser: nn.Module) -> int:
        config: Any = denoiser.config
        return int(config.model_dim)

    def images(self, denoiser: nn.Module) -> Images:
        """A network without channels for a condition makes clips of words alone."""
        config: Any = denoiser.config
        return "optional" if config.visual_cond else "never"

    def input_shapes(self, denoiser: nn.Module, size: ModelInput) -> dict[str, tuple[int, ...]]:
        config: Any = denoiser.config
        channels = config.in_visual_dim * (2 if config.visual_cond else 1) + config.visual_cond
        ((tokens, _),) = self.texts.values()
        return {
            "hidden_states": (size.batch, size.frames, size.height, size.width, channels),
            "timestep": (size.batch,),
            "encoder_hidden_states": (size.batch, tokens, config.in_text_dim),
            "pooled_projections": (size.batch, config.in_text_dim2),
        }


class Kandinsky5(Kandinsky):
    """Text and image to video share their networks; its pipelines differ.

    Texts of a batch are padded to the longest, and no mask hides it.
    """

    name = "kandinsky5"
    denoiser_class = Kandinsky5Transformer3DModel
    configs = MappingProxyType(
        {"kandinsky5-t2v-lite": LITE, "kandinsky5-i2v-lite": LITE, "kandinsky5-t2v-pro": PRO, "kandinsky5-i2v-pro": PRO}
    )
    texts = MappingProxyType({"encoder_hidden_states": (TEXT_TOKENS, "in_text_dim")})
    image_pipeline = "Kandinsky5I2VPipeline"
    batches_prompts = False

    def build_student(self, teacher: nn.Module, kept: Sequence[str], removed: Sequence[str]) -> nn.Module:
        """With frequencies that the class keeps as neither a weight nor a buffer."""
        student: Any = super().build_student(teacher, kept, removed)
        frequencies: Any = teacher.get_submodule("time_embeddings")
        student.time_embeddings.freqs = frequencies.freqs.clone()
        return student

    def frames_to_ask(self, pipeline: DiffusionPipeline, frames: int) -> int:
        """From an image its pipeline compares the first four latents with what follows."""
        if type(pipeline).__name__ == self.image_pipeline and frames < FEWEST_FROM_IMAGE:
            raise ValueError(
                f"this model makes {FEWEST_FROM_IMAGE} frames or more of an image, not {frames}: ask for so many"
            )
        return frames

    def example_inputs(self, denoiser: nn.Module, size: ModelInput) -> dict[str, Any]:
        """Places are those of a clip's own frames, rows and columns."""
        sides = zip((size.frames, size.height, size.width), self.patch(denoiser), strict=True)
        places = {"visual_rope_pos": [torch.arange(side // patch) for side, patch in sides]}
        return super().example_inputs(denoiser, size) | places | {"text_rope_pos": torch.arange(TEXT_TOKENS)}


FAMILY = Kandinsky5()
