"""The command that puts a student on the Hugging Face hub."""

from __future__ import annotations

import json
from pathlib import Path

import click

from vdmini_bench.commands.options import JSON, PATH, RESULTS
from vdmini_bench.system.progress import quiet_libraries, say


@click.command()
@click.argument("student", type=PATH)
@click.argument("repository", metavar="OWNER/NAME")
@click.option("--public", is_flag=True, help="Whoever comes may read it; a new repository is private otherwise.")
@click.option("--dry-run", is_flag=True, help="Show the files and the card; ask nothing of the network.")
@RESULTS
@JSON
def push(student: Path, repository: str, public: bool, dry_run: bool, results: Path, as_json: bool) -> None:
    """Upload STUDENT, a folder that `prune`, `distill` or a run made, with its model card.

    The card has the rows of RESULTS/leaderboard.csv that were measured of these weights. The token is the hub client's:
    `hf auth login`, or HF_TOKEN.
    """
    from vdmini_bench.models.upload import read_student, upload

    quiet_libraries()
    found = read_student(student, results / "leaderboard.csv")
    show = say if as_json else click.echo
    for name, size in found.files.items():
        show(f"{size / 1e6:12,.2f} MB  {name}")
    for line in found.told:
        say(f"warning: {line}")
    seen = "public" if public else "private"
    show(f"{'would go' if dry_run else 'goes'} to {repository}, {seen}; scores in its card: {found.scores}")
    if dry_run and not as_json:
        click.echo(f"\n{found.card}")
    url = None if dry_run else upload(found, repository, public)
    if as_json:
        facts = {"repository": repository, "public": public, "files": found.files, "scores": found.scores}
        click.echo(json.dumps({**facts, "warnings": found.told, "url": url}))
    elif url is not None:
        click.echo(f"uploaded: {url}")
