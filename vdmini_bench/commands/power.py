"""The command that says what a protocol can see, before it is run."""

from __future__ import annotations

import json
from pathlib import Path

import click

from vdmini_bench.commands.options import JSON, OVERRIDES, PATH, PROFILE, RESULTS, shipped_or_own
from vdmini_bench.system.tables import print_table


@click.command()
@click.argument("suite", type=PATH, callback=shipped_or_own)
@PROFILE
@OVERRIDES
@RESULTS
@JSON
def power(
    suite: Path, profile: str | None, overrides: tuple[str, ...], results: Path, as_json: bool
) -> None:  # fmt: skip
    """Predict what SUITE's clips can show, and run nothing: the smallest loss of motion and content each metric sees.

    A loss of 10 % means that every tenth clip is lost: it stands still (motion), or is blurred (content). It is seen
    where the 95 % interval of `compare` leaves 0 out. The predictions are of the embedded synthetic world, a stand-in.
    """
    from vdmini_bench.config.vbench import load_any_suite
    from vdmini_bench.studies.power_suite import SHARES, predict_suite

    chosen = load_any_suite(suite, profile, overrides)
    lines = predict_suite(chosen, results)
    if as_json:
        rows = [line.to_json() for line in lines]
        click.echo(json.dumps({"suite": chosen.name, "profile": chosen.profile_name, "stand_in": True, "rows": rows}))
        return
    header = [
        "metric",
        "loss of",
        "blocks x clips",
        "seen in 80 % from",
        *(f"clips for {share:.0%}" for share in SHARES),
    ]
    title = f"suite {chosen.name}, profile {chosen.profile_name}: what two rows of its table can show; nothing was run"
    print_table(title, header, [line.cells() for line in lines])
    click.echo(
        "a loss of 10 %: every tenth clip stands still (motion) or is blurred by 2 of 32 pixels (content)\n"
        "a stand-in: measured on synthetic clips of 10 frames of 32x32, whatever the suite's own; other worlds differ"
    )
    if any(line.measured for line in lines):
        click.echo("~: from larger blocks than were measured, continued as 1 / sqrt(clips)")
    if any(line.gains for line in lines):
        click.echo("(gain): the loss is seen, and passes for a better score")
