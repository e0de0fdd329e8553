"""The commands that speak to the official VBench: its environment, its prompts, its scores, its leaderboard's zip."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

import click

from vdmini_bench.commands.options import JSON, PATH, led
from vdmini_bench.config.vbench_dimensions import choose_dimensions, mode_named
from vdmini_bench.system.files import write_atomically
from vdmini_bench.system.tables import markdown_table, print_table
from vdmini_bench.vbench.environment import check_environment, create_environment, default_environment, packages_digest
from vdmini_bench.vbench.output import require_writable_file

DIMENSIONS = click.option(
    "--dimensions",
    multiple=True,
    metavar="NAME,...",
    help="Separated by commas, or once for each; all of the mode when not given.",
)
PROMPTS = click.option("--prompts", "prompt_file", type=PATH, help="An official prompt file, in place of ours.")
IMAGES = click.option(
    "--images", type=PATH, help="i2v: one ratio's crops. custom: images named as the videos' prompts."
)
RATIO = click.option("--ratio", type=click.Choice(["1-1", "8-5", "7-4", "16-9"]), help="i2v: of the images animated.")
FILTER = click.option(
    "--static-filter/--no-static-filter",
    "filtered",
    default=True,
    show_default=True,
    help="t2v: score temporal_flickering on the first 5 of 25 samples without motion, as the leaderboard does.",
)


@click.command("vbench")
@click.option("--python", default=sys.executable, help="The Python 3.11 to make it with.")
@click.option("--check", is_flag=True, help="Only look at the one that is there, and say what it lacks.")
@click.option("--again", is_flag=True, help="Make it anew.")
def environment(python: str, check: bool, again: bool) -> None:
    """Make and check the environment of the official VBench: 2.2 GB, a minute or two, once."""
    started = time.monotonic()
    chosen = default_environment()
    if check:
        chosen.require()
        check_environment(chosen)
    else:
        create_environment(chosen, python, again=again)
    record = chosen.require()
    click.echo(f"{chosen.folder}: vbench {record['vbench']}, torch {record['versions']['torch']}, {record['device']}")
    ready = [name for name, problem in record["problems"].items() if problem is None]
    click.echo(f"code for {len(ready)} of {len(record['problems'])} dimensions, {time.monotonic() - started:.0f} s")
    for name, problem in record["problems"].items():
        if problem is not None:
            click.echo(f"  {name}: {problem}")
    click.echo("weights, dimension by dimension: vdmini-bench doctor --all")


@click.group("vbench")
def vbench() -> None:
    """VBench-T2V and VBench-I2V by the official code: prompts, scores, the leaderboard's zip."""


@vbench.command()
@click.argument("folder", type=PATH)
@click.option(
    "--mode", type=click.Choice(["t2v", "i2v", "custom"]), required=True, help="custom: videos of any prompt."
)
@DIMENSIONS
@click.option("-o", "--output", type=PATH, required=True, help="Where results are kept.")
@PROMPTS
@IMAGES
@RATIO
@FILTER
@click.option("--download", is_flag=True, help="Let the official code fetch weights that are missing.")
@click.option(
    "--native",
    is_flag=True,
    help="Score by our own code, on the official weights, the dimensions that it has; the others as always.",
)
@JSON
@led
def score(
    folder: Path, mode: str, dimensions: tuple[str, ...], output: Path, prompt_file: Path | None, images: Path | None,
    ratio: str | None, filtered: bool, download: bool, native: bool, as_json: bool,
) -> None:  # fmt: skip
    """Score the videos in FOLDER; what is in the output folder already is not scored again."""
    from vdmini_bench.vbench.native.catalogue import is_native
    from vdmini_bench.vbench.preparation import RATIOS, find_prompts, images_by_prompt
    from vdmini_bench.vbench.scoring import Scoring, score_videos

    of = mode_named(mode)
    environment, chosen = default_environment(), choose_dimensions(of, dimensions)
    # Where our own code scores everything, no environment is needed.
    packages = "" if native and all(map(is_native, chosen)) else packages_digest(environment.require())
    by_prompt = images_by_prompt(images) if of == "custom" and images is not None else {}
    found = find_prompts(of, prompt_file, images, ratio, environment)
    report = score_videos(
        Scoring(
            folder, output, of, chosen, environment.command, packages, found, by_prompt, ratio or RATIOS[0],
            filtered, download, native,
        )
    )  # fmt: skip
    header, lines = report.lines()
    write_atomically(output / "table.md", f"{markdown_table(header, lines)}\n\n{report.protocol}\n")
    if as_json:
        click.echo(json.dumps(report.to_json()))
    else:
        print_table(f"{folder}, {report.protocol}", header, lines)
        click.echo(f"each video's scores, logs and the official files: {output}")
    if report.totals is not None and report.totals.missing:
        click.echo(f"no total without {', '.join(report.totals.missing)}", err=True)
    for outcome in report.outcomes:
        if outcome.result is None:
            click.echo(f"error: {outcome.error}", err=True)
    sys.exit(report.exit_code)


@vbench.command("zip")
@click.argument("output", type=PATH)
@click.option("-o", "--zip", "target", type=PATH, help="Beside OUTPUT when not given.")
def pack(output: Path, target: Path | None) -> None:
    """Pack what `score -o OUTPUT` kept into the zip that the public leaderboard takes."""
    from vdmini_bench.vbench.submission import write_submission

    chosen = target or output.with_name(f"{output.name}_eval_results.zip")
    mode = write_submission(output, chosen)
    click.echo(f"{chosen}, for the {mode.upper()} leaderboard")


@vbench.command()
@click.option("--mode", type=click.Choice(["t2v", "i2v"]), required=True)
@DIMENSIONS
@click.option("--seed", type=int, default=0, show_default=True, help="What every video's own seed is derived from.")
@click.option("-o", "--output", type=PATH, required=True, help="A .jsonl file, a video a line.")
@PROMPTS
@IMAGES
@RATIO
@FILTER
def prompts(
    mode: str, dimensions: tuple[str, ...], seed: int, output: Path, prompt_file: Path | None, images: Path | None,
    ratio: str | None, filtered: bool,
) -> None:  # fmt: skip
    """Write the videos that the protocol asks for: file name, prompt, seed and image of each."""
    from vdmini_bench.vbench.preparation import find_prompts
    from vdmini_bench.vbench.prompts import request_videos

    require_writable_file(output)
    of = mode_named(mode)
    chosen = choose_dimensions(of, dimensions)
    entries = find_prompts(of, prompt_file, images, ratio, default_environment())
    requests = request_videos(entries, chosen, seed, filtered=filtered and of == "t2v")
    lines = [
        json.dumps({**asdict(request), "name": f"{request.name}.mp4", "image": request.image and str(request.image)})
        for request in requests
    ]
    write_atomically(output, "".join(f"{line}\n" for line in lines))
    click.echo(f"{len(requests):,} videos of {len({request.prompt for request in requests}):,} prompts: {output}")
