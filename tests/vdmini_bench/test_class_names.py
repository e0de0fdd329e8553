"""Text-to-video models on UCF101: they are given the names of classes as words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from small_videos import write_teacher

from vdmini_bench.cli import main
from vdmini_bench.config.suite import load_suite
from vdmini_bench.data.ucf101 import VideoFile

SUITE = Path(__file__).parents[2] / "suites" / "ucf101.yaml"
ASKED = ("protocol.condition=class-name", "distill.task=null", "distill.task_options={}", "sample.guidance=3.0")
SMALL = (
    "protocol.clips_per_block=3", "protocol.blocks=2", "dataset.train_clips=2", "dataset.drawn_test_per_group=1",
    "distill.steps=1", "distill.batch_size=2", "distill.discriminator_warmup=0", "sample.steps=1",
    "models={teacher: {}, student: {plan: vdmini, distill: {}}}", "timing=null",
)  # fmt: skip


@pytest.mark.parametrize(
    ("label", "words"),
    [("ApplyEyeMakeup", "apply eye makeup"), ("YoYo", "yo yo"), ("HandstandPushups", "handstand pushups")],
)
def test_classes_become_words(label: str, words: str) -> None:
    assert VideoFile(label, f"{label}/v.avi", Path("v.avi")).words == words


@pytest.mark.usefixtures("small_network")
def test_a_text_teacher_is_distilled_and_scored_by_class_names(tmp_path: Path) -> None:
    write_teacher(tmp_path / "teacher")
    command = ["run", str(SUITE), "--profile", "smoke", "--results", str(tmp_path / "results"), "--json"]

    def run(*settings: str) -> tuple[int, dict[str, Any], str]:
        options = [part for setting in settings for part in ("--set", setting)]
        done = CliRunner().invoke(main, [*command, *options])
        return done.exit_code, json.loads(done.stdout) if done.exit_code == 0 else {}, done.stderr

    teacher = f"teacher={tmp_path / 'teacher'}"
    code, output, errors = run(*SMALL, *ASKED, teacher)
    assert code == 0, errors
    rows = {(row["model"], row["metric"]): row for row in output["rows"]}
    assert {model for model, metric in rows if metric == "fvd"} == {"real", "static", "teacher", "student"}
    assert all(row["status"] == "ok" for (_, metric), row in rows.items() if metric in ("fvd", "psnr"))
    assert "/class-name/" in rows["teacher", "fvd"]["protocol"]
    assert rows["student", "fvd"]["value"] != rows["teacher", "fvd"]["value"]
    # An image-to-video teacher has no words, and a text teacher no images; each is said before anything runs.
    code, _, errors = run(*SMALL, *ASKED)
    assert code == 2
    assert "makes clips of an image, and this suite gives it words" in errors
    code, _, errors = run(*SMALL, teacher)
    assert code == 2
    assert "makes clips of words, and this suite gives it an image" in errors


def test_the_protocol_of_svd_is_of_class_names_and_the_real_histogram() -> None:
    protocol = load_suite(SUITE, "paper", ("protocol={preset: svd}",)).profile.protocol
    assert (protocol.condition, protocol.clips, protocol.condition_split) == ("class-name", 13320, "all")
    assert load_suite(SUITE, "paper").profile.protocol.condition == "first-frame"
