"""Bradley-Terry scores of models from votes between pairs of them, with ties, and their intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
Whole = NDArray[np.int64]
# No step of Newton's method changes a log strength by more: far from the maximum it would overshoot.
LONGEST_STEP = 2.0
MOST_STEPS = 200
FINE = 1e-10
# Of the variance between cells of a voter and a prompt: with it intervals cover as often as they say (docs/votes.md).
LEAST_SHARE = 0.6


@dataclass(frozen=True)
class Votes:
    """Votes between models, one an entry of arrays of one length, int64.

    `first` and `second` are models from 0, `outcome` is 1 where the first was preferred, -1 the second, 0 neither;
    `voter` and `prompt` say, from 0, whose vote it is and of which prompt.
    """

    first: Whole
    second: Whole
    outcome: Whole
    voter: Whole
    prompt: Whole

    def of(self, models: Sequence[int]) -> Votes:
        """The votes among some models, which are numbered from 0 in that order."""
        inside = np.isin(self.first, models) & np.isin(self.second, models)
        numbers = np.zeros(max(models) + 1, np.int64)
        numbers[[*models]] = np.arange(len(models))
        first, second, *others = (column[inside] for column in vars(self).values())
        return Votes(numbers[first], numbers[second], *others)


@dataclass(frozen=True)
class Strengths:
    """Log strengths by model, 0 for the baseline: exp of a difference is how often one wins for each win of the other.

    `intervals` has their lower ends, then their upper ends; None where voters or prompts are fewer than two.
    """

    values: Values
    intervals: Values | None


def rated_together(votes: Votes, models: int) -> Whole:
    """Which models have scores on one scale: a label for each.

    Strengths are finite only where, however the models are split in two, some of each part won or tied against some of
    the other (Ford, 1957).
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    beaten = votes.outcome >= 0, votes.outcome <= 0
    winners = np.concatenate([votes.first[beaten[0]], votes.second[beaten[1]]])
    losers = np.concatenate([votes.second[beaten[0]], votes.first[beaten[1]]])
    wins = coo_array((np.ones(len(winners)), (winners, losers)), (models, models))
    labels: Whole = connected_components(wins, directed=True, connection="strong")[1].astype(np.int64)
    return labels


def fit_strengths(votes: Votes, models: int, baseline: int = 0, level: float = 0.95) -> Strengths:
    """The strengths under which the votes are most likely, by the model of Davidson (1970), and their intervals.

    The first wins with odds of its strength to the second's; a tie is as likely as `nu` times the root of both
    strengths' product, and without any tie this is Bradley and Terry's model (1952). Votes of one voter, and of one
    prompt, are not independent: variances are those of Cameron, Gelbach and Miller (2011) for two ways of clustering,
    quantiles Student's t with Satterthwaite's degrees of freedom.

    Raises:
        ValueError: the strengths are not finite: the models are not rated together, or all votes are ties.
    """
    if len({*rated_together(votes, models).tolist()}) != 1 or not votes.outcome.any():
        raise ValueError("these votes give no finite strengths")
    statistics, offsets = _statistics(votes, models, baseline)
    found = np.zeros(statistics.shape[2])
    for _ in range(MOST_STEPS):
        scores, information = _derivatives(statistics, offsets, votes.outcome, found)
        step = np.linalg.solve(information, scores.sum(0))
        if np.abs(step).max() < FINE:
            break
        found += step * min(1.0, LONGEST_STEP / np.abs(step).max())
    influence = np.asarray(np.linalg.solve(information, scores.T).T, np.float64)
    half = _half_widths(influence, votes, level)
    ends = [] if half is None else [found - half, found + half]
    # The baseline has its place again; what ties have beside the models goes.
    values, *intervals = (np.insert(each[: models - 1], baseline, 0.0) for each in (found, *ends))
    return Strengths(values, np.stack(intervals) if intervals else None)


def _statistics(votes: Votes, models: int, baseline: int) -> tuple[Values, Values]:
    """What log odds are linear in, by vote, outcome (first, neither, second) and parameter; what is added to them."""
    count, ties = len(votes.first), bool((votes.outcome == 0).any())
    halves = np.zeros((count, models))
    halves[np.arange(count), votes.first] += 0.5
    halves[np.arange(count), votes.second] -= 0.5
    halves = np.delete(halves, baseline, axis=1)
    found = np.stack([halves, np.zeros_like(halves), -halves], 1)
    if not ties:
        # The most likely `nu` is 0.
        return found, np.array([0.0, -np.inf, 0.0])
    of_ties = np.broadcast_to([[0.0], [1.0], [0.0]], (count, 3, 1))
    return np.concatenate([found, of_ties], 2), np.zeros(3)


def _derivatives(statistics: Values, offsets: Values, outcome: Whole, at: Values) -> tuple[Values, Values]:
    """Of the log likelihood: each vote's gradient, and the negative of the second derivative of all."""
    logits = statistics @ at + offsets
    odds = np.exp(logits - logits.max(1, keepdims=True))
    chances = odds / odds.sum(1, keepdims=True)
    expected = np.einsum("vo,vop->vp", chances, statistics)
    spread = statistics - expected[:, None]
    information = np.einsum("vo,vop,voq->pq", chances, spread, spread)
    return statistics[np.arange(len(outcome)), 1 - outcome] - expected, information


def _half_widths(influence: Values, votes: Votes, level: float) -> Values | None:
    """Half the intervals of all parameters, from how much each vote moves them; None for one voter or one prompt."""
    from scipy.stats import t

    both = np.unique(np.stack([votes.voter, votes.prompt], 1), axis=0, return_inverse=True)[1].ravel()
    parts, freedoms = [], []
    for clusters in (votes.voter, votes.prompt, both):
        names, places = np.unique(clusters, return_inverse=True)
        if len(names) < 2:
            return None
        sums = np.zeros((len(names), influence.shape[1]))
        np.add.at(sums, places, influence)
        parts.append((sums**2).sum(0) * len(names) / (len(names) - 1))
        freedoms.append(len(names) - 1)
    voters, prompts, cells = parts
    # The difference is unbiased, but of few clusters it can be near 0 or below.
    variance = np.maximum(voters + prompts - cells, cells * LEAST_SHARE)
    # Clusters that do not vary by more than their parts leave no doubt about the variance.
    counted = zip(parts, (voters > cells, prompts > cells, True), freedoms, strict=True)
    freedom = variance**2 / sum(part**2 * counts / free for part, counts, free in counted)
    found: Values = t.ppf(0.5 + level / 2, np.maximum(freedom, min(freedoms))) * np.sqrt(variance)
    return found
