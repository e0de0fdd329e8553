"""Early verdicts on recorded scores of single videos are wrong no more often than they say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from vdmini_bench.results.sequential import decide
from vdmini_bench.studies.early_verdicts import (
    Cell,
    draw_once,
    draw_scores,
    is_answer,
    main,
    read_scores,
    simulate,
    told_draws,
)

RECORDED = Path("results/vbench/i2v-embedded.jsonl")
STUDENT = read_scores(RECORDED)["student"]
RUNS = 300
# Three standard errors of 300 runs above one in twenty.
MOST_WRONG = 0.05 + 3 * (0.05 * 0.95 / RUNS) ** 0.5
FLICKERING, SUBJECT = ({name: STUDENT[name]} for name in ("temporal_flickering", "embedded-i2v_subject"))


def cell(scores: dict[str, np.ndarray], margin: float, prompts: int, truth: int) -> Cell:
    return simulate(RECORDED.stem, "student", scores, margin, prompts, truth, RUNS)


# Of these differences a few are far better: where those are to come, the student looks worse than it is.
@pytest.mark.parametrize(("scores", "margin"), [(FLICKERING, 0.005), (SUBJECT, 0.1), (STUDENT, 0.05)])
@pytest.mark.parametrize("truth", [-2, -1, 0])
def test_a_verdict_is_wrong_once_in_twenty_at_most(scores: dict[str, np.ndarray], margin: float, truth: int) -> None:
    found = cell(scores, margin, 192, truth)
    assert found.wrong <= MOST_WRONG, found
    if truth == -2:
        assert found.worse >= 1 - MOST_WRONG, found
    if truth == 0:
        assert found.no_worse >= 1 - MOST_WRONG, found


def test_a_quarter_of_400_prompts_decides_where_differences_vary_by_little() -> None:
    for truth in (-2, 0, 2):
        assert cell(FLICKERING, 0.005, 400, truth).videos < 0.25
    # Of 72 none comes before the 30th.
    assert cell(FLICKERING, 0.005, 72, 0).videos >= 30 / 72


@pytest.mark.parametrize("difference", [-0.25, 0.0, 0.125])
def test_a_known_effect_leaves_answers_answers_and_is_exact(difference: float) -> None:
    for recorded in STUDENT.values():
        drawn = draw_scores(recorded, 80, difference, np.random.default_rng(0))
        assert (drawn[1] - drawn[0]).mean() == pytest.approx(difference)
        assert is_answer(drawn) == is_answer(recorded)


def test_a_total_has_the_effect_too() -> None:
    """After all prompts of a total, which is -0.03 exactly, neither side can be said of a smaller or larger margin."""
    for margin, verdict in ((0.029, "worse"), (0.031, "no worse")):
        drawn = draw_once(STUDENT, 72, margin, -0.03, np.random.default_rng(0))
        decision = decide(drawn.values, margin, drawn.bounds, population=72)
        assert decision.verdict in (verdict, "undecided")


def test_who_is_told_the_spread_and_both_means_takes_as_many_draws_as_wald_says() -> None:
    """Of endless normal draws 2 s^2 / m^2 times the divergence of being right 19 times in 20, and the overshoot."""
    random, spread, margin = np.random.default_rng(0), 5.0, 1.0
    taken = [told_draws(random.normal(0, spread, 100_000), margin, spread, 0.0) for _ in range(400)]
    expected = 2 * spread**2 / margin**2 * (0.95 * np.log(19) + 0.05 * np.log(1 / 19))
    assert expected < np.mean(taken) < 1.15 * expected
    # Of few draws, none of which comes twice, fewer are enough; a loss of twice the margin is as far away.
    few = random.normal(0, spread, (400, 200))
    few -= few.mean(axis=1, keepdims=True)
    taken = [told_draws(row, margin, spread, 0.0) for row in few]
    assert np.mean(taken) < 0.85 * expected
    assert [told_draws(row * -1 - 2, margin, spread, -2.0) for row in few] == taken


def test_one_command_writes_all_of_it(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, [str(RECORDED), "--runs", "1", "-o", str(tmp_path / "table.csv")])
    assert done.exit_code == 0, done.output
    header, *lines = (tmp_path / "table.csv").read_text().splitlines()
    assert header.startswith("suite,model,metric,margin")
    # Two models of three metrics and a total, each with two margins, four numbers of prompts, four true differences.
    assert len(lines) == 2 * 4 * 2 * 4 * 4
