"""The whole page: one file that fetches nothing, whose only script is the package's own."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

from vdmini_bench.report import sections
from vdmini_bench.report.markup import NONE, Markup, element, join
from vdmini_bench.report.material import Material, gather_material
from vdmini_bench.report.player import player
from vdmini_bench.results.records import read_records
from vdmini_bench.system.files import write_atomically

REPORT = "report.html"
HERE = Path(__file__).parent


def write_report(folder: Path, output: Path | None = None, study: Path | None = None) -> Path:
    """Write the report of a run's folder, or of scored videos, into it or to `output`; returns its path.

    `study` is a folder that `importance` left.

    Raises:
        BenchError: a file of the run cannot be read.
        SuiteError: `study` holds no importance.
    """
    material = gather_material(folder, read_records(folder), study)
    path = output or folder / REPORT
    write_atomically(path, build_page(material))
    return path


def build_page(material: Material) -> str:
    """The report as an HTML document; every text of the run is escaped, and no other script would be run."""
    style, script = (Markup((HERE / name).read_text(encoding="utf-8")) for name in ("style.css", "player.js"))
    # Were a text of a run to become an element all the same, the browser would neither run nor load it.
    policy = (
        f"default-src 'none'; img-src data:; script-src '{_hash(script)}'; style-src '{_hash(style)}';"
        " base-uri 'none'; form-action 'none'"
    )
    title = f"{_heading(material)}: {material.name}"
    head = element(
        "head", NONE,
        element("meta", {"charset": "utf-8"}),
        element("meta", {"http-equiv": "Content-Security-Policy", "content": policy}),
        element("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}),
        element("meta", {"name": "referrer", "content": "no-referrer"}),
        element("title", NONE, title),
        element("style", NONE, style),
    )  # fmt: skip
    body = element("body", NONE, *_body(material), element("script", NONE, script))
    return f"<!DOCTYPE html>\n{element('html', {'lang': 'en'}, head, body)}\n"


def _body(material: Material) -> list[Markup]:
    clips = Markup("") if material.examples is None else player(material.examples)
    if not clips:
        clips = element(
            "p", {"class": "note"}, "No clips were kept with this run: those of complete runs are, by the same command."
        )
    parts = {
        "scores": ("Scores", sections.summary(material)),
        "differences": ("Teacher against student", sections.differences(material)),
        "tradeoff": ("Quality against latency", sections.tradeoff(material)),
        "clips": ("Clips side by side", clips),
        "metrics": ("Metric by metric", sections.metrics(material)),
        "losses": ("Losses of the distillation", sections.losses(material)),
        "importance": ("Importance of blocks", sections.importance(material)),
        "environment": ("Environment", sections.environment(material)),
        "protocol": ("Protocol", sections.protocol(material)),
        "commands": ("Get these numbers again", sections.commands(material)),
    }
    present = {name: part for name, part in parts.items() if part[1]}
    links = [element("li", NONE, element("a", {"href": f"#{name}"}, title)) for name, (title, _) in present.items()]
    contents = element("nav", {"aria-label": "Contents"}, element("ul", NONE, *links))
    shown = [
        element("section", {"id": name, "aria-labelledby": f"{name}-title"},
                element("h2", {"id": f"{name}-title"}, title), content)
        for name, (title, content) in present.items()
    ]  # fmt: skip
    return [element("main", NONE, _header(material), contents, join(shown))]


def _header(material: Material) -> Markup:
    status = material.settings("status")
    warning = Markup("")
    if status not in (None, "complete"):
        warning = element("p", {"class": "warning"}, f"This run is {status}: what it lacks is in its log.")
    return element("header", NONE, element("h1", NONE, _heading(material)), element("p", NONE, material.name), warning)


def _heading(material: Material) -> str:
    suite, profile = material.settings("suite", "name"), material.settings("suite", "profile_name")
    return f"{suite}, profile {profile}" if suite and profile else str(suite or "Scores")


def _hash(content: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
