"""The commands that show and copy the suites that come with the package."""

from __future__ import annotations

import json
from pathlib import Path

import click
import yaml

from vdmini_bench.commands.options import JSON, PATH
from vdmini_bench.config.shipped import find_suite, shipped_suites
from vdmini_bench.errors import SuiteError
from vdmini_bench.system.files import check_can_write
from vdmini_bench.system.tables import print_table


@click.group()
def suites() -> None:
    """The suites that come with the package: `run` takes them by name."""


@suites.command("list")
@JSON
def list_suites(as_json: bool) -> None:
    """Each suite, its profiles, the default one first, and what it is for."""
    found = {name: _described(path) for name, path in shipped_suites().items()}
    if as_json:
        click.echo(
            json.dumps({name: {"profiles": profiles, "about": about} for name, (profiles, about) in found.items()})
        )
        return
    lines = [[name, ", ".join(profiles), about] for name, (profiles, about) in found.items()]
    print_table("suites", ["name", "profiles", "what for"], lines)


@suites.command()
@click.argument("name")
@click.option("-o", "--output", type=PATH, help="NAME.yaml here when not given.")
def copy(name: str, output: Path | None) -> None:
    """Write the suite NAME into a file of your own, to be changed."""
    source = find_suite(name)
    target = output or Path(f"{source.stem}.yaml")
    check_can_write(target)
    if target.exists():
        raise SuiteError(f"{target} exists already: give another file with -o")
    target.write_bytes(source.read_bytes())
    click.echo(f"wrote {target}; run it: vdmini-bench run {target}")


def _described(path: Path) -> tuple[list[str], str]:
    """A suite's profiles, the default one first, and its first comment."""
    text = path.read_text(encoding="utf-8")
    data = yaml.safe_load(text)
    profiles = sorted(data["profiles"], key=lambda name: name != data["default_profile"])
    return profiles, text.partition("\n")[0].removeprefix("# ")
