"""Prompts and captions that a text encoder cuts are named, once and before anything is made of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from vdmini.models.loading import load_model
from vdmini_bench.cli import main
from vdmini_bench.config.distillation import load_distillation
from vdmini_bench.models import sampling as generation
from vdmini_bench.runs.distillation import open_distillation
from vdmini_bench.runs.stages import encode

LONG = "a red disc rises over a moss background and it goes on and on"
DISTILLATION = """
kind: distillation
name: t
teacher: embedded/t2v
clip: {frames: 10, frames_per_second: 7, height: 32, width: 32}
data: {kind: folder, path: videos}
distill: {steps: 1, batch_size: 1, learning_rate: 1e-4}
"""


def lost(text: str) -> str:
    """What the embedded teacher, which reads 20 tokens with a start and an end, does not see of a text."""
    pipeline = load_model("embedded/t2v").pipeline
    assert pipeline is not None
    return str(pipeline.tokenizer.decode(pipeline.tokenizer(text).input_ids[19:-1]))


def stop(*_: object, **__: object) -> None:
    raise ValueError("nothing is sampled here")


def test_prompts_of_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generation, "sample_clips", stop)
    (tmp_path / "p.txt").write_text(f"{LONG}\n{LONG} again\na red disc\n{LONG}\n")
    arguments = ("sample", "embedded/t2v", "--prompts", tmp_path / "p.txt", "--seeds", "0-1", "-o", tmp_path / "clips")
    result = CliRunner().invoke(main, [str(each) for each in arguments])
    assert result.exit_code == 4
    (warning,) = [line for line in result.stderr.splitlines() if line.startswith("warning:")]
    assert warning.startswith("warning: prompts longer than the 20 tokens that text_encoder reads: 2; the model does")
    assert warning.endswith(f"{lost(LONG)!r} of '{LONG[:60]}...', {lost(LONG + ' again')!r} of '{LONG[:60]}...'")


def test_captions_that_are_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    (videos / "captions.csv").write_text(f"file,caption\na.mkv,a red disc\nb.mkv,{LONG}\n")
    for name in ("a.mkv", "b.mkv"):
        (videos / name).write_bytes(b"opened later")
    (tmp_path / "t.yaml").write_text(DISTILLATION)
    context = open_distillation(load_distillation(tmp_path / "t.yaml"), tmp_path / "results", write=False).context
    monkeypatch.setattr(encode, "encode_to_cache", stop)
    with pytest.raises(ValueError, match="nothing is sampled here"):
        encode.run_stage(context, "", tmp_path / "encoded")
    said = capsys.readouterr().err
    assert "prompts longer than the 20 tokens that text_encoder reads: 1;" in said
    assert f"{lost(LONG)!r} of '{LONG[:60]}...'" in said
