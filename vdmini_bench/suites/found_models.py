"""What the models of a suite are made from, looked for before anything runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from vdmini.errors import ModelLoadError
from vdmini_bench.config.models import ModelSpec
from vdmini_bench.config.suite import CommonProfile
from vdmini_bench.errors import SuiteError
from vdmini_bench.metrics.perceptual import perceptual_digest
from vdmini_bench.models.pruning import Pruning
from vdmini_bench.models.source import NOT_THERE, found_teacher
from vdmini_bench.system.files import sha256_of
from vdmini_bench.system.launch import process_device

if TYPE_CHECKING:
    from vdmini.models.registry import VideoModel
    from vdmini.requests import SampleSettings


# Of models that take the other.
OTHER_SUITES = "set another teacher, protocol.condition (preset svd has class names, sf-v first frames) or vbench.mode"


@dataclass(frozen=True)
class FoundModels:
    """The teacher's folder, empty where it is missing, and its digest; what else the rows load; and what they prune.

    `sources` are folders and digests by how they were named, `prunings` by row, `perceptual` is the identity of the
    network that decoders are fine-tuned by, empty where none is.
    """

    teacher: str
    digest: str
    sources: dict[str, tuple[str, str]]
    prunings: dict[str, Pruning]
    perceptual: str

    @property
    def plans(self) -> dict[str, str]:
        """What is pruned for each row, as jobs' keys hold it."""
        return {row: str(pruning) for row, pruning in self.prunings.items()}


def find_models(profile: CommonProfile) -> FoundModels:
    """Look for everything that the rows of a profile are made from.

    Raises:
        SuiteError: a plan, a rule for channels or a measure cannot be used with its model, or that makes no clips of
            what it would be given, with the row's name.
    """
    # Nothing here changes them.
    sized = cache(_sized)
    teacher, digest = found_teacher(profile.teacher)
    sources: dict[str, tuple[str, str]] = {}
    prunings = {}
    for row, spec in profile.models.items():
        if spec.source is not None:
            sources[spec.source] = found_teacher(spec.source)
        for file in spec.files:
            sources[file] = (file, sha256_of(Path(file)) if Path(file).is_file() else NOT_THERE)
        folder = teacher if spec.source is None else sources[spec.source][0]
        try:
            model = sized(folder) if folder else None
            prunings[row] = _checked(spec, model, profile.sampler(spec.sample), from_images=profile.from_images)
        except SuiteError as error:
            raise SuiteError(f"models: {row}: {error}") from error
    return FoundModels(teacher, digest, sources, prunings, perceptual_digest() if finetunes(profile) else "")


def finetunes(profile: CommonProfile) -> bool:
    """Whether the decoder of any row is fine-tuned."""
    decoders = [spec.decoder for spec in profile.models.values()]
    return any(decoder is not None and decoder.finetune is not None for decoder in decoders)


def wanted_sources(profile: CommonProfile) -> Iterator[str]:
    """The teacher and all that stands in its place, as they are named."""
    yield profile.teacher
    for spec in profile.models.values():
        if spec.source is not None:
            yield spec.source


def _sized(folder: str) -> VideoModel:
    """A model by its sizes alone, once all that a pipeline needs was seen to be there."""
    from vdmini.models.folders import check_parts
    from vdmini.models.loading import load_model

    if (Path(folder) / "model_index.json").is_file():
        check_parts(Path(folder))
    return load_model(folder, device="meta")


def _checked(spec: ModelSpec, model: VideoModel | None, settings: SampleSettings, *, from_images: bool) -> Pruning:
    """What a row prunes, after a look at the model's sizes, where it is there."""
    plan = spec.plan or "none"
    if model is None:
        return Pruning.read(plan, spec.channels, with_data=True)
    from vdmini.acceleration import check_measures
    from vdmini.lora import lora_loader
    from vdmini.models.registry import family_named
    from vdmini.sample import read_latents
    from vdmini.vae import prune_decoder

    if family_named(model.family).images(model.denoiser) == ("never" if from_images else "always"):
        takes, given = ("an image", "words") if not from_images else ("words", "an image")
        raise SuiteError(f"{model.source} makes clips of {takes}, and this suite gives it {given}: {OTHER_SUITES}")
    try:
        if spec.lora is not None and lora_loader(Path(model.source)) is None:
            raise ValueError(f"lora: diffusers merges none into the pipeline of {model.source}: leave it out")
        check_measures(
            model.denoiser, model.vae, spec.acceleration, device_type=process_device().type, settings=settings
        )
        if settings.latents is not None and Path(settings.latents).is_file() and model.vae is not None:
            read_latents(settings.latents, model.denoiser, model.vae, settings)
        if spec.decoder is not None and model.vae is None:
            raise ValueError(f"decoder: {model.source} has no VAE that is known here: leave it out")
        if spec.decoder is not None and model.vae is not None:
            sizes = spec.decoder.model_dump(exclude={"finetune", "parameters"})
            count = None if spec.decoder.parameters is None else round(spec.decoder.parameters)
            prune_decoder(model.vae, parameters=count, **sizes)
    except (ModelLoadError, ValueError, TypeError) as error:
        raise SuiteError(str(error)) from error
    return Pruning.read(plan, spec.channels, model.family, with_data=True)
