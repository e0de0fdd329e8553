"""The command that trains and scores the arms of an ablation."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from vdmini_bench.commands.options import DOWNLOAD, JSON, PATH, RESULTS
from vdmini_bench.system.files import write_atomically
from vdmini_bench.system.progress import quiet_libraries
from vdmini_bench.system.tables import markdown_table, print_table


@click.command()
@click.argument("ablation", type=PATH)
@click.option("--profile", help="A profile of the ablation; its default one when not given.")
@RESULTS
@DOWNLOAD
@JSON
def ablate(ablation: Path, profile: str | None, results: Path, download: bool, as_json: bool) -> None:
    """Train and score every arm of ABLATION with each training seed; what is done already is not done again."""
    from vdmini_bench.config.ablation import load_ablation
    from vdmini_bench.models.sampling import fetch_model
    from vdmini_bench.studies.ablation import run_ablation, summarise, summary_lines, write_scores
    from vdmini_bench.studies.plots import plot_ablation

    quiet_libraries()
    chosen = load_ablation(ablation, profile)
    if download:
        fetch_model(chosen.suite_of(chosen.profile.reference, 0).profile.teacher)
    folder = results / chosen.name / chosen.profile_name
    reference, note = chosen.profile.reference, chosen.stand_in
    summaries = []
    for scores in run_ablation(chosen, results):
        # After every training: an interrupted ablation leaves a table of what it has.
        summaries = summarise(scores, reference)
        write_scores(folder / "scores.csv", scores)
        table = markdown_table(*summary_lines(summaries, reference))
        write_atomically(folder / "table.md", f"{table}\n\n{note}\n" if note else f"{table}\n")
    plot_ablation(summaries, folder / "ablation.png", note)
    if as_json:
        click.echo(json.dumps([asdict(each) for each in summaries]))
        return
    print_table(f"{chosen.name}, profile {chosen.profile_name}", *summary_lines(summaries, reference))
    if note:
        click.echo(note)
    click.echo(f"scores, table and picture: {folder}")
