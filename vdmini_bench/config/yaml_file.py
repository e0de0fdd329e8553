"""YAML that people write: every value has a place, so that every error says file, line and column."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from vdmini_bench.errors import SuiteError
from vdmini_bench.system.text_files import read_text

Model = TypeVar("Model", bound=BaseModel)


class _Loader(yaml.SafeLoader):
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


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)$"), list("-+0123456789.")
)


class Document:
    """Parsed YAML with the position of every key."""

    def __init__(self, path: Path, data: Any, positions: dict[tuple[str, ...], yaml.Mark]) -> None:
        self.path, self.data, self.positions = path, data, positions
        self.overridden: dict[tuple[str, ...], str] = {}

    @classmethod
    def read(cls, path: Path, shape: str = "a mapping of keys to values") -> Document:
        """Read a file that holds one mapping; `shape` is what an error says was expected.

        Raises:
            SuiteError: it cannot be read, is no YAML or no mapping, or gives a key twice.
        """
        text = read_text(path)
        try:
            node = yaml.compose(text, _Loader)
            if not isinstance(node, yaml.MappingNode):
                raise SuiteError(f"{path}:1:1: {shape} is expected here")
            positions: dict[tuple[str, ...], yaml.Mark] = {}
            _collect_positions(path, node, (), positions, set())
            return cls(path, yaml.load(text, _Loader), positions)  # noqa: S506 - a subclass of SafeLoader
        except yaml.MarkedYAMLError as error:
            raise SuiteError(f"{path}:{_at(error.problem_mark)}: not valid YAML: {error.problem}") from error
        except (yaml.YAMLError, RecursionError) as error:
            raise SuiteError(f"{path}:1:1: not valid YAML: {error}") from error

    def resolve_profile(self, name: str, seen: tuple[str, ...] = ()) -> dict[str, Any]:
        """The profile's own keys over those of the profile it `extends`, all the way up.

        Raises:
            SuiteError: there is no profile of that name, or it extends itself or one that is none.
        """
        profiles = self.data["profiles"]
        if name not in profiles:
            raise SuiteError(f"{self.path}: no profile {name!r}; {nearest_key(name, profiles)}")
        own = dict(profiles[name])
        parent = own.pop("extends", None)
        if parent is None:
            return own
        known = isinstance(parent, str) and parent in profiles
        if not known or parent in (*seen, name):
            where = self.where(("profiles", name, "extends"))
            reason = "extends itself" if known else f"no profile {parent!r}; {nearest_key(parent, profiles)}"
            raise SuiteError(f"{where}: {reason}")
        return merged(self.resolve_profile(parent, (*seen, name)), own)

    def where(self, location: tuple[str, ...]) -> str:
        """The override or the `file:line:column` that a location's value comes from."""
        outwards = [location[:length] for length in range(len(location), 0, -1)]
        for place in outwards:
            if place in self.overridden:
                return f"--set {self.overridden[place]}"
        for place in chain.from_iterable(map(self._lineage, outwards)):
            if place in self.positions:
                return f"{self.path}:{_at(self.positions[place])}"
        return f"{self.path}:1:1"

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

    def override(self, data: dict[str, Any], override: str, under: tuple[str, ...] = ()) -> None:
        """Apply one `key.path=value` to data that lies at `under` in the file; errors about it will name it.

        Raises:
            SuiteError: it is written in another way, or names a section that is not there.
        """
        path, separator, text = override.partition("=")
        if not separator or not path:
            raise SuiteError(f"--set {override}: write key.path=value, e.g. --set distill.steps=100")
        try:
            value = yaml.load(text, _Loader)  # noqa: S506 - a subclass of SafeLoader
        except (yaml.YAMLError, RecursionError, IndexError) as error:
            raise SuiteError(f"--set {override}: the value is not valid YAML") from error
        *parents, last = path.split(".")
        target = data
        for part in parents:
            inner = target.get(part)
            if not isinstance(inner, dict):
                raise SuiteError(f"--set {override}: no section {part!r}; {nearest_key(part, target)}")
            target[part] = target = dict(inner)
        target[last] = value
        self.overridden[*under, *parents, last] = override

    def validate(self, specification: type[Model], data: Any, location: tuple[str, ...]) -> Model:
        """The data that lies at `location` in the file, as what it must be.

        Raises:
            SuiteError: with the place, what is wrong and the nearest valid key.
        """
        try:
            return specification.model_validate(data)
        except ValidationError as error:
            # A misspelt key also leaves the right one missing: name the cause before its effect.
            first = min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
            inside, known = _place(specification, first["loc"])
            if first["type"] in ("union_tag_invalid", "union_tag_not_found"):
                inside = (*inside, first["ctx"]["discriminator"].strip("'"))
            key = ".".join(inside or location)
            if first["type"] == "extra_forbidden":
                message = f"unknown key {key!r}; {nearest_key(inside[-1], known)}"
            elif first["type"] in ("missing", "union_tag_not_found"):
                message = f"missing key {key!r}"
            elif first["type"] == "union_tag_invalid":
                message = f"{key}: Input should be {first['ctx']['expected_tags']} (got {first['ctx']['tag']!r})"
            else:
                # Pydantic's own name for what a validator of ours raises.
                message = f"{key}: {first['msg'].removeprefix('Value error, ')} (got {first['input']!r})"
            raise SuiteError(f"{self.where((*location, *inside))}: {message}") from error


def nearest_key(name: object, known: Iterable[object]) -> str:
    """What to write instead of an unknown name."""
    candidates = [str(candidate) for candidate in known]
    matches = difflib.get_close_matches(str(name), candidates, n=1, cutoff=0.5)
    return f"did you mean {matches[0]!r}?" if matches else f"valid: {', '.join(candidates)}"


def _at(mark: yaml.Mark | None) -> str:
    return f"{mark.line + 1}:{mark.column + 1}" if mark else "1:1"


def _collect_positions(
    path: Path,
    node: yaml.MappingNode,
    location: tuple[str, ...],
    positions: dict[tuple[str, ...], yaml.Mark],
    visited: set[int],
) -> None:
    for key, value in node.value:
        here = (*location, str(key.value))
        if here in positions:
            first = positions[here].line + 1
            raise SuiteError(f"{path}:{_at(key.start_mark)}: key {key.value!r} is given twice (first on line {first})")
        positions[here] = key.start_mark
        # An aliased node is looked into once, or nested aliases would take exponential time.
        if isinstance(value, yaml.MappingNode) and id(value) not in visited:
            visited.add(id(value))
            _collect_positions(path, value, here, positions, visited)


def _place(specification: type[BaseModel], location: tuple[int | str, ...]) -> tuple[tuple[str, ...], list[str]]:
    """Where pydantic's location is in the file, and the keys that are valid there."""
    inside: list[str] = []
    known: list[str] = []
    sections, named = [specification], None
    for part in location:
        if len(sections) > 1:
            # Of several sections that may stand here, pydantic names the one by its kind, which is no key.
            sections = [each for each in sections if part in get_args(each.model_fields["kind"].annotation)]
            continue
        inside.append(str(part))
        if named is not None:
            # Any name stands there.
            sections, named = [named], None
            continue
        fields = sections[0].model_fields if sections else {}
        known = list(fields)
        annotation = fields[str(part)].annotation if part in fields else None
        sections = _sections(annotation)
        if sections and issubclass(get_origin(annotation) or object, Mapping):
            named = sections[0]
    return tuple(inside), known


def _sections(annotation: Any) -> list[type[BaseModel]]:
    """The sections that a value of this annotation may be, or those that a mapping holds."""
    choices = get_args(annotation) or (annotation,)
    return [each for each in choices if isinstance(each, type) and issubclass(each, BaseModel)]


def merged(base: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """Both, section by section, with `own` over `base`."""
    whole = dict(base)
    for key, value in own.items():
        inherited = whole.get(key)
        whole[key] = merged(inherited, value) if isinstance(inherited, dict) and isinstance(value, dict) else value
    return whole
