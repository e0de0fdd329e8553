"""What `compare` sets side by side: a model or a role of a run, a whole run, scored videos, or a checkpoint."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from vdmini_bench.errors import BenchError, NothingMeasuredError, SuiteError
from vdmini_bench.results.leaderboard import read_leaderboard
from vdmini_bench.results.records import RUN_FILE, Record, is_file, latest_run, read_records, read_run
from vdmini_bench.results.score import RESULTS_FILE
from vdmini_bench.results.store import Store

LEADERBOARD = "leaderboard.csv"
# One of them says what the weights beside it are.
CHECKPOINT_FILES = ("model_index.json", "config.json")
# The newest finished run.
LATEST = "latest"
# How many digits of a checkpoint's sha256 a row holds.
SHA_DIGITS = 16


@dataclass(frozen=True)
class Side:
    """One side of a comparison: its name as given, where it was found, and its scores; `whole` means all models."""

    name: str
    source: str
    records: tuple[Record, ...]
    whole: bool = False

    @property
    def models(self) -> tuple[str, ...]:
        """The models it holds, in the order they were measured."""
        return tuple(dict.fromkeys(record.score.model for record in self.records))

    def of(self, model: str) -> Side:
        """Only one model of it.

        Raises:
            NothingMeasuredError: it has no results of this model.
        """
        records = tuple(record for record in self.records if record.score.model == model)
        if not records:
            known = ", ".join(sorted(self.models)) or "none"
            raise NothingMeasuredError(f"{self.source} has no results of {model!r}; it has {known}")
        return Side(self.name, self.source, records)


def find_side(name: str, store: Store, run: Path | None = None, suite: str | None = None) -> Side:
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
        return _folder_side(name, folder)
    head, separator, model = name.rpartition(":")
    folder = named_folder(head, store, suite) if separator else None
    if folder is not None:
        return _model_side(name, _folder_side(head, folder), model)
    weights = _holds_weights(Path(name))
    try:
        chosen = run or latest_run(store, suite)
        return _model_side(name, _folder_side(chosen.name, chosen), name)
    except NothingMeasuredError:
        # After the models: a folder `student` in the working directory must not hide the student of a run.
        if weights:
            return _checkpoint_side(name, store)
        raise


def results_folder(name: str, store: Store) -> Path | None:
    """The folder of a run or of scored videos that a path or a run's name means, or None."""
    return _folder_with(RESULTS_FILE, name, store)


def named_folder(name: str, store: Store, suite: str | None) -> Path | None:
    """As `results_folder`, or the newest finished run (of `suite`) for the name `latest`."""
    folder = results_folder(name, store)
    return latest_run(store, suite) if folder is None and name == LATEST else folder


def _folder_with(file: str, name: str, store: Store) -> Path | None:
    folders = (Path(name), store.root / "runs" / name) if name else ()
    return next((folder for folder in folders if is_file(folder / file)), None)


def _folder_side(name: str, folder: Path) -> Side:
    whole = (folder / RUN_FILE).exists()
    return Side(name, folder.resolve().name, tuple(read_records(folder)), whole)


def _model_side(name: str, side: Side, model: str) -> Side:
    if model not in side.models:
        holders = _of_role(side.records, model)
        if len(holders) > 1:
            raise SuiteError(f"{side.source} has several models of role {model!r}: name one of {', '.join(holders)}")
        model = holders[0] if holders else model
    found = side.of(model)
    return Side(name, found.source, found.records)


def _of_role(records: Iterable[Record], role: str) -> list[str]:
    return sorted({record.score.model for record in records if record.row.role == role})


def _holds_weights(folder: Path) -> bool:
    try:
        # A pipeline's parts are its own folders. Not all that is below: a whole disk would be a checkpoint.
        weights = next(chain(folder.glob("*.safetensors"), folder.glob("*/*.safetensors")), None)
        return weights is not None and any((folder / name).is_file() for name in CHECKPOINT_FILES)
    except (OSError, ValueError):
        return False


def _checkpoint_side(name: str, store: Store) -> Side:
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
            return Side(name, folder.name, tuple(found))
    # Runs of before their lines said which checkpoint they measured.
    for row in reversed(read_leaderboard(store.root / LEADERBOARD)):
        if row.checkpoint_sha == sha and (store.root / "runs" / row.run_id / RESULTS_FILE).is_file():
            side = _folder_side(name, store.root / "runs" / row.run_id).of(row.model)
            return Side(name, side.source, side.records)
    raise NothingMeasuredError(
        f"{name} is a checkpoint ({sha}) that no run under {store.root / 'runs'} has scored; run a suite with it"
    )


def whole_run(name: str, store: Store) -> tuple[Path, list[Record]]:
    """The folder and the scores of a run or of scored videos: by the folder, the run's name, or `latest`.

    Raises:
        SuiteError: there is no such run.
        NothingMeasuredError: it did not come to an end, or there is no finished run that could be the latest.
        BenchError: it cannot be read.
    """
    folder = results_folder(name, store) or _folder_with(RUN_FILE, name, store)
    if folder is None and name == LATEST:
        folder = latest_run(store)
    if folder is None:
        raise SuiteError(
            f"{name}: no such run; give its folder, its name under {store.root / 'runs'}, or latest for the newest"
        )
    if (folder / RUN_FILE).exists() and read_run(folder)["status"] == "running":
        raise NothingMeasuredError(f"{folder} did not come to its end; the command that started it continues it")
    return folder, read_records(folder) if (folder / RESULTS_FILE).exists() else []
