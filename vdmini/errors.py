"""The errors that a caller can expect, and the nearest known name for a message."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ModelLoadError(RuntimeError):
    """A model that cannot be loaded; the message names the source and says what to do."""


class PlanError(ValueError):
    """A plan that cannot be made, read or applied; the message says why and what to do."""


class AccelerationError(ValueError):
    """A measure that is not known, or that an engine does not support; the message names it and says what to do."""


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint at the known name that is most like a wrong one, or nothing."""
    matches = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {matches[0]!r}?)" if matches else ""
