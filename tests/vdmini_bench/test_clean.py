"""Freeing disk space: what any other run needs stays, and what is worked on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from vdmini_bench.cli import main
from vdmini_bench.results.store import DONE, Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Two runs that share a job, work of a killed run, and a student that no run lists."""
    store = Store(tmp_path / "results")
    for name, keys in (("first", ("a1", "b1")), ("second", ("a1", "b2"))):
        run = store.root / "runs" / name
        run.mkdir(parents=True)
        jobs = [{"name": key, "key": key, "needs": []} for key in keys]
        record = {"status": "ok", "suite": {"name": "s"}, "jobs": jobs}
        (run / "run.json").write_text(json.dumps(record))
    for stage, key in (("sample", "a1"), ("measure", "b1"), ("measure", "b2"), ("distill", "c1")):
        folder = store.work_folder(stage, key)
        folder.mkdir(parents=True)
        (folder / "clips").write_bytes(b"x" * 1000)
        (folder / DONE).write_text("{}")
    (store.root / "work" / "sample-d1").mkdir()
    return store


def clean(store: Store, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["clean", *arguments, "--results", str(store.root)], catch_exceptions=False)


def left(store: Store) -> set[str]:
    return {path.name for path in [*(store.root / "work").iterdir(), *(store.root / "runs").iterdir()]} - {".locks"}


def test_nothing_goes_before_it_was_said(store: Store) -> None:
    before = left(store)
    shown = clean(store, "first").output
    assert "measure-b1" in shown
    assert "sample-a1" not in shown
    assert "add --yes" in shown
    assert "nothing to free" in clean(store).output
    assert left(store) == before


def test_what_another_run_needs_stays(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(store.root)
    assert clean(store, "runs/first", "--yes").exit_code == 0
    assert left(store) == {"second", "sample-a1", "measure-b2", "distill-c1", "sample-d1"}
    clean(store, "second", "--yes")
    assert left(store) == {"distill-c1", "sample-d1"}


def test_work_of_no_run_goes_where_that_is_asked_for(store: Store) -> None:
    shown = clean(store, "--unlisted", "--yes").output
    assert "distill, in no run" in shown
    assert "sample, interrupted, in no run" in shown
    assert left(store) == {"first", "second", "sample-a1", "measure-b1", "measure-b2"}


def test_what_a_process_works_on_stays(store: Store) -> None:
    with store.locked("sample", "d1"):
        clean(store, "--unlisted", "--yes")
    assert "sample-d1" in left(store)


def test_a_run_that_nobody_can_read_stops_it(store: Store) -> None:
    (store.root / "runs" / "second" / "run.json").write_text("{")
    refused = CliRunner().invoke(main, ["clean", "first", "--yes", "--results", str(store.root)])
    assert refused.exit_code not in (0, 1)
    assert "measure-b1" in left(store)
