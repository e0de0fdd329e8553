"""AnyFlow: Wan distilled to a flow map, which goes from any noise level to any other in one pass."""

from __future__ import annotations

from types import MappingProxyType

from diffusers.models.transformers.transformer_anyflow import AnyFlowTransformer3DModel
from torch import nn

from vdmini.blocks import ModelInput
from vdmini.models.wan import SMALL, Wan
from vdmini.requests import SampleSettings
from vdmini.tasks.flow import FlowTask


class AnyFlow(Wan):
    """Every frame comes with its level, `timestep`, and the one it goes to, `r_timestep`; guidance is distilled."""

    name = "anyflow"
    guides_apart = False
    denoiser_class = AnyFlowTransformer3DModel
    # Source: diffusers' scripts/convert_anyflow_to_diffusers.py.
    configs = MappingProxyType({"anyflow-wan2.1-t2v-1.3b": SMALL})
    frames_first = True
    task = FlowTask(shift=5.0)
    image_pipeline = None

    def input_shapes(self, denoiser: nn.Module, size: ModelInput) -> dict[str, tuple[int, ...]]:
        levels = (size.batch, size.frames)
        return super().input_shapes(denoiser, size) | {"timestep": levels, "r_timestep": levels}

    def passes_per_step(self, denoiser: nn.Module, settings: SampleSettings) -> int:
        """One, where guidance is not asked for."""
        return 1 if settings.guidance is None else super().passes_per_step(denoiser, settings)


FAMILY = AnyFlow()
