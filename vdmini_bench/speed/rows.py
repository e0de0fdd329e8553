"""Timings as rows: every sample, and beside each student's measured speed-up the one its FLOPs alone would give."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from vdmini_bench.results.score import Better, Score
from vdmini_bench.speed.gpu_sensor import SensorWatch
from vdmini_bench.speed.timing import Timing, speedup_interval
from vdmini_bench.system.tables import number_cell

if TYPE_CHECKING:
    from vdmini_bench.config.timing import SpeedRequest
    from vdmini_bench.speed.scopes import ClipSize

VERSION = "speed-1"
PROJECTED = "steps_projected"


@dataclass(frozen=True)
class SpeedRow:
    """One model in one scope.

    The speed-up is over the teacher, with its 95 % interval; `flop_speedup` is what it would be if FLOPs were all that
    counts.
    """

    timing: Timing
    flops: int | None
    speedup: float | None
    speedup_ci: tuple[float, float] | None
    flop_speedup: float | None
    verdict: str
    sensor: Mapping[str, Any]

    def scores(self, protocol: str) -> Iterator[Score]:
        """The latency with all its samples; peak memory where it was looked at; a student's speed-up."""
        timing, runs = self.timing, len(self.timing.samples_ms)

        def score(
            kind: str, value: float, unit: str, better: Better, error: float | None, n: int, blocks: tuple[float, ...]
        ) -> Score:
            metric = f"{kind}_{timing.scope}"
            return Score(timing.model, metric, VERSION, protocol, value, unit, better, error, n, n, "ok", blocks)

        yield score("latency", timing.median_ms, "ms", "lower", timing.median_error_ms, runs, timing.samples_ms)
        if timing.peak_bytes is not None:
            yield score("peak_memory", timing.peak_bytes / 2**20, "MiB", "lower", None, 1, ())
        if self.speedup is not None and self.speedup_ci is not None:
            low, high = self.speedup_ci
            # A 95 % interval is 3.92 standard errors wide.
            yield score("speedup", self.speedup, "x", "higher", (high - low) / 3.92, runs, (low, high))

    def to_json(self) -> dict[str, Any]:
        """As plain JSON data."""
        timing = self.timing
        return {
            **asdict(timing),
            "samples_ms": list(timing.samples_ms),
            **{name: getattr(timing, name) for name in ("median_ms", "mad_ms", "p95_ms")},
            "flops": self.flops,
            "tflops_per_s": None if self.flops is None else self.flops / timing.median_ms / 1e9,
            "speedup": self.speedup,
            "speedup_ci": None if self.speedup_ci is None else list(self.speedup_ci),
            "flop_speedup": self.flop_speedup,
            "verdict": self.verdict,
            **self.sensor,
        }


def make_rows(timings: Iterable[Timing], flops: Mapping[tuple[str, str], int], watch: SensorWatch) -> list[SpeedRow]:
    """Timings as rows, each scope's beside the teacher's, which is its first; `flops` are by model and scope."""
    rows, teachers = [], dict[str, Timing]()
    for timing in timings:
        teacher = teachers.setdefault(timing.scope, timing)
        own, whole = (flops.get((each.model, each.scope)) for each in (timing, teacher))
        row = SpeedRow(timing, own, None, None, None, "", watch.summary(timing))
        if timing is not teacher:
            ratio, low, high = speedup_interval(teacher, timing)
            fewer = whole / own if whole and own else None
            said = verdict(low, high)
            row = replace(row, speedup=ratio, speedup_ci=(low, high), flop_speedup=fewer, verdict=said)
        rows.append(row)
    return rows


def marked(said: str, throttled_by: Sequence[str] | None) -> str:
    """A row's verdict for people, marked where the card was held back."""
    return ", ".join(filter(None, (said, "THROTTLED" if throttled_by else ""))) or "-"


def verdict(low: float, high: float) -> str:
    """What an interval of a speed-up says."""
    if low <= 1 <= high:
        return "no difference shown"
    return "faster" if low > 1 else "slower"


def projected(rows: Sequence[SpeedRow], steps: int) -> list[SpeedRow]:
    """Rows of one pass as rows of `steps` of them, each sample multiplied: a projection, and called one."""
    made = []
    for row in rows:
        timing = row.timing
        samples = tuple(sample * steps for sample in timing.samples_ms)
        many = Timing(timing.model, PROJECTED, samples, timing.peak_bytes)
        flops = None if row.flops is None else row.flops * steps
        made.append(replace(row, timing=many, flops=flops, sensor={**row.sensor, "energy_j": None}))
    return made


def protocol_of(request: SpeedRequest, size: ClipSize, device: str) -> str:
    """What two timings must share before they are compared, whichever command took them."""
    how = "compiled" if request.compiled else "eager"
    how += "-optimized" if request.optimized else ""
    how += "" if request.guidance is None else f"-guidance{request.guidance:g}"
    return f"{size}/{size.steps}steps/batch1/{request.dtype}/{request.attention}/{how}/{device}"


def row_lines(rows: Sequence[SpeedRow]) -> tuple[list[str], list[list[str]]]:
    """The header and one line a row for people."""
    header = ["scope", "model", "median (ms)", "MAD", "p95", "peak (MiB)", "TFLOP", "TFLOP/s"]
    header += ["speed-up", "95 % interval", "by FLOPs", "verdict"]
    # Only some cards count it.
    with_energy = any(row.sensor["energy_j"] is not None for row in rows)
    header += ["J"] if with_energy else []
    lines = []
    for row in rows:
        data = row.to_json()
        lines.append(
            [
                row.timing.scope,
                row.timing.model,
                f"{data['median_ms']:.4g}",
                f"{data['mad_ms']:.2g}",
                f"{data['p95_ms']:.4g}",
                "-" if data["peak_bytes"] is None else f"{data['peak_bytes'] / 2**20:,.0f}",
                number_cell(None if row.flops is None else row.flops / 1e12, 4),
                number_cell(data["tflops_per_s"], 4),
                number_cell(row.speedup, 4),
                "-" if row.speedup_ci is None else f"{row.speedup_ci[0]:.3f} to {row.speedup_ci[1]:.3f}",
                number_cell(row.flop_speedup, 4),
                marked(row.verdict, data["throttled_by"]),
                *([number_cell(data["energy_j"], 4)] if with_energy else []),
            ]
        )
    return header, lines
