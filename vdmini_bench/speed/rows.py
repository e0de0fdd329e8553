"""Timings as rows: every sample, and beside each student's measured speed-up the one its FLOPs alone would give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from vdmini_bench.results.score import Score
from vdmini_bench.speed.gpu_sensor import SensorWatch
from vdmini_bench.speed.timing import Timing, speedup_interval

if TYPE_CHECKING:
    from vdmini_bench.config.timing import SpeedRequest
    from vdmini_bench.speed.scopes import ClipSize
    from vdmini_bench.system.fingerprint import Fingerprint

VERSION = "speed-1"
PROJECTED = "steps_projected"


@dataclass(frozen=True)
class SpeedRow:
    """One model in one scope.

    `peak_bytes` is what a call allocates above what was there before it, None where it was not looked at. The speed-up
    is over the teacher, with its 95 % interval; `flop_speedup` is what it would be if FLOPs were all that counts.
    """

    timing: Timing
    peak_bytes: int | None
    flops: int | None
    speedup: float | None
    speedup_ci: tuple[float, float] | None
    flop_speedup: float | None
    verdict: str
    sensor: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """As plain JSON data."""
        timing = self.timing
        rate = None if self.flops is None else self.flops / timing.median_ms / 1e9
        return {
            "model": timing.model,
            "scope": timing.scope,
            "median_ms": timing.median_ms,
            "mad_ms": timing.mad_ms,
            "p95_ms": timing.p95_ms,
            "first_ms": timing.first_ms,
            "samples_ms": list(timing.samples_ms),
            "peak_bytes": self.peak_bytes,
            "flops": self.flops,
            "tflops_per_s": rate,
            "speedup": self.speedup,
            "speedup_ci": None if self.speedup_ci is None else list(self.speedup_ci),
            "flop_speedup": self.flop_speedup,
            "verdict": self.verdict,
            **self.sensor,
        }


def make_rows(
    timings: Sequence[Timing],
    flops: Mapping[tuple[str, str], int],
    watch: SensorWatch,
    teacher: str,
    whole_runs: bool = True,
) -> list[SpeedRow]:
    """The rows of one scope's timings, the teacher's among them; `flops` are by model and scope.

    Without `whole_runs` the timings are of stretches inside the runs that `watch` saw, which tells no memory or energy
    of theirs.
    """
    reference = next(timing for timing in timings if timing.model == teacher)
    rows = []
    for timing in timings:
        place = (timing.model, timing.scope)
        row = SpeedRow(
            timing=timing,
            peak_bytes=timing.peak_bytes if whole_runs else None,
            flops=flops.get(place),
            speedup=None,
            speedup_ci=None,
            flop_speedup=None,
            verdict="",
            sensor=watch.summary(timing.model, timing.median_ms, whole_runs),
        )
        if timing is not reference:
            ratio, low, high = speedup_interval(reference, timing)
            whole, left = flops.get((teacher, timing.scope)), flops.get(place)
            row = replace(
                row,
                speedup=ratio,
                speedup_ci=(low, high),
                flop_speedup=whole / left if whole and left else None,
                verdict=verdict(low, high),
            )
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


def latency_score(timing: Timing, protocol: str) -> Score:
    """A timing as a score, with all its samples, as `compare` reads it."""
    return Score(
        model=timing.model,
        metric=f"latency_{timing.scope}",
        metric_version=VERSION,
        protocol=protocol,
        value=timing.median_ms,
        unit="ms",
        better="lower",
        standard_error=timing.median_error_ms,
        n=len(timing.samples_ms),
        n_expected=len(timing.samples_ms),
        status="ok",
        blocks=timing.samples_ms,
    )


def origin_of(fingerprint: Fingerprint) -> dict[str, str]:
    """What all rows of timings share, by the leaderboard's columns: `compare` refuses those of unlike machines."""
    return {
        "machine_id": fingerprint.machine_id,
        "gpu": fingerprint.gpu,
        "torch": fingerprint.versions["torch"],
        "commit": fingerprint.commit,
        "dirty": str(fingerprint.dirty).lower(),
        "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


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
                "-" if row.peak_bytes is None else f"{row.peak_bytes / 2**20:,.0f}",
                _number(None if row.flops is None else row.flops / 1e12),
                _number(data["tflops_per_s"]),
                _number(row.speedup),
                "-" if row.speedup_ci is None else f"{row.speedup_ci[0]:.3f} to {row.speedup_ci[1]:.3f}",
                _number(row.flop_speedup),
                marked(row.verdict, data["throttled_by"]),
                *([_number(data["energy_j"])] if with_energy else []),
            ]
        )
    return header, lines


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
