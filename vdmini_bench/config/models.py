"""The rows of a suite's table: `models:`, each a name and how the model is made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from vdmini.measures import Measure, parse_measure
from vdmini_bench.config.decoder import DecoderSpec, FinetuneSpec
from vdmini_bench.config.fields import Positive, Specification
from vdmini_bench.config.sampling import SamplerSpec, with_preset
from vdmini_bench.config.yaml_file import Document, merged, nearest_key
from vdmini_bench.errors import SuiteError
from vdmini_bench.system.files import key_of

Options = dict[str, float | str | None]
# What changes memory, speed or what is written meanwhile, and no result but by rounding.
WITHOUT_EFFECT = {"micro_batch_size", "gradient_checkpointing", "checkpoint_every", "preview_every", "report_to"}
# What all models of a profile share, whatever presets they name.
SHARED = {"height", "width", "seed", "batch_size"}
LONGEST_SAID = 40
# What all models of a profile save memory by, if any does.
VAE_WAYS = ("vae_tiling", "vae_slicing")
# Rows of every table that are no models.
RESERVED = ("real", "static")
# What makes the weights of the denoiser before training; built on a distilled entry, it is done to what that made.
BEFORE_TRAINING = ("lora", "plan", "channels")


class SampleSpec(SamplerSpec):
    """How the pipeline samples; `guidance` is for text."""

    height: Positive
    width: Positive
    motion_bucket: int = 127
    noise_strength: Annotated[float, Field(ge=0)] = 0.02
    min_guidance: float = 1.0
    max_guidance: float = 3.0
    batch_size: Positive


class SeededSampleSpec(SampleSpec):
    """The same where `seed` may choose other noise for every clip, so that a rerun shows how much that moves scores."""

    seed: Annotated[int, Field(ge=0, le=1_000_000)] = 0


class DistillSpec(Specification):
    """The ICMD retraining; the names are those of `vdmini.distill.DistillSettings`.

    `task` is one of `vdmini.tasks`, the family's own when None, and `task_options` are that task's. `report_to` names
    trackers of the losses; None is TensorBoard where it is installed.
    """

    task: str | None = None
    task_options: Options = Field(default={})
    steps: Positive
    batch_size: Positive
    micro_batch_size: Positive | None = None
    learning_rate: Annotated[float, Field(gt=0)]
    lr_scheduler: Literal[
        "warm_cosine", "constant", "constant_with_warmup", "linear", "cosine", "cosine_with_restarts", "polynomial"
    ] = "warm_cosine"
    lr_warmup_steps: Annotated[int, Field(ge=0)] = 0
    head_learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    weight_decay: Annotated[float, Field(ge=0)] = 1e-2
    optimizer: Literal["adamw", "adamw8bit"] = "adamw"
    lambda_icd: Annotated[float, Field(ge=0)] = 0.1
    lambda_mca: Annotated[float, Field(ge=0)] = 1.0
    lambda_output: Annotated[float, Field(ge=0)] = 0.0
    lambda_r1: Annotated[float, Field(ge=0)] = 0.0
    real: Literal["teacher", "data"] = "teacher"
    balance: Literal["fixed", "adaptive"] = "fixed"
    discriminator_warmup: Annotated[int, Field(ge=0)] = 0
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.95
    gradient_clip: Annotated[float, Field(gt=0)] = 1.0
    gradient_checkpointing: bool = False
    mixed_precision: Literal["no", "bf16"] = "no"
    checkpoint_every: Positive = 100
    preview_every: Annotated[int, Field(ge=0)] = 0
    report_to: list[Literal["tensorboard", "wandb", "trackio", "mlflow"]] | None = None
    seed: int = 0

    @field_validator("mixed_precision", mode="before")
    @classmethod
    def _no_is_a_word(cls, mixed_precision: object) -> object:
        """YAML reads a bare `no` as false."""
        return "no" if mixed_precision is False else mixed_precision

    @field_validator("report_to")
    @classmethod
    def _trackers_must_be_installed(cls, report_to: list[str] | None) -> list[str] | None:
        for name in report_to or ():
            if find_spec(name) is None:
                raise ValueError(f"{name} is not installed: pip install {name}")
        return report_to

    @field_validator("task")
    @classmethod
    def _task_must_be_known(cls, task: str | None) -> str | None:
        _make_task(task, {})
        return task

    @field_validator("task_options")
    @classmethod
    def _options_must_be_the_tasks(cls, options: Options, info: ValidationInfo) -> Options:
        task = info.data.get("task")
        if task is None and options:
            raise ValueError("name the task that these options are of: set distill.task")
        _make_task(task, options)
        return options


def _make_task(task: str | None, options: Options) -> None:
    """Raise ValueError for a task that is unknown or has no such options; None is any family's own."""
    from vdmini.tasks import make_task

    if task is not None:
        make_task(task, options)


class DistillSpecOfSuite(DistillSpec):
    """The same without previews: a suite says nothing of what to draw."""

    @field_validator("preview_every")
    @classmethod
    def _no_previews(cls, preview_every: int) -> int:
        if preview_every:
            raise ValueError(
                "previews are for a distillation's own configuration, which says what to draw: leave this out"
            )
        return preview_every


def _features_must_have_one_shape(channels: str | None, info: ValidationInfo) -> str | None:
    distill = info.data.get("distill")
    if channels is not None and distill is not None and distill.lambda_icd > 0:
        raise ValueError(
            "the ICD loss compares features of teacher and student, which have other widths without these"
            " channels: set distill.lambda_icd: 0, or leave channels out"
        )
    return channels


# A channel rule, in a section in which it stands after `distill`.
Channels = Annotated[str | None, AfterValidator(_features_must_have_one_shape)]


def _check_measure(data: str | dict[str, Any]) -> str | dict[str, Any]:
    """Raise ValueError, as AccelerationError is, for what is no measure."""
    parse_measure(data)
    return data


class ModelSpec(Specification):
    """How one row's model is made, complete; where nothing is given it is the teacher as it is.

    `source` is a folder or hub id in the teacher's place; `teacher` a row whose finished model is: `from` says so where
    that row is distilled and this one pruned anew. The denoiser is pruned by `plan` and `channels`, then distilled; the
    VAE's decoder is cut down by `decoder`. `sample` and `distill` are the profile's with this entry's keys over them.
    `accelerate` lists measures as `vdmini.acceleration.parse_measure` reads them.
    """

    source: str | None = None
    teacher: str | None = None
    lora: str | None = None
    plan: str | None = None
    distill: DistillSpecOfSuite | None = None
    # After `distill`, which it is checked against.
    channels: Channels = None
    decoder: DecoderSpec | None = None
    sample: SampleSpec
    accelerate: list[Annotated[str | dict[str, Any], AfterValidator(_check_measure)]] = Field(default_factory=list)

    @property
    def is_pruned(self) -> bool:
        """Whether the denoiser's weights are other than those it loads from, before any training."""
        return (self.plan, self.channels, self.lora) != (None, None, None) or self.distill is not None

    @property
    def is_trained(self) -> bool:
        """Whether anything of it is trained, so that training seeds matter."""
        return self.distill is not None or (self.decoder is not None and self.decoder.finetune is not None)

    @property
    def acceleration(self) -> list[Measure]:
        """Its measures as they are applied; `str` of each is the same for every way of writing it."""
        return [parse_measure(each) for each in self.accelerate]

    @property
    def files(self) -> list[str]:
        """Files of weights that are no folders: a LoRA's, and those that a quantizer reads."""
        read = [str(dict(measure.settings)["file"]) for measure in self.acceleration if measure.engine == "gguf"]
        return read if self.lora is None else [self.lora, *read]

    @property
    def is_cached(self) -> bool:
        """Whether what it computes decides which parts of a pass are left out."""
        return any(measure.kind == "cache" for measure in self.acceleration)

    def training(self, index: int) -> ModelSpec:
        """The same trained from other seeds, the first time from those it names."""
        changes: dict[str, Any] = {}
        if self.distill is not None:
            changes["distill"] = self.distill.model_copy(update={"seed": self.distill.seed + index})
        if self.decoder is not None and self.decoder.finetune is not None:
            finetune = self.decoder.finetune.model_copy(update={"seed": self.decoder.finetune.seed + index})
            changes["decoder"] = self.decoder.model_copy(update={"finetune": finetune})
        return self.model_copy(update=changes)

    def measures(self, sample: SampleSpec, distill: DistillSpec | None) -> list[str]:
        """What was done to the teacher, a line each, which two entries share where they did the same.

        `sample` and `distill` are the profile's own, of which only what differs is named.
        """
        found = [f"{name}: {value}" for name in ("source", "lora") if (value := getattr(self, name)) is not None]
        denoiser = [f"{name}={value}" for name in ("plan", "channels") if (value := getattr(self, name)) is not None]
        if self.distill is not None:
            denoiser += ["distilled", *differences(self.distill, distill)]
        found += [f"denoiser: {', '.join(denoiser)}"] if denoiser else []
        if self.decoder is not None:
            finetune, cut = self.decoder.finetune, self.decoder.model_copy(update={"finetune": None})
            trained = [] if finetune is None else ["fine-tuned", *differences(finetune, FinetuneSpec())]
            found.append(f"decoder: {', '.join([*differences(cut, DecoderSpec()), *trained])}")
        sampled = differences(self.sample, sample)
        found += [f"sample: {', '.join(sampled)}"] if sampled else []
        why = {True: "memory", False: "accelerate"}
        return found + [f"{why[measure.kind in VAE_WAYS]}: {measure}" for measure in self.acceleration]


def differences(own: Specification, common: Specification | None) -> list[str]:
    """The keys of a section that differ from another's, as `key=value`."""
    # Not as they are dumped, which leaves out settings that are None.
    values, others = dict(own), {} if common is None else dict(common)
    ignored = WITHOUT_EFFECT | {"batch_size"} if isinstance(own, SampleSpec) else WITHOUT_EFFECT
    return [f"{key}={said(value)}" for key, value in values.items() if key not in ignored and value != others.get(key)]


def said(value: object) -> object:
    """A value as a list of differences has it: of a long text its beginning, and a digest that tells it from others."""
    is_long = isinstance(value, str) and len(value) > LONGEST_SAID
    return f"{str(value)[:LONGEST_SAID]}... ({key_of(value)})" if is_long else value


class SeedsSpec(Specification):
    """How often what is trained is trained, each time from another seed."""

    training: Positive = 1


class PublishedSpec(Specification):
    """A number that others report of a row's model in a metric; `said` is where. Only ever shown beside ours."""

    model: str
    metric: str
    value: float
    said: str


def complete_models(document: Document, data: Mapping[str, Any], place: tuple[str, ...]) -> dict[str, Any]:
    """The data of a profile that lies at `place` in the file, with every entry of `models` complete.

    An entry has the keys of the one it is built `from` under its own, the profile's `sample` and `distill` under these,
    and what its `memory` does to VAEs among its measures. What is no mapping is left to the profile's own check.

    Raises:
        SuiteError: with file:line:column; an entry is built on itself, on none, or on another source.
    """
    for key in ("plan", "channels"):
        if key in data:
            raise SuiteError(
                f"{document.where((*place, key))}: {key!r} is said of each model: write it under models, e.g. models:"
                f" {{teacher: {{}}, student: {{{key}: {data[key]}, distill: {{}}}}}}, or --set models.student.{key}=..."
            )
    models = data.get("models")
    if not isinstance(models, dict):
        return dict(data)
    for name in models:
        if name in RESERVED or not str(name).strip() or "\n" in str(name):
            raise SuiteError(f"{document.where((*place, 'models', name))}: no model can be called {name!r}")
    mappings = {name: _complete(document, data, place, name) for name, each in models.items() if isinstance(each, dict)}
    return {**data, "models": {**models, **mappings}}


def _complete(document: Document, data: Mapping[str, Any], place: tuple[str, ...], name: str) -> dict[str, Any]:
    entry, at = _built(document, data["models"], (*place, "models"), name, ()), (*place, "models", name)
    sample = entry.get("sample", {})
    for key in ("height", "width", "seed", "latents"):
        if isinstance(sample, dict) and key in sample:
            where = document.where((*at, "sample", key))
            raise SuiteError(f"{where}: all models are asked for the same clips: set sample.{key} of the profile")
    for section in ("sample", "distill"):
        common, own = data.get(section), entry.get(section, {} if section == "sample" else None)
        if isinstance(common, dict) and isinstance(own, dict):
            if section == "sample" and own.get("preset") is not None:
                # A preset is a whole: what the profile says otherwise does not change it.
                whole = with_preset(common, SampleSpec.model_fields)
                common = {key: value for key, value in whole.items() if key in SHARED}
            entry[section] = merged(common, own)
    listed, memory = entry.get("accelerate", []), data.get("memory")
    for way in VAE_WAYS if isinstance(listed, list) else ():
        if way in listed:
            where = document.where((*at, "accelerate"))
            raise SuiteError(f"{where}: {way} makes nothing faster: write memory: {{{way}: true}} in the profile")
        if isinstance(memory, dict) and memory.get(way) is True:
            entry["accelerate"] = [way, *entry.get("accelerate", [])]
    return entry


def _built(
    document: Document, models: Mapping[str, Any], place: tuple[str, ...], name: str, seen: tuple[str, ...]
) -> dict[str, Any]:
    """An entry's own keys over those of the one it is built from, all the way up; `accelerate` adds to that list."""
    own = dict(models[name])
    if "teacher" in own:
        raise SuiteError(f"{document.where((*place, name, 'teacher'))}: a model is built on another by from")
    parent = own.pop("from", None)
    if parent is None:
        return own
    where = document.where((*place, name, "from"))
    if not isinstance(models.get(parent), dict):
        raise SuiteError(f"{where}: no model {parent!r}; {nearest_key(parent, models)}")
    if parent in (*seen, name):
        raise SuiteError(f"{where}: {name!r} is built from itself")
    base = _built(document, models, place, parent, (*seen, name))
    if base.get("distill") is not None and "source" in own:
        raise SuiteError(
            f"{document.where((*place, name, 'source'))}: {parent!r} is distilled from another: leave from out"
        )
    if base.get("distill") is not None and {*BEFORE_TRAINING} & {*own}:
        base = {key: value for key, value in base.items() if key not in (*BEFORE_TRAINING, "distill")}
        own["teacher"] = parent
    first, second = (each.get("accelerate") for each in (base, own))
    if isinstance(first, list) and isinstance(second, list):
        own["accelerate"] = [*first, *second]
    return merged(base, own)


def check_baseline(baseline: str, models: Mapping[str, ModelSpec] | Sequence[str]) -> str:
    """The baseline's name; raises ValueError where no model has it."""
    if baseline not in models:
        raise ValueError(f"no model of that name; {nearest_key(baseline, models)}")
    return baseline
