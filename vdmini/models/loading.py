"""Load a model from any kind of source."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vdmini.errors import ModelLoadError, nearest
from vdmini.finite import check_weights
from vdmini.models.folders import load_network, load_networks, read_json
from vdmini.models.hub import source_folder
from vdmini.models.registry import (
    DENOISERS,
    EMBEDDED,
    FAMILIES,
    OFFICIAL,
    VideoModel,
    family_named,
    family_of,
    is_published,
    pipeline_denoiser,
    plugged_families,
    published_name,
    require_not_refused,
)

if TYPE_CHECKING:
    import torch
    from torch import nn

# The classes of VAEs with a smaller decoder, and where they are.
STUDENT_VAES = {
    "VDMiniAutoencoderKLTemporalDecoder": "vdmini.models.svd_vae",
    "VDMiniAutoencoderKL": "vdmini.models.image_vae",
}


def load_model(
    source: str | Path,
    *,
    family: str | None = None,
    random_weights: bool = False,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | Literal["auto"] | None = None,
    download: bool = False,
) -> VideoModel:
    """Load a model: an embedded name, a diffusers folder, a hub id, or a published name with `random_weights`.

    A file is an original checkpoint, whose denoiser is read; `family` says which family's or published model's it is.
    Nothing is asked of the network, so a hub id must be in the local hub cache, unless `download` says to fetch it.
    Weights come from safetensors, or from readers that take tensors only: no code that a source brings is run. Those
    of a variant such as fp16 are read where a folder holds no others. With `random_weights` the published configuration
    is filled from torch's global generator. On the device "meta" a denoiser is built from its configuration alone, and
    there is no pipeline. `dtype` None means float32, "auto" that of each network's files. Raises ModelLoadError, which
    names weights that are missing, unknown or misshapen, and NotFiniteError where a loaded weight is not finite.
    """
    name, chosen = str(source), None if dtype == "auto" else dtype
    if family is not None and not is_published(family):
        family_named(family)
    if random_weights:
        return random_model(name, family, device, chosen)
    if is_published(name) and not Path(name).exists():
        raise ModelLoadError(
            f"{name!r} names a published model, not weights: give a folder or a hub id, or pass random_weights=True"
        )
    weightless = str(device) == "meta"
    if dtype is None and not weightless:
        import torch

        chosen = torch.float32
    if Path(name).is_file() and name not in EMBEDDED:
        return _checked(original_checkpoint(name, family, device, chosen))
    folder = source_folder(name, download=download, weights=not weightless)
    if weightless:
        model = weightless_model(name, folder, chosen)
    elif (folder / "config.json").is_file() and not (folder / "model_index.json").is_file():
        model = bare_denoiser(name, folder, device, chosen)
    else:
        model = pipeline_model(name, folder, device, chosen)
    if family not in (None, model.family):
        raise ModelLoadError(
            f"{name!r} is a model of family {model.family!r}, not {family!r}: pass family={model.family!r}"
        )
    return _checked(model)


def _checked(model: VideoModel) -> VideoModel:
    check_weights(model.pipeline or model.denoiser)
    return model


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
    return VideoModel(source=name, family=module.name, denoiser=denoiser, vae=None, pipeline=None)


def weightless_model(name: str, folder: Path, dtype: torch.dtype | None) -> VideoModel:
    """The denoiser of a folder on the meta device, from its configuration alone, and its VAE where that is known."""
    import torch
    from torch import nn

    found = [part for part in (*DENOISERS, ".") if (folder / part / "config.json").is_file()]
    if not found:
        raise ModelLoadError(
            f"{name!r} has no configuration of a denoiser: give a folder that save_pretrained wrote, a hub id, or one"
            f" of {', '.join(EMBEDDED)}, or with random_weights=True {', '.join(OFFICIAL)}"
        )
    config = read_json(folder / found[0] / "config.json")
    require_not_refused(str(config.get("_class_name")))
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
    vae = _weightless_vae(folder / "vae")
    return VideoModel(source=name, family=family_of(denoiser).name, denoiser=denoiser, vae=vae, pipeline=None)


def _weightless_vae(folder: Path) -> nn.Module | None:
    import torch

    if not (folder / "config.json").is_file():
        return None
    config = read_json(folder / "config.json")
    try:
        with torch.device("meta"):
            vae: nn.Module = vae_class(str(config.get("_class_name"))).from_config(config)
    except Exception:  # whatever an unknown class or an unfit configuration raises: a denoiser can do without
        return None
    return vae.to("meta").eval()


def vae_class(name: str) -> Any:
    """The class of a VAE of that name, one of a smaller decoder too; raises ModelLoadError where there is none."""
    module = STUDENT_VAES.get(name, "diffusers")
    found = getattr(importlib.import_module(module), name, None) if "Autoencoder" in name else None
    if found is None:
        raise ModelLoadError(f"{name!r} is no VAE that is known here: give a folder that save_pretrained wrote")
    return found


def bare_denoiser(name: str, folder: Path, device: str | torch.device, dtype: torch.dtype | None) -> VideoModel:
    """A folder that holds a denoiser and no pipeline; `dtype` None is that of its files."""
    classes = _denoiser_classes()
    described = str(read_json(folder / "config.json").get("_class_name"))
    require_not_refused(described)
    native = classes.get(described)
    if native is None:
        raise ModelLoadError(
            f"{name!r} holds no denoiser of {', '.join(classes)}: give a folder that save_pretrained wrote"
        )
    denoiser = load_network(native, folder, dtype).to(device)
    return VideoModel(source=name, family=family_of(denoiser).name, denoiser=denoiser, vae=None, pipeline=None)


def pipeline_model(name: str, folder: Path, device: str | torch.device, dtype: torch.dtype | None) -> VideoModel:
    """A pipeline in a folder; `dtype` None is, for each of its networks, that of the network's files."""
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline

    if not (folder / "model_index.json").is_file():
        raise ModelLoadError(f"{name!r} has no model_index.json: give the folder that a pipeline was saved to")
    index = read_json(folder / "model_index.json")
    for part in DENOISERS:
        require_not_refused(str((index.get(part) or [None])[-1]))
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
    return VideoModel(name, family.name, denoiser, getattr(pipeline, "vae", None), pipeline)


def _published(name: str) -> str:
    if not is_published(name):
        raise ModelLoadError(
            f"{name!r} is no published model's name{nearest(name, OFFICIAL)}: use one of {', '.join(OFFICIAL)}"
        )
    return published_name(name)


def _denoiser_classes() -> dict[str, Any]:
    families = (*map(family_named, FAMILIES), *plugged_families().values())
    return dict(each for family in families for each in family.denoiser_classes().items())
