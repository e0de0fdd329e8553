"""ChronoEdit: Wan's image-to-video model, trained to edit an image by the frames that lead to the edit."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

from diffusers.models.transformers.transformer_chronoedit import ChronoEditTransformer3DModel
from torch import nn

from vdmini.models.wan import FROM_IMAGE_BY_CLIP, Wan
from vdmini.requests import SampleSettings
from vdmini.tasks.flow import FlowTask


class ChronoEdit(Wan):
    """Its clips are all frames of its reasoning, the edited image last; the pipeline alone would keep two latents."""

    name = "chronoedit"
    denoiser_class = ChronoEditTransformer3DModel
    # Source: listings of transformer/config.json of nvidia/ChronoEdit-14B-Diffusers; diffusers has no script.
    configs = MappingProxyType({"chronoedit-14b": FROM_IMAGE_BY_CLIP})
    # 29 frames of 720x1280 pixels, as its authors let it reason.
    published_size = (8, 90, 160)
    task = FlowTask(shift=5.0)
    image_pipeline = "ChronoEditPipeline"

    def pipeline_options(self, denoiser: nn.Module, settings: SampleSettings) -> dict[str, Any]:
        """To reason in every step."""
        return {"enable_temporal_reasoning": True, "num_temporal_reasoning_steps": settings.steps}


FAMILY = ChronoEdit()
