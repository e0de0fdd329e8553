"""The kinds of source that a model loads from; `vdmini.models.load_model` chooses among them."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vdmini.models import (
    EMBEDDED,
    FAMILIES,
    OFFICIAL,
    ModelLoadError,
    VideoModel,
    family_named,
    family_of,
    is_published,
    pipeline_denoiser,
)
from vdmini.plan import nearest

if TYPE_CHECKING:
    import torch


def random_model(name: str, family: str | None, device: str | torch.device, dtype: torch.dtype | None) -> VideoModel:
    """A published model with random weights."""
    import torch

    published = _published(name)
    if family not in (None, OFFICIAL[published]):
        raise ModelLoadError(f"source {name!r} and family {family!r} disagree: leave family out")
    with torch.device(device):
        denoiser, vae = family_named(OFFICIAL[published]).build_official(published)
    # Some layers make their tensors on the CPU whatever the default device is.
    denoiser, vae = denoiser.to(device).eval(), vae.to(device).eval()
    if dtype is not None:
        denoiser, vae = denoiser.to(dtype), vae.to(dtype)
    return VideoModel(source=name, family=OFFICIAL[published], denoiser=denoiser, vae=vae, pipeline=None)


def original_checkpoint(
    name: str, family: str | None, device: str | torch.device, dtype: torch.dtype | None
) -> VideoModel:
    """The denoiser of an original checkpoint file."""
    import torch

    if family is None:
        raise ModelLoadError(f"{name!r} is a file: say whose original checkpoint it is, such as family='t2v-turbo-v2'")
    published = _published(family)
    module = family_named(OFFICIAL[published])
    denoiser = module.load_original(published, Path(name)).to(device=device, dtype=dtype or torch.float32).eval()
    return VideoModel(source=name, family=module.NAME, denoiser=denoiser, vae=None, pipeline=None)


def weightless_model(name: str, folder: Path, dtype: torch.dtype | None) -> VideoModel:
    """The denoiser of a folder or a hub id on the meta device, from its configuration alone."""
    import torch
    from torch import nn

    config = _denoiser_config(name, folder)
    try:
        with torch.device("meta"):
            denoiser = _denoiser_classes()[str(config["_class_name"])].from_config(config)
    except Exception as error:  # whatever an unfit configuration makes diffusers raise, the source is at fault
        raise ModelLoadError(
            f"{name!r} describes no denoiser of {', '.join(_denoiser_classes())} ({type(error).__name__}: {error}):"
            " give a folder that save_pretrained wrote"
        ) from error
    # Some layers make their tensors on the CPU whatever the default device is. diffusers' own `to` warns of casts,
    # which lose nothing where there are no values.
    nn.Module.to(denoiser, device="meta", dtype=dtype).eval()
    return VideoModel(source=name, family=family_of(denoiser).NAME, denoiser=denoiser, vae=None, pipeline=None)


def _denoiser_config(name: str, folder: Path) -> dict[str, object]:
    from diffusers.models.auto_model import AutoModel

    problems = []
    for part in ("unet", "transformer", None) if folder.is_dir() else ("unet", "transformer"):
        try:
            if folder.is_dir():
                return dict(json.loads((folder / (part or ".") / "config.json").read_text(encoding="utf-8")))
            return dict(AutoModel.load_config(name, subfolder=part))
        except (OSError, ValueError) as error:  # this part is missing, unreachable or no JSON
            problems.append(str(error))
    raise ModelLoadError(
        f"{name!r} has no configuration of a denoiser that can be read ({problems[0]}): give a folder that"
        f" save_pretrained wrote, a hub id, or one of {known_names()}"
    )


def bare_denoiser(name: str, folder: Path, device: str | torch.device, dtype: torch.dtype | None) -> VideoModel:
    """A folder that holds a denoiser and no pipeline."""
    import torch

    classes = _denoiser_classes()
    try:
        class_name = json.loads((folder / "config.json").read_text(encoding="utf-8"))["_class_name"]
        denoiser = classes[class_name].from_pretrained(folder, use_safetensors=True, dtype=dtype or torch.float32)
    except Exception as error:  # whatever the file made diffusers, safetensors or json raise, the source is at fault
        raise ModelLoadError(
            f"{name!r} holds no denoiser of {', '.join(classes)} ({type(error).__name__}: {error}):"
            " give a folder that save_pretrained wrote"
        ) from error
    denoiser = denoiser.to(device)
    return VideoModel(source=name, family=family_of(denoiser).NAME, denoiser=denoiser, vae=None, pipeline=None)


def pipeline_model(name: str, folder: Path, device: str | torch.device, dtype: torch.dtype | None) -> VideoModel:
    """A pipeline, from a folder or the hub."""
    import torch
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline

    if folder.exists() and not (folder / "model_index.json").is_file():
        raise ModelLoadError(f"{name!r} has no model_index.json: give the folder that a pipeline was saved to")
    # diffusers looks for pipelines among its own, where this module adds ours.
    importlib.import_module("vdmini.models.videocrafter_pipeline")
    location = str(folder) if folder.exists() else name
    try:
        pipeline = DiffusionPipeline.from_pretrained(
            location, use_safetensors=True, trust_remote_code=False, dtype=dtype or torch.float32
        )
    except Exception as error:  # files, network and hub raise unrelated types; each means that the source did not load
        raise ModelLoadError(
            f"cannot load {name!r} ({type(error).__name__}: {error}): check that it is an existing folder or a hub"
            f" id with safetensors weights; offline, download it first with `hf download {name}`;"
            f" known names: {known_names()}"
        ) from error
    denoiser = pipeline_denoiser(pipeline)
    family = family_of(denoiser)
    pipeline.to(device)
    return VideoModel(name, family.NAME, denoiser, getattr(pipeline, "vae", None), pipeline)


def _published(name: str) -> str:
    if not is_published(name):
        raise ModelLoadError(
            f"{name!r} is no published model's name{nearest(name, OFFICIAL)}: use one of {', '.join(OFFICIAL)}"
        )
    return name if name in OFFICIAL else next(each for each, family in OFFICIAL.items() if family == name)


def _denoiser_classes() -> dict[str, Any]:
    classes: dict[str, Any] = {}
    for family in FAMILIES:
        classes |= family_named(family).denoiser_classes()
    return classes


def known_names() -> str:
    """The names that load without a folder, and those that need `random_weights`."""
    return f"{', '.join(EMBEDDED)}, or with random_weights=True {', '.join(OFFICIAL)}"
