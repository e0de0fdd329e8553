"""How scoring ended: each dimension's score or error, the groups and the total."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from vdmini_bench.config.vbench_dimensions import DIMENSIONS, VBENCH_VERSION
from vdmini_bench.errors import ExitCode
from vdmini_bench.vbench.completeness import Completeness
from vdmini_bench.vbench.results import DimensionResult
from vdmini_bench.vbench.totals import Totals

OFFICIAL = "official"


@dataclass(frozen=True)
class Outcome:
    """How one dimension ended: its result, or the error and the log that says more; `code` is `official` or our own."""

    dimension: str
    result: DimensionResult | None
    cached: bool = False
    error: str = ""
    log: str = ""
    code: str = OFFICIAL

    def describe(self) -> str:
        """One line."""
        if self.result is None:
            return f"failed: {self.error}"
        return f"{self.result.score:.6f}{', kept from before' if self.cached else ''}"

    def to_json(self) -> dict[str, Any]:
        """As plain JSON data; a score that is not there is null."""
        if self.result is None:
            return {"status": "failed", "score": None, "code": self.code, "error": self.error, "log": self.log}
        counts = {"n": len(self.result.videos), "expected": self.result.expected, "skipped": len(self.result.skipped)}
        return {"status": "ok", "score": self.result.score, "code": self.code, **counts, "cached": self.cached}


@dataclass(frozen=True)
class Report:
    """All outcomes, and the totals: None for `custom` videos, which have none."""

    protocol: str
    outcomes: tuple[Outcome, ...]
    totals: Totals | None
    completeness: Completeness

    @property
    def exit_code(self) -> ExitCode:
        """FAILED where a dimension did."""
        return ExitCode.FAILED if any(outcome.result is None for outcome in self.outcomes) else ExitCode.OK

    @property
    def groups(self) -> dict[str, float | None]:
        """The groups and the total by name; a value is None where a dimension that it needs is missing."""
        if self.totals is None:
            return {}
        other = "i2v" if self.protocol.startswith("vbench-i2v") else "semantic"
        return {"quality": self.totals.quality, other: self.totals.alignment, "total": self.totals.total}

    def to_json(self) -> dict[str, Any]:
        """As plain JSON data."""
        return {
            "protocol": self.protocol,
            "vbench": VBENCH_VERSION,
            "dimensions": {outcome.dimension: outcome.to_json() for outcome in self.outcomes},
            **({} if self.totals is None else {**self.groups, "totals": asdict(self.totals)}),
            "videos": self.completeness.to_json(),
        }

    def lines(self) -> tuple[list[str], list[list[str]]]:
        """A table: raw and normalised scores, numbers of videos, how each dimension ended."""
        normalised = {} if self.totals is None else self.totals.normalised
        lines = []
        for outcome in self.outcomes:
            found, name = outcome.result, outcome.dimension
            score, count = ("-", "-") if found is None else (f"{found.score:.4%}", str(len(found.videos)))
            mapped = f"{normalised[name]:.4%}" if name in normalised else "-"
            status = "failed" if found is None else "ok"
            if outcome.code != OFFICIAL:
                status += f", {outcome.code}"
            lines.append([name, DIMENSIONS[name].group, score, mapped, count, status])
        for name, value in self.groups.items():
            mapped, status = ("-", "incomplete") if value is None else (f"{value:.4%}", "ok")
            lines.append([name, "", "", mapped, "", status])
        return ["dimension", "group", "score", "normalised", "videos", "status"], lines
