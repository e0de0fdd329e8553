"""An ablation: one suite run again and again, each arm changing a few of its keys, with several training seeds each."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from vdmini_bench.config.ablation import Ablation
from vdmini_bench.config.suite import Profile
from vdmini_bench.errors import BenchError
from vdmini_bench.results.score import SCORES, Score
from vdmini_bench.results.stats import paired_interval
from vdmini_bench.results.store import Store
from vdmini_bench.runs.execution import execute_needed
from vdmini_bench.suites.distributions import DistributionsContext
from vdmini_bench.suites.kind import prepare_suite
from vdmini_bench.system.files import write_atomically
from vdmini_bench.system.tables import csv_lines, six_digits

if TYPE_CHECKING:
    from vdmini.blocks import BlockGraph

METRICS = ("fvd", "flow_distance")
# What every arm is seen beside: the floor, the teacher, and the student of the reference arm before any training.
REFERENCES = ("real", "static", "teacher", "pruned")


@dataclass(frozen=True)
class ArmScore:
    """One metric of one training: its mean over the seed blocks of the sampled clips, and the blocks themselves."""

    arm: str
    seed: int
    plan: str
    params_m: float
    flops_ratio: float
    steps: int
    metric: str
    value: float
    blocks: tuple[float, ...]


def run_ablation(ablation: Ablation, results: Path) -> Iterator[list[ArmScore]]:
    """Train and score every arm, seed by seed; what is done already is not done again. Yields the scores so far.

    Raises:
        BenchError: an arm failed; all that is done is kept.
    """
    profile, scores = ablation.profile, list[ArmScore]()
    arms = sorted(profile.arms, key=lambda arm: arm != profile.reference)
    for seed in range(profile.training_seeds):
        for arm in arms:
            subjects = ["student", *(REFERENCES if (seed, arm) == (0, profile.reference) else ())]
            suite = ablation.suite_of(arm, seed)
            opened = prepare_suite(suite, results).open(Store(results))
            assert isinstance(opened, DistributionsContext)
            context = replace(opened, run_id="ablation")
            execute_needed(context, [f"measure {subject}" for subject in subjects])
            for subject in subjects:
                label = arm if subject == "student" else subject
                scores += _arm_scores(context, label, seed, subject)
            yield scores


def _arm_scores(context: DistributionsContext, label: str, seed: int, subject: str) -> list[ArmScore]:
    record = json.loads((context.folder(f"measure {subject}") / SCORES).read_text(encoding="utf-8"))
    scores = {score.metric: score for score in map(Score.from_json, record["scores"])}
    params, flops = _costs(context, subject)
    profile = context.suite.profile
    steps = profile.distill.steps if subject == "student" else 0
    plan = pruning_label(profile) if subject in ("student", "pruned") else ""
    found = []
    for metric in METRICS:
        value = scores[metric].value
        if value is None:
            raise BenchError(f"{label}, training seed {seed}: {metric} is {scores[metric].status}: run it again")
        found.append(ArmScore(label, seed, plan, params, flops, steps, metric, value, scores[metric].blocks))
    return found


def pruning_label(profile: Profile) -> str:
    """What a profile prunes, on one line."""
    return profile.plan if profile.channels is None else f"{profile.plan}, {profile.channels}"


def _costs(context: DistributionsContext, subject: str) -> tuple[float, float]:
    """Millions of weights of a model's denoiser, and its share of the teacher's FLOPs; zeros for what is no model."""
    if subject in ("real", "static"):
        return 0.0, 0.0
    teacher = _blocks(context.model_source("teacher"))
    # Training changes no size: students of one plan are all as large as what was pruned by it.
    model = teacher if subject == "teacher" else _blocks(context.model_source("pruned"))
    return model.params / 1e6, model.flops / teacher.flops


@cache
def _blocks(source: str) -> BlockGraph:
    """What a model is made of, counted once: as a job left it in a folder of its own, or as it was installed."""
    from vdmini.models.loading import load_model

    return load_model(source, device="meta").blocks


@dataclass(frozen=True)
class ArmSummary:
    """An arm over its training seeds: each metric's mean and standard error, and its difference to the reference arm.

    `errors` are None for a single value, `differences` (mean, low, high; paired by training seed, Student's t, 95 %)
    None for the reference and for what is not trained. `recovered` is the share of the reference plan's loss of FVD,
    from the teacher to the pruned student, that the arm made good; None for other plans.
    """

    arm: str
    plan: str
    trainings: int
    params_m: float
    flops_ratio: float
    means: dict[str, float]
    errors: dict[str, float | None]
    differences: dict[str, tuple[float, float, float] | None]
    recovered: float | None


def summarise(scores: Sequence[ArmScore], reference: str) -> list[ArmSummary]:
    """Each arm over its training seeds, in the order they were first scored."""
    values: dict[tuple[str, str], list[float]] = {}
    first: dict[str, ArmScore] = {}
    for score in scores:
        first.setdefault(score.arm, score)
        values.setdefault((score.arm, score.metric), []).append(score.value)
    return [_summary(arm, first, values, reference) for arm in first]


def _summary(
    arm: str, first: dict[str, ArmScore], values: dict[tuple[str, str], list[float]], reference: str
) -> ArmSummary:
    trained, own = first[arm].steps > 0, {metric: values[arm, metric] for metric in METRICS}
    differences: dict[str, tuple[float, float, float] | None] = {}
    for metric in METRICS:
        # An arm may have had fewer seeds yet than the reference.
        count = min(len(own[metric]), len(values.get((reference, metric), [])))
        paired = trained and arm != reference and count >= 2
        differences[metric] = (
            paired_interval(values[reference, metric][:count], own[metric][:count]) if paired else None
        )
    recovered = None
    if trained and {"pruned", "teacher"} <= {*first} and first["pruned"].plan == first[arm].plan:
        pruned, teacher = values["pruned", "fvd"][0], values["teacher", "fvd"][0]
        recovered = (pruned - statistics.fmean(own["fvd"])) / (pruned - teacher)
    count = len(own["fvd"])
    return ArmSummary(
        arm=arm,
        plan=first[arm].plan,
        trainings=count if trained else 0,
        params_m=first[arm].params_m,
        flops_ratio=first[arm].flops_ratio,
        means={metric: statistics.fmean(numbers) for metric, numbers in own.items()},
        errors={
            metric: statistics.stdev(numbers) / count**0.5 if count > 1 else None for metric, numbers in own.items()
        },
        differences=differences,
        recovered=recovered,
    )


def summary_lines(summaries: Sequence[ArmSummary], reference: str) -> tuple[list[str], list[list[str]]]:
    """The header and one line an arm."""
    header = ["arm", "plan", "trainings", "params (M)", "FLOPs", "FVD", f"against {reference}"]
    header += ["gap recovered", "flow distance (px)", f"against {reference}"]
    lines = []
    for each in summaries:
        fvd, flow = (_with_error(each.means[metric], each.errors[metric]) for metric in METRICS)
        against = [_interval(each.differences[metric]) for metric in METRICS]
        cost = [f"{each.params_m:.2f}", f"x{each.flops_ratio:.3f}"] if each.params_m else ["-", "-"]
        share = "-" if each.recovered is None else f"{each.recovered:.0%}"
        lines.append(
            [each.arm, each.plan or "-", str(each.trainings or "-"), *cost, fvd, against[0], share, flow, against[1]]
        )
    return header, lines


def _with_error(mean: float, error: float | None) -> str:
    return f"{mean:.4g}" if error is None else f"{mean:.4g} ± {error:.2g}"


def _interval(difference: tuple[float, float, float] | None) -> str:
    return "-" if difference is None else "{:+.3g} ({:+.3g} to {:+.3g})".format(*difference)


def write_scores(path: Path, scores: Sequence[ArmScore]) -> None:
    """Write one line a training and metric, as CSV; the block values are separated by spaces."""
    lines = [(*astuple(score)[:-1], " ".join(f"{value:.6g}" for value in score.blocks)) for score in scores]
    header = [field.name for field in fields(ArmScore)]
    write_atomically(path, csv_lines([header, *(map(six_digits, line) for line in lines)]))
