"""One pass over the videos for all native dimensions: each is decoded once, and what is known is not asked again."""

from __future__ import annotations

import json
import math
import time
import traceback
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from vdmini.finite import NotFiniteError
from vdmini_bench.config.vbench_dimensions import DIMENSIONS, VBENCH_VERSION
from vdmini_bench.errors import IncompleteError, UnreadableVideoError
from vdmini_bench.system.files import key_of, sha256_of
from vdmini_bench.system.launch import Share, process_device, share_out
from vdmini_bench.vbench.environment import DriverError
from vdmini_bench.vbench.native.catalogue import NATIVE_VERSION, STATIC, state_of
from vdmini_bench.vbench.native.frames import Clip, read_clip
from vdmini_bench.vbench.native.networks import Networks
from vdmini_bench.vbench.native.questions import Question
from vdmini_bench.vbench.native.scorers import SCORERS, VideoScore

KEPT = "native"


@dataclass
class VideoScores:
    """What is known of videos, by a question's key, and the dimensions that failed with the reason."""

    known: dict[str, VideoScore] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    seconds: defaultdict[str, float] = field(default_factory=partial(defaultdict, float))


class NativeScores:
    """Answers as the official code does, from one pass over all videos."""

    def __init__(self, output: Path) -> None:
        self.output = output
        self.folder = output / KEPT
        self.scores = VideoScores(read_video_scores(self.folder))

    def ask(self, questions: Sequence[Question]) -> None:
        """Answer all questions that are not answered yet, shared out among the processes of a launch.

        Raises:
            IncompleteError: a video could not be read.
        """
        by_video: dict[Path, dict[str, Question]] = {}
        for question in questions:
            key = key_of_question(question)
            if key not in self.scores.known:
                by_video.setdefault(question.video, {})[key] = question
        if not by_video:
            return
        for part in share_out(_score_share, [*by_video.items()], self.folder):
            self.scores.known |= part.known
            self.scores.failures |= part.failures
            for dimension, seconds in part.seconds.items():
                self.scores.seconds[dimension] += seconds
        for dimension, reason in self.scores.failures.items():
            log = _log(self.output, dimension)
            log.parent.mkdir(parents=True, exist_ok=True)
            log.write_text(reason, encoding="utf-8")

    def response(self, dimension: str, questions: Iterable[Question]) -> dict[str, Any]:
        """A dimension's result in the official form; all questions were asked before.

        Raises:
            DriverError: its code failed.
        """
        answers = [(question, self._score_of(dimension, question)) for question in questions]
        total = sum(score.weight for _, score in answers)
        mean = sum(score.value * score.weight for _, score in answers) / total if total else float("nan")
        scale = 100.0 if DIMENSIONS[dimension].percent else 1.0
        device = process_device()
        libraries = {package: version(package) for package in ("torch", "av", "numpy", "pillow")}
        return {
            "result": [mean / scale, [_official(dimension, question, score) for question, score in answers]],
            "seconds": self.scores.seconds[dimension],
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU",
            "versions": {"vbench": VBENCH_VERSION, "native": NATIVE_VERSION, **libraries},
        }

    def static(self, questions: Iterable[Question]) -> list[bool]:
        """Of each video whether the filter finds no motion in it; all questions were asked before.

        Raises:
            DriverError: the filter failed.
        """
        return [self._score_of(STATIC, question).value > 0 for question in questions]

    def _score_of(self, dimension: str, question: Question) -> VideoScore:
        score = self.scores.known.get(key_of_question(question))
        if score is None:
            reason = self.scores.failures.get(dimension, "it was not asked\n").strip().splitlines()[-1]
            raise DriverError(dimension, reason, _log(self.output, dimension))
        return score


def key_of_question(question: Question) -> str:
    """The hash of all that an answer follows from; weights by size and time, an image by its bytes."""
    image = sha256_of(question.image) if question.image is not None else ""
    of = [question.sha256, question.text, image, state_of(question.dimension)]
    return key_of([NATIVE_VERSION, question.dimension, *of])


def read_video_scores(folder: Path) -> dict[str, VideoScore]:
    """What earlier calls found; a line that a kill cut short is left out."""
    known = {}
    for file in sorted(folder.glob("*.jsonl")):
        for line in file.read_text(encoding="utf-8").splitlines():
            try:
                entry = json.loads(line)
                known[str(entry["key"])] = VideoScore(float(entry["value"]), int(entry["weight"]))
            except (ValueError, KeyError, TypeError):
                continue
    return known


def _score_share(share: Share, videos: Sequence[tuple[Path, dict[str, Question]]], folder: Path) -> VideoScores:
    """This process's videos, each decoded once for all that is asked about it."""
    networks, scores = Networks(process_device()), VideoScores()
    problems: list[UnreadableVideoError] = []
    folder.mkdir(parents=True, exist_ok=True)
    own = share.of(videos)
    with share.progress("score", len(own)) as advance, (folder / f"{share.index}.jsonl").open("a") as record:
        # What a kill cut short ends here.
        record.write("\n")
        for video, asked in own:
            try:
                found = _score_clip(read_clip(video), asked, networks, scores)
            except UnreadableVideoError as problem:
                problems.append(problem)
            else:
                for key, score in found.items():
                    line = {"key": key, "dimension": asked[key].dimension, "video": video.name, **asdict(score)}
                    record.write(f"{json.dumps(line)}\n")
                record.flush()
                scores.known |= found
            advance()
    if problems:
        raise IncompleteError(problems)
    return scores


def _score_clip(
    clip: Clip, asked: Mapping[str, Question], networks: Networks, scores: VideoScores
) -> dict[str, VideoScore]:
    """What is found by a question's key; failures and seconds are added to those of earlier clips."""
    found = {}
    for key, question in asked.items():
        if question.dimension in scores.failures:
            continue
        started = time.monotonic()
        try:
            with torch.inference_mode():
                score = SCORERS[question.dimension](clip, question, networks)
            if not math.isfinite(score.value):
                raise NotFiniteError(f"{question.video.name}: its score is {score.value}")
            found[key] = score
        except Exception:
            # One dimension fails, the others go on.
            scores.failures[question.dimension] = traceback.format_exc()
        scores.seconds[question.dimension] += time.monotonic() - started
    return found


def _official(dimension: str, question: Question, score: VideoScore) -> dict[str, Any]:
    value = score.value > 0 if dimension == "dynamic_degree" else score.value
    image = {} if question.image is None else {"image_path": str(question.image)}
    return {"video_path": str(question.video), "video_results": value, **image}


def _log(output: Path, dimension: str) -> Path:
    return output.absolute() / "logs" / f"{dimension}.log"
