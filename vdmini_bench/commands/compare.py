"""The command that sets two models, runs, folders or checkpoints side by side."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vdmini_bench.commands import clips
from vdmini_bench.commands.options import RESULTS, WORKERS, with_format
from vdmini_bench.compare.result_sets import ResultSet, find_result_set
from vdmini_bench.errors import SuiteError
from vdmini_bench.results.records import is_file
from vdmini_bench.results.runs import results_folder
from vdmini_bench.results.store import Store
from vdmini_bench.system.tables import Format, interval_cell, show_table

if TYPE_CHECKING:
    from vdmini_bench.compare.deltas import Delta


@click.command()
@click.argument("a")
@click.argument("b")
@click.option("--suite", help="Only runs of this suite: its name or its file.")
@click.option(
    "--run", "run_name", help="The run whose models A and B name: its folder or its name; the newest when not given."
)
@click.option(
    "--allow-unlike",
    is_flag=True,
    help="Compare what differs in protocol, version, sample count or machine, too, and mark each such line.",
)
@click.option(
    "--clips", "pair", is_flag=True, help="Pair the clips of A, such as a teacher, and B by name: content, and motion."
)
@click.option(
    "--frame-network",
    type=click.Choice(["i3d", "inception", "none"]),
    default="i3d",
    show_default=True,
    help="With --clips, what sees content: inception takes the imported weights of FID, none needs no weights.",
)
@click.option(
    "--sequential",
    is_flag=True,
    help="After how many samples it was decided whether B is no worse than A by --margin, where samples pair.",
)
@click.option(
    "--margin", type=click.FloatRange(min=0, min_open=True), help="With --sequential: how much worse is fine."
)
@WORKERS
@RESULTS
@with_format
def compare(
    a: str, b: str, suite: str | None, run_name: str | None, allow_unlike: bool, pair: bool, frame_network: str,
    sequential: bool, margin: float | None, workers: int | None, results: Path, form: Format,
) -> None:  # fmt: skip
    """Compare A and B metric by metric, each difference with its 95 % interval and a verdict.

    A and B are rows of a run (real, static, and the suite's models) or roles; a run's folder or name, or latest, for
    all its models; RUN:MODEL; the folder of records that `score` names; the folder of a checkpoint that a run has
    scored. With --clips they are models of a run that were sampled, RUN:MODEL, or any folders of videos.
    """
    from vdmini_bench.compare.deltas import compare_result_sets, notable_differences

    store = Store(results)
    run = None
    if run_name is not None:
        run = results_folder(run_name, store)
        if run is None:
            raise SuiteError(f"--run {run_name}: no such run; give its folder or its name under {results / 'runs'}")
    name = _suite_name(suite)
    if sequential != (margin is not None):
        raise click.UsageError("--sequential and --margin go together: how much worse B may be, in the metric's units")
    if allow_unlike and (pair or sequential):
        raise click.UsageError("--clips and --sequential pair only what is alike: leave --allow-unlike out")
    if pair:
        if sequential:
            raise click.UsageError("--clips has scores of clips, not of prompts: leave --sequential out")
        folders = clips.folder_of_clips(a, store, run, name), clips.folder_of_clips(b, store, run, name)
        clips.show_comparison((a, b), folders, frame_network, workers, form)
        return
    first, second = (find_result_set(each, store, run, name) for each in (a, b))
    if margin is not None:
        _show_decisions(first, second, margin, form)
        return
    deltas = compare_result_sets(first, second, allow_unlike)
    notes = notable_differences(first, second)
    if form == "json":
        click.echo(json.dumps(_to_json(first, second, deltas, notes)))
        return
    _print_deltas(form, first, second, deltas)
    if form == "table":
        for note in notes:
            click.echo(f"note: {note}")


def _show_decisions(a: ResultSet, b: ResultSet, margin: float, form: Format) -> None:
    from vdmini_bench.compare.until_decided import HEADER, decide_result_sets

    decided = decide_result_sets(a, b, margin)
    records = [each.to_json() for each in decided]
    if form == "json":
        click.echo(json.dumps({"a": a.name, "b": b.name, "margin": margin, "rows": records}))
        return
    title = f"{b.name} against {a.name}, no worse by {margin:g} at most: each said wrongly once in 20 at most"
    show_table(form, title, HEADER, [each.cells() for each in decided], records)


def _suite_name(suite: str | None) -> str | None:
    if suite is None or not is_file(Path(suite)):
        return suite
    from vdmini_bench.config.yaml_file import Document

    return str(Document.read(Path(suite)).data.get("name"))


def _to_json(a: ResultSet, b: ResultSet, deltas: Sequence[Delta], notes: Sequence[str]) -> dict[str, object]:
    ends = [delta for delta in deltas if delta.metric == "latency_end_to_end"]
    return {
        "a": a.name,
        "b": b.name,
        "rows": [delta.to_json() for delta in deltas],
        "speedup": ends[0].a / ends[0].b if len(ends) == 1 and ends[0].a and ends[0].b else None,
        "status": "unlike" if any(delta.unlike for delta in deltas) else "ok",
        "run": a.source if a.source == b.source else "",
        "sources": [a.source, b.source],
        "notes": list(notes),
    }


def _print_deltas(form: Format, a: ResultSet, b: ResultSet, deltas: Sequence[Delta]) -> None:
    several = len({delta.model for delta in deltas}) > 1
    unlike = any(delta.unlike for delta in deltas)
    lines = []
    for delta in deltas:
        *cells, ratio = delta.cells()
        if delta.ratio_interval is not None:
            ratio += f" ({interval_cell(delta.ratio_interval)})"
        lines.append([delta.model, delta.metric, *cells, ratio, delta.basis, delta.verdict, "; ".join(delta.unlike)])
    header = ["model", "metric", a.name, b.name, "difference", "95 % interval", "ratio", "interval from", "verdict"]
    header.append("unlike")
    # Columns that would say nothing.
    shown = slice(None if several else 1, None if unlike else -1)
    where = a.source if a.source == b.source else f"{a.source} and {b.source}"
    title, records = f"{a.name} against {b.name}, {where}", [delta.to_json() for delta in deltas]
    show_table(form, title, header[shown], [line[shown] for line in lines], records)
