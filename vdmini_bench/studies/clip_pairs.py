"""A teacher's clips beside a student's of the same seeds: what of their content and of their motion was lost.

Scores of sets of clips, such as FVD, cannot tell a student that draws other things from one that moves them otherwise.
Clips of one seed and one prompt pair frame by frame, and then the two can be measured apart.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vdmini.finite import check_rows
from vdmini_bench.data.video import read_every_frame
from vdmini_bench.data.video_folder import check_apart, copies_of, list_videos
from vdmini_bench.errors import (
    BenchError,
    IncompleteError,
    NotComparableError,
    NothingMeasuredError,
    SuiteError,
    UnreadableVideoError,
    few,
)
from vdmini_bench.metrics.content import SPECTRUM_VERSION, FrameFeatures, content_distance, spectrum_distance
from vdmini_bench.metrics.fidelity import check_pair
from vdmini_bench.metrics.flow import end_point_distance, flow_fields
from vdmini_bench.metrics.frechet import FloatArray, frechet_distance
from vdmini_bench.metrics.motion import (
    MOTION_PAIR_VERSION,
    dynamic_degree,
    flicker,
    magnitude_distance,
    speed_difference,
)
from vdmini_bench.metrics.motion_statistics import FEWEST_FRAMES, MOTION_VERSION, fields_to_statistics
from vdmini_bench.results.stats import mean_interval
from vdmini_bench.system.progress import progress, say
from vdmini_bench.system.workers import in_order


@dataclass(frozen=True)
class PairMeasure:
    """One number of a pair of clips: a `distance` is 0 or more, any other is the student's less the teacher's."""

    name: str
    about: Literal["content", "motion"]
    unit: str
    distance: bool


MEASURES = (
    PairMeasure("content", "content", "", distance=True),
    PairMeasure("spectrum", "content", "", distance=True),
    PairMeasure("flow_field", "motion", "px/frame", distance=True),
    PairMeasure("flow_magnitude", "motion", "px/frame", distance=True),
    PairMeasure("speed", "motion", "px/frame", distance=False),
    PairMeasure("dynamic_degree", "motion", "", distance=False),
    PairMeasure("flicker", "motion", "", distance=False),
)


@dataclass(frozen=True, eq=False)
class ClipView:
    """What pairs are measured on: frames T H W C uint8, flow T-1 H W 2 float32, and a clip's own numbers.

    `features` are of frames, T x D float32; None where there is no network to see them.
    """

    frames: NDArray[np.uint8]
    flow: NDArray[np.float32]
    features: NDArray[np.float32] | None
    dynamic: float
    flicker: float


def view_clip(clip: NDArray[np.uint8], flow: NDArray[np.float32], see: FrameFeatures | None) -> ClipView:
    """See a clip T H W C uint8 RGB whose `flow.flow_fields` are known.

    Raises:
        ValueError: another layout or dtype.
    """
    return ClipView(clip, flow, None if see is None else see(clip), dynamic_degree(flow), flicker(clip))


def pair_values(teacher: ClipView, student: ClipView) -> dict[str, float]:
    """Every one of `MEASURES` of a pair of clips of one size and length; no `content` where there are no features.

    Raises:
        ValueError: they do not pair.
    """
    if teacher.features is None or student.features is None:
        content = {}
    else:
        content = {"content": content_distance(teacher.features, student.features)}
    return content | {
        "spectrum": spectrum_distance(teacher.frames, student.frames),
        "flow_field": end_point_distance(teacher.flow, student.flow),
        "flow_magnitude": magnitude_distance(teacher.flow, student.flow),
        "speed": speed_difference(teacher.flow, student.flow),
        "dynamic_degree": student.dynamic - teacher.dynamic,
        "flicker": student.flicker - teacher.flicker,
    }


@dataclass(frozen=True)
class PairRow:
    """One measure over all pairs: mean and 95 % Student-t interval over clips.

    `unrelated` is the mean distance between clips of the teacher that do not pair: as far as nothing in common. It is
    None for signed measures.
    """

    measure: str
    about: str
    unit: str
    value: float
    interval: tuple[float, float]
    unrelated: float | None

    @property
    def share(self) -> float | None:
        """The distance as a share of that between unrelated clips."""
        return self.value / self.unrelated if self.unrelated else None


@dataclass(frozen=True)
class ClipComparison:
    """The paired measures of two folders, over `pairs` clips; `versions` are of what was measured with.

    `motion_distance` is the Frechet motion distance between the two sets, with its jackknife standard error; both are
    None for fewer than 3 clips, or for clips too short for it.
    """

    teacher: str
    student: str
    pairs: int
    rows: tuple[PairRow, ...]
    motion_distance: float | None
    motion_distance_error: float | None
    versions: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """The object that `compare --clips --json` prints."""
        rows = [{**asdict(row), "interval": list(row.interval), "share": row.share} for row in self.rows]
        distance = {"value": self.motion_distance, "se": self.motion_distance_error}
        return {
            "a": self.teacher, "b": self.student, "pairs": self.pairs, "rows": rows, "frechet_motion": distance,
            "versions": self.versions,
        }  # fmt: skip


def compare_clips(
    teacher_folder: Path, student_folder: Path, see: FrameFeatures | None, workers: int = 1
) -> ClipComparison:
    """Compare the videos of two folders that have the same names below them, whatever their suffixes.

    `see` gives the features of frames; without it there is no measure `content`, and `spectrum` stands alone for it.
    The interval is over clips: those of one prompt are taken as independent. A result does not depend on `workers`.

    Raises:
        SuiteError: a folder is missing or empty, or one is inside the other.
        NotComparableError: the names do not pair, or two clips have unlike sizes or lengths.
        IncompleteError: clips could not be read.
        NotFiniteError: the features of a clip, which is named, are not finite.
    """
    check_apart(teacher_folder, student_folder)
    pairs = pair_videos(teacher_folder, student_folder)
    same = [student.name for teacher, student in pairs if copies_of([student], [teacher])]
    if same:
        say(f"warning: {len(same)} of {len(pairs)} pairs are copies of one file, byte by byte: {few(same)}")
    if len(pairs) < 2:
        raise NothingMeasuredError(
            f"{teacher_folder} and {student_folder} share one clip: an interval needs two or more"
        )
    values: list[dict[str, float]] = []
    unrelated: list[dict[str, float]] = []
    moving: list[tuple[FloatArray, FloatArray]] = []
    problems: list[UnreadableVideoError] = []
    previous: ClipView | None = None
    with progress("compare clips", len(pairs)) as advance:
        for paths, read in zip(pairs, in_order(_read_pair, pairs, workers), strict=True):
            if isinstance(read, UnreadableVideoError):
                problems.append(read)
            else:
                teacher, student = (view_clip(clip, flow, see) for clip, flow in read)
                for view, path in zip((teacher, student), paths, strict=True):
                    if view.features is not None:
                        check_rows(view.features[None], [str(path)], "features of frames")
                values.append(pair_values(teacher, student))
                if previous is not None and previous.flow.shape == teacher.flow.shape:
                    unrelated.append(pair_values(previous, teacher))
                previous = teacher
                if len(teacher.frames) >= FEWEST_FRAMES:
                    moving.append((fields_to_statistics(teacher.flow), fields_to_statistics(student.flow)))
            advance()
    if problems:
        raise IncompleteError(problems)
    distance = error = None
    if len(moving) == len(pairs) >= 3:
        distance, error = _jackknife(*(np.stack(each) for each in zip(*moving, strict=True)))
    versions = {"spectrum": SPECTRUM_VERSION, "motion": MOTION_PAIR_VERSION, "frechet_motion": MOTION_VERSION}
    if see is not None:
        versions = {"content": see.version} | versions
    return ClipComparison(
        str(teacher_folder), str(student_folder), len(pairs), _rows(values, unrelated), distance, error, versions
    )


def _jackknife(teacher: FloatArray, student: FloatArray) -> tuple[float, float]:
    """The Frechet distance between two sets N x D whose rows pair, with its standard error by leaving each pair out."""
    count = len(teacher)
    without = [
        frechet_distance(np.delete(teacher, each, axis=0), np.delete(student, each, axis=0)) for each in range(count)
    ]
    return frechet_distance(teacher, student), float(np.std(without)) * math.sqrt(count - 1)


def _rows(values: Sequence[dict[str, float]], unrelated: Sequence[dict[str, float]]) -> tuple[PairRow, ...]:
    rows = []
    for measure in (each for each in MEASURES if each.name in values[0]):
        mean, low, high = mean_interval([each[measure.name] for each in values])
        far = statistics.fmean(each[measure.name] for each in unrelated) if unrelated and measure.distance else None
        rows.append(PairRow(measure.name, measure.about, measure.unit, mean, (low, high), far))
    return tuple(rows)


def pair_videos(teacher_folder: Path, student_folder: Path) -> list[tuple[Path, Path]]:
    """The files of two folders that have one name, in the order of their names.

    Raises:
        SuiteError: a folder is missing or empty, or holds a name twice.
        NotComparableError: one has names that the other has not.
    """
    teacher, student = (_by_name(folder) for folder in (teacher_folder, student_folder))
    for one, other, folder in ((teacher, student, student_folder), (student, teacher, teacher_folder)):
        missing = [name for name in one if name not in other]
        if missing:
            raise NotComparableError(
                f"{folder} lacks {len(missing)} of {len(one)} clips, as {few(missing)}: clips pair by"
                " name, so sample both from the same seeds and prompts under the same names"
            )
    return [(path, student[name]) for name, path in teacher.items()]


def _by_name(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for video in list_videos(folder).videos:
        name = str(Path(video.relative).with_suffix(""))
        if name in found:
            raise SuiteError(f"{folder} holds {name} twice, as {found[name].suffix} and {video.path.suffix}: keep one")
        found[name] = video.path
    return found


def clips_of_run(run: Path, model: str) -> Path:
    """The folder of a model's clips of a run.

    Raises:
        NothingMeasuredError: the run sampled none of this model, or they are no longer there.
        BenchError: the run's record cannot be read.
    """
    try:
        jobs = {job["name"]: job["key"] for job in json.loads((run / "run.json").read_text())["jobs"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BenchError(f"{run / 'run.json'} cannot be read ({error}); run the suite again") from error
    sampled = [name.removeprefix("sample ") for name in jobs if name.startswith("sample ")]
    if model not in sampled:
        raise NothingMeasuredError(
            f"{run.name} sampled no clips of {model!r}; it has those of {', '.join(sampled) or 'none'}; a folder of"
            " videos can be given too"
        )
    folder = run.absolute().parents[1] / "work" / f"sample-{jobs['sample ' + model]}" / "clips"
    if not folder.is_dir():
        raise NothingMeasuredError(f"the clips of {model} are no longer in {folder}; run the suite again")
    return folder


_Read = tuple[NDArray[np.uint8], NDArray[np.float32]]


def _read_pair(paths: tuple[Path, Path]) -> tuple[_Read, _Read] | UnreadableVideoError:
    try:
        teacher, student = (read_every_frame(path) for path in paths)
    except UnreadableVideoError as problem:
        return problem
    check_pair(str(paths[0]), str(paths[1]), teacher, student)
    return (teacher, flow_fields(teacher)), (student, flow_fields(student))
