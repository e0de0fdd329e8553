"""Pruning plans: which blocks of a teacher its student keeps, as a value that is checked, saved and read back."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vdmini.errors import PlanError, nearest

SCHEMA = 1


@dataclass(frozen=True)
class PruningPlan:
    """What to keep of one teacher architecture.

    `teacher` is the SHA-256 of its configuration, `kept` and `removed` name all of its prunable blocks in the order
    they run, and `skips` pairs each kept block that reads a skip connection with the kept block that writes it.
    """

    family: str
    teacher: str
    rule: str
    kept: tuple[str, ...]
    removed: tuple[str, ...]
    skips: tuple[tuple[str, str], ...]
    schema: int = SCHEMA

    def to_json(self) -> str:
        """The plan as a JSON object, one line a field group, ending with a newline."""
        fields = {
            "schema": self.schema,
            "family": self.family,
            "teacher": self.teacher,
            "rule": self.rule,
            "kept": list(self.kept),
            "removed": list(self.removed),
            "skips": dict(self.skips),
        }
        return json.dumps(fields, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> PruningPlan:
        """Read a plan written by `to_json`; raises PlanError for anything else, unknown keys included."""
        fields = _parse_object(text)
        _check_keys(fields)
        if type(fields["schema"]) is not int or fields["schema"] != SCHEMA:
            raise PlanError(
                f"plan has schema {_shown(fields['schema'])}, this version reads {SCHEMA}: make the plan again"
            )
        teacher = _text(fields, "teacher")
        if not re.fullmatch("[0-9a-f]{64}", teacher):
            raise PlanError(f"'teacher' must be 64 hexadecimal digits, found {_shown(teacher)}")
        kept, removed = _names(fields, "kept"), _names(fields, "removed")
        both = sorted({*kept} & {*removed})
        if both:
            raise PlanError(f"blocks both kept and removed: {', '.join(both)}: take each out of one of the lists")
        skips = fields["skips"]
        if not isinstance(skips, dict) or not all(isinstance(source, str) for source in skips.values()):
            raise PlanError(f"'skips' must be an object of block names, found {_shown(skips)}")
        return cls(
            family=_text(fields, "family"),
            teacher=teacher,
            rule=_text(fields, "rule"),
            kept=kept,
            removed=removed,
            skips=tuple(skips.items()),
        )


def architecture_sha256(architecture: Mapping[str, object]) -> str:
    """Identity of an architecture: SHA-256 of its configuration as JSON with sorted keys and no spaces."""
    canonical = json.dumps(architecture, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _parse_object(text: str) -> dict[str, Any]:
    def without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        duplicates = sorted({name for name in names if names.count(name) > 1})
        if duplicates:
            raise PlanError(f"plan has keys more than once: {', '.join(duplicates)}: keep one of each")
        return dict(pairs)

    try:
        # Some editors begin a file with a byte order mark.
        fields = json.loads(text.removeprefix("\ufeff"), object_pairs_hook=without_duplicates)
    except PlanError:
        raise
    except (ValueError, RecursionError) as error:
        raise PlanError(f"plan is not JSON ({error}): make it again with make_plan(...).to_json()") from error
    if not isinstance(fields, dict):
        raise PlanError(f"plan must be a JSON object, found {_shown(fields)}")
    return fields


def _check_keys(fields: Mapping[str, Any]) -> None:
    known = ("schema", "family", "teacher", "rule", "kept", "removed", "skips")
    for name in fields:
        if name not in known:
            raise PlanError(f"plan has an unknown key {name!r}{nearest(name, known)}: the keys are {', '.join(known)}")
    missing = [name for name in known if name not in fields]
    if missing:
        raise PlanError(f"plan lacks {', '.join(missing)}: make it again with make_plan(...).to_json()")


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields[name]
    if not isinstance(value, str) or not value:
        raise PlanError(f"{name!r} must be a text, found {_shown(value)}")
    return value


def _names(fields: Mapping[str, Any], name: str) -> tuple[str, ...]:
    values = fields[name]
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise PlanError(f"{name!r} must be a list of block names, found {_shown(values)}")
    if len({*values}) < len(values):
        raise PlanError(f"{name!r} names a block twice: keep one of each")
    return tuple(values)


def _shown(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."
