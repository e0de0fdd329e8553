"""VDMini: shrink a video diffusion model and keep what it shows and how it moves."""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from diffusers import ModelMixin as ModelMixin

    from vdmini.blocks import Block as Block
    from vdmini.blocks import BlockGraph as BlockGraph
    from vdmini.blocks import ModelInput as ModelInput
    from vdmini.checkpoint import checkpoint_sha256 as checkpoint_sha256
    from vdmini.checkpoint import save_student as save_student
    from vdmini.errors import ModelLoadError as ModelLoadError
    from vdmini.errors import PlanError as PlanError
    from vdmini.features import FeatureTap as FeatureTap
    from vdmini.features import feature_pairs as feature_pairs
    from vdmini.models.animatediff import VDMiniUNetMotionModel as VDMiniUNetMotionModel
    from vdmini.models.image_vae import VDMiniAutoencoderKL as VDMiniAutoencoderKL
    from vdmini.models.loading import load_model as load_model
    from vdmini.models.registry import VideoModel as VideoModel
    from vdmini.models.svd_channels import (
        VDMiniChannelPrunedUNetSpatioTemporal as VDMiniChannelPrunedUNetSpatioTemporal,
    )
    from vdmini.models.svd_unet import VDMiniUNetSpatioTemporal as VDMiniUNetSpatioTemporal
    from vdmini.models.svd_vae import VDMiniAutoencoderKLTemporalDecoder as VDMiniAutoencoderKLTemporalDecoder
    from vdmini.models.videocrafter import VideoCrafterUNet as VideoCrafterUNet
    from vdmini.models.videocrafter_pipeline import VideoCrafterPipeline as VideoCrafterPipeline
    from vdmini.optimization import Optimization as Optimization
    from vdmini.optimization import optimize as optimize
    from vdmini.plan import PruningPlan as PruningPlan
    from vdmini.prune import apply_plan as apply_plan
    from vdmini.rules import make_plan as make_plan

__version__ = "0.1.0"

# Exports resolve on first use, so that `import vdmini` costs no torch import. diffusers finds a pruned model's class
# here by its name in model_index.json, and looks for ModelMixin beside it to learn how to load it.
_EXPORTS_OF = {
    "diffusers": ("ModelMixin",),
    "vdmini.blocks": ("Block", "BlockGraph", "ModelInput"),
    "vdmini.checkpoint": ("checkpoint_sha256", "save_student"),
    "vdmini.errors": ("ModelLoadError", "PlanError"),
    "vdmini.features": ("FeatureTap", "feature_pairs"),
    "vdmini.models.animatediff": ("VDMiniUNetMotionModel",),
    "vdmini.models.image_vae": ("VDMiniAutoencoderKL",),
    "vdmini.models.loading": ("load_model",),
    "vdmini.models.registry": ("VideoModel",),
    "vdmini.models.svd_channels": ("VDMiniChannelPrunedUNetSpatioTemporal",),
    "vdmini.models.svd_unet": ("VDMiniUNetSpatioTemporal",),
    "vdmini.models.svd_vae": ("VDMiniAutoencoderKLTemporalDecoder",),
    "vdmini.models.videocrafter": ("VideoCrafterUNet",),
    "vdmini.models.videocrafter_pipeline": ("VideoCrafterPipeline",),
    "vdmini.optimization": ("Optimization", "optimize"),
    "vdmini.plan": ("PruningPlan",),
    "vdmini.prune": ("apply_plan",),
    "vdmini.rules": ("make_plan",),
}
_EXPORTS = {name: module for module, names in _EXPORTS_OF.items() for name in names}

__all__ = ["__version__", *_EXPORTS]


def __getattr__(name: str) -> object:
    """Import an export, or a submodule such as `vdmini.losses`, when it is first asked for."""
    if name in _EXPORTS:
        value: object = getattr(importlib.import_module(_EXPORTS[name]), name)
    elif not name.startswith("_") and importlib.util.find_spec(f"{__name__}.{name}") is not None:
        value = importlib.import_module(f"{__name__}.{name}")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The names of this module, those not imported yet included."""
    return sorted({*globals(), *_EXPORTS})
