"""A run by its folder, by its name, or as the newest one."""

from __future__ import annotations

from pathlib import Path

from vdmini_bench.errors import NothingMeasuredError, SuiteError
from vdmini_bench.results.records import RUN_FILE, Record, is_file, read_records, read_run
from vdmini_bench.results.score import RESULTS_FILE
from vdmini_bench.results.store import Store

# The newest finished run.
LATEST = "latest"


def latest_run(store: Store, suite: str | None = None) -> Path:
    """The newest finished run folder, of one suite when given; raises NothingMeasuredError where there is none."""
    for folder in reversed(store.runs()):
        record = read_run(folder)
        if record["status"] != "running" and suite in (None, record["suite"]["name"]):
            return folder
    raise NothingMeasuredError(
        f"no finished run under {store.root / 'runs'}; start one: vdmini-bench run suites/ucf101.yaml"
    )


def results_folder(name: str, store: Store, file: str = RESULTS_FILE) -> Path | None:
    """The folder of a run or of scored videos, with that file in it, that a path or a run's name means, or None."""
    folders = (Path(name), store.root / "runs" / name) if name else ()
    return next((folder for folder in folders if is_file(folder / file)), None)


def named_folder(name: str, store: Store, suite: str | None) -> Path | None:
    """As `results_folder`, or the newest finished run (of `suite`) for the name `latest`."""
    folder = results_folder(name, store)
    return latest_run(store, suite) if folder is None and name == LATEST else folder


def named_model(name: str, store: Store, suite: str | None) -> tuple[Path, str] | None:
    """The folder and the model that `RUN:MODEL` means, both of which may have colons, or None for no such run."""
    places = [place for place, letter in enumerate(name) if letter == ":"]
    found = ((named_folder(name[:place], store, suite), name[place + 1 :]) for place in places)
    return next(((folder, model) for folder, model in found if folder is not None), None)


def whole_run(name: str, store: Store) -> tuple[Path, list[Record]]:
    """The folder and the scores of a run or of scored videos: by the folder, the run's name, or `latest`.

    Raises:
        SuiteError: there is no such run.
        NothingMeasuredError: it did not come to an end, or there is no finished run that could be the latest.
        BenchError: it cannot be read.
    """
    folder = results_folder(name, store) or results_folder(name, store, RUN_FILE)
    if folder is None and name == LATEST:
        folder = latest_run(store)
    if folder is None:
        raise SuiteError(
            f"{name}: no such run; give its folder, its name under {store.root / 'runs'}, or latest for the newest"
        )
    if (folder / RUN_FILE).exists() and read_run(folder)["status"] == "running":
        raise NothingMeasuredError(f"{folder} did not come to its end; the command that started it continues it")
    return folder, read_records(folder) if (folder / RESULTS_FILE).exists() else []
