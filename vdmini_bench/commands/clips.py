"""What shows how clips differ: a teacher's beside a student's, and corrupted ones beside themselves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vdmini_bench.commands.options import JSON, PATH
from vdmini_bench.errors import NothingMeasuredError
from vdmini_bench.results.runs import latest_run, named_model
from vdmini_bench.results.store import Store
from vdmini_bench.system.tables import Format, interval_cell, number_cell, print_table, show_table
from vdmini_bench.system.workers import choose_workers

if TYPE_CHECKING:
    from vdmini_bench.metrics.content import FrameFeatures


def folder_of_clips(name: str, store: Store, run: Path | None, suite: str | None) -> Path:
    """The folder of videos that a name means, tried in this order.

    `RUN:MODEL`; a model of the run `run`, of the newest finished one (of `suite`) when None; a folder.

    Raises:
        NothingMeasuredError: it is no folder, and there is no such run, or it sampled no clips of such a model.
        BenchError: the record of a run cannot be read.
    """
    from vdmini_bench.studies.clip_pairs import clips_of_run

    if (named := named_model(name, store, suite)) is not None:
        return clips_of_run(*named)
    try:
        return clips_of_run(run or latest_run(store, suite), name)
    except NothingMeasuredError:
        # After the models: a checkpoint's folder `student` in the working directory must not hide a run's student.
        if Path(name).is_dir():
            return Path(name)
        raise


def frame_features(network: str) -> FrameFeatures | None:
    """What sees the content of frames: `i3d`, `inception`, or `none`."""
    if network == "none":
        return None
    from vdmini_bench.metrics.frame_features import NetworkFeatures, load_frame_network

    return NetworkFeatures(load_frame_network(network))


def show_comparison(
    names: tuple[str, str], folders: tuple[Path, Path], network: str, workers: int | None, form: Format
) -> None:
    """Compare two folders of clips that pair by name and print what came of it."""
    from vdmini_bench.studies.clip_pairs import compare_clips

    found = compare_clips(*folders, frame_features(network), choose_workers(workers))
    if form == "json":
        click.echo(json.dumps({**found.to_json(), "a": names[0], "b": names[1], "status": "ok"}))
        return
    lines = []
    for row in found.rows:
        numbers = [number_cell(row.value, 4), interval_cell(row.interval), number_cell(row.share, 3)]
        lines.append([row.measure, row.about, *numbers, row.unit or "-"])
    header = ["measure", "about", "mean", "95 % interval", "of unrelated clips", "unit"]
    a, b = names
    show_table(form, f"{b} beside {a}, {found.pairs} pairs of clips", header, lines, found.to_json()["rows"])
    if form != "table":
        return
    if found.motion_distance is not None:
        error = found.motion_distance_error
        click.echo(f"Frechet motion distance of the two sets: {found.motion_distance:.4g} ± {error:.2g}")
    click.echo(f"signed measures are {b} less {a}; measured with {', '.join(found.versions.values())}")


@click.command()
@click.option("--clips-per-block", type=click.IntRange(2), default=20, show_default=True)
@click.option("--blocks", type=click.IntRange(2), default=3, show_default=True)
@click.option("--no-networks", is_flag=True, help="Leave out FVD and content, which take most of the time.")
@click.option(
    "--power",
    "count",
    is_flag=True,
    help="Instead measure how many clips show a loss of a share of them: what `power` predicts from.",
)
@click.option("-o", "--output", type=PATH, required=True, help="Folder for answers and tables.")
@JSON
def sensitivity(
    clips_per_block: int, blocks: int, no_networks: bool, count: bool, output: Path, as_json: bool
) -> None:  # fmt: skip
    """Corrupt synthetic clips by severity, and show what FVD and each measure make of it; a stand-in."""
    if count:
        if no_networks:
            raise click.UsageError("--power is of FVD and KVD too: leave --no-networks out")
        _measure_power(clips_per_block * blocks, output, as_json)
        return
    from vdmini_bench.studies.sensitivity import Networks, Study, measure_study, series
    from vdmini_bench.studies.sensitivity_table import answer_lines, ordering_lines, orderings, write_sensitivity

    study = Study(clips_per_block, blocks, reference_clips=240)
    networks = None
    if not no_networks:
        from vdmini_bench.metrics.frame_features import NetworkFeatures, load_frame_network
        from vdmini_bench.metrics.fvd import load_i3d

        # FVD's reference was made with the package's weights.
        networks = Networks(load_i3d(), NetworkFeatures(load_frame_network()))
    numbers = series(measure_study(study, networks, output / "answers"), study)
    write_sensitivity(output, numbers)
    found = orderings(numbers)
    if as_json:
        rows = [{"kind": each.corruption.name, "measure": each.measure, "ordered": each.ordered} for each in found]
        click.echo(json.dumps({"clips": study.clips, "blocks": blocks, "orderings": rows, "output": str(output)}))
        return
    title = f"{study.clips} drawn clips, {blocks} blocks: a stand-in"
    print_table(title, *answer_lines(numbers))
    print_table("severities in order", *ordering_lines(found))
    click.echo(f"tables: {output}")


def _measure_power(scenes: int, output: Path, as_json: bool) -> None:
    from vdmini_bench.metrics.fvd import load_i3d
    from vdmini_bench.studies.power import check_table, run_study

    if scenes < 160:
        raise click.UsageError("--power needs 160 clips or more: two blocks of 80 that share none")
    checks = run_study(load_i3d(), scenes, output)
    if as_json:
        click.echo(json.dumps({"checks": [vars(each) for each in checks], "output": str(output)}))
        return
    print_table(f"predicted, and seen in runs on {scenes} unseen clips: a stand-in", *check_table(checks))
    click.echo(f"tables: {output}")
