"""JSON schemas of the files people write, from the classes that check them: editors complete and check by these."""

from __future__ import annotations

from copy import deepcopy
from typing import Any, Literal

from vdmini_bench.suite import Profile
from vdmini_bench.thresholds import ThresholdsFile

DIALECT = "https://json-schema.org/draft/2020-12/schema"
Kind = Literal["suite", "thresholds"]

# A section that takes values from elsewhere need not be complete: a profile that extends another, a preset's protocol.
PARTIAL = "Partial"


def schema_of(kind: Kind) -> dict[str, Any]:
    """The JSON schema (2020-12) of a suite or of a thresholds file."""
    return suite_schema() if kind == "suite" else thresholds_schema()


def thresholds_schema() -> dict[str, Any]:
    """The schema of a thresholds file."""
    schema = ThresholdsFile.model_json_schema()
    amounts = [{"required": [name]} for name in ("absolute", "relative", "standard_errors")]
    schema["$defs"]["Threshold"]["anyOf"] = amounts
    return {"$schema": DIALECT, **schema, "title": "VDMini thresholds"}


def suite_schema() -> dict[str, Any]:
    """The schema of a suite: a profile is complete, or extends another and gives what differs."""
    complete = Profile.model_json_schema()
    definitions = complete.pop("$defs")
    complete["properties"]["extends"] = {"type": "string", "description": "The profile whose values these replace."}
    partial = {f"{PARTIAL}{name}": _without_required(each) for name, each in definitions.items()}
    if "ProtocolSpec" in definitions:
        definitions["ProtocolSpec"] = _either(
            "preset", "ProtocolSpec", definitions["ProtocolSpec"], partial[f"{PARTIAL}ProtocolSpec"]
        )
    profile = _either("extends", "Profile", complete, _without_required(complete))
    return {
        "$schema": DIALECT,
        "title": "VDMini suite",
        "type": "object",
        "required": ["name", "version", "default_profile", "profiles"],
        "additionalProperties": False,
        "properties": {
            "name": {"type": "string"},
            "version": {"type": "integer", "exclusiveMinimum": 0},
            "default_profile": {"type": "string", "description": "The profile that runs where none is named."},
            "profiles": {"type": "object", "additionalProperties": profile},
        },
        "$defs": {**definitions, **partial},
    }


def _either(key: str, title: str, complete: dict[str, Any], partial: dict[str, Any]) -> dict[str, Any]:
    """Without `key` all that is required; with it only what is given."""
    return {"title": title, "if": {"required": [key]}, "then": partial, "else": complete}


def _without_required(schema: dict[str, Any]) -> dict[str, Any]:
    """The same section with nothing required, in it and in the sections it refers to."""
    relaxed = deepcopy(schema)
    relaxed.pop("required", None)
    waiting: list[Any] = [relaxed]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            reference = part.get("$ref")
            if isinstance(reference, str):
                part["$ref"] = reference.replace("#/$defs/", f"#/$defs/{PARTIAL}")
            waiting += part.values()
        elif isinstance(part, list):
            waiting += part
    return relaxed
