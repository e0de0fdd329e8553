"""One measured number with everything needed to say what it means and how to get it again."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

SCHEMA = 1

Status = Literal["ok", "incomplete", "failed", "unavailable"]
Better = Literal["lower", "higher", "neither"]


@dataclass(frozen=True)
class Score:
    """What a stage measured: a value (None unless status is ok), its standard error and its block values."""

    model: str
    metric: str
    metric_version: str
    protocol: str
    value: float | None
    unit: str
    better: Better
    standard_error: float | None
    n: int
    n_expected: int
    status: Status
    blocks: tuple[float, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As plain JSON data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Score:
        """Read what `to_json` wrote."""
        return cls(**{**data, "blocks": tuple(data["blocks"])})

    @classmethod
    def unavailable(cls, model: str, metric: str, version: str, protocol: str, better: Better, expected: int) -> Score:
        """The score of a metric that cannot be had here: no value, and never zero."""
        return cls(model, metric, version, protocol, None, "", better, None, 0, expected, "unavailable")


@dataclass(frozen=True)
class Row:
    """One leaderboard row; the columns of `results/leaderboard.csv` in order, all as text."""

    schema: str
    suite: str
    suite_version: str
    suite_sha: str
    profile: str
    model: str
    role: str
    checkpoint_sha: str
    params_m: str
    metric: str
    metric_version: str
    protocol: str
    value: str
    unit: str
    better: str
    se: str
    n: str
    n_expected: str
    status: str
    machine_id: str
    gpu: str
    torch: str
    commit: str
    dirty: str
    date: str
    run_id: str
    note: str


COLUMNS = tuple(field.name for field in fields(Row))


def number_text(value: float | None) -> str:
    """Six significant digits, empty for None."""
    return "" if value is None else f"{value:.6g}"
