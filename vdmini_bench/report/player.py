"""The clips of a report: the same request from every model, side by side, played in step by the page's script."""

from __future__ import annotations

import base64

from markupsafe import Markup

from vdmini_bench.report.examples import Example, Examples
from vdmini_bench.report.rendering import render

# What all clips of a page may take, as the text that holds them.
LARGEST_BYTES = 13_000_000


def player(examples: Examples, baseline: str, limit: int = LARGEST_BYTES) -> Markup:
    """Controls, then one part for each example; without scripts the frames are shown side by side.

    Rows are chosen by boxes, and by a list the one whose differences from the baseline's clips are drawn. Examples that
    would make the page too large are left out, and this is said.
    """
    parts = embedded_examples(examples, limit)
    left_out = len(examples.shown) - len(parts)
    rows = list(dict.fromkeys(row for _, clips in parts for row in clips))
    others = [row for row in rows if row not in (baseline, "real")] if baseline in rows else []
    values = {"parts": parts, "left_out": left_out, "rows": rows, "others": others, "baseline": baseline}
    return render("player.html", examples=examples, **values) if parts else Markup("")


def embedded_examples(examples: Examples, limit: int = LARGEST_BYTES) -> list[tuple[Example, dict[str, str]]]:
    """The first examples, each with its clips by row as addresses that hold them, as many as a page has room for."""
    parts, used = [], 0
    for example in examples.shown:
        clips = _embedded(examples, example)
        used += sum(map(len, clips.values()))
        if used > limit:
            break
        parts.append((example, clips))
    return parts


def webp_address(data: bytes) -> str:
    """An address that holds a WebP picture."""
    return "data:image/webp;base64," + base64.b64encode(data).decode()


def _embedded(examples: Examples, example: Example) -> dict[str, str]:
    """The clips as addresses that hold them; a file that is no WebP picture is left out."""
    found = {}
    for model, name in example.clips.items():
        path = examples.folder / name
        try:
            data = b"" if path.is_symlink() else path.read_bytes()
        except OSError:
            continue
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            found[model] = webp_address(data)
    return found
