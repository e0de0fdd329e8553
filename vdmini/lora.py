"""Low-rank adapters (LoRA), merged into a pipeline's weights by diffusers and peft."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from diffusers import DiffusionPipeline
from safetensors.torch import load_file
from torch import nn

from vdmini.errors import ModelLoadError
from vdmini.models.folders import read_json
from vdmini.prune import SECOND_EXPERT

# What formats call the first of each pair of matrices.
FIRST = ("lora_A.", "lora_down.", "lora.down.")


def takes_lora(folder: Path) -> bool:
    """Whether diffusers has a loader of adapters for the pipeline in a folder."""
    import diffusers

    native = getattr(diffusers, str(read_json(folder / "model_index.json").get("_class_name")), None)
    return hasattr(native, "load_lora_weights")


def merge_lora(pipeline: DiffusionPipeline, file: str) -> None:
    """Add an adapter's products B A to a pipeline's weights, in place; nothing is left of the adapter itself.

    `file` is a .safetensors file in a format that diffusers reads for this pipeline (arXiv 2106.09685). Raises
    ModelLoadError for a pipeline that takes none, without peft, and for a file that does not fit, all of it.
    """
    loader: Any = pipeline
    name = type(loader).__name__
    if not hasattr(loader, "load_lora_weights") or getattr(loader, SECOND_EXPERT, None) is not None:
        raise ModelLoadError(f"{file!r}: diffusers merges no LoRA into {name} or two denoisers: leave lora out")
    if importlib.util.find_spec("peft") is None:
        raise ModelLoadError(f"{file!r}: LoRA needs peft: pip install peft")
    try:
        wanted = sum(any(first in key for first in FIRST) for key in load_file(file))
        loader.load_lora_weights(file, use_safetensors=True, local_files_only=True)
        modules = [
            each for part in loader.components.values() if isinstance(part, nn.Module) for each in part.modules()
        ]
        fits = sum(len(getattr(each, "lora_A", ())) > 0 for each in modules)
        if not wanted or fits < wanted:
            raise ValueError(f"{fits} of its {wanted} layers fit: give one made for this very model")
        loader.fuse_lora()
    except Exception as error:  # whatever a file makes safetensors, diffusers and peft raise
        raise ModelLoadError(f"{file!r} cannot be merged into {name}: {error}") from error
    finally:
        loader.unload_lora_weights()
