"""The suites that are scored in VBench's dimensions: what they say, what is asked for, and who judges it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_videos import fake_environment, write_classifier

from vdmini_bench.config.suite import load_suite
from vdmini_bench.config.vbench import VBenchProfile, VBenchSpec, VBenchSuite, load_any_suite
from vdmini_bench.config.vbench_dimensions import DIMENSIONS, I2V, OF_MODE, T2V
from vdmini_bench.data.captions import parse_caption
from vdmini_bench.errors import SuiteError
from vdmini_bench.metrics import scene_classifier, semantic
from vdmini_bench.metrics.semantic import Reading
from vdmini_bench.runs.stages.judge import score_of_marks
from vdmini_bench.suites.job_graph import Job
from vdmini_bench.suites.jobs import PromptedInputs, TrainingInputs, plan_training
from vdmini_bench.suites.vbench import jobs_of_videos
from vdmini_bench.suites.vbench_scorers import DRAWN_WORLD, choose_judges
from vdmini_bench.suites.vbench_training_clips import draw_captioned
from vdmini_bench.suites.vbench_videos import clip_requests, drawn_frames, embedded_videos, real_videos, write_images
from vdmini_bench.vbench.environment import Environment
from vdmini_bench.vbench.native import catalogue

SUITES = Path(__file__).parents[2] / "suites"
T2V_SUITE, I2V_SUITE = SUITES / "vbench_t2v.yaml", SUITES / "vbench_i2v.yaml"
STUDENTS = (
    "pruned", "student", "ICD alone", "MCA alone", "DepGraph L2", "DepGraph Taylor", "magnitude",
    "student, small decoder",
)  # fmt: skip
PLANS = {"teacher": "none", "fewer steps": "none"} | dict.fromkeys(STUDENTS, "vdmini")
INPUTS = PromptedInputs(
    "t", PLANS, {}, "train", {"torch": "2.8"}, "m", asked="asked", judges={"a": "1", "b": "1"}, reasons={"c": "why"}
)


def profile(suite: Path, name: str = "smoke", *overrides: str) -> VBenchProfile:
    chosen = load_any_suite(suite, name, overrides)
    assert isinstance(chosen, VBenchSuite)
    return chosen.profile


@pytest.mark.parametrize(("path", "names"), [(T2V_SUITE, T2V), (I2V_SUITE, ("temporal_flickering", *I2V))])
def test_every_profile_loads_and_every_official_dimension_has_a_row(path: Path, names: tuple[str, ...]) -> None:
    for name in ("embedded", "smoke", "paper"):
        chosen = profile(path, name)
        assert chosen.vbench.asked_dimensions == chosen.vbench.all_dimensions == names
        assert (chosen.stand_in is None) == (name == "paper") == (chosen.vbench.prompts == "official")
    assert {*OF_MODE["t2v" if path == T2V_SUITE else "i2v"]} <= {*names}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("prompt_count: 48", "", r"vbench.yaml:\d+:\d+: vbench.prompt_count: embedded prompts need a number"),
        ("prompts: embedded", "prompts: official", "the official prompts have numbers of their own"),
        ("kind: drawn-captions", "kind: drawn", "set dataset.kind to drawn-captions or folder"),
        ("height: 32", "height: 64", "10 frames of 32x32"),
        ("mode: t2v", "mode: t2v\n      dimensions: [i2v_subject]", "not scored in mode t2v"),
        ("mode: t2v", "mode: t2v\n      dimensions: [colour]", "no VBench dimension colour"),
        ("samples_per_prompt: 2", "sample_per_prompt: 2", "did you mean 'samples_per_prompt'"),
        ("kind: vbench", "kind: fid", "kind: Input should be 'distributions' or 'vbench'"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = T2V_SUITE.read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / "vbench.yaml"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(SuiteError, match=message):
        load_any_suite(path)


def test_a_suite_of_another_kind_is_told_apart() -> None:
    with pytest.raises(SuiteError, match=r"vbench_t2v.yaml:4:1: a suite of kind 'vbench'.*vbench score"):
        load_suite(T2V_SUITE)
    assert load_any_suite(SUITES / "ucf101.yaml", "smoke") == load_suite(SUITES / "ucf101.yaml", "smoke")


@pytest.mark.parametrize("name", ["embedded", "smoke"])
def test_image_to_video_distils_the_student_of_the_ucf101_suite(name: str) -> None:
    inputs = TrainingInputs("t", PLANS, {}, "train", {"torch": "2.8"})
    ours = plan_training(profile(I2V_SUITE, name), inputs, "folder")
    theirs = plan_training(load_suite(SUITES / "ucf101.yaml", name).profile, inputs, "folder")
    assert [*ours.jobs] == ["prune pruned", "encode", "distill student"]
    assert ours.jobs == theirs.jobs


def keys(chosen: VBenchProfile, inputs: PromptedInputs = INPUTS) -> dict[str, Job]:
    return jobs_of_videos(chosen, inputs, "folder", 12).jobs


def changed(before: dict[str, Job], after: dict[str, Job]) -> set[str]:
    assert before.keys() == after.keys()
    return {name for name in before if before[name].key != after[name].key}


def test_one_dimension_judged_anew_leaves_the_others() -> None:
    before = keys(profile(T2V_SUITE))
    rows = ("real", "teacher", "pruned", "student")
    after = keys(profile(T2V_SUITE), replace(INPUTS, judges={"a": "1", "b": "2"}))
    assert changed(before, after) == {f"judge {row} b" for row in rows}
    after = keys(profile(T2V_SUITE), replace(INPUTS, reasons={"c": "another"}))
    assert changed(before, after) == {f"total {row}" for row in rows}
    after = keys(profile(T2V_SUITE, "smoke", "distill.steps=9"))
    judged = {"judge student a", "judge student b", "total student", "fidelity student"}
    assert changed(before, after) == {"distill student", "sample student", *judged}


def test_of_official_prompts_the_total_waits_for_every_dimension() -> None:
    official = keys(profile(T2V_SUITE, "paper"))
    assert official["total student"].needs == ("judge student a", "judge student b")
    assert "draw real" not in official
    assert keys(profile(T2V_SUITE))["total student"].needs == ("sample student",)


def test_embedded_videos_are_the_same_each_time_and_their_images_what_they_say(tmp_path: Path) -> None:
    for path in (T2V_SUITE, I2V_SUITE):
        spec = profile(path, "embedded").vbench
        videos = embedded_videos(spec, tmp_path)
        assert spec.prompt_count is not None
        assert spec.samples_per_prompt is not None
        assert len({video.name for video in videos}) == len(videos) == spec.prompt_count * spec.samples_per_prompt
        assert len({video.seed for video in videos}) == len(videos)
        fewer = spec.model_copy(update={"prompt_count": 4})
        assert embedded_videos(fewer, tmp_path) == videos[: 4 * spec.samples_per_prompt]
        assert all(parse_caption(video.prompt) for video in videos)
    twice = spec.model_copy(update={"prompt_count": 3, "samples_per_prompt": 2})
    videos = embedded_videos(twice, tmp_path)
    write_images(twice, videos)
    real = real_videos(twice, videos)
    assert [video.index for video in real] == [0, 0, 0]
    frames = drawn_frames(twice, real)
    requests = clip_requests(videos, 32, 32)
    for place, clip in enumerate(frames):
        image = requests[2 * place].image
        assert image is not None
        assert np.array_equal(image, clip[0])
        assert requests[2 * place + 1].image is image
        assert requests[2 * place].seed != requests[2 * place + 1].seed


def spec_of(suite: Path, name: str = "smoke", *overrides: str) -> VBenchSpec:
    return profile(suite, name, *overrides).vbench


@pytest.fixture
def classifier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One with random weights in the place of the shipped one."""
    write_classifier(tmp_path / "classifier")
    monkeypatch.setattr(scene_classifier, "SHIPPED", tmp_path / "classifier")


def test_without_the_official_package_one_dimension_is_native_and_the_others_say_why(
    tmp_path: Path, classifier: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VBENCH_CACHE_DIR", str(tmp_path / "weights"))
    judges, reasons = choose_judges(spec_of(T2V_SUITE), Environment(tmp_path / "none"), 32)
    assert {name: judge.kind for name, judge in judges.items()} == {
        "temporal_flickering": "native",
        DRAWN_WORLD: "classifier",
    }
    assert {*reasons, "temporal_flickering"} == {*T2V}
    assert "official prompts" in reasons["object_class"]
    assert "vdmini-bench assets vbench" in reasons["subject_consistency"]
    assert "our own code: " in reasons["subject_consistency"]
    assert "our own code" not in reasons["human_action"]


def native_weights(folder: Path, *dimensions: str) -> None:
    """Files that may be the weights of these dimensions."""
    names = {name for dimension in dimensions for name in catalogue.FILES[dimension]}
    for file in (folder / name for name in names):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"\x80weights")


def test_what_has_its_weights_is_native_where_asked_for_or_where_nothing_else_is(
    tmp_path: Path, classifier: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VBENCH_CACHE_DIR", str(tmp_path / "weights"))
    native_weights(tmp_path / "weights", "subject_consistency", "dynamic_degree", "i2v_background")

    def natives(environment: Environment, *where: str) -> dict[str, str]:
        judges, _ = choose_judges(spec_of(I2V_SUITE, *where), environment, 320)
        return {name: judge.digest for name, judge in judges.items() if judge.kind == "native"}

    ready = {"subject_consistency", "i2v_subject", "i2v_background", "dynamic_degree", "temporal_flickering"}
    nobody = Environment(tmp_path / "none")
    # In the drawn world ours takes the place of the official code, on the official prompts only where that is asked
    # for; flickering is none of this mode's.
    assert {*natives(nobody)} == ready
    assert {*natives(nobody, "paper")} == {"temporal_flickering"}
    official = fake_environment(tmp_path / "env", i2v_background="no dreamsim")
    # The official code wants a clone of DINO's too.
    assert {*natives(official)} == {"subject_consistency", "i2v_subject", "i2v_background"}
    assert {*natives(official, "paper")} == set()
    before = natives(official, "paper", "vbench.code=native")
    assert {*before} == ready
    # A score follows from its own weights, and from no others.
    weights = tmp_path / "weights" / catalogue.DREAMSIM_CLIP
    weights.write_bytes(b"\x80other weights")
    after = natives(official, "paper", "vbench.code=native")
    assert {name for name in ready if before[name] != after[name]} == {"i2v_background"}
    # The filter's are those of the dimension that it comes before.
    flickering = spec_of(T2V_SUITE, "paper", "vbench.code=native")
    assert choose_judges(flickering, nobody, 320)[0]["temporal_flickering"].kind == "native"
    (tmp_path / "weights" / catalogue.RAFT).unlink()
    reasons = choose_judges(flickering, nobody, 320)[1]
    assert "raft-things.pth is missing" in reasons["temporal_flickering"]
    assert "human_action" in reasons


def test_with_the_official_package_what_has_its_weights_is_official(
    tmp_path: Path, classifier: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VBENCH_CACHE_DIR", str(tmp_path / "weights"))
    environment = fake_environment(tmp_path / "env", camera_motion="ImportError: no third_party")
    for weight in (each for name in ("subject_consistency", "dynamic_degree") for each in DIMENSIONS[name].weights):
        (tmp_path / "weights" / weight.path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "weights" / weight.path).write_bytes(b"\x80weights")
    judges, reasons = choose_judges(spec_of(I2V_SUITE), environment, 32)
    official = {name for name, judge in judges.items() if judge.kind == "official"}
    # i2v_subject has the network of subject_consistency; i2v_background's comes with a module.
    assert official == {"temporal_flickering", "subject_consistency", "i2v_subject", "i2v_background"}
    assert "32 pixels" in reasons["dynamic_degree"]
    assert "no third_party" in reasons["camera_motion"]
    assert "ViT-B-32.pt is missing" in reasons["background_consistency"]
    page = tmp_path / "weights" / DIMENSIONS["background_consistency"].weights[0].path
    page.parent.mkdir(parents=True)
    page.write_text("<html>not found</html>")
    damaged = choose_judges(spec_of(I2V_SUITE), environment, 32)[1]["background_consistency"]
    assert "ViT-B-32.pt is a web page" in damaged
    # Reasons are published with a run's rows, and no home with them.
    monkeypatch.setenv("HOME", str(tmp_path))
    of_home = choose_judges(spec_of(I2V_SUITE), environment, 32)[1]["background_consistency"]
    assert of_home.startswith("~/weights/")
    judges, reasons = choose_judges(
        spec_of(T2V_SUITE, "smoke", "vbench.dimensions=[temporal_flickering]"), environment, 32
    )
    assert judges["temporal_flickering"].kind == "official"
    assert reasons["subject_consistency"] == "not asked for: vbench.dimensions"
    # On the official prompts videos are sorted out first, by the network of dynamic_degree.
    filtered = choose_judges(spec_of(T2V_SUITE, "paper"), environment, 320)[0]["temporal_flickering"]
    assert filtered != judges["temporal_flickering"]
    (tmp_path / "weights" / DIMENSIONS["dynamic_degree"].weights[0].path).unlink()
    assert "raft-things.pth" in choose_judges(spec_of(T2V_SUITE, "paper"), environment, 320)[1]["temporal_flickering"]


def test_the_standard_error_is_that_of_prompts() -> None:
    marks = [("a", 1.0), ("a", 0.0), ("b", 1.0), ("b", 1.0), ("c", 0.0), ("c", 0.0)]
    score = score_of_marks("teacher", "m", "1", "p", marks, 6)
    assert (score.value, score.n, score.blocks) == (0.5, 6, (0.5, 1.0, 0.0))
    assert score.standard_error == pytest.approx(0.5 / 3**0.5)
    fewer = score_of_marks("teacher", "m", "1", "p", marks[1:], 6, value=0.25)
    assert (fewer.value, fewer.n, fewer.n_expected, fewer.blocks) == (0.25, 5, 6, ())
    assert score_of_marks("teacher", "m", "1", "p", marks[:2], 2).standard_error is None


def test_an_animated_clip_must_keep_shape_and_colour_together() -> None:
    scene = parse_caption("a red disc rises over a moss background")
    same = Reading.of(scene)
    beside = replace(same, shapes=(None, "disc"), colours=(None, "red"), background="plum")
    mixed = replace(same, shapes=("disc", "ring"), colours=("blue", "red"))
    assert semantic.clip_marks("embedded-i2v_subject", [scene] * 3, [same, beside, mixed]) == [
        True,
        True,
        False,
    ]
    assert semantic.clip_marks("embedded-i2v_background", [scene] * 2, [same, beside]) == [True, False]
    with pytest.raises(ValueError, match="unknown dimension"):
        semantic.clip_marks("i2v_subject", [], [])


def test_students_of_an_upright_teacher_learn_from_upright_clips(tmp_path: Path) -> None:
    for upright in (False, True):
        draw_captioned(tmp_path / str(upright), 3, upright=upright)
    turned, stood = ((tmp_path / str(upright)) for upright in (False, True))
    assert (turned / "captions.jsonl").read_text() == (stood / "captions.jsonl").read_text()
    assert all((turned / name).read_bytes() != (stood / name).read_bytes() for name in ("00000.mkv", "00001.mkv"))
    asked = {
        profile: load_any_suite(Path("suites/vbench_t2v.yaml"), profile).profile.dataset.model_dump()
        for profile in ("transformer", "embedded")
    }
    assert asked["transformer"]["upright"]
    # What is not asked for is not written: suites of before keep their jobs.
    assert "upright" not in asked["embedded"]
