"""JSON schemas of the files people write, from the classes that check them: editors complete and check by these."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any, Literal

from pydantic import BaseModel

from vdmini_bench.config.depth import DepthProfile
from vdmini_bench.config.distillation import DistillConfig
from vdmini_bench.config.speed import SpeedProfile
from vdmini_bench.config.suite import Profile
from vdmini_bench.config.thresholds import ThresholdsFile
from vdmini_bench.config.vbench import VBenchProfile

DIALECT = "https://json-schema.org/draft/2020-12/schema"
Kind = Literal["suite", "thresholds", "distillation", "speed", "depth"]
# The kinds of suites, the one that a suite is when it does not say first.
PROFILES: dict[str, type[BaseModel]] = {"distributions": Profile, "vbench": VBenchProfile}
# A section that takes values from elsewhere need not be complete: a profile that extends another, a preset's protocol.
PARTIAL = "Partial"


def schema_of(kind: Kind) -> dict[str, Any]:
    """The JSON schema (2020-12) of a kind of file."""
    match kind:
        case "suite":
            return suite_schema()
        case "thresholds":
            return {"$schema": DIALECT, **ThresholdsFile.model_json_schema(), "title": "VDMini thresholds"}
        case "distillation":
            return {"$schema": DIALECT, **DistillConfig.model_json_schema(), "title": "VDMini distillation"}
        case "speed":
            return {**suite_schema({"speed": SpeedProfile}), "title": "VDMini speed"}
        case "depth":
            return {**suite_schema({"depth": DepthProfile}), "title": "VDMini depth"}


def suite_schema(kinds: Mapping[str, type[BaseModel]] = PROFILES) -> dict[str, Any]:
    """The schema of a suite, whose profiles are those of its `kind`, the first one when it names none.

    A profile is complete, or extends another and gives what differs.
    """
    definitions: dict[str, Any] = {}
    of_kind = {}
    for kind, profile in kinds.items():
        of_kind[kind], used = _profile_schema(profile)
        definitions |= used
    properties: dict[str, Any] = {
        "name": {"type": "string"},
        "version": {"type": "integer", "exclusiveMinimum": 0},
        "default_profile": {"type": "string", "description": "The profile that runs where none is named."},
        "profiles": {"type": "object"},
    }
    if len(kinds) > 1:
        properties["kind"] = {"enum": list(kinds), "default": next(iter(kinds))}
    return {
        "$schema": DIALECT,
        "title": "VDMini suite",
        "type": "object",
        "required": ["name", "version", "default_profile", "profiles"],
        "additionalProperties": False,
        "properties": properties,
        **_profiles_by_kind(of_kind),
        "$defs": definitions,
    }


def _profiles_by_kind(of_kind: dict[str, Any]) -> dict[str, Any]:
    """What the profiles must be: asked kind by kind, those of the first one otherwise."""
    (_, profile), *others = of_kind.items()
    chosen: dict[str, Any] = {"properties": {"profiles": {"additionalProperties": profile}}}
    for kind, other in others:
        is_kind: dict[str, Any] = {"required": ["kind"], "properties": {"kind": {"const": kind}}}
        chosen = {"if": is_kind, "then": {"properties": {"profiles": {"additionalProperties": other}}}, "else": chosen}
    return {"allOf": [chosen]}


def _profile_schema(profile: type[BaseModel]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The schema of a profile, and the definitions it refers to."""
    complete = profile.model_json_schema()
    definitions = complete.pop("$defs", {})
    if "clip" in complete["required"]:
        complete["required"].remove("clip")
        preset = {"properties": {"sample": {"required": ["preset"]}}}
        complete["anyOf"] = [{"required": ["clip"]}, preset]
    complete["properties"]["extends"] = {"type": "string", "description": "The profile whose values these replace."}
    partial = {f"{PARTIAL}{name}": _without_required(each) for name, each in definitions.items()}
    if "ProtocolSpec" in definitions:
        definitions["ProtocolSpec"] = _either(
            "preset", "ProtocolSpec", definitions["ProtocolSpec"], partial[f"{PARTIAL}ProtocolSpec"]
        )
    for name in [name for name in definitions if name.endswith("ModelSpec")]:
        # An entry's sections are laid over the profile's, and its keys over those of the entry it is built from.
        parent = {"type": "string", "description": "The entry of models whose keys these replace."}
        entry = partial[f"{PARTIAL}{name}"]
        entry["properties"]["from"] = parent
        definitions[name] = entry
    return _either("extends", "Profile", complete, _without_required(complete)), {**definitions, **partial}


def _either(key: str, title: str, complete: dict[str, Any], partial: dict[str, Any]) -> dict[str, Any]:
    """Without `key` all that is required; with it only what is given."""
    return {"title": title, "if": {"required": [key]}, "then": partial, "else": complete}


def _without_required(schema: dict[str, Any]) -> dict[str, Any]:
    """The same section with nothing required, in it and in the sections it refers to."""
    relaxed = deepcopy(schema)
    for name in ("required", "anyOf"):
        relaxed.pop(name, None)
    waiting: list[Any] = [relaxed]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            reference = part.get("$ref")
            if isinstance(reference, str):
                part["$ref"] = reference.replace("#/$defs/", f"#/$defs/{PARTIAL}")
            # Sections that are told apart by a key may all fit where that key is left out.
            part.pop("discriminator", None)
            if "oneOf" in part:
                part["anyOf"] = part.pop("oneOf")
            waiting += part.values()
        elif isinstance(part, list):
            waiting += part
    return relaxed
