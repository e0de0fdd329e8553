"""From the votes of several people to scores of models: who counts, strengths, agreement, rows of the table."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from vdmini_bench.compare.deltas import NORMAL_95
from vdmini_bench.compare.result_sets import LEADERBOARD
from vdmini_bench.errors import NothingMeasuredError
from vdmini_bench.results.leaderboard import add_rows
from vdmini_bench.results.records import RUN_FILE, Record, baseline_of, read_records, read_run
from vdmini_bench.results.score import RESULTS_FILE, Row, Score, result_line, role_of, row_of
from vdmini_bench.results.store import Store
from vdmini_bench.results.table import in_order
from vdmini_bench.system.files import write_atomically
from vdmini_bench.system.tables import visible
from vdmini_bench.votes.ballot import Key
from vdmini_bench.votes.davidson import Votes, fit_strengths, rated_together
from vdmini_bench.votes.files import Ballots, Vote, VoteFile
from vdmini_bench.votes.krippendorff import krippendorff_alpha

METRIC, VERSION = "preference", "davidson-1"
OUTCOMES = {"left": 1, "tie": 0, "right": -1}


@dataclass(frozen=True)
class Voter:
    """A voter, the file, how many attention checks were answered, how many of them rightly, and whether votes count."""

    name: str
    file: Path
    checks: int
    passed: int
    counts: bool

    def __str__(self) -> str:
        return f"{self.name} ({self.file}): {self.passed} of {self.checks} attention checks passed"


@dataclass(frozen=True)
class Preference:
    """A model's votes won, tied and lost; its score with its 95 % interval, None where it has none, as `note` says."""

    model: str
    counts: tuple[int, int, int]
    score: float | None
    interval: tuple[float, float] | None
    note: str = ""


@dataclass(frozen=True)
class Merged:
    """What all votes on a page give; scores are log odds against the baseline, whose own is 0."""

    study: str
    baseline: str
    voters: tuple[Voter, ...]
    preferences: tuple[Preference, ...]
    alpha: float
    votes: int

    def __str__(self) -> str:
        counted = sum(voter.counts for voter in self.voters)
        agreement = "unknown" if math.isnan(self.alpha) else f"{self.alpha:.2f} (Krippendorff's alpha)"
        left_out = len(self.voters) - counted
        return f"{self.votes} votes, of {counted} voters ({left_out} left out); agreement {agreement}"

    def to_json(self) -> dict[str, Any]:
        """The object that `votes merge --json` prints."""
        alpha = None if math.isnan(self.alpha) else self.alpha
        voters = [{**asdict(voter), "file": str(voter.file)} for voter in self.voters]
        return {**asdict(self), "alpha": alpha, "voters": voters, "preferences": [*map(asdict, self.preferences)]}


def merge_votes(ballots: Ballots, least_passed: float = 0.8) -> Merged:
    """Score models by the votes of those who passed at least that share of their attention checks.

    Raises:
        NothingMeasuredError: nobody did, or nobody preferred any clip.
        BenchError: the run cannot be read.
    """
    key = ballots.key
    voters = tuple(_voter(path, file, key, least_passed) for path, file in ballots.files.items())
    counted = [file for file, voter in zip(ballots.files.values(), voters, strict=True) if voter.counts]
    voted = [clip.model for clip in key.clips.values()]
    known = [record.score.model for record in read_records(ballots.folder)]
    models = [model for model in in_order((*known, *voted)) if model in voted]
    votes = _votes(counted, key, models)
    if not votes.outcome.any():
        left_out = [f"left out: {voter}" for voter in voters if not voter.counts]
        raise NothingMeasuredError("\n".join(["no vote that counts prefers a clip", *left_out]))
    run = read_run(ballots.folder) if (ballots.folder / RUN_FILE).is_file() else {}
    baseline = baseline_of(run) if baseline_of(run) in models else models[0]
    preferences = tuple(_preferences(votes, models, models.index(baseline)))
    return Merged(key.study, baseline, voters, preferences, _agreement(counted, key), len(votes.outcome))


def publish_votes(merged: Merged, ballots: Ballots, store: Store) -> list[Row]:
    """Write a row a model into its run's results, in place of those of an earlier merge, and onto the leaderboard.

    Raises:
        NothingMeasuredError: the run has no results.
        BenchError: a file cannot be read, or the leaderboard cannot be written.
    """
    records = [record for record in read_records(ballots.folder) if record.score.metric != METRIC]
    if not records:
        raise NothingMeasuredError(f"{ballots.folder} has no other results that rows of votes could stand beside")
    scores = [_score(each, merged) for each in merged.preferences]
    notes = ["; ".join(filter(None, (each.note, str(merged)))) for each in merged.preferences]
    rows = [_row(score, records, note) for score, note in zip(scores, notes, strict=True)]
    lines = [result_line(record.score, record.row) for record in records] + [*map(result_line, scores, rows)]
    write_atomically(ballots.folder / RESULTS_FILE, "".join(lines))
    add_rows(store.root / LEADERBOARD, rows)
    return rows


def _voter(path: Path, file: VoteFile, key: Key, least_passed: float) -> Voter:
    checks = [vote for vote in file.votes if _is_check(vote, key)]
    passed = sum(vote.choice == ("right" if key.clips[vote.left].spoilt else "left") for vote in checks)
    # Without any answered check nothing says that somebody looked.
    counts = not least_passed or (bool(checks) and passed >= least_passed * len(checks))
    return Voter(visible(file.voter), path, len(checks), passed, counts)


def _is_check(vote: Vote, key: Key) -> bool:
    return key.clips[vote.left].spoilt or key.clips[vote.right].spoilt


def _votes(files: Sequence[VoteFile], key: Key, models: Sequence[str]) -> Votes:
    prompts = {request: number for number, request in enumerate(dict.fromkeys(c.request for c in key.clips.values()))}
    found = []
    for voter, file in enumerate(files):
        for vote in file.votes:
            if not _is_check(vote, key):
                left, right = key.clips[vote.left], key.clips[vote.right]
                places = models.index(left.model), models.index(right.model)
                found.append((*places, OUTCOMES[vote.choice], voter, prompts[left.request]))
    return Votes(*np.array(found, np.int64).reshape(-1, 5).T)


def _agreement(files: Sequence[VoteFile], key: Key) -> float:
    """Krippendorff's alpha, each pair both ways round: it says the same whichever clip of a pair is the first."""
    ratings = np.full((len(files), len(key.pairs)), np.nan)
    for voter, file in enumerate(files):
        for vote in file.votes:
            if not _is_check(vote, key):
                sign = 1 if vote.left < vote.right else -1
                place = key.pairs.index((min(vote.left, vote.right), max(vote.left, vote.right)))
                ratings[voter, place] = sign * OUTCOMES[vote.choice]
    return krippendorff_alpha(np.concatenate([ratings, -ratings], axis=1))


def _preferences(votes: Votes, models: Sequence[str], baseline: int) -> Iterator[Preference]:
    """Each model's votes, and its score where that is finite beside the baseline's."""
    labels = rated_together(votes, len(models))
    group = [place for place in range(len(models)) if labels[place] == labels[baseline]]
    among = votes.of(group)
    fitted = fit_strengths(among, len(group), group.index(baseline)) if among.outcome.any() else None
    for place, model in enumerate(models):
        ours = np.concatenate([votes.outcome[votes.first == place], -votes.outcome[votes.second == place]])
        wins, ties, losses = (int((ours == outcome).sum()) for outcome in (1, 0, -1))
        counted = partial(Preference, model, (wins, ties, losses))
        if place == baseline:
            yield counted(0.0, (0.0, 0.0))
        elif fitted is None or place not in group:
            note = f"no finite score beside {models[baseline]}: {wins} won, {ties} tied, {losses} lost"
            yield counted(None, None, note)
        else:
            at, ends = group.index(place), fitted.intervals
            interval = None if ends is None else (float(ends[0, at]), float(ends[1, at]))
            yield counted(float(fitted.values[at]), interval)


def _score(preference: Preference, merged: Merged) -> Score:
    protocol, count = f"davidson, votes on page {merged.study}", sum(preference.counts)
    if preference.score is None:
        return Score.unavailable(preference.model, METRIC, VERSION, protocol, "higher", count)
    # Whoever takes it for that of a normal distribution gets the interval as it is.
    error = None if preference.interval is None else (preference.interval[1] - preference.interval[0]) / 2 / NORMAL_95
    return Score(
        preference.model, METRIC, VERSION, protocol, preference.score, "log odds", "higher", error, count, count, "ok"
    )


def _row(score: Score, records: Sequence[Record], note: str) -> Row:
    """A model's row: it says of the model what its other rows of the run say."""
    origin = asdict(next((each.row for each in records if each.row.model == score.model), records[0].row))
    if origin["model"] != score.model:
        origin |= {"role": role_of(score.model), "recipe": "", "checkpoint_sha": "", "params_m": ""}
    date = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return row_of(score, {**origin, "date": date, "note": note})
