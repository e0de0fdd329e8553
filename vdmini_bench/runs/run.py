"""Run a suite: prepare the data, execute what is missing job by job, and write every result as it comes."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from vdmini_bench.compare.against import against_lines, remarks
from vdmini_bench.compare.multiplied import multiplied_lines
from vdmini_bench.compare.published import published_lines
from vdmini_bench.config.suite import Suite
from vdmini_bench.config.vbench import VBenchSuite
from vdmini_bench.errors import BenchError, ExitCode
from vdmini_bench.report.contact_sheet import contact_sheet
from vdmini_bench.report.page import write_report
from vdmini_bench.results.leaderboard import add_rows
from vdmini_bench.results.records import read_records
from vdmini_bench.results.score import SCHEMA, Row
from vdmini_bench.results.store import Store
from vdmini_bench.results.table import wide_table
from vdmini_bench.results.versions import STAGE_VERSIONS
from vdmini_bench.runs.examples import example_clips, keep_examples
from vdmini_bench.runs.execution import LOG, Executed, SkippedError, execute
from vdmini_bench.runs.rows import Publisher
from vdmini_bench.suites.context import SuiteContext
from vdmini_bench.suites.kind import prepare_suite
from vdmini_bench.system.files import write_atomically
from vdmini_bench.system.progress import say
from vdmini_bench.system.tables import markdown_table

if TYPE_CHECKING:
    from vdmini_bench.runs.tasks import Place

RUN_FILE = "run.json"
LEADERBOARD = "leaderboard.csv"
PUBLISHED = "what others report, on their hardware and clips"
BY_VALUES = "By values alone, whatever their errors:"


@dataclass(frozen=True)
class RunResult:
    """What a run left: its folder, its rows, how it ended and what it had to do.

    `tables` are for people, each with its title, and `remarks` what follows from them in words.
    """

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
    tables: tuple[tuple[str, tuple[list[str], list[list[str]]]], ...] = ()
    remarks: tuple[str, ...] = ()

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


def run_suite(
    suite: Suite | VBenchSuite, results: Path, workers: int = 1, place: Place | None = None, *, listed: bool = True
) -> RunResult:
    """Run all jobs of a suite that are not done yet; a failed job stops only what needs it.

    `workers` processes decode; no result depends on how many. Jobs run here one after the other, or as tasks in a
    `place`. The leaderboard takes the rows where they are to be `listed`.
    """
    started = time.monotonic()
    store, kind = Store(results), prepare_suite(suite, results)
    opened = kind.open(store, machine=place.machine if place else "")
    assert isinstance(opened, SuiteContext)
    run_id = store.open_run(suite.name, suite.sha).name
    context = replace(opened, workers=workers, run_id=run_id)
    run_dir = store.root / "runs" / run_id
    for warning in context.warnings():
        say(f"warning: {warning}")
    _write_record(run_dir, context, "running")
    problems: list[BenchError] = []
    rows: list[Row] = []
    cached, publisher = 0, Publisher(context, run_dir)
    for each in _executed(context, run_dir / LOG, place):
        problems += [] if each.problem is None else [each.problem]
        cached += each.cached
        rows += publisher.publish(each.job, each.problem)
    skipped = sum(isinstance(problem, SkippedError) for problem in problems)
    tables, told = _views(context, run_dir, rows)
    result = RunResult(
        run_id, run_dir, max((each.exit_code for each in problems), default=ExitCode.OK), suite.profile_name,
        tuple(rows), time.monotonic() - started, len(context.jobs) - cached - skipped, cached,
        tuple(map(str, problems)), suite.profile.stand_in, tables, told,
    )  # fmt: skip
    _write_record(run_dir, context, result.status)
    if listed:
        add_rows(results / LEADERBOARD, rows)
    _write_views(context, run_dir, result, complete=not problems)
    return result


def _executed(context: SuiteContext, log: Path, place: Place | None) -> Iterator[Executed]:
    if place is None:
        return execute(context, context.jobs.values(), log)
    from vdmini_bench.runs.tasks import execute_in_tasks

    return execute_in_tasks(context, context.jobs.values(), log, place)


def _views(
    context: SuiteContext, run_dir: Path, rows: list[Row]
) -> tuple[tuple[tuple[str, tuple[list[str], list[list[str]]]], ...], tuple[str, ...]]:
    """The tables of a run with their titles, those that have lines, and remarks."""
    if not rows:
        return (), ()
    profile, records = context.suite.profile, read_records(run_dir)
    tables = {
        f"{context.suite.name}, profile {context.suite.profile_name}": wide_table(rows),
        "differences to the baseline, 95 % intervals": against_lines(records, profile.measures, profile.baseline),
        "what multiplies": multiplied_lines(records, profile.measures, profile.baseline),
        PUBLISHED: published_lines(records, [each.model_dump() for each in profile.published]),
    }
    told = remarks(records, profile.measures, profile.baseline)
    return tuple((title, table) for title, table in tables.items() if table[1]), tuple(told)


def _write_views(context: SuiteContext, run_dir: Path, result: RunResult, complete: bool) -> None:
    """Write what a person looks at: the tables, the report, and the contact sheet where all models have clips."""
    parts = [markdown_table(*table) for _, table in result.tables]
    parts += ["\n".join([BY_VALUES, "", *(f"- {remark}" for remark in result.remarks)])] if result.remarks else []
    parts += [result.stand_in] if result.stand_in else []
    write_atomically(run_dir / "table.md", "\n\n".join(parts) + "\n")
    if complete:
        clips = example_clips(context)
        contact_sheet(run_dir / "contact_sheet.png", clips)
        keep_examples(context, run_dir, clips)
    write_report(run_dir)


def _write_record(run_dir: Path, context: SuiteContext, status: str) -> None:
    suite = context.suite
    record = {
        "schema": SCHEMA,
        "status": status,
        "argv": sys.argv,
        "suite": suite.model_dump(),
        "suite_sha": suite.sha,
        "fingerprint": asdict(context.fingerprint),
        "inputs": asdict(context.inputs),
        "stages": STAGE_VERSIONS,
        "baseline": suite.profile.baseline,
        "models": {
            row: {
                "measures": measures,
                "trainings": len(context.graph.of_row(row)),
                "sampling": suite.profile.sampling(suite.profile.models[row].sample),
            }
            for row, measures in suite.profile.measures.items()
        },
        "warnings": context.warnings(),
        "jobs": [{"name": job.name, "key": job.key, "needs": job.needs} for job in context.jobs.values()],
    }
    write_atomically(run_dir / RUN_FILE, json.dumps(record, indent=1))
