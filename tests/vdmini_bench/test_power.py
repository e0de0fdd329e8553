from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from numpy.typing import NDArray
from scipy.stats import kurtosis, skew, t
from torch import Tensor, nn

from vdmini_bench.cli import main
from vdmini_bench.results.stats import mean_interval, paired_power, skewed_power
from vdmini_bench.studies import power as study
from vdmini_bench.studies.power_clips import TAKES, Pool, Readings, Take, measure_pool
from vdmini_bench.studies.power_prediction import ClipEffect, Effect, Effects

SCENES = 800


@pytest.mark.parametrize(("mean", "pairs"), [(3.0, 3), (-1.0, 10), (0.37, 60)])
def test_power_is_how_often_intervals_of_normal_differences_leave_zero_out(mean: float, pairs: int) -> None:
    random = np.random.default_rng(0)
    draws = random.normal(mean, 1, (1000, pairs)) * np.sign(mean)
    seen = np.mean([mean_interval(draw.tolist())[1] > 0 for draw in draws])
    assert paired_power(mean, 1, pairs) == pytest.approx(seen, abs=0.04)


def test_power_at_its_ends() -> None:
    assert paired_power(1, 0, 3) == 1
    assert paired_power(0, 1, 100) == 0
    # One block has no interval, however large the difference.
    assert paired_power(1e9, 1, 1) == 0
    assert paired_power(1000, 1, 3) == 1


@pytest.mark.parametrize(("share", "spread", "pairs"), [(0.13, 0.01, 60), (0.1, 0.3, 120)])
def test_rare_large_differences_are_seen_more_often_than_normal_ones(share: float, spread: float, pairs: int) -> None:
    random = np.random.default_rng(0)
    draws = spread * random.normal(size=(4000, pairs)) - (random.random((4000, pairs)) < share)
    scores = draws.mean(1) / draws.std(1, ddof=1) * pairs**0.5
    seen = (scores < -t.ppf(0.975, pairs - 1)).mean()
    found = skewed_power(draws.mean(), draws.std(), skew(draws, None), kurtosis(draws, None), pairs)
    assert found == pytest.approx(seen, abs=0.02)
    assert found > paired_power(draws.mean(), draws.std(), pairs)


def moments(mean: float, spread: float) -> tuple[float, float, float, float]:
    """Of a normal distribution about 0."""
    return (
        mean, mean**2 + spread**2, mean**3 + 3 * mean * spread**2, mean**4 + 6 * mean**2 * spread**2 + 3 * spread**4
    )  # fmt: skip


def effects() -> Effects:
    of_blocks = [
        Effect("fvd", "motion", share, size, 50 * share, 60 / size**0.5)
        for share in (0.0, 0.1, 0.5, 1.0)
        for size in (16, 64)
    ]
    of_clips = [
        ClipEffect(metric, clips, *moments(mean, 2.0))
        for metric, lost in (("psnr", -4.0), ("ssim", 0.0))
        for clips, mean in (("whole", 0.0), ("motion", lost))
    ]
    return Effects(tuple(of_blocks), tuple(of_clips))


def test_more_clips_and_larger_losses_are_seen_more_often_and_counts_are_the_fewest() -> None:
    found = effects()
    assert found.power("psnr", "motion", 0.1, 400, 1) > found.power("psnr", "motion", 0.1, 100, 1)
    assert found.power("fvd", "motion", 0.4, 3, 20) > found.power("fvd", "motion", 0.2, 3, 20)
    clips = found.clips_needed("psnr", "motion", 0.1, None)
    assert clips is not None
    assert found.power("psnr", "motion", 0.1, clips, 1) >= 0.8 > found.power("psnr", "motion", 0.1, clips - 1, 1)
    in_blocks = found.clips_needed("fvd", "motion", 0.2, 3)
    assert in_blocks is not None
    assert in_blocks % 3 == 0
    assert found.power("fvd", "motion", 0.2, 3, in_blocks // 3) >= 0.8
    assert found.power("fvd", "motion", 0.2, 3, in_blocks // 3 - 1) < 0.8
    # More blocks of the same clips have the narrower interval.
    assert found.power("fvd", "motion", 0.2, 6, 20) > found.power("fvd", "motion", 0.2, 3, 40)
    smallest = found.share_seen("psnr", "motion", 200, 1)
    assert smallest is not None
    assert found.power("psnr", "motion", smallest, 200, 1) >= 0.8


def test_what_changes_nothing_is_never_seen() -> None:
    assert effects().share_seen("ssim", "motion", 10_000, 1) is None
    assert effects().clips_needed("ssim", "motion", 1.0, None) is None


def test_between_and_beyond_measured_blocks_the_spread_falls_as_a_clips_own() -> None:
    for size in (5, 16, 25, 64, 640):
        assert effects().difference("fvd", "motion", 0.3, size) == pytest.approx((15, 60 / size**0.5))


def test_effects_are_read_as_they_were_written(tmp_path: Path) -> None:
    effects().write(tmp_path)
    assert Effects.read(tmp_path) == effects()


def takes(seed: int) -> dict[Take, Readings]:
    """Scenes whose logits and PSNR fall where they are lost, as much as they spread from take to take."""
    random = np.random.default_rng(seed)
    scene = random.normal(size=(SCENES, 1))
    found: dict[Take, Readings] = {}
    for take in TAKES:
        rows = scene + random.normal(size=(SCENES, 4)) - (take not in ("first", "second"))
        found[take] = {"logits": rows, "magnitudes": rows, "statistics": rows, "psnr": rows[:, 0]}
    return found


def test_predictions_hold_on_other_scenes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "RUNS", 300)
    monkeypatch.setattr(study, "PROTOCOLS", ((3, 20),))
    monkeypatch.setattr(study, "BLOCK_SIZES", (10, 40))
    metrics = {"fvd": study.SetMetric("logits", lambda rows: float(rows.mean()))}
    found = Effects(tuple(study.measure_effects(takes(0), metrics)), tuple(study.measure_clips(takes(0))))
    checks = study.check_predictions(found, takes(1), metrics)
    assert {(each.metric, each.loss) for each in checks} == {
        (name, loss) for name in ("fvd", "psnr") for loss in ("motion", "content")
    }
    for check in checks:
        assert check.predicted == pytest.approx(0.81, abs=0.03)
        assert check.seen == pytest.approx(check.predicted, abs=0.1), check
        # One side of an interval of 95 %.
        assert check.seen_of_none < 0.06, check


class Small(nn.Module):
    """Five numbers of a clip, in place of I3D."""

    def forward(self, clips: Tensor) -> Tensor:
        return torch.stack([clips.mean(dim=(1, 2, 3, 4)), *clips.std(dim=(2, 3, 4)).T, clips.amax(dim=(1, 2, 3, 4))], 1)


def test_a_lost_scene_stands_still_or_is_blurred_and_others_are_only_moved(tmp_path: Path) -> None:
    pool = Pool(first_index=9301, count=2)
    read = measure_pool(pool, Small(), tmp_path)
    assert not read["motion"]["magnitudes"].any()
    assert read["first"]["logits"].shape == (20, 5)

    def mean(take: Take, name: str) -> float:
        return float(read[take][name].mean())

    # Two models that lost nothing: other clips, alike on average.
    assert not (read["first"]["psnr"] == read["second"]["psnr"]).any()
    assert mean("content", "ssim") < mean("second", "ssim")
    assert mean("motion", "motion_distance") > 2 * mean("second", "motion_distance")
    assert mean("motion", "vbench_temporal_flickering") == 1
    # Kept, and not read again.
    kept: NDArray[np.float64] = measure_pool(pool, nn.Identity(), tmp_path)["content"]["psnr"]
    assert (kept == read["content"]["psnr"]).all()


def rows(*command: str) -> dict[tuple[str, str], dict[str, object]]:
    done = CliRunner().invoke(main, ["power", *command, "--json"])
    assert done.exit_code == 0, done.output
    return {(row["metric"], row["loss"]): row for row in json.loads(done.stdout)["rows"]}


def test_a_suite_says_what_it_can_see_before_it_is_run(tmp_path: Path) -> None:
    small = rows("ucf101", "--profile", "smoke", "--results", str(tmp_path))
    large = rows("ucf101", "--profile", "embedded", "--results", str(tmp_path))
    assert (small["fvd", "motion"]["blocks"], small["fvd", "motion"]["size"]) == (2, 5)
    assert (large["psnr", "content"]["blocks"], large["psnr", "content"]["size"]) == (180, 1)
    for key, row in large.items():
        # None is no loss at all.
        assert (row["smallest"] or 1.01) <= (small[key]["smallest"] or 1.01), key
    assert ("kvd", "motion") not in large
    assert ("kvd", "motion") in rows("ucf101", "--set", "protocol.reference=computed")
    assert not [*tmp_path.iterdir()]


def test_one_block_sees_nothing_of_sets() -> None:
    one = rows("ucf101", "--set", "protocol.blocks=1")
    assert one["fvd", "motion"]["smallest"] is None
    assert one["motion_distance", "motion"]["smallest"] is not None


def test_dimensions_are_of_the_prompts_that_ask_for_them() -> None:
    found = rows("vbench_t2v")
    assert found["vbench_embedded-scene", "content"]["blocks"] == 48
    assert found["vbench_embedded-color", "content"]["blocks"] == 24
    assert found["vbench_embedded-human_action", "motion"]["size"] == 2
    assert rows("vbench_i2v")["vbench_embedded-i2v_subject", "content"]["blocks"] == 96
    official = rows("vbench_t2v", "--profile", "paper")
    assert {metric for metric, _ in official} == {"psnr", "ssim", "content_distance", "motion_distance"}


def test_the_table_says_that_it_is_a_stand_in_and_what_a_loss_is() -> None:
    done = CliRunner().invoke(main, ["power", "ucf101", "--profile", "paper"])
    assert done.exit_code == 0, done.output
    assert "nothing was run" in done.output
    assert "every tenth clip stands still" in done.output
    assert "stand-in" in done.output
    # 512 clips a block are more than were measured.
    assert "~17%" in done.output
