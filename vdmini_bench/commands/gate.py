"""The command that lets a change pass or not: a run against a baseline."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vdmini.model_card import markdown_text
from vdmini_bench.commands.options import PATH, RESULTS, with_format
from vdmini_bench.compare.baseline import read_baseline, update_baseline
from vdmini_bench.errors import ExitCode, NothingMeasuredError
from vdmini_bench.results.runs import whole_run
from vdmini_bench.results.store import Store
from vdmini_bench.system.tables import Format, number_cell, show_table

if TYPE_CHECKING:
    from vdmini_bench.compare.gate import Verdict
    from vdmini_bench.results.score import Row

# What programs read, of several outcomes the one that decides the exit code, and what people do.
OUTCOMES = {
    ExitCode.OK: ("passed", "passed"),
    ExitCode.REGRESSION: ("regression", "regression"),
    ExitCode.INCOMPLETE: ("incomplete", "incomplete: some of what is gated was not measured"),
    ExitCode.NOT_COMPARABLE: ("not comparable", "not comparable with the baseline"),
}
NO_BASELINE, WRITTEN = "no baseline", "baseline written"
NOTHING_GATED = "nothing was gated: no metric that the thresholds name is in the run or the baseline"
HEADER = ["model", "metric", "baseline", "value", "change", "may be worse by", "verdict"]


@click.command()
@click.argument("run")
@click.option("--baseline", required=True, type=PATH, help="CSV in the leaderboard's format.")
@click.option("--thresholds", type=PATH, help="YAML; the package's own when not given.")
@click.option("--update", is_flag=True, help="Make this run the baseline of its suite, profile and machine; exit 0.")
@click.option("--add", is_flag=True, help="Add this run to the baseline's: three and more tell the noise; exit 0.")
@click.option("--require-baseline", is_flag=True, help="Exit 2 instead of 0 where there is no baseline yet.")
@click.option("--allow-unlike", is_flag=True, help="Judge across machines, protocols and versions, and mark it.")
@RESULTS
@with_format
def gate(
    run: str, baseline: Path, thresholds: Path | None, update: bool, add: bool, require_baseline: bool,
    allow_unlike: bool, results: Path, form: Format,
) -> None:  # fmt: skip
    """Judge RUN (its folder, its name, or latest) against a baseline.

    Exit codes: 0 passed, or no baseline yet; 1 a regression; 2 a wrong file or option; 3 a gated metric is missing from
    the run or from the baseline; 5 another machine, protocol, version or number of samples.
    """
    from vdmini_bench.compare.gate import exit_code, has_baseline, judge
    from vdmini_bench.config.thresholds import load_thresholds

    limits = load_thresholds(thresholds)
    folder, records = whole_run(run, Store(results))
    rows = [record.row for record in records]
    if not rows:
        raise NothingMeasuredError(f"{folder} has measured nothing, which is no regression; run the suite again")
    known = read_baseline(baseline)
    verdicts = []
    if has_baseline(rows, known):
        verdicts = judge(rows, known, limits, allow_unlike)
        code = exit_code(verdicts) if verdicts else ExitCode.INCOMPLETE
        status, headline = OUTCOMES[code]
        headline = headline if verdicts else NOTHING_GATED
    else:
        what = f"holds nothing of suite {rows[0].suite}" if baseline.exists() else "is not there"
        code = ExitCode.USAGE if require_baseline else ExitCode.OK
        status = NO_BASELINE
        headline = f"no baseline yet: {baseline} {what}, so nothing was gated; take this run with --update"
    if update or add:
        update_baseline(baseline, rows, add)
        code, status, headline = ExitCode.OK, WRITTEN, f"{WRITTEN}: {baseline}"
    if form == "json":
        outcome = {"exit_code": int(code), "status": status, "headline": headline}
        found = [*map(asdict, verdicts)]
        click.echo(json.dumps({**outcome, "run": folder.resolve().name, "baseline": str(baseline), "verdicts": found}))
    else:
        _show(form, headline, folder, baseline, rows, verdicts)
    sys.exit(code)


def _show(
    form: Format, headline: str, folder: Path, baseline: Path, rows: Sequence[Row], verdicts: Sequence[Verdict]
) -> None:
    told = [verdict for verdict in verdicts if verdict.verdict != "ok" or verdict.unlike]
    messages = [f"{each.verdict}: {each.model} {each.metric}: {each.reason}{_mark(each, True)}" for each in told]
    if form == "markdown":
        click.echo(f"### vdmini-bench gate: {markdown_text(headline)}\n")
    if verdicts or form not in ("table", "markdown"):
        lines, records = [_line(verdict) for verdict in verdicts], [*map(asdict, verdicts)]
        show_table(form, f"{folder.name} against {baseline}", HEADER, lines, records)
    if form == "markdown":
        bullets = "".join(f"- {markdown_text(message)}\n" for message in messages)
        row = rows[0]
        where = f"run {folder.resolve().name}, commit {row.commit}, machine {row.machine_id}, torch {row.torch}"
        click.echo(f"\n{bullets}\n{markdown_text(where)}")
        if row.note:
            click.echo(f"\n{markdown_text(row.note)}")
    elif form == "table":
        for message in messages:
            click.echo(message)
        click.echo(f"gate: {headline}")


def _mark(verdict: Verdict, why: bool) -> str:
    """What marks a verdict on what is not alike, and why it is not."""
    if not verdict.unlike or verdict.verdict == "unlike":
        return ""
    return f" (unlike: {'; '.join(verdict.unlike)})" if why else " (unlike)"


def _line(verdict: Verdict) -> list[str]:
    change = None if verdict.baseline is None or verdict.value is None else verdict.value - verdict.baseline
    numbers = map(number_cell, (verdict.baseline, verdict.value, change, verdict.threshold))
    return [verdict.model, verdict.metric, *numbers, verdict.verdict + _mark(verdict, False)]
