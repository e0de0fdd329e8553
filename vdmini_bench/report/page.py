"""The whole page: one file that fetches nothing, whose only script is the package's own."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

from markupsafe import Markup

from vdmini_bench.report import sections
from vdmini_bench.report.data import ReportData, gather_data
from vdmini_bench.report.rendering import render
from vdmini_bench.results.records import read_records
from vdmini_bench.system.files import write_atomically

REPORT = "report.html"
HERE = Path(__file__).parent
# By the macro that writes it: a section's title, and what gives its values, None where the run has nothing for it.
SECTIONS = {
    "scores": ("Scores", sections.scores),
    "differences": ("Differences from the baseline", sections.differences),
    "decided": ("Until decided", sections.decided),
    "tradeoff": ("Quality against latency", sections.tradeoff),
    "multiplied": ("What multiplies", sections.multiplied),
    "published": ("What others report", sections.published),
    "clips": ("Clips side by side", sections.clips),
    "metrics": ("Metric by metric", sections.metrics),
    "losses": ("Losses of the distillation", sections.losses),
    "importance": ("Importance of blocks", sections.importance),
    "environment": ("Environment", sections.environment),
    "protocol": ("Protocol", sections.protocol),
    "commands": ("Get these numbers again", sections.commands),
}


def write_report(folder: Path, output: Path | None = None, study: Path | None = None) -> Path:
    """Write the report of a run's folder, or of scored videos, into it or to `output`; returns its path.

    `study` is a folder that `importance` left.

    Raises:
        BenchError: a file of the run cannot be read.
        SuiteError: `study` holds no importance.
    """
    data = gather_data(folder, read_records(folder), study)
    path = output or folder / REPORT
    write_atomically(path, build_page(data))
    return path


def build_page(data: ReportData) -> str:
    """The report as an HTML document; every text of the run is escaped, and no other script would be run."""
    suite, profile = data.settings("suite", "name"), data.settings("suite", "profile_name")
    heading = f"{suite}, profile {profile}" if suite and profile else str(suite or "Scores")
    parts = [(name, title, found) for name, (title, of) in SECTIONS.items() if (found := of(data)) is not None]
    page = render(
        "page.html", data=data, heading=heading, title=f"{heading}: {data.name}", status=data.settings("status"),
        parts=parts, **frame("player.js"),
    )  # fmt: skip
    return f"{page}\n"


def frame(script_file: str) -> dict[str, Markup | str]:
    """What every page has: its style, its script after the one that shows frames, and the policy that allows no other.

    Were a text of a run to become an element all the same, the browser would neither run nor load it.
    """
    style, shared, own = ((HERE / name).read_text(encoding="utf-8") for name in ("style.css", "sheets.js", script_file))
    policy = (
        f"default-src 'none'; img-src data:; script-src '{_hash(shared + own)}'; style-src '{_hash(style)}';"
        " base-uri 'none'; form-action 'none'"
    )
    return {"style": Markup(style), "script": Markup(shared + own), "policy": policy}  # noqa: S704


def _hash(content: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
