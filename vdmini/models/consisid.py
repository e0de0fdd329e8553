"""ConsisID's family: CogVideoX with a face, which every second block reads in a layer of its own."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from diffusers.models.transformers.consisid_transformer_3d import ConsisIDTransformer3DModel
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from numpy.typing import NDArray
from torch import nn

from vdmini.blocks import ModelInput, Unit
from vdmini.models.cogvideox import CogVideoX
from vdmini.models.parts import Beside
from vdmini.models.registry import pipeline_denoiser
from vdmini.requests import ClipRequest, SampleSettings

# Tokens of the image encoder's layers that the face is read from: 336 pixels in patches of 14, and one of the whole.
FACE_TOKENS = 577


class ConsisId(CogVideoX):
    """A face is added after the first block of each group of `cross_attn_interval`, so a group leaves as one.

    Clips cannot be sampled here: its pipeline wants a face's embeddings, of networks that are no part of it.
    """

    name = "consisid"
    denoiser_class = ConsisIDTransformer3DModel
    image_pipeline = "ConsisIDPipeline"
    beside = Beside("perceiver_cross_attention")
    # Source: transformer/config.json of BestWishYsh/ConsisID-preview.
    configs = MappingProxyType({
        "consisid-preview": {
            "num_attention_heads": 48, "num_layers": 42, "in_channels": 32, "is_train_face": True,
            "use_rotary_positional_embeddings": True, "use_learned_positional_embeddings": True,
        },
    })  # fmt: skip
    vae_configs = MappingProxyType({"consisid-preview": {"scaling_factor": 0.7}})

    def input_shapes(self, denoiser: nn.Module, size: ModelInput) -> dict[str, tuple[int, ...]]:
        config = _config(denoiser)
        shapes = super().input_shapes(denoiser, size)
        faces = {
            "id_cond": (size.batch, config.LFE_id_dim),
            "id_vit_hidden": (config.LFE_num_scale, size.batch, FACE_TOKENS, config.LFE_vit_dim),
        }
        return shapes | (faces if config.is_train_face else {})

    def places_beside(self, denoiser: nn.Module) -> Sequence[int]:
        """The first block of every group, after which a layer reads the face."""
        config = _config(denoiser)
        return range(0, config.num_layers, config.cross_attn_interval) if config.is_train_face else ()

    def units(self, denoiser: nn.Module) -> tuple[Unit, ...]:
        """Every group that reads the face once, or every block where none does."""
        config = _config(denoiser)
        names = [*self.blocks(denoiser)]
        together = config.cross_attn_interval if config.is_train_face else 1
        groups = [tuple(names[start : start + together]) for start in range(0, len(names), together)]
        return tuple(Unit("+".join(group), group) for group in groups)

    def sample(
        self, pipeline: DiffusionPipeline, requests: Sequence[ClipRequest], settings: SampleSettings
    ) -> NDArray[np.float32]:
        """As CogVideoX from images; raises ValueError for a network that reads a face."""
        if _config(pipeline_denoiser(pipeline)).is_train_face:
            raise ValueError(
                "this model animates a face by embeddings that networks outside its pipeline make: call the pipeline"
                " itself, with what diffusers.pipelines.consisid.consisid_utils.process_face_embeddings_infer gives"
            )
        return super().sample(pipeline, requests, settings)


def _config(denoiser: nn.Module) -> Any:
    return denoiser.config


FAMILY = ConsisId()
