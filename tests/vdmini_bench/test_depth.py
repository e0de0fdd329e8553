"""What blocks carry: removal and patching, the contrasts that decide, and how strong they have to be."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from diffusers import UniPCMultistepScheduler, WanPipeline, WanTransformer3DModel
from torch import Tensor

from vdmini import load_model
from vdmini.importance import bypassed
from vdmini.plan import PruningPlan
from vdmini.requests import SampleSettings
from vdmini_bench.cli import main
from vdmini_bench.config.depth import load_depth_study
from vdmini_bench.embedded.wan import build_text_encoder, build_tokenizer, build_video_vae
from vdmini_bench.errors import SuiteError
from vdmini_bench.studies.depth import PHASES, Effect, Patching, Removal, during, patched
from vdmini_bench.studies.depth_verdicts import contrasts, ends_excess, least_shown, motion_slope
from vdmini_bench.studies.importance import Study, sample_study
from vdmini_bench.studies.worlds import DrawnWorld

SETTINGS = SampleSettings(steps=3, frames=9, height=32, width=32, guidance=3.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Wan pipeline with seeded weights."""
    torch.manual_seed(0)
    transformer = WanTransformer3DModel(
        patch_size=(3, 1, 1), num_attention_heads=2, attention_head_dim=12, in_channels=32, out_channels=32,
        text_dim=64, freq_dim=16, ffn_dim=32, num_layers=4, rope_max_seq_len=64,
    )  # fmt: skip
    scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)
    path = tmp_path_factory.mktemp("depth") / "wan"
    WanPipeline(build_tokenizer(), build_text_encoder(), build_video_vae(), scheduler, transformer).save_pretrained(
        path
    )
    return path


@pytest.fixture
def study(folder: Path) -> Study:
    return Study(load_model(str(folder)), (), SETTINGS, 4)


def sampled(study: Study, captions: list[str], seeds: list[int]) -> np.ndarray[Any, Any]:
    from vdmini.requests import ClipRequest

    requests = [
        ClipRequest(str(place), seed, prompt=text)
        for place, (seed, text) in enumerate(zip(seeds, captions, strict=True))
    ]
    return sample_study(replace(study, requests=requests), study.model.denoiser)


def test_a_block_is_removed_in_the_steps_of_a_phase_alone(study: Study) -> None:
    """Every step is in one third; a run of its own begins with its first step."""
    denoiser = study.model.denoiser
    for name, share in PHASES.items():
        with during(denoiser, SETTINGS.steps, share) as active:
            was: list[bool] = []
            hook = denoiser.register_forward_hook(lambda *_, was=was, active=active: was.append(active()))
            for _ in range(2):
                sampled(study, ["a red ring falls over a moss background"], [0])
            hook.remove()
        # Two passes a step: with the caption and without.
        expected = [share[0] * 3 <= step < share[1] * 3 for step in range(3) for _ in range(2)]
        assert was == expected * 2, name
    whole = sampled(study, ["a red ring falls over a moss background"], [0])
    with during(denoiser, 3, PHASES["all"]) as active, bypassed(denoiser, "Block.1", active):
        without = sampled(study, ["a red ring falls over a moss background"], [0])
    with bypassed(denoiser, "Block.1"):
        assert np.array_equal(without, sampled(study, ["a red ring falls over a moss background"], [0]))
    with bypassed(denoiser, "Block.1", lambda: False):
        assert np.array_equal(whole, sampled(study, ["a red ring falls over a moss background"], [0]))
    assert not np.array_equal(whole, without)


def test_a_patch_carries_the_first_clips_update_to_the_second(study: Study) -> None:
    denoiser = study.model.denoiser
    updates: list[Tensor] = []

    def note(module: object, inputs: tuple[Any, ...], output: Tensor) -> None:
        updates.append(output - inputs[0])

    captions = ["a red ring falls over a moss background", "a blue disc falls over a moss background"]
    plain = sampled(study, captions, [0, 0])
    assert not np.array_equal(plain[0], plain[1])
    with patched(denoiser, "Block.2", lambda: True):
        hook = denoiser.blocks[2].register_forward_hook(note)  # type: ignore[union-attr,index,operator]
        changed = sampled(study, captions, [0, 0])
        hook.remove()
    assert np.array_equal(changed[0], plain[0]), "the first clip is its own"
    assert not np.array_equal(changed[1], plain[1])
    assert all(torch.allclose(first, second, atol=1e-5) for first, second in updates)
    with patched(denoiser, "Block.2", lambda: True):
        same = sampled(study, captions[:1] * 2, [0, 0])
    # A clip's place in a batch changes its rounding.
    assert np.abs(same[0].astype(int) - same[1]).max() <= 1


class Told(DrawnWorld):
    """Shows what it is told."""

    def __init__(self, *answers: float | list[int]) -> None:
        self.answers = iter(answers)

    def shows(self, factor: object, scenes: Sequence[object], clips: object) -> np.ndarray[Any, Any]:
        return np.broadcast_to(np.asarray(next(self.answers)), len(scenes))


def test_effects_are_shares_of_the_margin_over_chance(study: Study) -> None:
    content, motion = Removal(study, Told(0.9, 0.8, 0.5, 0.8), 2).effects("Block.3", "all")
    assert content.value == pytest.approx((0.9 - 0.5) / (0.9 - 1 / 24))
    assert (motion.value, content.depth, content.clips) == (0.0, 1.0, 2)
    # Of each factor: unpatched, then patched, of the first clips and of the second.
    shown = Told([1, 1, 0, 0], [1, 1, 1, 0], [1, 0, 0, 0], [1, 0, 0, 0])
    content, motion = Patching(study, shown, 2).effects("Block.0", "all")
    assert (content.value, motion.value) == (0.5, 0.0)


def made(motion: list[float], content: list[float]) -> list[Effect]:
    depths = np.linspace(0, 1, len(motion))
    return [
        Effect("removal", factor, f"Block.{place}", float(depth), "all", values[place], 8)  # type: ignore[arg-type]
        for factor, values in (("motion", motion), ("content", content))
        for place, depth in enumerate(depths)
    ]


def test_contrasts_answer_as_they_were_written_down() -> None:
    shallow_content = made([0.1 * place for place in range(12)], [1.1 - 0.1 * place for place in range(12)])
    assert motion_slope(shallow_content) == pytest.approx(2.2)
    assert ends_excess(made([1, 1, *[0.5] * 8, 1, 1], [1, 1, *[0.3] * 8, 1, 1])) == pytest.approx(0.6)
    random = np.random.default_rng(0)
    noisy = {
        str(teacher): made(
            [0.1 * place + random.normal(0, 0.02) for place in range(12)], [0.5] * 12
        )
        for teacher in range(3)
    }  # fmt: skip
    by_name = {each.name: each for each in contrasts(noisy)}
    slope = by_name["motion less content, by depth"]
    assert slope.answer(positive=True) == "supported"
    assert slope.answer(positive=False) == "contradicted"
    assert by_name["first and last, less the middle"].answer() in ("inconclusive", "supported")
    assert len(slope.values) == 3


def test_the_least_effect_is_seen_in_four_of_five_cases() -> None:
    values = [0.1, -0.2, 0.25]
    least = least_shown(values)
    random = np.random.default_rng(0)
    draws = random.normal(least, np.std(values, ddof=1), size=(20_000, 3))
    half = 4.302653 * draws.std(axis=1, ddof=1) / np.sqrt(3)
    seen = np.abs(draws.mean(axis=1)) > half
    assert 0.78 < seen.mean() < 0.82


def write_study(path: Path, teachers: list[Path], **changed: object) -> Path:
    profile = {
        "stand_in": "nothing", "teachers": [*map(str, teachers)], "clips": 2, "pairs": 2, "removed": 1,
        "sample": {"steps": 3, "guidance": 3.0, "frames": 9, "height": 32, "width": 32, "batch_size": 4}, **changed,
    }  # fmt: skip
    path.write_text(json.dumps({"name": "depth", "version": 1, "default_profile": "p", "profiles": {"p": profile}}))
    return path


def test_one_command_measures_all_and_goes_on(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    asked = write_study(tmp_path / "study.yaml", [folder, copy])
    out = tmp_path / "out"
    monkeypatch.delitem(PHASES, "first third")
    monkeypatch.delitem(PHASES, "second third")
    untrained = CliRunner().invoke(main, ["depth", str(asked), "-o", str(out)])
    assert untrained.exit_code == 4
    assert "train it further" in untrained.output
    monkeypatch.setattr(
        DrawnWorld, "shows", lambda world, factor, scenes, clips: np.arange(len(scenes)) < len(scenes) / 2
    )
    decided = write_study(tmp_path / "decided.yaml", [folder, copy], deciding_only=True)
    first = CliRunner().invoke(main, ["depth", str(decided), "-o", str(out)], catch_exceptions=False)
    assert first.exit_code == 0, first.output
    # Teachers, factors and blocks, and the line of names.
    assert len((out / "depth.csv").read_text().splitlines()) == 2 * 2 * 4 + 1
    result = CliRunner().invoke(main, ["depth", str(asked), "-o", str(out)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "nothing" in result.output
    with (out / "depth.csv").open() as file:
        rows = [*csv.DictReader(file)]
    # Teachers, experiments, factors, blocks and phases.
    assert len(rows) == 2 * 2 * 2 * 4 * 2
    verdicts = json.loads((out / "verdicts.json").read_text())["verdicts"]
    assert len(verdicts) == 3
    assert (out / "depth.png").stat().st_size > 10_000
    plans = [PruningPlan.from_json(path.read_text()) for path in sorted((out / "plans").iterdir())]
    # Nothing is lost without any block, so the first ones go.
    assert [plan.removed for plan in plans] == [("Block.0",)] * 4
    stored = out / "teachers" / "0" / "rows" / "removal-Block.0-all.json"
    stored.write_text(stored.read_text().replace('"Block.0"', '"kept"'))
    CliRunner().invoke(main, ["depth", str(asked), "-o", str(out)], catch_exceptions=False)
    assert "kept" in (out / "depth.csv").read_text()
    other = write_study(tmp_path / "other.yaml", [folder, copy], clips=4)
    refused = CliRunner().invoke(main, ["depth", str(other), "-o", str(out)])
    assert (refused.exit_code, "give another folder" in refused.output) == (2, True)


def test_sets_of_clips_take_the_place_of_teachers(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, out = write_study(tmp_path / "study.yaml", [folder], parts=2), tmp_path / "out"
    previewed = CliRunner().invoke(main, ["depth", str(asked), "--dry-run", "--json"])
    assert previewed.exit_code == 0, previewed.output
    (printed,) = json.loads(previewed.stdout)
    # Two sets of two clips and of two pairs for each factor, once whole and for each of four blocks in four phases.
    assert (printed["blocks"], printed["clips"]) == ("4", str(2 * (2 + 2 * 2 * 2) * (1 + 4 * 4)))
    for phase in ("first third", "second third"):
        monkeypatch.delitem(PHASES, phase)
    seen: list[tuple[str, ...]] = []

    def shows(world: object, factor: str, scenes: Sequence[Any], clips: object) -> np.ndarray[Any, Any]:
        seen.append(tuple(scene.caption for scene in scenes))
        return np.arange(len(scenes)) < len(scenes) / 2

    monkeypatch.setattr(DrawnWorld, "shows", shows)
    result = CliRunner().invoke(main, ["depth", str(asked), "-o", str(out)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    verdicts = json.loads((out / "verdicts.json").read_text())["verdicts"]
    assert {len(each["values"]) for claim in verdicts.values() for each in claim.values()} == {2}
    assert len([*(out / "plans").iterdir()]) == 2
    # Two sets, each of its own clips to remove from and of its own pairs, which are of the same scenes in both factors.
    assert len({*seen}) == 2 * 2


def test_names_make_captions_together_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match=r"study.yaml:1:\d+.*give both"):
        load_depth_study(write_study(tmp_path / "study.yaml", [tmp_path], parts=2, things=["a dog", "a cat"]))


@pytest.mark.parametrize("count", [1, 2])
def test_a_study_of_one_teacher_is_refused_with_its_line(tmp_path: Path, count: int) -> None:
    with pytest.raises(SuiteError, match=r"study.yaml:1:\d+.*(teachers|parts)"):
        load_depth_study(write_study(tmp_path / "study.yaml", [tmp_path] * count))


def test_the_shipped_study_is_as_it_was_written_down() -> None:
    study = load_depth_study(Path(__file__).parents[2] / "suites" / "depth.yaml")
    assert (len(study.teachers), study.clips, study.pairs, study.settings.steps) == (3, 192, 96, 12)
    published = load_depth_study(Path(__file__).parents[2] / "suites" / "depth.yaml", "wan")
    assert (len(published.teachers), published.parts) == (1, 3)
