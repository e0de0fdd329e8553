"""A suite: what to prune, distil, sample, score and time, read from YAML; every error says where it is."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from vdmini_bench.errors import SuiteError
from vdmini_bench.store import key_of

Positive = Annotated[int, Field(gt=0)]
Model = TypeVar("Model", bound=BaseModel)


class _Spec(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class DatasetSpec(_Spec):
    """Where clips come from: `drawn` (the embedded stand-in, written to disk) or `ucf101` (the real one)."""

    kind: Literal["drawn", "ucf101"]
    split: Literal["01", "02", "03"] = "01"
    train_clips: Positive
    drawn_train_per_group: Positive = 4
    drawn_test_per_group: Positive = 12


class ProtocolSpec(_Spec):
    """What a clip is and how it reaches the I3D network; two scores compare only under the same name and version."""

    name: str
    version: Positive = 1
    frames: Annotated[int, Field(ge=9)]
    frames_per_second: Positive
    resize_width: Positive | None = None
    resize_height: Positive | None = None
    clips_per_block: Annotated[int, Field(ge=2)]
    blocks: Annotated[int, Field(ge=2)]
    reference: Literal["shipped", "computed"]
    reference_clips: Annotated[int, Field(ge=2)]
    inception: Literal["i3d-kinetics400", "c3d-ucf101"]
    frame_fid: bool = False


class SampleSpec(_Spec):
    """How the pipeline samples; the names are those of `vdmini.sample.SampleSettings`."""

    steps: Positive
    height: Positive
    width: Positive
    motion_bucket: int = 127
    noise_strength: Annotated[float, Field(ge=0)] = 0.02
    min_guidance: float = 1.0
    max_guidance: float = 3.0
    batch_size: Positive


class DistillSpec(_Spec):
    """The ICMD retraining; the names are those of `vdmini.distill.DistillSettings`."""

    task: Literal["edm"] = "edm"
    steps: Positive
    batch_size: Positive
    learning_rate: Annotated[float, Field(gt=0)]
    head_learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    lambda_icd: Annotated[float, Field(ge=0)] = 0.1
    lambda_mca: Annotated[float, Field(ge=0)] = 1.0
    discriminator_warmup: Annotated[int, Field(ge=0)] = 0
    sigma_mean: float = 0.7
    sigma_std: Annotated[float, Field(gt=0)] = 1.6
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.95
    gradient_clip: Annotated[float, Field(gt=0)] = 1.0
    gradient_checkpointing: bool = False
    mixed_precision: Literal["no", "bf16"] = "no"
    checkpoint_every: Positive = 100
    seed: int = 0


class TimingSpec(_Spec):
    """How often each timed scope runs."""

    runs: Annotated[int, Field(ge=3)]
    warmup: Annotated[int, Field(ge=1)] = 2


class Profile(_Spec):
    """One setting of a suite, complete."""

    stand_in: str | None = None
    teacher: str
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    plan: str = "vdmini"
    dataset: DatasetSpec
    protocol: ProtocolSpec
    sample: SampleSpec
    distill: DistillSpec
    timing: TimingSpec
    # After `distill`, which it is checked against.
    channels: str | None = None

    @field_validator("channels")
    @classmethod
    def _features_must_have_one_shape(cls, channels: str | None, info: ValidationInfo) -> str | None:
        distill = info.data.get("distill")
        if channels is not None and distill is not None and distill.lambda_icd > 0:
            raise PydanticCustomError(
                "channels",
                "the ICD loss compares features of teacher and student, which have other widths without these"
                " channels: set distill.lambda_icd: 0, or leave channels out",
            )
        return channels


class Suite(_Spec):
    """A suite with one profile chosen."""

    name: str
    version: Positive
    profile_name: str
    profile: Profile

    @property
    def sha(self) -> str:
        """The identity of the resolved suite: what was asked for, not how the file was written."""
        return key_of(self.model_dump())


class _Header(_Spec):
    name: str
    version: Positive
    default_profile: str
    profiles: dict[str, dict[str, Any]]


def load_suite(path: Path, profile: str | None = None, overrides: tuple[str, ...] = ()) -> Suite:
    """Read a suite, choose its profile (the default one when None) and apply `key.path=value` overrides.

    Raises:
        SuiteError: with file:line:column, what is wrong and the nearest valid key.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SuiteError(f"{path}: cannot be read ({error})") from error
    document = _Document.parse(path, text)
    header = document.validate(_Header, document.data, ())
    name = profile or header.default_profile
    if name not in header.profiles:
        raise SuiteError(f"{path}: no profile {name!r}; {_nearest(name, header.profiles)}")
    data = document.resolve_profile(name)
    for override in overrides:
        location = _apply_override(data, override)
        document.overridden["profiles", name, *location] = override
    chosen = document.validate(Profile, data, ("profiles", name))
    return Suite(name=header.name, version=header.version, profile_name=name, profile=chosen)


class _SuiteLoader(yaml.SafeLoader):
    """Safe YAML in which `1e-4` is a number (YAML 1.2) and every wrong value has a place."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            value = super().construct_object(node, deep)
        except yaml.YAMLError:
            raise
        except Exception as error:  # PyYAML's constructors let whatever int(), datetime() and others raise escape
            raise yaml.constructor.ConstructorError(None, None, str(error), node.start_mark) from error
        if isinstance(value, int) and abs(value) >= 2**63:
            raise yaml.constructor.ConstructorError(None, None, "the number is too large", node.start_mark)
        return value


_SuiteLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)$"),
    list("-+0123456789."),
)


class _Document:
    """Parsed YAML with the position of every key."""

    def __init__(self, path: Path, data: Any, positions: dict[tuple[str, ...], yaml.Mark]) -> None:
        self.path, self.data, self.positions = path, data, positions
        self.overridden: dict[tuple[str, ...], str] = {}

    @classmethod
    def parse(cls, path: Path, text: str) -> _Document:
        try:
            node = yaml.compose(text, _SuiteLoader)
            if not isinstance(node, yaml.MappingNode):
                raise SuiteError(f"{path}:1:1: a suite is a mapping with name, version, default_profile and profiles")
            positions: dict[tuple[str, ...], yaml.Mark] = {}
            _collect_positions(path, node, (), positions, set())
            return cls(path, yaml.load(text, _SuiteLoader), positions)  # noqa: S506 - a subclass of SafeLoader
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark
            where = f"{mark.line + 1}:{mark.column + 1}" if mark else "1:1"
            raise SuiteError(f"{path}:{where}: not valid YAML: {error.problem}") from error
        except (yaml.YAMLError, RecursionError) as error:
            raise SuiteError(f"{path}:1:1: not valid YAML: {error}") from error

    def resolve_profile(self, name: str, seen: tuple[str, ...] = ()) -> dict[str, Any]:
        """The profile's own keys over those of the profile it `extends`, all the way up."""
        profiles = self.data["profiles"]
        own = dict(profiles[name])
        parent = own.pop("extends", None)
        if parent is None:
            return own
        known = isinstance(parent, str) and parent in profiles
        if not known or parent in (*seen, name):
            where = self.where(("profiles", name, "extends"))
            reason = "extends itself" if known else f"no profile {parent!r}; {_nearest(parent, profiles)}"
            raise SuiteError(f"{where}: {reason}")
        return _merge(self.resolve_profile(parent, (*seen, name)), own)

    def where(self, location: tuple[str, ...]) -> str:
        """The override or the `file:line:column` that a location's value comes from."""
        for length in range(len(location), 0, -1):
            if location[:length] in self.overridden:
                return f"--set {self.overridden[location[:length]]}"
        while location:
            mark = next((self.positions[place] for place in self._lineage(location) if place in self.positions), None)
            if mark is not None:
                break
            location = location[:-1]
        else:
            mark = None
        return f"{self.path}:{mark.line + 1}:{mark.column + 1}" if mark else f"{self.path}:1:1"

    def _lineage(self, location: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        """A place in a profile, then the same place in each profile that it extends."""
        yield location
        seen = set()
        while location[:1] == ("profiles",) and len(location) > 2 and location[1] not in seen:
            seen.add(location[1])
            parent = self.data["profiles"].get(location[1], {}).get("extends")
            if not isinstance(parent, str):
                return
            location = ("profiles", parent, *location[2:])
            yield location

    def validate(self, spec: type[Model], data: Any, location: tuple[str, ...]) -> Model:
        try:
            return spec.model_validate(data)
        except ValidationError as error:
            # A misspelt key also leaves the right one missing: name the cause before its effect.
            first = min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
            inside = tuple(str(part) for part in first["loc"])
            key = ".".join(inside)
            if first["type"] == "extra_forbidden":
                known = _fields_at(spec, inside[:-1])
                message = f"unknown key {key!r}; {_nearest(inside[-1], known)}"
            elif first["type"] == "missing":
                message = f"missing key {key!r}"
            else:
                message = f"{key}: {first['msg']} (got {first['input']!r})"
            raise SuiteError(f"{self.where((*location, *inside))}: {message}") from error


def _collect_positions(
    path: Path,
    node: yaml.MappingNode,
    location: tuple[str, ...],
    positions: dict[tuple[str, ...], yaml.Mark],
    visited: set[int],
) -> None:
    for key, value in node.value:
        here = (*location, str(key.value))
        mark = key.start_mark
        if here in positions:
            first = positions[here].line + 1
            raise SuiteError(
                f"{path}:{mark.line + 1}:{mark.column + 1}: key {key.value!r} is given twice (first on line {first})"
            )
        positions[here] = mark
        # An aliased node is looked into once, or nested aliases would take exponential time.
        if isinstance(value, yaml.MappingNode) and id(value) not in visited:
            visited.add(id(value))
            _collect_positions(path, value, here, positions, visited)


def _fields_at(spec: type[BaseModel], location: tuple[str, ...]) -> list[str]:
    for part in location:
        annotation = spec.model_fields[part].annotation
        assert isinstance(annotation, type)
        assert issubclass(annotation, BaseModel)
        spec = annotation
    return list(spec.model_fields)


def _nearest(name: object, known: Any) -> str:
    candidates = [str(candidate) for candidate in known]
    matches = difflib.get_close_matches(str(name), candidates, n=1, cutoff=0.5)
    return f"did you mean {matches[0]!r}?" if matches else f"valid: {', '.join(candidates)}"


def _merge(base: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in own.items():
        inherited = merged.get(key)
        if isinstance(inherited, dict) and isinstance(value, dict):
            merged[key] = _merge(inherited, value)
        else:
            merged[key] = value
    return merged


def _apply_override(data: dict[str, Any], override: str) -> tuple[str, ...]:
    path, separator, text = override.partition("=")
    if not separator or not path:
        raise SuiteError(f"--set {override}: write key.path=value, e.g. --set distill.steps=100")
    try:
        value = yaml.load(text, _SuiteLoader)  # noqa: S506 - a subclass of SafeLoader
    except (yaml.YAMLError, RecursionError, IndexError) as error:
        raise SuiteError(f"--set {override}: the value is not valid YAML") from error
    *parents, last = path.split(".")
    target = data
    for part in parents:
        inner = target.get(part)
        if not isinstance(inner, dict):
            raise SuiteError(f"--set {override}: no section {part!r}; {_nearest(part, target)}")
        target[part] = target = dict(inner)
    target[last] = value
    return (*parents, last)
