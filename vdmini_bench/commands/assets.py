"""The commands that fetch, import and check weights and data."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from vdmini_bench.assets.cache import asset_path, fetch_asset, import_asset, verify_asset
from vdmini_bench.assets.catalogue import ASSETS
from vdmini_bench.commands.options import JSON, PATH
from vdmini_bench.commands.vbench import environment
from vdmini_bench.errors import ExitCode
from vdmini_bench.system.tables import print_table


@click.group()
def assets() -> None:
    """Weights and data: list, fetch, import, verify."""


assets.add_command(environment)


@assets.command("list")
@JSON
def assets_list(as_json: bool) -> None:
    """What there is, from where, under which licence, and whether it is here."""
    found = {name: asset_path(name) for name in ASSETS}
    if as_json:
        click.echo(json.dumps({name: None if path is None else str(path) for name, path in found.items()}))
        return
    lines = [
        [
            asset.name,
            "here" if found[asset.name] else "missing",
            f"{asset.size_bytes / 1e6:,.0f} MB" if asset.size_bytes else "unknown",
            asset.licence,
            asset.source,
            asset.needed_for,
        ]
        for asset in ASSETS.values()
    ]
    print_table("assets", ["name", "state", "size", "licence", "from", "needed for"], lines)


@assets.command("fetch")
@click.argument("name")
def assets_fetch(name: str) -> None:
    """Download an asset that a package registry has."""
    click.echo(str(fetch_asset(name)))


@assets.command("import")
@click.argument("name")
@click.argument("path", type=PATH)
def assets_import(name: str, path: Path) -> None:
    """Take over a file or folder you have as asset NAME."""
    from vdmini_bench.metrics.converters import CONVERTERS

    click.echo(str(import_asset(name, path, convert=CONVERTERS)))
    if name == "i3d-torchscript":
        from vdmini_bench.metrics.agreement import imported_agreement

        click.echo(f"against the packaged weights: {imported_agreement()}")


@assets.command("verify")
@click.argument("names", nargs=-1)
def assets_verify(names: tuple[str, ...]) -> None:
    """Check the sha256 of NAMES, or of everything that is here."""
    chosen = names or tuple(name for name in ASSETS if asset_path(name) is not None)
    problems = {name: verify_asset(name) for name in chosen}
    for name, problem in problems.items():
        click.echo(f"{name}: {problem or 'intact'}")
    if not chosen:
        click.echo("no assets here yet; see: vdmini-bench assets list")
    if any(problems.values()):
        sys.exit(ExitCode.FAILED)
