from __future__ import annotations

from pathlib import Path

import forked
import numpy as np
import pytest
import torch
from torch import Tensor, distributed, nn

from vdmini_bench.metrics.frechet import frechet_distance
from vdmini_bench.metrics.fvd import clips_to_features
from vdmini_bench.metrics.inception import inception_score
from vdmini_bench.metrics.kernel import polynomial_mmd
from vdmini_bench.metrics.torchmetrics_video import (
    FrechetVideoDistance,
    KernelVideoDistance,
    VideoFeatures,
    VideoInceptionScore,
)


class Corners(nn.Module):
    """Six numbers of a clip."""

    def forward(self, video: Tensor) -> Tensor:
        return nn.functional.adaptive_avg_pool3d(video, (2, 1, 1)).flatten(1) * 9


def clips(seed: int, count: int) -> Tensor:
    """B T C H W uint8, of unlike brightness."""
    random = np.random.default_rng(seed)
    values = random.integers(0, 120, (count, 9, 3, 8, 8)) + random.integers(0, 136, (count, 9, 3, 1, 1))
    return torch.from_numpy(values.astype(np.uint8))


REAL, GENERATED = clips(0, 7), clips(1, 5)


def values(real: Tensor, generated: Tensor) -> list[float]:
    """What our functions say of all clips."""
    rows, others = (clips_to_features([each], Corners()) for each in (real, generated))
    distances = [frechet_distance(rows, others), frechet_distance(rows, others, ddof=0), polynomial_mmd(others, rows)]
    return [*distances, *inception_score(others, 2)]


def metrics() -> list[VideoFeatures]:
    network = Corners()
    return [
        FrechetVideoDistance(network), FrechetVideoDistance(network, ddof=0), KernelVideoDistance(network),
        VideoInceptionScore(network, splits=2),
    ]  # fmt: skip


def give(metric: VideoFeatures, videos: Tensor, real: bool) -> None:
    if not isinstance(metric, VideoInceptionScore):
        metric.update(videos, real=real)
    elif not real:
        metric.update(videos)


def computed(found: list[VideoFeatures]) -> list[float]:
    return torch.hstack([torch.hstack(each) if isinstance(each, tuple) else each for each in
                         (metric.compute() for metric in found)]).tolist()  # fmt: skip


def test_values_are_those_of_our_functions_and_reset_forgets() -> None:
    found = metrics()
    for _ in range(2):
        for metric in found:
            give(metric, REAL[:3], real=True)
            give(metric, GENERATED, real=False)
            give(metric, REAL[3:], real=True)
        assert computed(found) == pytest.approx(values(REAL, GENERATED), rel=1e-10, abs=1e-10)
        for metric in found:
            metric.reset()


def test_states_merge() -> None:
    found, others = metrics(), metrics()
    for one, other in zip(found, others, strict=True):
        give(one, GENERATED[3:], real=False)
        give(other, REAL, real=True)
        give(other, GENERATED[:3], real=False)
        one.merge_state(other)
    assert computed(found) == pytest.approx(values(REAL, GENERATED), rel=1e-10, abs=1e-10)


def _process(rank: int, folder: Path) -> None:
    """One of two: the second sees no real clip."""
    distributed.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=2)
    found = metrics()
    for metric in found:
        if rank == 0:
            give(metric, REAL, real=True)
        give(metric, GENERATED[:2] if rank == 0 else GENERATED[2:], real=False)
    torch.save(computed(found), folder / f"{rank}.pt")
    distributed.destroy_process_group()


def test_several_processes_compute_one_value(tmp_path: Path) -> None:
    processes = [forked.SERVER.Process(target=_process, args=(rank, tmp_path)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    for rank in range(2):
        assert torch.load(tmp_path / f"{rank}.pt") == pytest.approx(values(REAL, GENERATED), rel=1e-10, abs=1e-10)


def test_what_is_no_batch_of_clips_is_refused_and_so_are_too_few() -> None:
    metric = FrechetVideoDistance(Corners())
    with pytest.raises(ValueError, match="it must be uint8 B T 3 H W"):
        metric.update(REAL.float(), real=True)
    metric.update(REAL, real=True)
    with pytest.raises(ValueError, match="features has 0 rows: at least 2 are needed"):
        metric.compute()
