"""Low-rank adapters (LoRA), merged into a pipeline's weights by diffusers and peft."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

from torch import nn

from vdmini.errors import ModelLoadError
from vdmini.prune import SECOND_EXPERT

if TYPE_CHECKING:
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline

# What formats call the first of each pair of matrices.
_FIRST = ("lora_A.", "lora_down.", "lora.down.")


def merge_lora(pipeline: DiffusionPipeline, file: str) -> None:
    """Add an adapter's products B A to a pipeline's weights, in place; nothing is left of the adapter itself.

    `file` is a .safetensors file in a format that diffusers reads for this pipeline (arXiv 2106.09685). Raises
    ModelLoadError for a pipeline that takes none, without peft, and for a file that does not fit, all of it.
    """
    from safetensors import safe_open

    loader: Any = pipeline
    name = type(pipeline).__name__
    if not hasattr(loader, "load_lora_weights") or getattr(loader, SECOND_EXPERT, None) is not None:
        raise ModelLoadError(f"{file!r}: diffusers merges no LoRA into {name} or two denoisers: leave lora out")
    if importlib.util.find_spec("peft") is None:
        raise ModelLoadError(f"{file!r}: LoRA needs peft: pip install peft")
    try:
        with safe_open(file, framework="pt") as opened:
            wanted = sum(any(first in key for first in _FIRST) for key in opened.keys())  # noqa: SIM118 - not a mapping
        loader.load_lora_weights(file, use_safetensors=True, local_files_only=True)
        parts = [part for part in loader.components.values() if isinstance(part, nn.Module)]
        fits = sum(len(getattr(module, "lora_A", ())) > 0 for part in parts for module in part.modules())
        if not wanted or fits < wanted:
            raise ValueError(f"{fits} of its {wanted} layers fit: give one made for this very model")
        loader.fuse_lora()
    except Exception as error:  # whatever a file makes safetensors, diffusers and peft raise
        raise ModelLoadError(f"{file!r} cannot be merged into {name}: {error}") from error
    finally:
        loader.unload_lora_weights()
