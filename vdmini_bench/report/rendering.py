"""The templates of the page: whatever is not markup already is escaped, so no text of a run can become any."""

from __future__ import annotations

from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from vdmini_bench.report.scales import short
from vdmini_bench.system.tables import visible


@cache
def templates() -> Environment:
    """All templates; each expression is written by `_shown` and escaped."""
    found = Environment(
        loader=PackageLoader("vdmini_bench.report"), autoescape=True, undefined=StrictUndefined, finalize=_shown,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    found.filters["short"] = short
    return found


def render(name: str, **values: object) -> Markup:
    """A template filled in."""
    return Markup(templates().get_template(name).render(values))  # noqa: S704


def _shown(value: object) -> str:
    if isinstance(value, Markup):
        return value
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else visible(str(value))
