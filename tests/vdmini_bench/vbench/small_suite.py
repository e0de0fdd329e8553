"""A small prompt file in the official format, videos for it, and a driver that answers as it is told."""

from __future__ import annotations

import gzip
import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result
from numpy.typing import NDArray

from vdmini_bench.cli import main
from vdmini_bench.config.vbench_dimensions import DIMENSIONS, VBENCH_VERSION, Mode
from vdmini_bench.data.video import write_video
from vdmini_bench.errors import ExitCode
from vdmini_bench.vbench.environment import Environment
from vdmini_bench.vbench.native.tokens import MERGES
from vdmini_bench.vbench.prompts import read_prompts, request_videos
from vdmini_bench.vbench.scoring import Scoring

ENTRIES = [
    {"prompt_en": "a red bicycle", "dimension": ["color"], "auxiliary_info": {"color": {"color": "red"}}},
    {"prompt_en": "A person is clapping; $HOME `x` 'y'", "dimension": ["human_action"]},
    {"prompt_en": "a cat, by Hokusai", "dimension": ["subject_consistency", "imaging_quality", "dynamic_degree"]},
    {"prompt_en": "a still lake.", "dimension": ["temporal_flickering"]},
    # The official file has two prompts twice, each time for other dimensions.
    {"prompt_en": "a cat, by Hokusai", "dimension": ["overall_consistency"]},
]

# Each dimension's answer is chosen by the plan; the scores are made from file names, so that mistakes show.
DRIVER = """
import json, math, sys, time
from pathlib import Path

plan_file, asked, answer = map(Path, sys.argv[1:])
plan, request = json.loads(plan_file.read_text()), json.loads(asked.read_text())
what = request.get("dimension", request["action"])
with plan_file.with_name("calls.txt").open("a") as calls:
    calls.write(what + "\\n")
print("the official code speaks of", what)
behaviour = plan.get(what, "fine")
if behaviour == "fails":
    sys.exit("RuntimeError: CUDA out of memory")
if behaviour == "silent":
    sys.exit(0)
if behaviour == "sleeps":
    time.sleep(100)
if behaviour == "broken":
    answer.write_text('{"result": [0.5, [{"vid')
    sys.exit(0)
common = {"device": "CPU", "versions": {"vbench": "0.1.5"}, "seconds": 0.1}
if request["action"] == "filter":
    static = {video: not Path(video).stem.endswith(("-0", "-10")) for video in request["videos"]}
    answer.write_text(json.dumps({"static": static, **common}))
    sys.exit(0)
entries = json.loads(Path(request["entries"]).read_text())
paths = [path for entry in entries for path in entry["video_list"]]
index = {path: int(Path(path).stem.rpartition("-")[2]) for path in paths}
if behaviour == "partial":
    paths = paths[1:]
if behaviour == "twice":
    paths = [*paths, paths[0]]
scale = 100 if what == "imaging_quality" else 1
videos = [{"video_path": path, "video_results": scale * (index[path] + 1) / 32} for path in paths]
if what == "dynamic_degree":
    videos = [{"video_path": path, "video_results": index[path] > 1} for path in paths]
if behaviour == "wrong names":
    videos[0]["video_path"] = "/elsewhere/" + Path(paths[0]).name
if behaviour == "nan video":
    videos[0]["video_results"] = math.nan
score = math.nan if behaviour == "nan" else sum(entry["video_results"] for entry in videos) / len(videos) / scale
answer.write_text(json.dumps({"result": [score, videos], **common}))
"""


def write_prompts(folder: Path) -> Path:
    """The official format."""
    file = folder / "prompts.json"
    file.write_text(json.dumps(ENTRIES), encoding="utf-8")
    return file


def write_words(file: Path, merges: dict[str, str]) -> None:
    """CLIP's merges in their places, as far as texts of these tests need them; the others join what is in no text."""
    used = {letter for line in merges.values() for letter in line}
    letters = [chr(number) for number in (*range(ord("¡"), ord("¬") + 1), *range(ord("®"), 256 + 68))]
    rare = [letter for letter in letters if letter not in used]
    pairs = [(first, second) for first in rare for second in rare]
    fillers = [f"{first} {second}{end}" for end in ("", "</w>") for first, second in pairs]
    fillers += [f"{first}{second} {first}" for first, second in pairs]
    others = iter(fillers)
    lines = [merges.get(str(place)) or next(others) for place in range(MERGES)]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(gzip.compress("\n".join(["#version", *lines, ""]).encode()))


def draw_video(path: Path, seed: int, frames: int = 4, side: int = 32) -> None:
    """A small video of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (frames, side, side, 3), dtype=np.uint8)
    write_video(path, pixels, 8)


def moving_noise(seed: int, frames: int, height: int, width: int, step: float) -> NDArray[np.uint8]:
    """Smooth noise T H W C that moves down and right by `step` pixels a frame."""
    random = np.random.default_rng(seed)
    noise = random.integers(0, 256, (height + 80, width + 80, 3), dtype=np.uint8)
    scene = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 5), None, 0, 255, cv2.NORM_MINMAX)
    starts = [round(place * step) for place in range(frames)]
    return np.stack([scene[start : start + height, start : start + width] for start in starts])


def invoke(*arguments: object) -> Result:
    """Run the command line in this process."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def leave_the_users_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Environment, cache and weights are in the test's own folder."""
    monkeypatch.setenv("VDMINI_VBENCH_ENV", str(tmp_path / "env"))
    monkeypatch.setenv("VDMINI_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("VBENCH_CACHE_DIR", str(tmp_path / "weights"))


def write_weights(file: Path, content: bytes = b"weights") -> None:
    """A file that may be a checkpoint: a zip archive."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", content)


class Bench:
    """A folder with all videos of some dimensions, an output folder, and the driver."""

    def __init__(self, root: Path, dimensions: tuple[str, ...], *, filtered: bool = False, side: int = 128) -> None:
        self.root, self.dimensions, self.filtered = root, dimensions, filtered
        self.videos, self.output = root / "videos", root / "scores"
        self.prompt_file = write_prompts(root)
        self.prompts = tuple(read_prompts(self.prompt_file))
        (root / "driver.py").write_text(DRIVER, encoding="utf-8")
        self.plan()
        for place, request in enumerate(request_videos(self.prompts, dimensions, filtered=filtered)):
            draw_video(self.videos / f"{request.name}.mp4", place, frames=3, side=side)

    @property
    def command(self) -> tuple[str, ...]:
        """Runs the driver."""
        return (sys.executable, str(self.root / "driver.py"), str(self.root / "plan.json"))

    def plan(self, **behaviours: str) -> None:
        """Say how the driver answers for a dimension."""
        (self.root / "plan.json").write_text(json.dumps(behaviours), encoding="utf-8")

    def use(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Take the driver for that of a whole environment."""
        record = {"vbench": VBENCH_VERSION, "versions": {}, "device": "CPU", "problems": dict.fromkeys(DIMENSIONS)}
        monkeypatch.setattr(Environment, "record", lambda _: record)
        monkeypatch.setattr(Environment, "command", property(lambda _: self.command))

    def peek(self) -> list[str]:
        """What the driver was asked so far."""
        file = self.root / "calls.txt"
        return file.read_text(encoding="utf-8").splitlines() if file.exists() else []

    def calls(self) -> list[str]:
        """What the driver was asked since this was asked last."""
        called = self.peek()
        (self.root / "calls.txt").unlink(missing_ok=True)
        return called

    def scoring(self, mode: Mode = "t2v", **changed: Any) -> Scoring:
        """What `score_videos` takes."""
        settings = {"dimensions": self.dimensions, "prompts": self.prompts, "filtered": self.filtered, **changed}
        places = {"folder": self.videos, "output": self.output, "command": self.command}
        return Scoring(mode=mode, packages="p", download=True, **places, **settings)


def score_official(bench: Bench, *more: object) -> Result:
    """Score the bench's videos as those of the official prompts, in `color`."""
    places = (bench.videos, "--mode", "t2v", "--prompts", bench.prompt_file, "-o", bench.output)
    return invoke("vbench", "score", *places, "--dimensions", "color", "--download", *more)


def score_custom(bench: Bench, *dimensions: str) -> Result:
    """Score the bench's videos as those of any prompts."""
    names = ",".join(dimensions or ("subject_consistency",))
    return invoke(
        "vbench", "score", bench.videos, "--mode", "custom", "--dimensions", names, "-o", bench.output, "--download"
    )


def expect(done: Result, code: ExitCode, *said: str) -> None:
    """It ended as it should, said it, and showed no traceback."""
    assert done.exit_code == code, done.output
    for part in said:
        assert part in done.stderr
    assert "Traceback" not in done.output
