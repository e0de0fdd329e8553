"""HTML and SVG built from elements: whatever is not markup already is escaped, so no text of a run can become any."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping

Value = str | int | float | bool | None
NONE: Mapping[str, Value] = {}
VOID = {"br", "col", "hr", "img", "input", "link", "meta"}
# Parsers replace or refuse control characters, a lone surrogate cannot be written as UTF-8, and marks of direction
# would turn the page's own words round.
_CONTROL = (*range(9), 11, 12, *range(14, 32), *range(127, 160))
_DIRECTION = (*range(0x202A, 0x202F), *range(0x2066, 0x206A))
_INVISIBLE = dict.fromkeys((*_CONTROL, *range(0xD800, 0xE000), *_DIRECTION), "\ufffd")


class Markup(str):
    """A text that is HTML already; only this module and the page's own files make it."""

    __slots__ = ()


def text(words: str) -> Markup:
    """A text as HTML that shows it and nothing else."""
    return Markup(html.escape(words.translate(_INVISIBLE), quote=True))


def element(name: str, attributes: Mapping[str, Value], *children: str) -> Markup:
    """An element; children that are not markup are escaped, attributes that are None or False are left out."""
    said = "".join(
        _attribute(key, value) for key, value in attributes.items() if value is not None and value is not False
    )
    if name in VOID:
        return Markup(f"<{name}{said}>")
    return Markup(f"<{name}{said}>{join(children)}</{name}>")


def join(children: Iterable[str]) -> Markup:
    """Several one after the other."""
    return Markup("".join(child if isinstance(child, Markup) else text(child) for child in children))


def _attribute(name: str, value: Value) -> str:
    if value is True:
        return f" {name}"
    shown = f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
    return f' {name}="{text(shown)}"'
