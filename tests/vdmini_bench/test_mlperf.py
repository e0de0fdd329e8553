"""MLPerf's text-to-video task on files in its formats: prompts, latents, the mean of six dimensions, the floor."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from diffusers import UniPCMultistepScheduler, WanPipeline
from number_formats import NUMBERS
from small_videos import fake_environment, write_classifier, write_teacher

TESTS = Path(__file__).parents[1]
sys.path += [str(TESTS / "vdmini"), str(TESTS / "vdmini_bench" / "vbench")]

from small_networks import save_tag2text, write_small_cache  # noqa: E402
from small_suite import draw_video, write_words  # noqa: E402
from tiny_transformers import TINY  # noqa: E402

from vdmini.models.loading import load_model  # noqa: E402
from vdmini.models.registry import EMBEDDED  # noqa: E402
from vdmini.requests import ClipRequest  # noqa: E402
from vdmini.sample import sample_video  # noqa: E402
from vdmini_bench.cli import main  # noqa: E402
from vdmini_bench.config.vbench import VBenchSuite, load_any_suite  # noqa: E402
from vdmini_bench.config.vbench_dimensions import T2V  # noqa: E402
from vdmini_bench.errors import SuiteError  # noqa: E402
from vdmini_bench.metrics import scene_classifier  # noqa: E402
from vdmini_bench.vbench.native.catalogue import NATIVE_VERSION, TAG2TEXT, WORDS  # noqa: E402

# In mixed precision, of a norm whose weights stay in float32.
pytestmark = pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight:UserWarning")
SUITE = Path(__file__).parents[2] / "suites" / "mlperf_t2v.yaml"
SIX = (
    "subject_consistency", "background_consistency", "motion_smoothness", "dynamic_degree", "scene", "appearance_style",
)  # fmt: skip
MODELS = ("teacher", "fewer steps", "pruned", "student")
# As the official list has MLPerf's three kinds of prompts, with others between them and after.
OFFICIAL: list[dict[str, Any]] = [
    {"prompt_en": "a cat", "dimension": ["subject_consistency", "dynamic_degree", "motion_smoothness"]},
    {"prompt_en": "a red bicycle", "dimension": ["color"], "auxiliary_info": {"color": {"color": "red"}}},
    {
        "prompt_en": "a red dog, oil painting", "dimension": ["appearance_style"],
        "auxiliary_info": {"appearance_style": {"appearance_style": "oil painting"}},
    },
    {
        "prompt_en": "alley", "dimension": ["scene", "background_consistency"],
        "auxiliary_info": {"scene": {"scene": {"scene": "alley"}}},
    },
    {"prompt_en": "a dog", "dimension": ["subject_consistency", "dynamic_degree", "motion_smoothness"]},
    # The official list has some prompts twice, for other dimensions.
    {"prompt_en": "a cat", "dimension": ["overall_consistency", "imaging_quality"]},
]  # fmt: skip
SMALL = (
    "clip.frames=5", "sample.height=128", "sample.width=128", "sample.steps=3", "dataset.train_clips=1",
    "models.fewer steps.sample.steps=2", "distill.steps=1", "distill.batch_size=1", "distill.checkpoint_every=1",
    "vbench.code=native",
    "timing.runs=3", *NUMBERS,
)  # fmt: skip
ALONE = ("models={teacher: {}}", "timing=null")


def write_latents(file: Path, seed: int = 0, **changed: Any) -> None:
    """One clip's noise in half precision, as MLPerf's file is."""
    shape = changed.pop("shape", (1, 16, 2, 16, 16))
    torch.save(torch.randn(shape, generator=torch.Generator().manual_seed(seed)).bfloat16(), file)


def wan_of_two_experts() -> WanPipeline:
    """Wan 2.2's pipeline, with the scheduler that it is published with."""
    torch.manual_seed(0)
    tiny = TINY["wan"]
    parts = tiny.build_pipeline(tiny.build_denoiser()).components
    scheduler = UniPCMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=3.0)
    second = tiny.build_denoiser()
    return WanPipeline(**{**parts, "scheduler": scheduler, "transformer_2": second}, boundary_ratio=0.9)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a user has: the model, VBench's weights and environment, captioned clips, and MLPerf's two files."""
    root = tmp_path_factory.mktemp("published")
    wan_of_two_experts().to(torch.bfloat16).save_pretrained(root / "wan2.2", max_shard_size="100KB")
    golden = json.loads((TESTS / "golden" / "vbench_native.json").read_text(encoding="utf-8"))
    write_small_cache(root / "vbench", golden["shapes"])
    write_words(root / "vbench" / WORDS, golden["merges"])
    save_tag2text((root / "vbench" / TAG2TEXT).parent, golden["tag2text"])
    package = fake_environment(root / "env").folder / "lib" / "python3.11" / "site-packages" / "vbench"
    package.mkdir(parents=True)
    (package / "VBench_full_info.json").write_text(json.dumps(OFFICIAL), encoding="utf-8")
    draw_video(root / "captioned-videos" / "clip.mp4", 0, frames=8, side=160)
    (root / "captioned-videos" / "captions.csv").write_text("video,caption\nclip.mp4,a cat runs\n", encoding="utf-8")
    (root / "vbench_prompts.txt").write_text("a cat\na red dog, oil painting\nalley\n", encoding="utf-8")
    write_latents(root / "fixed_latent.pt")
    return root


@pytest.fixture
def here(published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Called from the folder of these files; where results go."""
    monkeypatch.chdir(published)
    monkeypatch.setenv("VDMINI_VBENCH_ENV", str(published / "env"))
    monkeypatch.setenv("VBENCH_CACHE_DIR", str(published / "vbench"))
    monkeypatch.setenv("VDMINI_CACHE", str(tmp_path / "cache"))
    return tmp_path / "results"


def run(results: Path, *more: str, profile: str = "mlperf") -> tuple[int, dict[str, Any], str]:
    chosen = (*SMALL, "teacher=wan2.2", *more) if profile == "mlperf" else more
    settings = [part for setting in chosen for part in ("--set", setting)]
    command = ["run", str(SUITE), "--profile", profile, *settings, "--results", str(results), "--json"]
    done = CliRunner().invoke(main, command)
    return done.exit_code, json.loads(done.stdout) if done.stdout.startswith("{") else {}, done.stderr


def by_place(output: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(row["model"], row["metric"]): row for row in output["rows"]}


@pytest.mark.slow
def test_the_task_runs_to_a_row_that_says_who_passes(here: Path) -> None:
    code, output, errors = run(here)
    assert code == 0, errors
    rows = by_place(output)
    for model in MODELS:
        measured = {name: rows[model, f"vbench_{name}"] for name in SIX}
        assert {(row["status"], row["metric_version"]) for row in measured.values()} == {("ok", NATIVE_VERSION)}
        # One clip of each of MLPerf's prompts that has the dimension; the official list has two cats and a dog.
        assert {row["n"] for row in measured.values()} == {1}
        mean = fmean(row["value"] for row in measured.values())
        assert rows[model, "vbench_mean"]["value"] == pytest.approx(mean, abs=1e-5)
        assert rows[model, "vbench_passes"]["value"] == float(mean >= 0.697752)
        assert "697752" in rows[model, "vbench_passes"]["note"]
        assert {row["protocol"] for row in measured.values()} == {rows[model, "vbench_mean"]["protocol"]}
        others = {name for name in T2V if name not in SIX}
        assert {rows[model, f"vbench_{name}"]["status"] for name in (*others, "total")} == {"unavailable"}
    protocol = rows["teacher", "vbench_mean"]["protocol"]
    assert protocol.startswith("vbench-official-")
    assert protocol.endswith("@1/p3x1/seed0")
    table = (Path(output["run_dir"]) / "table.md").read_text(encoding="utf-8")
    assert "0.7048" in table
    assert [line.split("|")[1].strip() for line in table.splitlines() if "| Mean" in line or "| Passes" in line] == [
        "Mean", "Passes",
    ]  # fmt: skip
    # Where a dimension is missing nobody passes, and nobody fails.
    small = here.parent / "small.pt"
    write_latents(small, shape=(1, 16, 2, 8, 8))
    size = (f"sample.latents={small}", "sample.height=64", "sample.width=64")
    code, output, errors = run(here, "vbench.dimensions=[scene,dynamic_degree]", *size, *ALONE)
    assert code == 0, errors
    for name in ("vbench_mean", "vbench_passes"):
        row = by_place(output)["teacher", name]
        assert (row["status"], row["value"]) == ("unavailable", None)
        assert "of 2 dimensions missing: dynamic_degree" in row["note"]


def test_the_same_noise_elsewhere_is_the_same_and_other_noise_is_another_protocol(here: Path) -> None:
    alone = (*ALONE, "vbench.dimensions=[scene]", "vbench.code=official")
    code, output, errors = run(here, *alone)
    assert code == 0, errors
    before = by_place(output)["teacher", "vbench_scene"]["protocol"]
    moved = here.parent / "moved.pt"
    moved.write_bytes(Path("fixed_latent.pt").read_bytes())
    code, output, _ = run(here, *alone, f"sample.latents={moved}")
    assert (code, output["jobs"]["ran"]) == (0, 0)
    write_latents(moved, seed=1)
    code, output, _ = run(here, *alone, f"sample.latents={moved}")
    assert code == 0
    assert by_place(output)["teacher", "vbench_scene"]["protocol"] != before
    assert output["jobs"]["ran"] == 3


def test_clips_are_those_of_mlperfs_script(here: Path) -> None:
    chosen = load_any_suite(SUITE, "mlperf", SMALL)
    assert isinstance(chosen, VBenchSuite)
    settings = chosen.profile.sampler(chosen.profile.sample)
    pipeline = load_model("wan2.2").pipeline
    assert pipeline is not None
    requests = [ClipRequest("a", 1, prompt="a cat"), ClipRequest("b", 2, prompt="a red dog")]
    ours = sample_video(pipeline, requests, settings)
    # As run_inference.py calls it.
    native = WanPipeline.from_pretrained("wan2.2", boundary_ratio=0.875, dtype=torch.float32)
    native.set_progress_bar_config(disable=True)
    for clip, request in zip(ours, requests, strict=True):
        theirs = native(
            prompt=request.prompt,
            negative_prompt=chosen.profile.sample.negative_prompt,
            height=128,
            width=128,
            num_frames=5,
            guidance_scale=4.0,
            guidance_scale_2=3.0,
            num_inference_steps=3,
            generator=torch.Generator().manual_seed(42),
            latents=torch.load("fixed_latent.pt", weights_only=True),
        ).frames[0]
        # Alone it is the same; two of one batch differ by rounding.
        assert np.array_equal(sample_video(pipeline, [request], settings)[0], theirs)
        assert np.abs(clip - theirs).max() < 1e-4


@pytest.mark.parametrize(
    ("setting", "code", "said"),
    [
        ("vbench.only=absent.txt", 2, "--set vbench.only=FILE"),
        ("sample.latents=absent.pt", 2, "--set sample.latents=FILE"),
        ("vbench.only=captioned-videos/captions.csv", 2, "such as 'a cat runs'"),
        ("vbench.dimensions=[scene,aesthetic_quality]", 2, "vbench_prompts.txt lists no prompt of aesthetic_quality"),
        ("sample.width=144", 2, "models: teacher: fixed_latent.pt holds (1, 16, 2, 16, 16), where a clip of this"),
        ("sample.latents=vbench_prompts.txt", 2, "cannot be read as weights"),
        ("models.teacher={sample: {latents: other.pt}}", 2, "set sample.latents of the profile"),
        ("vbench.samples_per_prompt=2", 2, "all samples of a prompt are the same"),
        ("vbench.samples_per_prompt=null", 2, "all samples of a prompt are the same"),
        ("vbench.prompts=vbench_prompts.txt", 2, "set vbench.prompts: official"),
    ],
)
def test_what_cannot_be_the_task_is_refused_before_anything_runs(
    here: Path, setting: str, code: int, said: str
) -> None:
    found, output, errors = run(here, setting)
    assert (found, output) == (code, {})
    assert said in errors.replace("\n", " ")


def test_latents_are_no_setting_of_other_suites() -> None:
    with pytest.raises(SuiteError, match="latents"):
        load_any_suite(SUITE.with_name("ucf101.yaml"), "smoke", ("sample.latents=fixed_latent.pt",))


def test_the_suite_runs_on_what_ships(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_teacher(tmp_path / "t2v")
    write_classifier(tmp_path / "classifier")
    monkeypatch.setitem(EMBEDDED, "embedded/t2v", tmp_path / "t2v")
    monkeypatch.setattr(scene_classifier, "SHIPPED", tmp_path / "classifier")
    monkeypatch.setattr(scene_classifier.load_classifier, "__defaults__", (tmp_path / "classifier",))
    monkeypatch.setenv("VDMINI_VBENCH_ENV", str(tmp_path / "none"))
    monkeypatch.setenv("VBENCH_CACHE_DIR", str(tmp_path / "none"))
    few = ("vbench.prompt_count=2", "dataset.train_clips=2", "distill.steps=1", "distill.batch_size=1")
    code, output, errors = run(tmp_path / "results", *few, "sample.steps=2", "timing=null", profile="smoke")
    assert code == 0, errors
    rows = by_place(output)
    for model in ("real", *MODELS):
        flickering = rows[model, "vbench_temporal_flickering"]["value"]
        assert rows[model, "vbench_mean"]["value"] == flickering
        assert rows[model, "vbench_passes"]["value"] == float(flickering >= 0.959)
        assert "says nothing of MLPerf" in rows[model, "vbench_passes"]["note"]
