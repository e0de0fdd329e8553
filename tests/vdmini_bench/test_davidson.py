"""Scores from votes: published values, and intervals that cover simulated voters' strengths as often as they say."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import norm

from vdmini_bench.votes.davidson import Values, Votes, fit_strengths, rated_together
from vdmini_bench.votes.krippendorff import krippendorff_alpha

# American League, 1987: wins of each team over each other one (Agresti, Categorical Data Analysis, table 10.10), from
# Milwaukee, Detroit, Toronto, New York, Boston and Cleveland to Baltimore.
WINS = (
    (0, 7, 9, 7, 7, 9, 11),
    (6, 0, 7, 5, 11, 9, 9),
    (4, 6, 0, 7, 7, 8, 12),
    (6, 8, 6, 0, 6, 7, 10),
    (6, 2, 6, 7, 0, 7, 12),
    (4, 4, 5, 6, 6, 0, 6),
    (2, 4, 1, 3, 1, 7, 0),
)
STRENGTHS = (1.5814, 1.4364, 1.2945, 1.2476, 1.1077, 0.6839, 0.0)
# Of four observers and twelve units (Krippendorff, 2011): alpha of interval data is 0.849.
NONE = math.nan
RATINGS = (
    (1, 2, 3, 3, 2, 1, 4, 1, 2, NONE, NONE, NONE),
    (1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NONE, 3),
    (NONE, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, NONE),
    (1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NONE),
)


def votes(*counted: tuple[int, int, int, int]) -> Votes:
    """Votes from (first, second, outcome, count), voter after voter of three, on two prompts."""
    lines = [line[:3] for line in counted for _ in range(line[3])]
    first, second, outcome = np.array(lines, np.int64).reshape(-1, 3).T
    place = np.arange(len(lines))
    return Votes(first, second, outcome, place % 3, place // 3 % 2)


def simulate(dice: np.random.Generator, strengths: Values, voters: int, prompts: int, shared: float) -> Votes:
    """Votes by Davidson's model, exactly, of which voters and prompts both share a part of the chance.

    A Gaussian copula: each voter, and each prompt, leans to some models, with that share of the variance each.
    """
    models, ties = len(strengths), 0.6
    shape = np.indices((voters, prompts, models, models)).reshape(4, -1)
    voter, prompt, first, second = shape[:, shape[2] < shape[3]]
    of_voters, of_prompts = dice.normal(size=(voters, models)), dice.normal(size=(prompts, models))
    leaning = (
        of_voters[voter, first] - of_voters[voter, second] + of_prompts[prompt, first] - of_prompts[prompt, second]
    )
    chance = norm.cdf(math.sqrt(shared / 2) * leaning + math.sqrt(1 - 2 * shared) * dice.normal(size=len(voter)))
    half = (strengths[first] - strengths[second]) / 2
    whole = np.exp(half) + np.exp(-half) + ties
    outcome = (chance > np.exp(-half) / whole).astype(np.int64) + (chance > 1 - np.exp(half) / whole) - 1
    return Votes(first, second, outcome, voter, prompt)


def coverage(runs: int, models: int, voters: int, prompts: int, shared: float, seed: int = 1) -> float:
    """How often the 95 % intervals of simulated votes hold the strengths that these were made with."""
    dice, strengths, held = np.random.default_rng(seed), np.linspace(0.0, -1.2, models), []
    for _ in range(runs):
        ends = fit_strengths(simulate(dice, strengths, voters, prompts, shared), models).intervals
        assert ends is not None
        held.append((ends[0] <= strengths) & (strengths <= ends[1]))
    # The baseline's own is 0 by definition.
    return float(np.mean(np.stack(held)[:, 1:]))


@pytest.mark.parametrize("shared", [0.0, 0.1])
def test_intervals_cover_as_often_as_they_say(shared: float) -> None:
    # Of 2,000 simulations each: see docs/votes.md.
    assert coverage(400, 4, 10, 6, shared) == pytest.approx(0.95, abs=0.02)


def test_bradley_and_terrys_strengths_are_those_of_the_textbook() -> None:
    counted = [(i, j, 1, count) for i, row in enumerate(WINS) for j, count in enumerate(row) if count]
    assert fit_strengths(votes(*counted), 7, baseline=6).values == pytest.approx(STRENGTHS, abs=1e-4)


def test_ties_and_sides_leave_the_odds_of_two_models_as_they_are() -> None:
    decided, tied = ((0, 1, 1, 30), (0, 1, -1, 10)), (1, 0, 0, 25)
    turned = ((1, 0, -1, 30), (1, 0, 1, 10))
    for each in (decided, (*decided, tied), (*turned, tied)):
        assert fit_strengths(votes(*each), 2).values == pytest.approx([0.0, -math.log(3)])


def test_strengths_that_votes_leave_open_are_refused() -> None:
    lost_all = votes((0, 1, 1, 5), (1, 0, 1, 5), (0, 2, 1, 5))
    assert len({*rated_together(lost_all, 3)[[0, 1]]}) == 1
    assert rated_together(lost_all, 3)[2] != rated_together(lost_all, 3)[0]
    for each in (lost_all, votes((0, 1, 0, 5), (1, 2, 0, 5))):
        with pytest.raises(ValueError, match="no finite"):
            fit_strengths(each, 3)
    # One tie with the one that lost all else is enough.
    assert np.isfinite(fit_strengths(votes((0, 1, 1, 5), (1, 0, 1, 5), (0, 2, 1, 5), (0, 2, 0, 1)), 3).values).all()


def test_one_voter_gives_strengths_without_intervals() -> None:
    whole = votes((0, 1, 1, 30), (0, 1, -1, 10))
    one = Votes(whole.first, whole.second, whole.outcome, np.zeros_like(whole.voter), whole.prompt)
    assert fit_strengths(one, 2).intervals is None


def test_alpha_is_that_of_the_published_example() -> None:
    assert krippendorff_alpha(np.array(RATINGS)) == pytest.approx(0.849, abs=5e-4)
    assert krippendorff_alpha(np.array([[1.0, -1, 0], [1, -1, 0]])) == 1
    assert math.isnan(krippendorff_alpha(np.array([[1.0, NONE], [NONE, 1]])))
    assert math.isnan(krippendorff_alpha(np.ones((2, 3))))
