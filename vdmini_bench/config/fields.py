"""The kinds of value that files have in common, and the base of their sections."""

from __future__ import annotations

import re
from contextlib import suppress
from fractions import Fraction
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, WithJsonSchema

Positive = Annotated[int, Field(gt=0)]
HIGHEST_RATE = 1000
RATE_TEXT = r"^[0-9]{1,9}(/[0-9]{1,9}|\.[0-9]{1,18})?$"


def _rate(given: object) -> int | float:
    """A rate as written, a whole one as such."""
    if isinstance(given, str) and not re.fullmatch(RATE_TEXT, given):
        given = None
    if isinstance(given, int | float | str) and not isinstance(given, bool):
        # A fraction over 0, and what is no finite number.
        with suppress(ValueError, ArithmeticError):
            rate = Fraction(given)
            if Fraction(1, HIGHEST_RATE) <= rate <= HIGHEST_RATE:
                return rate.numerator if rate.denominator == 1 else float(rate)
    raise ValueError(
        "frames a second are a whole number, a decimal such as 23.976 or a fraction such as 30000/1001, from 0.001"
        f" to {HIGHEST_RATE}"
    )


Rate = Annotated[
    float,
    PlainValidator(_rate),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "minimum": 1 / HIGHEST_RATE, "maximum": HIGHEST_RATE},
                {"type": "string", "pattern": RATE_TEXT},
            ],
            "description": "A whole number, a decimal or a fraction such as 30000/1001.",
        }
    ),
]


class Specification(BaseModel):
    """A section of a file: every key is known, every value of exactly its type."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class ProfilesHeader(Specification):
    """What stands at the top of a file of profiles, which are not checked yet."""

    name: str
    version: Positive
    default_profile: str
    profiles: dict[str, dict[str, Any]]
