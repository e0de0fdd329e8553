"""Two runs that share a results folder, and what is left when one of them is killed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from vdmini_bench.results.store import Store

# Works until it is told to stop.
RUN = """
import sys
from pathlib import Path
from vdmini_bench.results.store import Store
from vdmini_bench.runs import execution
from vdmini_bench.suites.context import RunContext
from vdmini_bench.suites.jobs import Job

def work(context, subject, folder):
    with (folder / "attempts").open("a") as file:
        file.write("x")
    print("works", flush=True)
    sys.stdin.readline()

execution.stage_named = lambda name: work
job = Job("sample", "teacher", "k", (), 1.0)
context = RunContext(Store(Path(sys.argv[1])), None, "", None, None, {job.name: job})
execution.execute_job(context, job)
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
