"""Run a suite: prepare the data, execute what is missing job by job, and write every result as it comes."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from vdmini_bench.config.suite import Suite
from vdmini_bench.config.vbench import VBenchSuite
from vdmini_bench.errors import BenchError, ExitCode
from vdmini_bench.report.contact_sheet import contact_sheet
from vdmini_bench.report.page import write_report
from vdmini_bench.results.leaderboard import add_rows
from vdmini_bench.results.score import SCHEMA, Row
from vdmini_bench.results.store import Store
from vdmini_bench.results.table import wide_table
from vdmini_bench.runs.examples import example_clips, keep_examples
from vdmini_bench.runs.execution import LOG, perform_job
from vdmini_bench.runs.rows import publish_rows
from vdmini_bench.runs.stages import stage_named
from vdmini_bench.suites.context import CommonBench
from vdmini_bench.suites.distributions import Workbench, prepare_inputs
from vdmini_bench.suites.jobs import Job, RunInputs
from vdmini_bench.suites.vbench import prepare_vbench
from vdmini_bench.suites.vbench_context import VBenchBench
from vdmini_bench.system.files import write_atomically
from vdmini_bench.system.fingerprint import take_fingerprint
from vdmini_bench.system.progress import say
from vdmini_bench.system.tables import markdown_table

RUN_FILE = "run.json"
LEADERBOARD = "leaderboard.csv"


@dataclass(frozen=True)
class RunResult:
    """What a run left: its folder, its rows, how it ended and what it had to do."""

    run_id: str
    run_dir: Path
    exit_code: ExitCode
    profile: str
    rows: tuple[Row, ...]
    seconds: float
    ran: int
    cached: int
    problems: tuple[str, ...]
    stand_in: str | None = None

    def to_json(self) -> dict[str, object]:
        """The object that `run --json` prints."""
        return {
            "run_id": self.run_id,
            "run_dir": str(self.run_dir),
            "status": self.status,
            "profile": self.profile,
            "rows": [row.to_json() for row in self.rows],
            "seconds": self.seconds,
            "jobs": {"ran": self.ran, "cached": self.cached},
            "problems": list(self.problems),
        }

    @property
    def status(self) -> str:
        """`complete`, `incomplete` or `failed`."""
        return {ExitCode.OK: "complete", ExitCode.INCOMPLETE: "incomplete"}.get(self.exit_code, "failed")


def run_suite(suite: Suite | VBenchSuite, results: Path, workers: int = 1) -> RunResult:
    """Run all jobs of a suite that are not done yet; a failed job stops only what needs it.

    `workers` processes decode; no result depends on how many.
    """
    started = time.monotonic()
    store = Store(results)
    bench, inputs = _open(suite, store, workers)
    run_dir = store.root / "runs" / bench.run_id
    for warning in bench.warnings():
        say(f"warning: {warning}")
    _write_record(run_dir, bench, inputs, "running")
    problems: dict[str, BenchError] = {}
    rows: list[Row] = []
    ran = cached = 0
    for job in bench.jobs.values():
        blocked = next((need for need in job.needs if need in problems), None)
        if blocked is not None:
            problems[job.name] = SkippedError(f"{job.name}: not run, since it needs {blocked!r}", problems[blocked])
        elif store.is_done(job.stage, job.key):
            cached += 1
        else:
            ran += 1
            try:
                execute_job(bench, job, run_dir / LOG)
            except BenchError as problem:
                problems[job.name] = problem
        rows += publish_rows(bench, job, run_dir, problems.get(job.name))
    code = max((problem.exit_code for problem in problems.values()), default=ExitCode.OK)
    result = RunResult(
        run_dir.name, run_dir, code, suite.profile_name, tuple(rows), time.monotonic() - started, ran, cached,
        tuple(str(problem) for problem in problems.values()), suite.profile.stand_in,
    )  # fmt: skip
    _write_record(run_dir, bench, inputs, result.status)
    add_rows(results / LEADERBOARD, rows)
    _write_views(bench, run_dir, rows, complete=not problems)
    return result


def _open(suite: Suite | VBenchSuite, store: Store, workers: int) -> tuple[CommonBench, RunInputs]:
    """A run that can begin: its surroundings, and the digests of what it reads."""
    fingerprint = take_fingerprint()
    kind: type[CommonBench]
    if isinstance(suite, VBenchSuite):
        kind, start = VBenchBench, prepare_vbench(suite, store, fingerprint)
    else:
        kind, start = Workbench, prepare_inputs(suite, store, fingerprint)
    run_id = store.open_run(suite.name, suite.sha).name
    return kind.of(suite, store, start, run_id, fingerprint, workers), start.inputs


def _write_views(bench: CommonBench, run_dir: Path, rows: list[Row], complete: bool) -> None:
    """Write what a person looks at: the table, the report, and the contact sheet where all models have clips."""
    text = markdown_table(*wide_table(rows))
    stand_in = bench.suite.profile.stand_in
    write_atomically(run_dir / "table.md", f"{text}\n\n{stand_in}\n" if stand_in else f"{text}\n")
    if complete:
        clips = example_clips(bench)
        contact_sheet(run_dir / "contact_sheet.png", clips)
        keep_examples(bench, run_dir, clips)
    write_report(run_dir)


class SkippedError(BenchError):
    """A job that was not run because of another; it ends the run as that other does."""

    def __init__(self, message: str, cause: BenchError) -> None:
        super().__init__(message)
        self.exit_code, self.cause = cause.exit_code, cause

    @property
    def note(self) -> str:
        """That of the job which failed."""
        return self.cause.note


def execute_job(bench: CommonBench, job: Job, log: Path | None = None) -> None:
    """Run one job of a suite and mark it done; `log` takes the traceback, the results folder's own when None.

    Raises:
        BenchError: whatever went wrong, with the job's name.
    """
    stage = stage_named(job.stage)
    perform_job(bench.store, job, lambda folder: stage(bench, job.subject, folder), log or bench.store.root / LOG)


def _write_record(run_dir: Path, bench: CommonBench, inputs: RunInputs, status: str) -> None:
    suite = bench.suite
    record = {
        "schema": SCHEMA,
        "status": status,
        "argv": sys.argv,
        "suite": suite.model_dump(),
        "suite_sha": suite.sha,
        "fingerprint": asdict(bench.fingerprint),
        "inputs": asdict(inputs),
        "warnings": bench.warnings(),
        "jobs": [{"name": job.name, "key": job.key, "needs": job.needs} for job in bench.jobs.values()],
    }
    write_atomically(run_dir / RUN_FILE, json.dumps(record, indent=1))
