"""The kinds of source that a model loads from; `vdmini.models.load_model` chooses among them."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vdmini.models import (
    DENOISERS,
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
from vdmini.models.folders import load_network, load_networks, read_json
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
    """The denoiser of an original checkpoint file; `dtype` None is that of the file."""
    if family is None:
        raise ModelLoadError(f"{name!r} is a file: say whose original checkpoint it is, such as family='t2v-turbo-v2'")
    published = _published(family)
    module = family_named(OFFICIAL[published])
    denoiser = module.load_original(published, Path(name)).to(device=device, dtype=dtype).eval()
    return VideoModel(source=name, family=module.NAME, denoiser=denoiser, vae=None, pipeline=None)


def weightless_model(name: str, folder: Path, dtype: torch.dtype | None) -> VideoModel:
    """The denoiser of a folder on the meta device, from its configuration alone."""
    import torch
    from torch import nn

    found = [part for part in (*DENOISERS, ".") if (folder / part / "config.json").is_file()]
    if not found:
        raise ModelLoadError(
            f"{name!r} has no configuration of a denoiser: give a folder that save_pretrained wrote, a hub id, or one"
            f" of {known_names()}"
        )
    config = read_json(folder / found[0] / "config.json")
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


def bare_denoiser(name: str, folder: Path, device: str | torch.device, dtype: torch.dtype | None) -> VideoModel:
    """A folder that holds a denoiser and no pipeline; `dtype` None is that of its files."""
    classes = _denoiser_classes()
    native = classes.get(str(read_json(folder / "config.json").get("_class_name")))
    if native is None:
        raise ModelLoadError(
            f"{name!r} holds no denoiser of {', '.join(classes)}: give a folder that save_pretrained wrote"
        )
    denoiser = load_network(native, folder, dtype).to(device)
    return VideoModel(source=name, family=family_of(denoiser).NAME, denoiser=denoiser, vae=None, pipeline=None)


def pipeline_model(name: str, folder: Path, device: str | torch.device, dtype: torch.dtype | None) -> VideoModel:
    """A pipeline in a folder; `dtype` None is, for each of its networks, that of the network's files."""
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline

    if not (folder / "model_index.json").is_file():
        raise ModelLoadError(f"{name!r} has no model_index.json: give the folder that a pipeline was saved to")
    # diffusers looks for pipelines among its own, where this module adds ours.
    importlib.import_module("vdmini.models.videocrafter_pipeline")
    try:
        networks = load_networks(folder, dtype)
        pipeline = DiffusionPipeline.from_pretrained(
            folder, use_safetensors=True, trust_remote_code=False, local_files_only=True, **networks
        )
    except ModelLoadError as error:
        raise ModelLoadError(f"cannot load {name!r}: {error}") from error
    except Exception as error:  # files and libraries raise unrelated types; each means that the source did not load
        raise ModelLoadError(
            f"cannot load {name!r} ({type(error).__name__}: {error}): check that it is a whole pipeline folder"
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
