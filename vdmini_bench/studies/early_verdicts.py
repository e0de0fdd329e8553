"""How often early verdicts are wrong and what share of the videos they take, simulated on recorded scores.

    python -m vdmini_bench.studies.early_verdicts RESULTS.jsonl ... -o TABLE.csv

Every run draws prompts with replacement from those that a teacher and a student were scored on, and gives the student
a true mean difference that is known: numbers are shifted, answers yes or no of either model are turned at random.
Then it decides as `compare --sequential` does, of the drawn prompts as all there are.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from vdmini_bench.compare.until_decided import TOTAL, Paired, bounds_of, total_of
from vdmini_bench.data.synthetic import seeded_by
from vdmini_bench.results.score import Score
from vdmini_bench.results.sequential import decide
from vdmini_bench.system.files import write_atomically
from vdmini_bench.system.progress import progress
from vdmini_bench.system.tables import csv_lines, print_table
from vdmini_bench.system.text_files import read_text

RUNS = 2000
# VBench's dimensions have 72 to 100 prompts.
COUNTS = (72, 100, 192, 400)
# True differences, in margins.
TRUTHS = (-2, -1, 0, 2)
MARGINS = {"number": (0.005, 0.01), "answer": (0.05, 0.1), TOTAL: (0.02, 0.05)}
# Fewer recorded prompts are too few to draw from.
LEAST = 48

Values = NDArray[np.float64]
# By metric the scores 2 x N of a teacher and a student, prompt by prompt.
Scores = Mapping[str, Values]


@dataclass(frozen=True)
class Cell:
    """Verdicts of many runs: shares of them said to be `no_worse` (or better), `better` alone, and `worse`.

    `spread` is the standard deviation of a recorded difference in margins; `truth` is what they differ by in margins;
    `videos` is the mean share of the videos that a decision took, `told` that which `told_draws` took of the same ones,
    NaN where the truth is the margin.
    """

    suite: str
    model: str
    metric: str
    margin: float
    spread: float
    prompts: int
    truth: int
    no_worse: float
    better: float
    worse: float
    videos: float
    told: float

    @property
    def wrong(self) -> float:
        """The larger share of runs that said what is not so, of the two sides."""
        too_good = self.no_worse if self.truth <= -1 else self.better if self.truth <= 0 else 0.0
        return max(too_good, self.worse if self.truth >= -1 else 0.0)


def read_scores(path: Path) -> dict[str, Scores]:
    """By model the scores of every dimension of a run's records beside the teacher's."""
    found: dict[tuple[str, str], Values] = {}
    for line in read_text(path).splitlines():
        score = Score.from_json(json.loads(line))
        dimension = score.metric.startswith(("vbench_", "embedded-"))
        if dimension and len(score.blocks) >= LEAST:
            found[score.model, score.metric.removeprefix("vbench_")] = np.array(score.blocks)
    models = dict.fromkeys(model for model, _ in found if model not in ("teacher", "real"))
    return {
        model: {
            metric: np.stack([found["teacher", metric], values])
            for (of, metric), values in found.items()
            if of == model
        }
        for model in models
    }


def is_answer(scores: Values) -> bool:
    """Whether scores are yes or no."""
    return bool(np.isin(scores, (0, 1)).all())


def draw_scores(recorded: Values, count: int, difference: float, random: np.random.Generator) -> Values:
    """So many prompts of a metric, whose mean difference is what is asked for: of answers the nearest there is."""
    drawn = recorded[:, random.integers(recorded.shape[1], size=count)]
    if not is_answer(recorded):
        drawn[1] += difference - (drawn[1] - drawn[0]).mean()
        return drawn
    lacking = round(count * difference - (drawn[1] - drawn[0]).sum())
    # What a model may turn: of the student no to yes, or of the teacher yes to no, and the reverse.
    turnable = np.flatnonzero(drawn == np.array([[1.0], [0.0]] if lacking > 0 else [[0.0], [1.0]]))
    turned = random.choice(turnable, abs(lacking), replace=False)
    drawn.flat[turned] = 1 - drawn.flat[turned]
    return drawn


def told_draws(values: Values, margin: float, spread: float, difference: float) -> int:
    """How many of these draws Wald's test takes that is told all but one thing: is their mean `difference` or -margin?

    It knows their standard deviation, and is wrong once in 20 to either side. No test of independent normal draws takes
    fewer on the average (Wald and Wolfowitz 1948); none that has more to find out should. After n of N draws without
    replacement their mean has the variance spread^2 / n (1 - n / N); all of them decide.
    """
    drawn = np.arange(1, len(values) + 1)
    variances = np.maximum(spread, 1e-12) ** 2 * (1 / drawn - 1 / len(values))
    between = np.cumsum(values) / drawn - (difference - margin) / 2
    evidence = between[:-1] * (difference + margin) / variances[:-1]
    decided = np.flatnonzero(np.abs(evidence) >= math.log(19))
    return int(decided[0]) + 1 if len(decided) else len(values)


def draw_once(scores: Scores, count: int, margin: float, difference: float, random: np.random.Generator) -> Paired:
    """One draw of the only metric, or of several ones' total, in the order in which it is looked at."""
    drawn = {name: draw_scores(recorded, count, difference, random) for name, recorded in scores.items()}
    rest = difference - float(np.mean([values[1].mean() - values[0].mean() for values in drawn.values()]))
    pairs = []
    for name, values in drawn.items():
        bounds = bounds_of(values)
        if not is_answer(scores[name]):
            # Of a total what is less than an answer is made up for by numbers.
            values[1] += rest * len(drawn)
        pairs.append(Paired("student", name, values[1] - values[0], bounds, count))
    whole = total_of(pairs, None) if len(pairs) > 1 else pairs[0]
    assert whole is not None
    return whole


def simulate(suite: str, model: str, scores: Scores, margin: float, prompts: int, truth: int, runs: int = RUNS) -> Cell:
    """Run many comparisons of a metric, or of several metrics' total, at a true difference of so many margins."""
    metric = next(iter(scores)) if len(scores) == 1 else TOTAL
    if metric != TOTAL and is_answer(scores[metric]):
        margin = round(prompts * margin) / prompts
    # The variance of the mean of one draw of each.
    spread = sum(float((pair[1] - pair[0]).var()) for pair in scores.values()) ** 0.5 / len(scores)
    verdicts, taken, told = Counter[str](), 0, 0.0
    for run in range(runs):
        random = seeded_by(f"early/{suite}/{model}/{metric}/{margin:g}/{prompts}/{truth}/{run}")
        drawn = draw_once(scores, prompts, margin, truth * margin, random)
        decision = decide(drawn.values, margin, drawn.bounds, population=prompts)
        verdicts[decision.verdict] += 1
        taken += decision.after
        told += math.nan if truth == -1 else told_draws(drawn.values, margin, spread, truth * margin)
    better, worse = verdicts["better"] / runs, verdicts["worse"] / runs
    no_worse = verdicts["no worse"] / runs + better
    return Cell(
        suite, model, metric, margin, spread / margin, prompts, truth, no_worse, better, worse, taken / runs / prompts,
        told / runs / prompts,
    )  # fmt: skip


def cases_of(scores: Scores) -> list[tuple[Scores, float]]:
    """Every metric and the total, with each of its margins."""
    single = [
        ({name: pair}, margin)
        for name, pair in scores.items()
        for margin in MARGINS["answer" if is_answer(pair) else "number"]
    ]
    return [*single, *((scores, margin) for margin in MARGINS[TOTAL])]


def simulate_all(path: Path, runs: int = RUNS) -> list[Cell]:
    """Every case of every model in a run's records, for every number of prompts and true difference."""
    cases = [(model, *case) for model, scores in read_scores(path).items() for case in cases_of(scores)]
    cells = []
    with progress("early verdicts", len(cases)) as advance:
        for model, scores, margin in cases:
            advance(f"{model}, {len(scores)} metrics, {margin:g}")
            cells += [
                simulate(path.stem, model, scores, margin, prompts, truth, runs)
                for prompts in COUNTS
                for truth in TRUTHS
            ]
    return cells


@click.command()
@click.argument("records", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--runs", type=click.IntRange(1), default=RUNS, show_default=True, help="Simulated runs of a case.")
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Also write them as CSV.")
def main(records: tuple[Path, ...], runs: int, output: Path | None) -> None:
    """Simulate comparisons that stop early on the recorded scores of single videos; stand-ins' where they are."""
    cells = [cell for path in records for cell in simulate_all(path, runs)]
    header = [field.name for field in fields(Cell)]
    lines = [[f"{each:.4g}" if isinstance(each, float) else str(each) for each in astuple(cell)] for cell in cells]
    if output is not None:
        write_atomically(output, csv_lines([header, *lines]))
    print_table(f"{runs} runs a line", header, lines)


if __name__ == "__main__":
    main()
