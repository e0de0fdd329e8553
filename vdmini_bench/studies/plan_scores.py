"""Score plans before any retraining: prune by each, sample the same clips, compare with teacher and real clips."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vdmini.finite import NotFiniteError
from vdmini.importance import Clips, content_distance, motion_distance
from vdmini.plan import PruningPlan
from vdmini.prune import apply_plan
from vdmini_bench.metrics.flow import flow_field_distance
from vdmini_bench.metrics.frechet import Moments, frechet_distance_of_moments
from vdmini_bench.metrics.fvd import load_i3d
from vdmini_bench.models.inspect import read_or_make_plan
from vdmini_bench.studies.importance import Study, clip_logits, sample_study
from vdmini_bench.system.files import write_atomically
from vdmini_bench.system.progress import progress
from vdmini_bench.system.tables import csv_lines, six_digits

TABLE = "plans.csv"
BLOCKS = 3
Logits = NDArray[np.float32]
# The clips of the whole model, and the moments of their logits.
Whole = tuple[Clips, Moments]


@dataclass(frozen=True)
class PlanScore:
    """What a plan saves and what its student loses untrained; FVDs are means over blocks of clips with standard errors.

    `fvd` is to real clips, None where there is no reference; `fvd_to_teacher`, `content`, `motion` and `flow` are to
    the clips of the whole model from the same seeds.
    """

    plan: str
    params: float
    flops: float
    fvd: float | None
    fvd_se: float | None
    fvd_to_teacher: float
    fvd_to_teacher_se: float
    content: float
    motion: float
    flow: float


def score_plans(study: Study, plans: Sequence[str], reference: Moments | None, folder: Path) -> list[PlanScore]:
    """Score the whole model and each plan, a rule or a file, and write `plans.csv`.

    Raises:
        PlanError: a plan does not fit; nothing was sampled.
        NotFiniteError: clips of a plan's student, or their features, are not finite; the rows before are written.
    """
    made = [(text, read_or_make_plan(text, study.model)) for text in ("none", *plans)]
    # The reference that ships was made with these weights, whatever file was imported since.
    network = load_i3d().to(next(study.model.denoiser.parameters()).device)
    rows: list[PlanScore] = []
    with progress("score plans", len(made)) as advance:
        for text, plan in made:
            try:
                clips = sample_study(study, apply_plan(study.model.denoiser, plan))
                logits = clip_logits(study, clips, network).numpy()
            except NotFiniteError as error:
                raise NotFiniteError(f"plan {text}: {error}") from error
            if not rows:
                whole = clips, Moments.of(logits)
            rows.append(_score(study, text, plan, clips, logits, whole, reference))
            write_plan_scores(folder, rows)
            advance()
    return rows


def write_plan_scores(folder: Path, rows: Sequence[PlanScore]) -> None:
    """Write the rows there are so far."""
    lines = [map(six_digits, astuple(row)) for row in rows]
    write_atomically(folder / TABLE, csv_lines([asdict(rows[0]), *lines]))


def plan_lines(rows: Sequence[PlanScore]) -> tuple[list[str], list[list[str]]]:
    """The header and one line a plan."""
    header = ["plan", "params", "FLOPs", "FVD", "FVD to teacher", "content (spectrum)", "motion", "flow (px)"]
    lines = []
    for row in rows:
        real = "-" if row.fvd is None or row.fvd_se is None else f"{row.fvd:.0f} ± {row.fvd_se:.0f}"
        to_teacher = f"{row.fvd_to_teacher:.0f} ± {row.fvd_to_teacher_se:.0f}"
        losses = [f"{value:.3f}" for value in (row.content, row.motion, row.flow)]
        lines.append([row.plan, f"x{row.params:.3f}", f"x{row.flops:.3f}", real, to_teacher, *losses])
    return header, lines


def _score(
    study: Study, text: str, plan: PruningPlan, clips: Clips, logits: Logits, whole: Whole, reference: Moments | None
) -> PlanScore:
    graph = study.model.blocks
    student = graph.without(plan.removed)
    fvd, fvd_se = (None, None) if reference is None else _over_blocks(logits, reference)
    fvd_to_teacher, fvd_to_teacher_se = _over_blocks(logits, whole[1])
    return PlanScore(
        plan=text,
        params=student.params / graph.params,
        flops=student.flops / graph.flops,
        fvd=fvd,
        fvd_se=fvd_se,
        fvd_to_teacher=fvd_to_teacher,
        fvd_to_teacher_se=fvd_to_teacher_se,
        content=content_distance(whole[0], clips),
        motion=motion_distance(whole[0], clips),
        flow=float(np.mean([flow_field_distance(a, b) for a, b in zip(whole[0], clips, strict=True)])),
    )


def _over_blocks(logits: Logits, reference: Moments) -> tuple[float, float]:
    values = [frechet_distance_of_moments(Moments.of(part), reference) for part in np.array_split(logits, BLOCKS)]
    return statistics.fmean(values), statistics.stdev(values) / math.sqrt(BLOCKS)
