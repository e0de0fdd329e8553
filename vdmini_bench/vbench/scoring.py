"""Score a folder of videos, dimension by dimension: what is done is not done again, and what failed is said."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vdmini_bench.config.vbench_dimensions import DIMENSIONS, FILTER_SIDE, FILTERED, Mode
from vdmini_bench.errors import MissingAssetsError, SuiteError
from vdmini_bench.system.files import key_of, require_writable, sha256_of, write_atomically
from vdmini_bench.system.progress import say
from vdmini_bench.vbench.completeness import (
    SHOWN,
    Completeness,
    IncompleteVideosError,
    check_videos,
    read_record,
    write_record,
)
from vdmini_bench.vbench.environment import DriverError, call_driver
from vdmini_bench.vbench.filtering import ask_official_filter, candidates, first_static
from vdmini_bench.vbench.native.catalogue import NATIVE_VERSION, STATIC, is_native, state_of
from vdmini_bench.vbench.native.questions import Question, ask_entries
from vdmini_bench.vbench.prompts import SAMPLES, Prompt, custom_entries, official_entries, request_videos
from vdmini_bench.vbench.report import OFFICIAL, Outcome, Report
from vdmini_bench.vbench.requirements import MISSING, weight_faults, weights_state
from vdmini_bench.vbench.results import (
    RECORD_VERSION,
    ResultError,
    check_result,
    forget_result,
    keep_result,
    kept_result,
)
from vdmini_bench.vbench.totals import compute_totals

if TYPE_CHECKING:
    from vdmini_bench.vbench.native.scoring import NativeScores

VIDEOS = "videos.json"
COMPLETENESS = "completeness.json"
SCORES = "scores.json"


@dataclass(frozen=True)
class Scoring:
    """What to score and how.

    `prompts` are the official ones, none for `custom`; `images` maps prompts to images, and
    `texts` names of videos to prompts that the names do not say, for `custom` only. `command`
    runs the driver and `packages` is a digest of what it runs with. `filtered`: temporal_flickering is scored on
    the first five of 25 samples in which the official filter sees no motion. `download`: weights that are not there
    are left to the official code to fetch. `native`: dimensions that we have code for are scored by it, and only the
    others by the driver. `samples` videos of each prompt are asked for, where none are sorted out.
    """

    folder: Path
    output: Path
    mode: Mode
    dimensions: tuple[str, ...]
    command: tuple[str, ...]
    packages: str
    prompts: tuple[Prompt, ...] = ()
    images: Mapping[str, Path] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict, kw_only=True)
    ratio: str = "1-1"
    filtered: bool = True
    download: bool = False
    native: bool = False
    samples: int = SAMPLES

    def is_native(self, dimension: str) -> bool:
        """Whether our own code scores a dimension."""
        return self.native and is_native(dimension)

    def code(self, dimension: str) -> str:
        """Whose code scores a dimension, with the version of ours."""
        return NATIVE_VERSION if self.is_native(dimension) else OFFICIAL

    @property
    def filters(self) -> bool:
        """Whether videos are sorted out before temporal_flickering is scored."""
        return self.filtered and self.mode == "t2v" and FILTERED in self.dimensions

    @property
    def protocol(self) -> str:
        """The protocol's name: scores compare only under the same one."""
        if self.mode == "i2v":
            return f"vbench-i2v-{self.ratio}"
        return f"vbench-{self.mode}" if self.filtered or self.mode == "custom" else "vbench-t2v-unfiltered"


def score_videos(scoring: Scoring) -> Report:
    """Check that all videos are there, then score dimension by dimension; each result is written as it comes.

    Raises:
        SuiteError: the output folder holds scores of other videos or cannot be written; no such folder of videos.
        MissingAssetsError: weights or images are not there; nothing was scored.
        IncompleteVideosError: videos are missing, doubly there or unreadable; nothing was scored.
    """
    _require_own_output(scoring)
    _require_images(scoring)
    _require_weights(scoring)
    found = _check(scoring)
    natives = _score_natively(scoring, found)
    outcomes = []
    for dimension in scoring.dimensions:
        outcomes.append(_outcome(scoring, dimension, found, natives))
        say(f"{dimension}: {outcomes[-1].describe()}")
    scores = {outcome.dimension: outcome.result.score for outcome in outcomes if outcome.result is not None}
    totals = None if scoring.mode == "custom" else compute_totals(scores, scoring.mode)
    report = Report(scoring.protocol, tuple(outcomes), totals, found)
    written = {"mode": scoring.mode, "folder": str(scoring.folder.resolve()), **report.to_json()}
    write_atomically(scoring.output / SCORES, json.dumps(written, indent=1))
    return report


def _require_own_output(scoring: Scoring) -> None:
    require_writable(scoring.output)
    try:
        written = json.loads((scoring.output / SCORES).read_text(encoding="utf-8"))
        of = (written["mode"], written["folder"])
    except (OSError, ValueError, KeyError, TypeError):
        return
    if of != (scoring.mode, str(scoring.folder.resolve())):
        raise SuiteError(f"{scoring.output} holds scores of {of[1]} in mode {of[0]}: give another folder with -o")


def _require_images(scoring: Scoring) -> None:
    if scoring.mode != "i2v":
        return
    compared = {name for name in scoring.dimensions if DIMENSIONS[name].needs_images}
    of = [prompt for prompt in scoring.prompts if compared & {*prompt.dimensions}]
    missing = [prompt for prompt in of if prompt.image is None or not prompt.image.is_file()]
    if missing:
        first = missing[0].image or f"that of {missing[0].text!r}"
        raise MissingAssetsError(
            f"{', '.join(sorted(compared))}: {len(missing)} of {len(of)} images are not there, such as {first};"
            " next: `vdmini-bench assets import vbench-i2v PATH`, or --images FOLDER"
        )


def _require_weights(scoring: Scoring) -> None:
    faults = [
        fault
        for name in scoring.dimensions
        for fault in weight_faults(name, filtered=scoring.filters, native=scoring.is_native(name))
    ]
    damaged = [f"\n  {fault.dimension}: {fault}" for fault in faults if fault.reason != MISSING]
    if damaged:
        raise MissingAssetsError(
            "files in the place of weights are something else, so nothing was scored; remove them, then `vdmini-bench"
            f" doctor --all` says how to get each:{''.join(damaged)}"
        )
    # Our own code fetches nothing.
    asked = [name for name in scoring.dimensions if scoring.is_native(name) or not scoring.download]
    unscored = [name for name in asked if kept_result(scoring.output, name) is None]
    missing = [f"\n  {fault.dimension}: {fault}" for fault in faults if fault.dimension in unscored]
    if missing:
        raise MissingAssetsError(
            "weights are missing, so nothing was scored; `vdmini-bench doctor --all` says how to get each, --download"
            f" leaves that to the official code, and --dimensions chooses others:{''.join(missing)}"
        )


def _check(scoring: Scoring) -> Completeness:
    wanted: list[str] | None = None
    known: list[str] = []
    if scoring.mode != "custom":
        wanted = _names(scoring, scoring.dimensions, filtered=scoring.filters)
        known = _names(scoring, [*DIMENSIONS], filtered=scoring.mode == "t2v")
    record = scoring.output / VIDEOS
    earlier = read_record(record)
    found = check_videos(scoring.folder, wanted, known, earlier)
    write_record(record, {**earlier, **found.files})
    listing = scoring.output / COMPLETENESS
    write_atomically(listing, json.dumps(found.to_json(), indent=1))
    if not found.complete:
        raise IncompleteVideosError(f"{scoring.folder}: nothing was scored\n{found.describe(listing)}")
    unfit = [problem for dimension in scoring.dimensions for problem in _unfit(scoring, dimension, found)]
    if unfit:
        lines = "\n".join(f"  {problem}" for problem in unfit[:SHOWN])
        more = f"\n  ... and {len(unfit) - SHOWN} more" if len(unfit) > SHOWN else ""
        raise IncompleteVideosError(f"{scoring.folder}: nothing was scored; --dimensions chooses others\n{lines}{more}")
    if found.extra or found.identical:
        say(found.describe(listing))
    return found


def _unfit(scoring: Scoring, dimension: str, found: Completeness) -> list[str]:
    of, side = DIMENSIONS[dimension], DIMENSIONS[dimension].side
    files = {entry.file: entry for entry in found.files.values()}
    names = {Path(path).name for path in _paths(_entries(scoring, dimension, found.videos))}
    if dimension == FILTERED and scoring.filters:
        side = FILTER_SIDE
        names = {found.files[name].file for name in _names(scoring, [dimension], filtered=True)}
    problems = []
    for name in sorted(names):
        if not of.gif and name.endswith(".gif"):
            problems.append(f"{dimension}: {name}: its official code reads .mp4 only")
        elif files[name].cover and not scoring.is_native(dimension):
            problems.append(f"{dimension}: {name}: its official code may take its cover picture for it: remove it")
        elif files[name].frames < of.frames:
            problems.append(f"{dimension}: {name}: {files[name].frames} frames where it needs {of.frames}")
        elif files[name].side < side:
            problems.append(f"{dimension}: {name}: {files[name].side} pixels high or wide, its network needs {side}")
    return problems


def _entries(scoring: Scoring, dimension: str, videos: Mapping[str, Path]) -> list[dict[str, Any]]:
    if scoring.mode == "custom":
        return custom_entries(dimension, videos, scoring.images, scoring.texts)
    return official_entries(scoring.prompts, dimension, videos)


def _paths(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    return [path for entry in entries for path in entry["video_list"]]


def _names(scoring: Scoring, dimensions: Sequence[str], *, filtered: bool) -> list[str]:
    videos = request_videos(scoring.prompts, dimensions, filtered=filtered, samples=scoring.samples)
    return [video.name for video in videos]


def _score_natively(scoring: Scoring, found: Completeness) -> NativeScores | None:
    """Ask our own code everything at once, so that each video is decoded once; None where it is to score nothing."""
    chosen = [name for name in scoring.dimensions if scoring.is_native(name)]
    if not chosen:
        return None
    from vdmini_bench.vbench.native.scoring import NativeScores

    natives = NativeScores(scoring.output)
    questions: list[Question] = []
    for dimension in chosen:
        if dimension == FILTERED and scoring.filters:
            # Flickering costs next to nothing: it is measured before it is known which videos are still.
            questions += _of_candidates(scoring, found, STATIC) + _of_candidates(scoring, found, FILTERED)
        else:
            questions += ask_entries(dimension, _entries(scoring, dimension, found.videos), found.contents)
    natives.ask(questions)
    return natives


def _of_candidates(scoring: Scoring, found: Completeness, dimension: str) -> list[Question]:
    names = candidates(scoring.prompts)
    return [Question(dimension, found.videos[name].absolute(), found.files[name].sha256) for name in names]


def _outcome(scoring: Scoring, dimension: str, found: Completeness, natives: NativeScores | None) -> Outcome:
    videos: Mapping[str, Path] = found.videos
    chosen = natives if scoring.is_native(dimension) else None
    try:
        if dimension == FILTERED and scoring.filters:
            if chosen is None:
                static = ask_official_filter(scoring.prompts, found, scoring.output, scoring.command, scoring.packages)
            else:
                answers = chosen.static(_of_candidates(scoring, found, STATIC))
                static = dict(zip(candidates(scoring.prompts), answers, strict=True))
            videos = first_static(scoring.prompts, found, static)
        return _score(scoring, dimension, videos, found, chosen)
    except DriverError as error:
        forget_result(scoring.output, dimension)
        return Outcome(dimension, None, error=str(error), log=str(error.log), code=scoring.code(dimension))


def _score(
    scoring: Scoring, dimension: str, videos: Mapping[str, Path], found: Completeness, natives: NativeScores | None
) -> Outcome:
    entries = _entries(scoring, dimension, videos)
    paths = _paths(entries)
    known = found.contents
    contents = {name: known[name] for name in (Path(path).name for path in paths)}
    key = _key(scoring, dimension, entries, contents)
    kept = kept_result(scoring.output, dimension, key)
    if kept is not None:
        return Outcome(dimension, kept, cached=True, code=scoring.code(dimension))
    forget_result(scoring.output, dimension)
    if natives is None:
        response = _ask_driver(scoring, dimension, entries)
    else:
        response = natives.response(dimension, ask_entries(dimension, entries, contents))
    try:
        result = check_result(dimension, response.get("result"), paths)
    except ResultError as error:
        raise DriverError(dimension, str(error), _logs(scoring) / f"{dimension}.log") from error
    keep_result(scoring.output, key, contents, response, result)
    return Outcome(dimension, result, code=scoring.code(dimension))


def _ask_driver(scoring: Scoring, dimension: str, entries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    listing = _logs(scoring) / f"{dimension}.entries"
    write_atomically(listing, json.dumps(entries, indent=1))
    request = {"action": "evaluate", "package": DIMENSIONS[dimension].package, "dimension": dimension}
    request |= {"entries": str(listing), "resolution": scoring.ratio}
    return call_driver(scoring.command, request, _logs(scoring), dimension)


def _logs(scoring: Scoring) -> Path:
    return scoring.output.absolute() / "logs"


def _key(scoring: Scoring, dimension: str, entries: Sequence[dict[str, Any]], contents: Mapping[str, str]) -> str:
    """The hash of all that a dimension's score follows from."""
    named = [{**entry, "video_list": [Path(path).name for path in entry["video_list"]]} for entry in entries]
    # Other images may be there under the same names.
    paths = sorted({str(entry["image_name"]) for entry in entries if "image_name" in entry})
    images = {path: sha256_of(Path(path)) for path in paths if Path(path).is_file()}
    read = {"dimension": dimension, "entries": named, "contents": dict(contents), "images": images}
    if scoring.is_native(dimension):
        return key_of({"version": RECORD_VERSION, **read, "native": NATIVE_VERSION, "weights": state_of(dimension)})
    settings = {"mode": scoring.mode, "ratio": scoring.ratio, "packages": scoring.packages}
    return key_of({"version": RECORD_VERSION, **read, **settings, "weights": weights_state(dimension)})
