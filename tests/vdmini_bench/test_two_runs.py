"""Two runs that share a results folder, and what is left when one of them is killed."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

import forked

from vdmini_bench.results.store import Store

# Works until it is told to stop.
RUN = """
import sys
import time
from pathlib import Path
from vdmini_bench.results.store import Store
from vdmini_bench.runs import execution
from vdmini_bench.suites.context import RunContext
from vdmini_bench.suites.job_graph import Job, JobGraph

results, sys.stderr = Path(sys.argv[1]), sys.stdout

def work(context, subject, folder):
    with (folder / "attempts").open("a") as file:
        file.write("x")
    print("works", flush=True)
    while not (results / "enough").exists():
        time.sleep(0.05)

execution.stage_named = lambda name: work
job = Job("sample", "teacher", "k", (), 1.0)
context = RunContext(Store(results), None, "", None, None, JobGraph({}, {job.name: job}))
execution.execute_job(context, job)
"""
WORKS, WAITS = "works\n", "another process works on sample-k; waiting for it\n"


def start(results: Path) -> AbstractContextManager[forked.Forked]:
    return forked.started("-c", RUN, results)


def test_a_job_is_done_once_whoever_comes_meanwhile(tmp_path: Path) -> None:
    with start(tmp_path) as first:
        assert first.stdout.readline() == WORKS
        with start(tmp_path) as second:
            assert second.stdout.readline() == WAITS
            (tmp_path / "enough").touch()
            done = second.finish()
        assert (done.stdout, done.returncode, first.finish().returncode) == ("", 0, 0)
    assert (tmp_path / "work" / "sample-k" / "attempts").read_text() == "x"
    assert Store(tmp_path).is_done("sample", "k")


def test_a_killed_process_holds_nobody_up_and_its_work_is_continued(tmp_path: Path) -> None:
    with start(tmp_path) as first:
        assert first.stdout.readline() == WORKS
        with start(tmp_path) as second:
            assert second.stdout.readline() == WAITS
            first.process.kill()
            assert second.stdout.readline() == WORKS
            (tmp_path / "enough").touch()
            assert second.finish().returncode == 0
    assert (tmp_path / "work" / "sample-k" / "attempts").read_text() == "xx"
