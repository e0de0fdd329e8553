"""What commands share: their options, and what is done before each begins."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from vdmini.requests import SampleSettings
from vdmini_bench.config.timing import DTYPES
from vdmini_bench.errors import SuiteError
from vdmini_bench.system.program import R
from vdmini_bench.system.progress import quiet_libraries
from vdmini_bench.system.tables import Format

if TYPE_CHECKING:
    from vdmini_bench.studies.importance import Study

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]
PATH = click.Path(path_type=Path)
RESULTS = click.option("--results", type=PATH, default=Path("results"), show_default=True, help="Results folder.")
WORKERS = click.option(
    "--workers",
    type=click.IntRange(1),
    help="Processes that decode videos; no result depends on how many. One without a GPU, else up to 8.",
)
PROFILE = click.option("--profile", help="A profile of the suite; its default one when not given.")
OVERRIDES = click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key, e.g. distill.steps=100."
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
DEVICE = click.option("--device", help="cuda, cuda:1 or cpu; the first GPU where there is one.")
DTYPE = click.option(
    "--dtype",
    type=click.Choice(DTYPES),
    help="That of the model's files when not given; to compute on a CPU, float32 for float16.",
)
DOWNLOAD = click.option(
    "--download", is_flag=True, help="Fetch a hub model that is not in the local hub cache; nothing is otherwise."
)
CHANNELS = click.option(
    "--channels",
    metavar="RULE",
    help="After the blocks, prune channels of a UNet of SVD's or VideoCrafter2's class, e.g. depgraph-l2:ratio=0.2 or"
    " magnitude:ratio=0.3,pair_gates=1; takes minutes at full size.",
)


def shipped_or_own(context: click.Context, parameter: click.Parameter, suite: Path) -> Path:
    """The callback of an argument that is a suite's file, or the name of one that comes with the package."""
    from vdmini_bench.config.shipped import find_suite

    return find_suite(str(suite))


def as_one(name: str, make: Callable[..., object], *options: Decorator) -> Decorator:
    """Options that a command gets as one argument of that name: what `make` makes of their values."""

    def decorate(command: Callable[..., R]) -> Callable[..., R]:
        @wraps(command)
        def with_one_argument(**given: Any) -> R:
            values = {each: given.pop(each) for each in signature(make).parameters}
            return command(**{name: make(**values)}, **given)

        decorated: Callable[..., R] = with_one_argument
        for option in reversed(options):
            decorated = option(decorated)
        return decorated

    return decorate


@dataclass(frozen=True)
class Conditions:
    """What a command's clips are made from, and how they are sampled: what its options say."""

    prompts: Path | None
    images: Path | None
    clips: int
    seeds: str
    steps: int | None
    frames: int | None
    size: str | None
    frames_per_second: float | None
    preset: str | None
    guidance: float | None
    second_guidance: float | None
    negative_prompt: str | None
    scheduler: str | None
    shift: float | None
    sigmas: list[float] | None
    boundary: float | None
    batch_size: int
    device: str | None
    dtype: str | None

    def study(self, model: str, *, scored: bool = False) -> Study:
        """Load a model to sample under these conditions; raises SuiteError where they fit neither it nor a score."""
        from vdmini_bench.config.sampling import sampled_by
        from vdmini_bench.data.requests import choose_requests, choose_settings, parse_size, warn_of_cut_prompts
        from vdmini_bench.metrics.i3d import FEWEST_FRAMES
        from vdmini_bench.models.source import load_for_use
        from vdmini_bench.studies.importance import Study

        # Conditions first: what is wrong with them is said before gigabytes are read.
        requests = choose_requests(model, self.prompts, self.images, self.seeds, count=self.clips)
        height, width = (None, None) if self.size is None else parse_size(self.size)
        asked = {name: value for name, value in vars(self).items() if name in SampleSettings.__dataclass_fields__}
        settings = choose_settings(model, asked | {"height": height, "width": width}, sampled_by(self.preset))
        if scored and settings.frames < FEWEST_FRAMES:
            raise SuiteError(f"--frames {settings.frames}: I3D needs clips of {FEWEST_FRAMES} or more to score them")
        loaded = load_for_use(model, self.dtype, self.device)
        warn_of_cut_prompts(loaded.pipeline, [request.prompt for request in requests])
        return Study(loaded, requests, settings, self.batch_size)


def _numbers(context: click.Context, parameter: click.Parameter, text: str | None) -> list[float] | None:
    try:
        return None if text is None else [float(each) for each in text.split(",")]
    except ValueError as error:
        raise click.BadParameter(f"{text!r}: write numbers such as 1,0.75,0.5") from error


def with_conditions(clips: int, fewest: int = 1) -> Decorator:
    """`conditions`: what clips are made from, `clips` of them by default, and how and where a model samples them."""
    return as_one(
        "conditions", Conditions,
        click.option("--prompts", type=PATH, help="A prompt a line (.txt), or a column of a .csv, .jsonl or .parquet."),
        click.option("--images", type=PATH, help="A folder of images to animate, with --prompts: one for all or each."),
        click.option(
            "--clips", type=click.IntRange(fewest), default=clips, show_default=True,
            help="Synthetic clips, for embedded models without --prompts or --images.",
        ),
        click.option(
            "--seeds", default="0", show_default=True, help="0, 0,5,7 or 0-7: a clip for each image or prompt and seed."
        ),
        click.option("--steps", type=click.IntRange(1), help="Sampling steps."),
        click.option("--frames", type=click.IntRange(1), help="Frames a clip."),
        click.option("--size", metavar="HEIGHTxWIDTH", help="Pixels, e.g. 576x1024."),
        click.option(
            "--fps", "frames_per_second", type=float, help="Frames a second: of the file, and as some models are told."
        ),
        click.option(
            "--preset", help="A model's published settings, see: vdmini-bench protocol show; other options change them."
        ),
        click.option("--guidance", type=float, help="Classifier-free guidance; the model's own when not given."),
        click.option("--second-guidance", type=float, help="Of a second expert, or where guidance is embedded."),
        click.option("--negative-prompt", help="What guidance leads away from; the model's own when not given."),
        click.option("--scheduler", metavar="CLASS", help="Of diffusers, e.g. UniPCMultistepScheduler."),
        click.option("--shift", type=float, help="How far noise levels are shifted towards high noise."),
        click.option("--sigmas", callback=_numbers, metavar="S,S,...", help="Noise levels before that, one a step."),
        click.option("--boundary", type=float, help="Of two experts: the noise level from which the first one works."),
        click.option("--batch-size", type=click.IntRange(1), default=8, show_default=True),
        DEVICE,
        DTYPE,
    )  # fmt: skip


def chosen_format(form: Format | None, as_json: bool, as_markdown: bool, as_csv: bool) -> Format:
    """What is asked for, `table` without anything; raises UsageError for two, and for bytes on a terminal."""
    flags: dict[Format, bool] = {"json": as_json, "markdown": as_markdown, "csv": as_csv}
    asked = [name for name, given in flags.items() if given]
    if len(asked) + (form is not None) > 1:
        words = [*(f"--{name}" for name in asked), *([f"--format {form}"] if form else [])]
        raise click.UsageError(f"give one of {', '.join(words)}")
    chosen = asked[0] if asked else form or "table"
    if chosen == "parquet" and sys.stdout.isatty():
        raise click.UsageError("parquet is no text: redirect it to a file, as in --format parquet > table.parquet")
    return chosen


with_format = as_one(
    "form", chosen_format,
    click.option("--format", "form", type=click.Choice(get_args(Format)), help="How the table is printed."),
    JSON,
    click.option("--markdown", "as_markdown", is_flag=True, help="Print a markdown table."),
    click.option("--csv", "as_csv", is_flag=True, help="Print CSV."),
)  # fmt: skip


def with_download(*, weights: bool = True) -> Decorator:
    """`--download`, which fetches the command's `model`, or its configurations alone; then libraries are silenced."""

    def decorate(command: Callable[..., R]) -> Callable[..., R]:
        @wraps(command)
        def after_fetching(*, download: bool, **given: Any) -> R:
            if download:
                from vdmini_bench.models.sampling import fetch_model

                fetch_model(given["model"], weights=weights)
            quiet_libraries()
            return command(**given)

        return DOWNLOAD(after_fetching)

    return decorate


def led(command: Callable[..., R]) -> Callable[..., R]:
    """Run a command in the main process of a launch, on the device that its `device` names; the others help it."""

    @wraps(command)
    def in_main_process(*, device: str | None = None, **given: Any) -> R:
        from vdmini_bench.models.devices import choose_device
        from vdmini_bench.system.launch import lead

        return lead(lambda: command(**given), None if device is None else choose_device(device))

    return in_main_process
