"""Ctrl-C and kills, of a command that works in several processes: none is left, and what is said is said once."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from results_of_runs import FVD, row

from vdmini_bench.results.leaderboard import add_rows
from vdmini_bench.system.program import expected_failures

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/cmdline").exists(), reason="looks at processes as Linux shows them"
)
COMMAND = """
import os, sys, time
import click
from vdmini_bench.system.program import expected_failures
from vdmini_bench.system.workers import in_order

def slow(item):
    print(os.getpid(), flush=True)
    # From the third on one worker has nothing to do, which is where an interrupt would have it say so.
    time.sleep(0.5 if item < 2 else 2)
    return item

@click.command()
@expected_failures
def main():
    for _ in in_order(slow, range(3), 2):
        pass

if __name__ == "__main__":
    main()
"""
TASKS = """
import sys, time
from functools import partial
from pathlib import Path
import click
from vdmini_bench.runs import local_tasks
from vdmini_bench.system.program import expected_failures

@click.command()
@expected_failures
def main():
    local_tasks.IMPORTED = []
    local_tasks.prepare_tasks()
    tasks = [local_tasks.LocalExecutor(Path(sys.argv[0]).parent).submit(partial(time.sleep, 100)) for _ in range(2)]
    try:
        print(*(task._process.pid for task in tasks), "at work", sep="\\n", flush=True)
        time.sleep(100)
    finally:
        for task in tasks:
            task.cancel()

if __name__ == "__main__":
    main()
"""


@pytest.fixture(params=[pytest.param(COMMAND, id="workers")])
def running(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[tuple[subprocess.Popen[str], set[int]]]:
    """A command in a group of its own, as a terminal has it, and its two workers."""
    script = tmp_path / "command.py"
    script.write_text(request.param)
    process = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    workers: set[int] = set()
    while len(workers) < 2:
        workers.add(int(process.stdout.readline()))
    yield process, workers
    # Workers that were left behind, too: they hold the other end of what is read here.
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


@pytest.mark.parametrize(
    "running", [pytest.param(COMMAND, id="workers"), pytest.param(TASKS, id="tasks")], indirect=True
)
def test_an_interrupt_of_the_whole_group_ends_it_with_one_line(running: tuple[subprocess.Popen[str], set[int]]) -> None:
    process, workers = running
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(0.2)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said == "interrupted; the same command continues where it stopped\n"
    assert not any(map(lives, workers))


def test_workers_end_when_their_parent_is_killed(running: tuple[subprocess.Popen[str], set[int]]) -> None:
    process, workers = running
    process.kill()
    process.wait()
    until = time.monotonic() + 30
    while any(map(lives, workers)):
        assert time.monotonic() < until
        time.sleep(0.05)


LIMITED = """
import resource, sys
from vdmini_bench.cli import main
# No file may have more bytes: to a program the same as a disk that is full.
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
main(["leaderboard", "merge", sys.argv[1], "-o", sys.argv[2]])
"""


def test_a_disk_that_is_full_is_said_in_one_line_and_nothing_is_lost(tmp_path: Path) -> None:
    rows = [row(FVD, run_id=f"run-{number}") for number in range(20)]
    source, target = tmp_path / "a.csv", tmp_path / "b.csv"
    add_rows(source, rows)
    add_rows(target, rows[:2])
    before = target.read_bytes()
    command = [sys.executable, "-c", LIMITED, str(source), str(target)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 4
    assert "File too large" in done.stderr
    assert "Traceback" not in done.stderr
    assert target.read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} <= {"a.csv", "b.csv", "a.csv.lock", "b.csv.lock"}


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EDQUOT])
def test_a_disk_that_fails_anywhere_ends_a_command_in_one_line(number: int) -> None:
    @click.command()
    @expected_failures
    def fails() -> None:
        raise OSError(number, os.strerror(number), "/results/run.json")

    result = CliRunner().invoke(fails)
    assert result.exit_code == 4
    assert os.strerror(number) in result.stderr
    assert "the same command continues" in result.stderr


def test_other_mistakes_keep_their_traceback() -> None:
    @click.command()
    @expected_failures
    def fails() -> None:
        raise FileNotFoundError(errno.ENOENT, "gone", "x")

    assert isinstance(CliRunner().invoke(fails).exception, FileNotFoundError)


def lives(process: int) -> bool:
    try:
        # One that nobody has waited for yet still has a number, but no command any more.
        return bool(Path(f"/proc/{process}/cmdline").read_bytes())
    except OSError:
        return False
