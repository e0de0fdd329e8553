from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from vdmini_bench.data.clip_reader import ClipReader
from vdmini_bench.data.synthetic import ACTIONS, draw_clip
from vdmini_bench.data.video import write_video
from vdmini_bench.errors import BenchError, IncompleteError
from vdmini_bench.metrics.flow import flow_magnitudes
from vdmini_bench.system.workers import choose_workers, in_order


def slow_first(number: int) -> tuple[int, str | None]:
    time.sleep(0.2 if number == 0 else 0)
    return number, os.environ.get("OMP_NUM_THREADS")


def fail_at_three(number: int) -> int:
    if number == 3:
        raise ValueError("three")
    return number


def end(number: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return number


def test_results_come_in_order_from_processes_of_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert list(in_order(slow_first, range(6), 2)) == [(number, "1") for number in range(6)]
    assert "OMP_NUM_THREADS" not in os.environ
    assert list(in_order(slow_first, range(3), 1)) == [(number, None) for number in range(3)]


def test_few_items_are_taken_ahead_of_what_is_used() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(100):
            taken.append(number)
            yield number

    results = in_order(fail_at_three, items(), 2)
    assert next(results) == 0
    assert len(taken) <= 4
    results.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("workers", [1, 2])
def test_what_a_worker_raises_is_raised(workers: int) -> None:
    results = in_order(fail_at_three, range(9), workers)
    with pytest.raises(ValueError, match="three"):
        list(results)


def test_a_killed_worker_is_named() -> None:
    with pytest.raises(BenchError, match="--workers"):
        list(in_order(end, range(3), 2))


def test_the_number_of_workers_is_as_asked_for_or_one_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_workers(5) == 5
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert choose_workers(None) == 1
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert 1 <= choose_workers(None) <= 8


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    found = [tmp_path / f"{number}.mkv" for number in range(9)]
    for number, path in enumerate(found):
        write_video(path, draw_clip(tuple(ACTIONS)[number % 3], 1, number).frames, 7)
    found[4].write_bytes(found[4].read_bytes()[:200])
    found[7].unlink()
    return found


def read(paths: list[Path], workers: int) -> tuple[list[NDArray[np.uint8]], list[NDArray[np.float64]], list[Path]]:
    reader = ClipReader(
        paths, 9, 7, preprocessing="short-side-256-crop-square", offset_seed=3, workers=workers, trusted=False
    )
    clips, flows = zip(*reader.with_measure(flow_magnitudes), strict=True)
    with pytest.raises(IncompleteError, match="2 unreadable clips"):
        reader.check()
    return list(clips), list(flows), [problem.path for problem in reader.problems]


def test_clips_flows_and_problems_are_the_same_for_1_2_and_4_workers(paths: list[Path]) -> None:
    clips, flows, problems = read(paths, 1)
    assert problems == [paths[4], paths[7]]
    assert len(clips) == 7
    for workers in (2, 4):
        others = read(paths, workers)
        assert all((a == b).all() for a, b in zip(clips, others[0], strict=True))
        assert all((a == b).all() for a, b in zip(flows, others[1], strict=True))
        assert others[2] == problems


MEMORY = """
# Not in the workers that it starts, which need none of it.
if __name__ == "__main__":
    import resource, sys
    from pathlib import Path
    import torch
    import vdmini_bench.metrics.features as features
    from vdmini_bench.data.clip_reader import ClipReader

    class Fake(torch.nn.Module):
        def forward(self, video):
            return video.mean(dim=(3, 4)).flatten(1)[:, :20].repeat(1, 20)

    features.load_i3d = lambda asset: Fake()
    torch.set_num_threads(1)
    paths = sorted(Path(sys.argv[1]).glob("*.mkv")) * (int(sys.argv[2]) // 10)
    reader = ClipReader(paths, 10, 7, workers=2)
    found = features.clip_features(reader, "score", features.Measured(network_resize="plain"))
    assert found.embeddings.shape == (int(sys.argv[2]), 400)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def peak(script: Path, folder: Path, count: int) -> int:
    command = [sys.executable, str(script), str(folder), str(count)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.skipif(sys.platform == "win32", reason="getrusage is of Unix")
def test_memory_does_not_grow_with_the_number_of_clips(tmp_path: Path) -> None:
    script, folder = tmp_path / "score.py", tmp_path / "clips"
    script.write_text(MEMORY)
    for number in range(10):
        # Of half a megabyte each, so that 150 of them could not be held unnoticed.
        frames = draw_clip("Rise", 1, number).frames.repeat(4, axis=1).repeat(4, axis=2)
        write_video(folder / f"{number}.mkv", frames, 7)
    few, many = (peak(script, folder, count) for count in (30, 150))
    assert many < 1.1 * few
