"""Everything that only a GPU can show, in order of value, within a budget: `python -m vdmini_bench.gpu --minutes 9`.

Each task is a process of its own, so that one that fails or runs out of memory takes no other with it. Its result is
written when it ends; a repeated call goes on with what is not there yet.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import click

from vdmini_bench.errors import ExitCode
from vdmini_bench.system.files import write_atomically
from vdmini_bench.system.program import Program
from vdmini_bench.system.progress import prepare_torch, quiet_libraries, say

ROOT = Path(__file__).parents[1]
SUITE = ROOT / "suites" / "speed.yaml"
TAIL = 4000
LEAST_LIMIT = 120.0


@dataclass(frozen=True)
class Task:
    """One process: `seconds` is what it should take on a large card, and decides whether it is still begun."""

    name: str
    command: tuple[str, ...]
    seconds: float


def tasks(folder: Path) -> list[Task]:
    """All tasks, the most valuable first; what they leave besides their result lies in `folder`."""
    from vdmini_bench.config.speed import load_speed_suite

    python = sys.executable
    entries = [*load_speed_suite(SUITE, "gpu").entries]

    def speed(entry: str, seconds: float) -> Task:
        command = (python, "-m", "vdmini_bench", "speed", str(SUITE), "--profile", "gpu", "--entry", entry)
        return Task(f"speed-{entry}", (*command, "-o", str(folder / "speed")), seconds)

    def step(model: str, plan: str, seconds: float, suffix: str = "") -> Task:
        name = f"distill-step-{model}{suffix}"
        command = (python, "-m", "vdmini_bench.gpu", "step", model, plan, "-o", str(folder / f"{name}.step.json"))
        return Task(name, command, seconds)

    def speeds(names: Sequence[str]) -> list[Task]:
        return [speed(name, _entry_seconds(name)) for name in names]

    # Another torch has other warnings than those that our own tests are silent about.
    options = ("-q", "-p", "no:cacheprovider", "-W", "default", "--tb", "short")
    tests = (python, "-m", "pytest", *options, str(ROOT / "tests" / "cuda"))
    distil = (python, "-m", "vdmini_bench", "distill", str(ROOT / "suites" / "ucf101.yaml"))
    return [
        *speeds(entries[:1]),
        Task("cuda-tests", tests, 240),
        *speeds(entries[1:3]),
        step("svd", "vdmini", 45),
        step("t2v-turbo-v2", "vdmini", 45),
        *speeds(entries[3:5]),
        step("hunyuanvideo", "every-nth:n=5", 60),
        step("hunyuanvideo", "keep:Dual=4,Single=8", 180, "-12-blocks"),
        *speeds(entries[5:]),
        step("wan2.1-t2v-1.3b", "every-nth:n=5", 60),
        step("cogvideox-2b", "every-nth:n=5", 60),
        step("mochi-1-preview", "every-nth:n=2", 120),
        Task("embedded-distillation", (*distil, "--results", str(folder / "embedded")), 120),
    ]


def _entry_seconds(name: str) -> float:
    # Two passes of HunyuanVideo take some twenty seconds, and each entry makes a dozen of them, or half as many again.
    if name.startswith("hunyuanvideo"):
        return 330 if name.endswith("per-step") else 450
    # Compiling a whole UNet takes a minute; there are two, and each again where a step's shape changes.
    return 300 if name.endswith("compiled") else 75


@dataclass(frozen=True)
class Result:
    """How a task ended; `tail` is the end of what it printed, all of which is in its `.log`; `torch` its version."""

    task: str
    status: str
    seconds: float
    exit_code: int | None
    tail: str
    torch: str


def run_tasks(
    chosen: Sequence[Task], folder: Path, budget: float, clock: Callable[[], float] = time.monotonic
) -> tuple[list[Result], list[str]]:
    """Run what has no good result of this torch yet within a budget of seconds: (results, names of what is left).

    What was never tried comes first, in order, and what failed before after it. A task that takes longer than what is
    left is passed over for a shorter one after it, and stopped when it takes three times as long as it should.
    """
    deadline, results, left = clock() + budget, list[Result](), list[str]()
    for task in sorted(chosen, key=lambda task: _has_failed(folder / f"{task.name}.json")):
        path = folder / f"{task.name}.json"
        if (found := _good_result(path)) is not None:
            results.append(found)
            continue
        remaining = deadline - clock()
        if remaining < task.seconds:
            left.append(task.name)
            continue
        say(f"gpu: {task.name}, {remaining:.0f} s left")
        result = _run(task, min(remaining, max(LEAST_LIMIT, 3 * task.seconds)), folder / f"{task.name}.log")
        write_atomically(path, json.dumps(asdict(result), indent=1) + "\n")
        results.append(result)
    return results, left


def _run(task: Task, limit: float, log: Path) -> Result:
    started = time.monotonic()
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w+b") as printed:
        process = subprocess.Popen(  # noqa: S603 - a list of our own words, no shell
            [*task.command], cwd=ROOT, stdout=printed, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            code: int | None = process.wait(limit)
            status = "failed" if code else "ok"
        except subprocess.TimeoutExpired:
            code, status = None, "out of time"
        finally:
            if process.returncode is None:
                # With the processes that it started in its turn: one that was left would hold the card's memory.
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        printed.seek(0)
        output = printed.read().decode(errors="replace")
    return Result(task.name, status, round(time.monotonic() - started, 1), code, output[-TAIL:], version("torch"))


def _good_result(path: Path) -> Result | None:
    try:
        result = Result(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    # Another torch has other kernels: what it took is another number.
    return result if result.status == "ok" and result.torch == version("torch") else None


def _has_failed(path: Path) -> bool:
    return path.exists() and _good_result(path) is None


def machine_folder(results: Path, gpu: str, machine_id: str) -> Path:
    """Where a machine's results go: its card's name and the identity of its hardware."""
    return results / "gpu" / f"{re.sub('[^a-z0-9]+', '-', gpu.lower()).strip('-')}-{machine_id[:6]}"


@click.group(cls=Program, invoke_without_command=True)
@click.option("--minutes", type=click.FloatRange(min=0), default=9.0, show_default=True, help="The whole budget.")
@click.option("--results", type=click.Path(path_type=Path), default=Path("results"), show_default=True)
@click.option("--task", "names", multiple=True, help="Only this task; may be given several times.")
@click.option("--list", "only_list", is_flag=True, help="Show the tasks and what each takes; run nothing.")
@click.pass_context
def main(context: click.Context, minutes: float, results: Path, names: tuple[str, ...], only_list: bool) -> None:
    """Run what only a GPU can show, the most valuable first; ends with 6 where torch sees no GPU."""
    if context.invoked_subcommand is not None:
        return
    started = time.monotonic()
    if only_list:
        for task in tasks(results / "gpu"):
            click.echo(f"{task.seconds:5.0f} s  {task.name}")
        return
    prepare_torch()
    import torch

    from vdmini_bench.system.fingerprint import take_fingerprint

    if not torch.cuda.is_available():
        click.echo(
            "no GPU: torch sees no CUDA device here, so nothing was run; install torch's CUDA build on a machine with"
            " one, or time smaller models here: vdmini-bench speed suites/speed.yaml --profile cpu",
            err=True,
        )
        sys.exit(ExitCode.NO_DEVICE)
    fingerprint = take_fingerprint()
    folder = machine_folder(results.resolve(), fingerprint.gpu, fingerprint.machine_id)
    write_atomically(folder / "machine.json", json.dumps(asdict(fingerprint), indent=1) + "\n")
    chosen = named(tasks(folder), names)
    found, left = run_tasks(chosen, folder, minutes * 60 - (time.monotonic() - started))
    for result in found:
        click.echo(f"{result.status:12} {result.seconds:6.0f} s  {result.task}")
    for name in left:
        click.echo(f"{'left':12} {'':8}  {name}")
    click.echo(f"results: {folder}")
    failed = any(result.status != "ok" for result in found)
    sys.exit(ExitCode.FAILED if failed else ExitCode.INCOMPLETE if left else ExitCode.OK)


def named(all_tasks: Sequence[Task], names: Sequence[str]) -> list[Task]:
    """The tasks of these names, all where there is none; refuses a name that no task has."""
    unknown = {*names} - {task.name for task in all_tasks}
    if unknown:
        raise click.BadParameter(f"no task {min(unknown)}; --list shows them", param_hint="--task")
    return [task for task in all_tasks if not names or task.name in names]


@main.command()
@click.argument("model")
@click.argument("plan")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The record's .json file.")
def step(model: str, plan: str, output: Path) -> None:
    """Distil MODEL, full-size with random weights, for two steps and record time and peak memory."""
    quiet_libraries()
    import torch

    from vdmini_bench.distill.step_benchmark import distill_step

    record = asdict(distill_step(model, plan, torch.device("cuda")))
    write_atomically(output, json.dumps(record, indent=1) + "\n")
    click.echo(json.dumps(record))


if __name__ == "__main__":
    main()
