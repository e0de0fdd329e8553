"""A comparison that stops early is wrong no more often than it says, and stops early."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from results_of_runs import write_results

from vdmini_bench.cli import main
from vdmini_bench.results.score import Score
from vdmini_bench.results.sequential import decide
from vdmini_bench.vbench.totals import compute_totals, total_weights

Draw = Callable[[np.random.Generator, int], NDArray[np.float64]]
RUNS = 2000
LEVEL = 0.05
# Three standard errors of 2,000 runs above one in twenty.
MOST_WRONG = LEVEL + 3 * (LEVEL * (1 - LEVEL) / RUNS) ** 0.5


def normal(random: np.random.Generator, count: int) -> NDArray[np.float64]:
    return random.normal(0, 0.05, count)


def heavy(random: np.random.Generator, count: int) -> NDArray[np.float64]:
    return random.standard_t(3, count) * 0.05 / 3**0.5


def skewed(random: np.random.Generator, count: int) -> NDArray[np.float64]:
    """Most a little better, a few far worse."""
    return -random.exponential(0.05, count)


def rare(random: np.random.Generator, count: int) -> NDArray[np.float64]:
    """One in ten far worse, the others alike: ten draws show none of these in a third of runs."""
    return random.normal(0, 0.01, count) - 0.2 * (random.random(count) < 0.1)


def simulate(draw: Draw, mean: float, *, margin: float = 0.02, count: int = 400) -> tuple[Counter[str], float]:
    """Verdicts of many comparisons whose true mean difference is `mean`, and the share of videos they took."""
    random, verdicts, shares = np.random.default_rng(0), Counter[str](), []
    for _ in range(RUNS):
        values = draw(random, count)
        decision = decide(values - values.mean() + mean, margin, population=count)
        verdicts[decision.verdict] += 1
        shares.append(decision.after / count)
    return verdicts, float(np.mean(shares))


@pytest.mark.parametrize("draw", [normal, heavy, skewed, rare])
def test_at_the_margin_neither_side_is_said_wrongly_too_often(draw: Draw) -> None:
    verdicts, _ = simulate(draw, -0.02)
    assert verdicts["no worse"] + verdicts["better"] <= MOST_WRONG * RUNS
    assert verdicts["worse"] <= MOST_WRONG * RUNS


@pytest.mark.parametrize("draw", [normal, heavy, skewed])
def test_equals_are_found_no_worse_in_a_quarter_of_the_videos_and_seldom_better(draw: Draw) -> None:
    verdicts, share = simulate(draw, 0.0)
    assert verdicts["worse"] + verdicts["undecided"] == 0
    assert verdicts["better"] <= MOST_WRONG * RUNS
    assert share <= 0.25


@pytest.mark.parametrize("draw", [normal, heavy, skewed])
def test_a_loss_of_twice_the_margin_is_found_in_a_quarter_of_the_videos(draw: Draw) -> None:
    verdicts, share = simulate(draw, -0.04)
    assert verdicts["worse"] >= (1 - MOST_WRONG) * RUNS
    assert share <= 0.25


def answers(lost: int, won: int, count: int = 944) -> NDArray[np.float64]:
    return np.concatenate([-np.ones(lost), np.ones(won), np.zeros(count - lost - won)])


@pytest.mark.parametrize(("lost", "wrong"), [(60, ("no worse", "better")), (36, ("worse",))])
def test_rare_answers_that_differ_do_not_mislead(lost: int, wrong: tuple[str, ...]) -> None:
    """One in 16 or in 26 of answers yes or no is lost, at a margin of one in 20."""
    random = np.random.default_rng(0)
    found = Counter(
        decide(random.permutation(answers(lost, 0)), 0.05, (-1, 1), population=944).verdict for _ in range(RUNS)
    )
    assert sum(found[verdict] for verdict in wrong) <= MOST_WRONG * RUNS


def test_all_of_a_population_decide_what_its_mean_is() -> None:
    assert decide(answers(60, 0), 0.05, (-1, 1), population=944).verdict == "worse"
    assert decide(answers(0, 100)[::-1], 0.05, (-1, 1), population=944).verdict == "no worse"


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=80), st.floats(0.01, 0.5), st.booleans())
@settings(max_examples=200, deadline=None)
def test_a_decision_stands_whatever_comes_after_it(values: list[float], margin: float, bounded: bool) -> None:
    bounds = (-1.0, 1.0) if bounded else None
    whole = decide(values, margin, bounds)
    so_far = decide(values[: whole.after], margin, bounds)
    assert (so_far.verdict, so_far.after) == (whole.verdict, whole.after)
    for wealth in (whole.no_worse, whole.worse, whole.better):
        assert len(wealth) == len(values)
        assert (wealth >= 0).all()


@pytest.mark.parametrize(
    ("values", "margin", "bounds", "population", "said"),
    [
        ([0.0], 0.0, None, None, "margin above 0"),
        ([2.0], 0.1, (-1, 1), None, "between -1 and 1"),
        ([0.0, 0.0], 0.1, None, 1, "2 draws of a population of 1"),
    ],
)
def test_what_cannot_be_decided_is_refused(
    values: list[float], margin: float, bounds: tuple[float, float] | None, population: int | None, said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        decide(values, margin, bounds, population=population)


def score(model: str, values: NDArray[np.float64], metric: str = "vbench_subject_consistency") -> Score:
    count = len(values)
    return Score(model, metric, "1", "t2v", float(values.mean()), "", "higher", 0.01, count, count, "ok", tuple(values))


def test_compare_says_after_how_many_samples_it_was_decided(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    teacher = 0.9 + random.normal(0, 0.03, 200)
    models = {"teacher": teacher, "student": teacher - 0.1 + normal(random, 200) / 2}
    write_results(tmp_path / "runs" / "one", [score(*each) for each in models.items()])
    run = CliRunner().invoke(
        main,
        ["compare", "teacher", "student", "--sequential", "--margin", "0.02", "--json", "--results", str(tmp_path)],
    )
    (found,) = json.loads(run.output)["rows"]
    assert (found["metric"], found["verdict"], found["samples"]) == ("vbench_subject_consistency", "worse", 200)
    assert found["after"] < 50


def test_a_total_is_decided_before_its_parts(tmp_path: Path) -> None:
    """Each metric alone is too noisy; the mean of nine is not, and is what the total says."""
    random = np.random.default_rng(0)
    teacher, student = random.normal(0.8, 0.15, (2, 9, 120))
    scores = [
        score(model, values, f"vbench_{place}")
        for model, all_values in (("teacher", teacher), ("student", student))
        for place, values in enumerate(all_values)
    ]
    write_results(tmp_path / "runs" / "one", scores)
    asked = ["compare", "teacher", "student", "--sequential", "--margin", "0.03", "--json", "--results", str(tmp_path)]
    *parts, total = json.loads(CliRunner().invoke(main, asked).output)["rows"]
    assert (total["metric"], total["verdict"]) == ("total", "no worse")
    assert total["difference"] == pytest.approx(float((student - teacher).mean()))
    assert total["after"] < min(part["after"] for part in parts)


def test_the_official_total_weighs_the_official_way() -> None:
    """The weights of VBench's own script: what a dimension's raw score adds is what the total rises by."""
    for mode in ("t2v", "i2v"):
        weights = total_weights(mode)
        raw = dict(zip(weights, np.random.default_rng(0).uniform(0.2, 0.9, len(weights)), strict=True))
        name = max(weights, key=lambda each: weights[each])
        lower = raw | {name: raw[name] - 0.1}
        before, after = (compute_totals(scores, mode).total for scores in (raw, lower))
        assert before is not None
        assert after is not None
        assert before - after == pytest.approx(0.1 * weights[name])


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        (("--sequential",), 2, "--sequential and --margin go together"),
        (("--margin", "0.1"), 2, "--sequential and --margin go together"),
        (("--clips", "--sequential", "--margin", "0.1"), 2, "leave --sequential out"),
        (("--allow-unlike", "--sequential", "--margin", "0.1"), 2, "leave --allow-unlike out"),
        (("--sequential", "--margin", "0.1"), 3, "share no metric of 30 or more"),
    ],
)
def test_compare_says_what_a_decision_needs(more: tuple[str, ...], code: int, said: str, tmp_path: Path) -> None:
    values = np.linspace(0, 1, 10)
    write_results(tmp_path / "runs" / "one", [score("teacher", values), score("student", values)])
    run = CliRunner().invoke(main, ["compare", "teacher", "student", *more, "--results", str(tmp_path)])
    assert run.exit_code == code
    assert said in run.output
