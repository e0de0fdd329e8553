"""Scoring and sampling in two processes, as `accelerate launch` starts them, and in one: the same to the last bit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import forked
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file

import vdmini_bench
from vdmini_bench.data.synthetic import ACTIONS, draw_clip
from vdmini_bench.data.video import read_frames, write_video
from vdmini_bench.runs.stages.encode import clips_of
from vdmini_bench.system.launch import Share, in_order_again, lead, share_out

SUITE = Path(__file__).parents[2] / "suites" / "ucf101.yaml"
LAUNCH = (
    "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes=2", "--main_process_port=0", "--num_machines=1",
    "--mixed_precision=no", "--dynamo_backend=no",
)  # fmt: skip
# A small network stands for I3D, and noise that only a clip's seed decides for a model.
CHILD = """
import os, sys

# Not in the workers that it starts, which need none of it.
if __name__ == "__main__":
    import torch
    from torch import nn
    import vdmini_bench.metrics.features, vdmini_bench.suites.folder

    class SmallI3d(nn.Module):
        def forward(self, video):
            if os.environ.get("RANK") == os.environ.get("FAILING_RANK", "none"):
                raise ValueError("out of memory, say")
            return nn.functional.adaptive_avg_pool3d(video.mean(dim=1, keepdim=True), (4, 5, 20)).flatten(1)

    vdmini_bench.metrics.features.load_i3d = lambda asset: SmallI3d()
    vdmini_bench.suites.folder.fetch_asset = lambda name: None
    vdmini_bench.suites.folder.networks_digest = lambda protocol: "small"
    sys.modules["pytorch_fid"] = None

    from vdmini_bench.cli import main
    torch.set_num_threads(1)
    main()
"""
SAMPLING = """
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
import torch
import vdmini_bench.runs.stages.sample as stage
from vdmini.requests import ClipRequest
from vdmini_bench.system.launch import lead

def noise(pipeline, requests, settings):
    assert len(requests) <= 2
    draws = [torch.randint(0, 255, (3, 16, 16, 3), generator=request.generator()) for request in requests]
    return torch.stack(draws).to(torch.uint8).numpy()

stage.sample_clips = noise

@dataclass
class Bench:
    folder: Path
    clip_names: tuple
    suite: object
    prompts: tuple = ()

    def clip_path(self, subject, name):
        return self.folder / f"{name}.mkv"

    def requests(self, places):
        return [ClipRequest(self.clip_names[place], place) for place in places]

    def sample_settings(self, subject):
        return SimpleNamespace(frames_per_second=7)

    def batch_size(self, subject):
        return 2

    def check_requests(self, places):
        (self.folder / f"process-{__import__('os').environ.get('RANK', 'alone')}").write_text(str(len(places)))

    def load(self, subject):
        model = SimpleNamespace(pipeline="a pipeline")
        return SimpleNamespace(model=model, acceleration=SimpleNamespace(reset=lambda: None))

if __name__ == "__main__":
    names = tuple(f"{seed:05d}" for seed in range(7))
    suite = SimpleNamespace(profile=SimpleNamespace(baseline="another"))
    bench = Bench(Path(sys.argv[1]), names, suite)
    lead(lambda: stage.run_stage(bench, "teacher", bench.folder))
"""
ENCODING = """
import json, os, sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
import vdmini_bench.runs.stages.encode as stage
from vdmini_bench.system.launch import lead

folder, calls = Path(sys.argv[1]), []

def note(pipeline, clips, latents, settings, *, share, on_clip, **options):
    calls.append(["encode", share])
    (folder / f"{os.environ.get('RANK', 'alone')}.json").write_text(json.dumps(calls))

stage.encode_to_cache = note
stage.warn_of_cut_prompts = lambda pipeline, prompts: None

@dataclass(frozen=True)
class Clips:
    names: tuple

def draw(model, folder):
    calls.append(["draw"])
    return Clips(tuple("abcde"))

def load(source):
    calls.append(["load"])
    return SimpleNamespace(pipeline="a pipeline")

class Bench:
    def recipe(self, subject):
        return SimpleNamespace(
            load=load, teacher="teacher", teacher_sha256="", clips=draw, prompts=(), encoding=None, clips_per_shard=2,
            skip_unreadable=False,
        )

if __name__ == "__main__":
    lead(lambda: stage.run_stage(Bench(), "", folder))
"""


def start(script: Path, *arguments: object, processes: int = 1, **variables: str) -> tuple[int, str, str]:
    """Run a script, alone or as a launch has it; its exit code and what it printed."""
    if processes == 1:
        done = [forked.run(script, *arguments)]
    else:
        with forked.group(processes, script, *arguments, **variables) as children:
            done = [child.finish() for child in children]
    out, said = ("".join(getattr(each, name) for each in done) for name in ("stdout", "stderr"))
    return max(abs(each.returncode) for each in done), out, said


def launch(script: Path, *arguments: object) -> tuple[int, str, str]:
    """Run a script in the two processes of `accelerate launch`."""
    variables = {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(Path(vdmini_bench.__file__).parents[1]),
        "HF_HOME": str(script.parent / "no-configuration"),
    }
    command = [sys.executable, *LAUNCH, str(script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=os.environ | variables)
    return done.returncode, done.stdout, done.stderr


def score(folder: Path, results: str, *options: object) -> tuple[object, ...]:
    """A script that scores the folder's videos, and its arguments."""
    script = folder / "child.py"
    script.write_text(CHILD)
    return (
        script, "score", folder / "videos", "--suite", SUITE, "--profile", "smoke", "--results", folder / results,
        "--set", "protocol.clips_per_block=5", "--set", "protocol.blocks=1", "--json", *options,
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(5):
        frames = draw_clip(tuple(ACTIONS)[number % len(ACTIONS)], 1, number).frames[:10]
        write_video(tmp_path / "videos" / f"{number}.mkv", frames, 7)
        write_video(tmp_path / "real" / f"{number}.mkv", frames[::-1], 7)
    return tmp_path


def test_two_processes_score_as_one_does(folder: Path) -> None:
    against = ("--against", folder / "real")
    code, one, said = start(*score(folder, "one", *against))
    assert code == 0, said
    code, two, said = launch(*score(folder, "two", *against, "--workers", 2))
    assert code == 0, said
    # One JSON object, of the process that speaks.
    values = [{row["metric"]: row["value"] for row in json.loads(text)["rows"]} for text in (one, two)]
    assert values[0] == values[1]
    assert values[0].keys() == {"fvd", "flow_distance", "kvd", "inception_score_i3d", "fid"}
    for pattern, count in (("work/measure-*", 1), ("work/reference-*", 1)):
        files = [sorted((folder / name).glob(f"{pattern}/features.safetensors")) for name in ("one", "two")]
        assert [len(found) for found in files] == [count, count]
        arrays, others = (load_file(found[0]) for found in files)
        assert arrays.keys() == others.keys()
        assert all((arrays[name] == others[name]).all() for name in arrays)


def test_unreadable_clips_of_every_process_are_named(folder: Path) -> None:
    for number in (1, 2):
        (folder / "videos" / f"{number}.mkv").write_bytes(b"")
    code, out, said = start(*score(folder, "results"), processes=2)
    assert code != 0
    assert out == ""
    assert "2 unreadable clips" in said
    assert said.count("the file is empty") == 2


def test_what_fails_in_another_process_is_said_by_the_main_one(folder: Path) -> None:
    code, out, said = start(*score(folder, "results"), processes=2, FAILING_RANK="1")
    assert code != 0
    assert out == ""
    assert "process 1 of 2 failed" in said
    assert "out of memory, say" in said


def test_two_processes_sample_as_one_does(tmp_path: Path) -> None:
    script = tmp_path / "sampling.py"
    script.write_text(SAMPLING)
    for processes, name in enumerate(("one", "two"), 1):
        (tmp_path / name).mkdir()
        code, _, said = start(script, tmp_path / name, processes=processes)
        assert code == 0, said
    for number in range(7):
        clips = [read_frames(tmp_path / name / f"{number:05d}.mkv", 3) for name in ("one", "two")]
        assert (clips[0] == clips[1]).all()
    shares = [int((tmp_path / "two" / f"process-{rank}").read_text()) for rank in (0, 1)]
    # Whole batches of two: 0 1, 4 5 and 2 3, 6.
    assert shares == [4, 3]


def test_two_processes_encode_their_shares_and_the_main_one_sees_to_the_whole(tmp_path: Path) -> None:
    script = tmp_path / "encoding.py"
    script.write_text(ENCODING)
    for processes in (1, 2):
        code, _, said = start(script, tmp_path, processes=processes)
        assert code == 0, said
    assert {path.stem: json.loads(path.read_text()) for path in tmp_path.glob("*.json")} == {
        "alone": [["load"], ["draw"], ["encode", [0, 1]]],
        "0": [["load"], ["draw"], ["encode", [0, 2]], ["encode", [0, 1]]],
        "1": [["load"], ["encode", [1, 2]]],
    }


@given(st.integers(0, 20), st.integers(1, 6))
def test_shares_are_disjoint_and_come_in_order_again(items: int, count: int) -> None:
    whole = np.arange(items * 2).reshape(items, 2)
    parts = [np.asarray(Share(index, count).of(list(whole))).reshape(-1, 2) for index in range(count)]
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert (in_order_again(parts) == whole).all()


def test_the_first_process_encodes_the_most_clips() -> None:
    assert [clips_of(Share(index, 3), 9, 2) for index in range(3)] == [4, 3, 2]
    assert clips_of(Share(), 9, 2) == 9


def test_a_process_alone_does_everything() -> None:
    assert lead(lambda: share_out(own, 3)) == [(Share(0, 1), 3)]


def own(share: Share, number: int) -> tuple[Share, int]:
    return share, number
