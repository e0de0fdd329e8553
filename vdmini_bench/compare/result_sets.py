"""The result sets that `compare` takes: a model or a role of a run, a whole run, scored videos, or a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from vdmini_bench.errors import BenchError, NothingMeasuredError, SuiteError
from vdmini_bench.results.leaderboard import read_leaderboard
from vdmini_bench.results.records import RUN_FILE, Record, read_records
from vdmini_bench.results.runs import latest_run, named_folder, named_model
from vdmini_bench.results.score import RESULTS_FILE
from vdmini_bench.results.store import Store

LEADERBOARD = "leaderboard.csv"
# One of them says what the weights beside it are.
CHECKPOINT_FILES = ("model_index.json", "config.json")
# How many digits of a checkpoint's sha256 a row holds.
SHA_DIGITS = 16


@dataclass(frozen=True)
class ResultSet:
    """What is compared with another: its name as given, where it was found, its scores; `whole` means all models."""

    name: str
    source: str
    records: tuple[Record, ...]
    whole: bool = False

    @property
    def models(self) -> tuple[str, ...]:
        """The models it holds, in the order they were measured."""
        return tuple(dict.fromkeys(record.score.model for record in self.records))

    def of(self, model: str) -> ResultSet:
        """Only one model of it; raises NothingMeasuredError where it has no results of this model."""
        records = tuple(record for record in self.records if record.score.model == model)
        if not records:
            known = ", ".join(sorted(self.models)) or "none"
            raise NothingMeasuredError(f"{self.source} has no results of {model!r}; it has {known}")
        return ResultSet(self.name, self.source, records)


def find_result_set(name: str, store: Store, run: Path | None = None, suite: str | None = None) -> ResultSet:
    """Find what a name means, tried in this order.

    A folder that `score` left; a run, by its folder, its name or as `latest`; `RUN:MODEL`; a model or a role of the run
    `run`, the newest finished one (of `suite`) when None; the folder of a checkpoint that some run has scored.

    Raises:
        NothingMeasuredError: nothing was measured under this name.
        SuiteError: the role is that of several models.
        BenchError: a file cannot be read.
    """
    folder = named_folder(name, store, suite)
    if folder is not None:
        return _folder_set(name, folder)
    if (named := named_model(name, store, suite)) is not None:
        return _model_set(name, *named)
    weights = _holds_weights(Path(name))
    try:
        return _model_set(name, run or latest_run(store, suite), name)
    except NothingMeasuredError:
        # After the models: a folder `student` in the working directory must not hide the student of a run.
        if weights:
            return _checkpoint_set(name, store)
        raise


def _folder_set(name: str, folder: Path) -> ResultSet:
    whole = (folder / RUN_FILE).exists()
    return ResultSet(name, folder.resolve().name, tuple(read_records(folder)), whole)


def _model_set(name: str, folder: Path, model: str) -> ResultSet:
    found = _folder_set(name, folder)
    if model not in found.models:
        holders = sorted({record.score.model for record in found.records if record.row.role == model})
        if len(holders) > 1:
            raise SuiteError(f"{found.source} has several models of role {model!r}: name one of {', '.join(holders)}")
        model = holders[0] if holders else model
    return found.of(model)


def _holds_weights(folder: Path) -> bool:
    try:
        # A pipeline's parts are its own folders. Not all that is below: a whole disk would be a checkpoint.
        weights = next(chain(folder.glob("*.safetensors"), folder.glob("*/*.safetensors")), None)
        return weights is not None and any((folder / name).is_file() for name in CHECKPOINT_FILES)
    except (OSError, ValueError):
        return False


def _checkpoint_set(name: str, store: Store) -> ResultSet:
    from vdmini import checkpoint_sha256

    try:
        sha = checkpoint_sha256(name)[:SHA_DIGITS]
    except OSError as error:
        raise BenchError(
            f"{name}: the checkpoint cannot be read ({error}); name the run and the model instead"
        ) from error
    for folder in reversed(store.runs()):
        records = read_records(folder)
        found = [record for record in records if record.row.checkpoint_sha == sha]
        if found:
            return ResultSet(name, folder.name, tuple(found))
    # Runs of before their lines said which checkpoint they measured.
    for row in reversed(read_leaderboard(store.root / LEADERBOARD)):
        if row.checkpoint_sha == sha and (store.root / "runs" / row.run_id / RESULTS_FILE).is_file():
            return _folder_set(name, store.root / "runs" / row.run_id).of(row.model)
    raise NothingMeasuredError(
        f"{name} is a checkpoint ({sha}) that no run under {store.root / 'runs'} has scored; run a suite with it"
    )
