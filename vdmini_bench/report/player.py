"""The clips of a report: the same request from every model, side by side, played in step by the page's script."""

from __future__ import annotations

import base64

from vdmini_bench.report.examples import Example, Examples
from vdmini_bench.report.markup import NONE, Markup, Value, element, join

# What all clips of a page may take, as the text that holds them.
LARGEST_BYTES = 13_000_000
TEACHER, STUDENT = "teacher", "student"
KEYS = "Space plays and stops, the arrow keys go frame by frame, Home goes to the first."


def player(examples: Examples, limit: int = LARGEST_BYTES) -> Markup:
    """Controls, then one part for each example; without scripts the frames are shown side by side.

    Examples that would make the page too large are left out, and this is said.
    """
    parts: list[Markup] = []
    used = 0
    for place, example in enumerate(examples.shown):
        files = _embedded(examples, example)
        used += sum(map(len, files.values()))
        if used > limit:
            break
        parts.append(_example(examples, example, files, place))
    if not parts:
        return Markup("")
    left_out = len(examples.shown) - len(parts)
    note = f"{left_out} more examples are in the run's folder: they would make this page too large." if left_out else ""
    facts: dict[str, Value] = {
        "id": "player", "data-frames": examples.frames, "data-rate": examples.frames_per_second,
        "data-width": examples.width, "data-height": examples.height, "data-columns": examples.columns,
        "class": "player small" if examples.width <= 128 else "player",
    }  # fmt: skip
    return element("div", facts, _controls(examples, len(parts)), *parts, element("p", {"class": "note"}, note))


def _controls(examples: Examples, count: int) -> Markup:
    options = [element("option", {"value": "all"}, "all")] + [
        element("option", {"value": place}, _asked(example)) for place, example in enumerate(examples.shown[:count])
    ]
    slider: dict[str, Value] = {
        "id": "frame",
        "type": "range",
        "min": 0,
        "max": examples.frames - 1,
        "value": 0,
        "step": 1,
    }
    speeds = [
        element("option", {"value": value, "selected": value == "1"}, f"x{value}")
        for value in ("0.25", "0.5", "1", "2")
    ]
    parts = (
        element("button", {"id": "play", "type": "button", "aria-pressed": "false"}, "Play"),
        element("button", {"id": "back", "type": "button", "aria-label": "One frame back"}, "◀"),
        element("button", {"id": "forward", "type": "button", "aria-label": "One frame on"}, "▶"),
        element("label", NONE, "frame ", element("input", slider), " ", element("output", {"id": "at"}, "1")),
        element("label", NONE, "speed ", element("select", {"id": "speed"}, *speeds)),
        element("label", NONE, "seed and prompt ", element("select", {"id": "chosen"}, *options)),
    )
    return join((element("div", {"class": "controls", "hidden": True}, *parts), element("p", {"class": "note"}, KEYS)))


def _example(examples: Examples, example: Example, files: dict[str, str], place: int) -> Markup:
    size: dict[str, Value] = {"width": examples.width * examples.columns, "loading": "eager"}
    clips = [
        element(
            "figure", {"class": "clip", "data-model": model},
            element("img", {"src": source, "alt": f"{model}: all frames, line by line", **size}),
            element("figcaption", NONE, model, _distances(example, model)),
        )
        for model, source in files.items()
    ]  # fmt: skip
    if TEACHER in files and STUDENT in files:
        # Drawn by the script from the two clips.
        clips += [
            element(
                "figure", {"class": "clip", "data-difference": kind, "hidden": True}, element("figcaption", NONE, words)
            )
            for kind, words in (
                ("content", "student and teacher: content, difference x4"),
                ("motion", "student and teacher: motion, difference x4"),
            )
        ]
    return element(
        "article", {"class": "example", "data-place": place}, element("h3", NONE, _asked(example)),
        element("div", {"class": "clips"}, *clips),
    )  # fmt: skip


def _asked(example: Example) -> str:
    words = example.prompt or (f"first frame of {example.condition}" if example.condition else example.name)
    return f"seed {example.seed}: {words}"


def _distances(example: Example, model: str) -> Markup:
    found = example.differences.get(model)
    if not found:
        return Markup("")
    said = ", ".join(f"{kind} {value:.3f}" for kind, value in found.items())
    return element("span", {"class": "note"}, f"from the teacher: {said}")


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
            found[model] = "data:image/webp;base64," + base64.b64encode(data).decode()
    return found
