"""Files of votes, as the page saves them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from vdmini_bench.config.yaml_file import Document
from vdmini_bench.errors import NotComparableError, SuiteError
from vdmini_bench.results.store import Store
from vdmini_bench.votes.ballot import KEY_FILE, Key, read_key

Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=80)]


class Vote(BaseModel):
    """Which of two clips, by their names in the page, was better."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    left: str
    right: str
    choice: Literal["left", "tie", "right"]


class VoteFile(BaseModel):
    """All votes of one voter on one page."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    format: Literal["vdmini-votes"]
    version: Literal[1]
    study: str = Field(min_length=1)
    voter: Name
    votes: list[Vote]


@dataclass(frozen=True)
class Ballots:
    """The votes of several voters on one page, with its key and the folder of its run."""

    folder: Path
    key: Key
    files: dict[Path, VoteFile]


def read_ballots(paths: Sequence[Path], store: Store) -> Ballots:
    """Read votes on one page, and find the run that has its key.

    Raises:
        SuiteError: a file is no file of votes, has a vote on no pair of the page or two on one, or is of a voter whose
            votes another one has too; or no run has the key.
        NotComparableError: the files are of several pages.
        BenchError: a key cannot be read.
    """
    files = {path: _read(path) for path in paths}
    studies = {file.study: path for path, file in files.items()}
    if len(studies) > 1:
        named = ", ".join(f"{path} ({study})" for study, path in studies.items())
        raise NotComparableError(f"votes on several pages do not merge: {named}")
    folder, key = _find_key(next(iter(studies)), store)
    voters: dict[str, Path] = {}
    for path, file in files.items():
        if file.voter in voters:
            raise SuiteError(f"{voters[file.voter]} and {path} are both of voter {file.voter!r}: give one of them")
        voters[file.voter] = path
        _check_pairs(path, file, key)
    return Ballots(folder, key, files)


def _read(path: Path) -> VoteFile:
    # JSON is YAML, of which errors name the line.
    document = Document.read(path, "a file of votes, as the page of `report --vote` saves it,")
    return document.validate(VoteFile, document.data, ())


def _find_key(study: str, store: Store) -> tuple[Path, Key]:
    keys = [*store.root.glob(f"runs/*/{KEY_FILE}"), *store.root.glob(f"scored/*/{KEY_FILE}")]
    found = next((path for path in keys if study in path.read_text(encoding="utf-8", errors="replace")), None)
    if found is None:
        raise SuiteError(
            f"no run under {store.root / 'runs'} has the key of the page {study}: give the folder of its run's results"
            " with --results"
        )
    return found.parent, read_key(found)


def _check_pairs(path: Path, file: VoteFile, key: Key) -> None:
    left = {*key.pairs}
    for number, vote in enumerate(file.votes, 1):
        pair = min(vote.left, vote.right), max(vote.left, vote.right)
        if pair not in left:
            why = "a pair that has a vote already" if pair in key.pairs else "no pair of this page"
            raise SuiteError(f"{path}: vote {number} is on {why}; ask the voter to save the votes again")
        left.remove(pair)
