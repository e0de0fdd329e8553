"""Two runs that share a results folder, and what is left when one of them is killed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vdmini_bench.errors import BenchError
from vdmini_bench.results.store import Store
from vdmini_bench.runs.execution import perform_job
from vdmini_bench.suites.jobs import Job

JOB = Job("sample", "teacher", "k", (), 1.0)
# Works until it is told to stop.
RUN = """
import sys
from pathlib import Path
from vdmini_bench.execution import perform_job
from vdmini_bench.jobs import Job
from vdmini_bench.store import Store

def work(folder):
    with (folder / "attempts").open("a") as file:
        file.write("x")
    print("works", flush=True)
    sys.stdin.readline()

store = Store(Path(sys.argv[1]))
perform_job(store, Job("sample", "teacher", "k", (), 1.0), work, store.root / "log.txt")
"""


def start(results: Path) -> subprocess.Popen[str]:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, "-c", RUN, str(results)], text=True, **pipes)  # type: ignore[call-overload]


def started(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == "works\n"


def waits(process: subprocess.Popen[str]) -> None:
    assert process.stderr is not None
    assert process.stderr.readline() == "another process works on sample-k; waiting for it\n"


def test_a_job_is_done_once_whoever_comes_meanwhile(tmp_path: Path) -> None:
    first = start(tmp_path)
    started(first)
    second = start(tmp_path)
    waits(second)
    first.communicate("\n")
    assert second.communicate(timeout=60)[0] == ""
    assert first.returncode == second.returncode == 0
    assert (tmp_path / "work" / "sample-k" / "attempts").read_text() == "x"
    assert Store(tmp_path).is_done("sample", "k")


def test_a_killed_process_holds_nobody_up_and_its_work_is_continued(tmp_path: Path) -> None:
    first = start(tmp_path)
    started(first)
    second = start(tmp_path)
    waits(second)
    first.kill()
    first.communicate()
    started(second)
    second.communicate("\n", timeout=60)
    assert second.returncode == 0
    assert (tmp_path / "work" / "sample-k" / "attempts").read_text() == "xx"


def test_a_launch_of_several_processes_does_not_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = start(tmp_path)
    started(first)
    monkeypatch.setitem(os.environ, "LOCAL_RANK", "0")
    monkeypatch.setitem(os.environ, "WORLD_SIZE", "2")
    with pytest.raises(BenchError, match=r"another process works on sample-k .* use --results"):
        perform_job(Store(tmp_path), JOB, lambda _: None, tmp_path / "log.txt")
    first.communicate("\n")
