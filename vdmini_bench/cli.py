"""The command line: every command parses, calls a few named functions and shows what came back."""

from __future__ import annotations

import json
import sys
from textwrap import fill

import click

from vdmini_bench.commands.assets import assets
from vdmini_bench.commands.clean import clean
from vdmini_bench.commands.clips import sensitivity
from vdmini_bench.commands.compare import compare
from vdmini_bench.commands.depth import depth
from vdmini_bench.commands.distill import distill
from vdmini_bench.commands.gate import gate
from vdmini_bench.commands.leaderboard import leaderboard
from vdmini_bench.commands.lora import lora
from vdmini_bench.commands.models import importance, inspect, plan, prune, sample
from vdmini_bench.commands.options import JSON
from vdmini_bench.commands.power import power
from vdmini_bench.commands.protocol import protocol
from vdmini_bench.commands.push import push
from vdmini_bench.commands.report import report
from vdmini_bench.commands.run import run
from vdmini_bench.commands.schema import schema
from vdmini_bench.commands.score import score
from vdmini_bench.commands.suites import suites
from vdmini_bench.commands.time import speed, time
from vdmini_bench.commands.vbench import vbench
from vdmini_bench.commands.votes import votes
from vdmini_bench.errors import ExitCode
from vdmini_bench.system.program import Program
from vdmini_bench.system.progress import prepare_torch, quiet_libraries
from vdmini_bench.system.tables import print_table

# What the list of commands says of each, by what a user wants.
SECTIONS = {
    "Prune, distil, score and time in one go": {
        "run": "do all that a suite asks for, and print its table",
    },
    "Prune and distil": {
        "inspect": "a model's blocks and costs, and what a plan removes",
        "importance": "what is lost without each block",
        "depth": "what each block carries: content, motion",
        "plan": "the plan that costs least for a target",
        "prune": "a student that inherits the teacher's weights",
        "distill": "train the student from its teacher",
        "lora": "a teacher's adapter (LoRA) for its student",
    },
    "Sample, score and time": {
        "sample": "clips from a model",
        "score": "videos made elsewhere, under a suite's protocol",
        "vbench": "the official VBench, or its dimensions by our own code",
        "sensitivity": "which faults a metric sees",
        "power": "what a suite's clips can show, before it is run",
        "time": "a model and its students side by side",
        "speed": "published sizes with random weights",
    },
    "Compare and keep": {
        "compare": "two results, metric by metric, with intervals",
        "protocol": "what decides a number: show it, or name what differs",
        "gate": "exit 1 where a result is worse than a baseline",
        "report": "a run as one HTML file, or a page to vote on",
        "votes": "merge: people's votes into scores",
        "leaderboard": "show, merge, history",
        "push": "a student with its card to the Hugging Face hub",
        "clean": "free disk space that no run needs",
    },
    "Set up": {
        "doctor": "what works on this machine",
        "assets": "weights and data: list, fetch, import, verify",
        "suites": "list, copy: those that `run` takes by name",
        "schema": "JSON schemas of the files, for editors",
    },
}


def show_version(context: click.Context, parameter: click.Parameter, wanted: bool) -> None:
    """Print the version and the environment, and end."""
    if wanted:
        from vdmini_bench.system.fingerprint import describe_environment

        click.echo("\n".join(describe_environment()))
        context.exit()


@click.group(cls=Program, sections=SECTIONS)
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=show_version, help="Versions.")
def main() -> None:
    """Prune a video diffusion model, distil it, and measure what that cost and what it bought."""
    prepare_torch()


for command in (
    run, inspect, importance, depth, plan, prune, distill, lora, sample, score, vbench, sensitivity, power, time,
    speed, compare, protocol, gate, report, votes, leaderboard, push, clean, assets, suites, schema,
):  # fmt: skip
    main.add_command(command)


@main.command()
@click.option("--all", "in_full", is_flag=True, help="Everything that was looked at, and the next step for each.")
@JSON
def doctor(in_full: bool, as_json: bool) -> None:
    """Say what works here and what does not: versions, device, disk, and what each command lacks."""
    from vdmini_bench.commands.doctor import examine, overview

    quiet_libraries()
    findings = examine()
    if as_json:
        click.echo(json.dumps([{"what": item.what, "state": item.state, "next": item.next} for item in findings]))
    elif in_full:
        print_table("doctor", ["what", "state", "next"], [[item.what, item.state, item.next] for item in findings])
    else:
        for line in overview(findings):
            click.echo(fill(line, 79, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False))
    if not all(item.fine for item in findings):
        sys.exit(ExitCode.FAILED)
