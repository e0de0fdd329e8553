"""The paper's figures beside measured ones."""

from __future__ import annotations

from typing import Any

from vdmini_bench.config.speed import EntrySpec
from vdmini_bench.speed.rows import marked


def with_paper(report: dict[str, Any], name: str, entry: EntrySpec) -> dict[str, Any]:
    """An entry's report under its name, with the paper's numbers in its rows, marked as of other hardware."""
    said: dict[str, list[dict[str, Any]]] = {}
    for each in entry.paper:
        said.setdefault(each.scope, []).append(
            {**each.model_dump(exclude={"scope"}), "ratio": each.ratio, "hardware": "other"}
        )
    rows = [{**row, "paper": said.get(row["scope"], [])} for row in report["rows"]]
    return {**report, "entry": name, "rows": rows}


def speed_lines(reports: list[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """The header and one line a student and scope over several reports, the paper's number beside ours."""
    header = ["entry", "scope", "model", "median (ms)", "teacher (ms)", "speed-up", "95 % interval", "by FLOPs"]
    header += ["paper (other hardware)", "verdict"]
    lines = []
    for report in reports:
        teachers = {row["scope"]: row for row in report["rows"] if row["speedup"] is None}
        for row in report["rows"]:
            if row["speedup"] is None:
                continue
            paper = ", ".join(f"x{each['ratio']:.3g}" for each in row["paper"] if each["ratio"] is not None)
            low, high = row["speedup_ci"]
            lines.append(
                [
                    report["entry"],
                    row["scope"],
                    row["model"],
                    f"{row['median_ms']:.4g}",
                    f"{teachers[row['scope']]['median_ms']:.4g}",
                    f"x{row['speedup']:.3f}",
                    f"{low:.3f} to {high:.3f}",
                    "-" if row["flop_speedup"] is None else f"x{row['flop_speedup']:.3f}",
                    paper or "-",
                    marked(row["verdict"], row["throttled_by"]),
                ]
            )
    return header, lines
