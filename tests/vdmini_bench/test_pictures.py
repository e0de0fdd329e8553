"""The contact sheet shows every frame of every model where its label says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from vdmini_bench.report.contact_sheet import LABEL_WIDTH, contact_sheet


def flat_clip(level: int) -> np.ndarray:
    """Three frames of 32x32 pixels, each one grey brighter than the one before."""
    return np.stack([np.full((32, 32, 3), level + frame, dtype=np.uint8) for frame in range(3)])


def test_frames_stand_in_lines_by_example_and_model(tmp_path: Path) -> None:
    clips = {"real": [flat_clip(10), flat_clip(50)], "teacher": [flat_clip(90), flat_clip(130), flat_clip(200)]}
    contact_sheet(tmp_path / "new" / "sheet.png", clips)
    with Image.open(tmp_path / "new" / "sheet.png") as picture:
        sheet = np.asarray(picture.convert("RGB"))
    # Two examples of two lines of 64 pixels with a gap between; the third clip of one model has no partner.
    assert sheet.shape == (2 * 2 * 64 + 8, LABEL_WIDTH + 3 * 64, 3)
    centres = [
        [int(sheet[top + 32, LABEL_WIDTH + 64 * frame + 32, 0]) for frame in range(3)] for top in (0, 64, 136, 200)
    ]
    assert centres == [[10, 11, 12], [90, 91, 92], [50, 51, 52], [130, 131, 132]]
    assert (sheet[:64, :LABEL_WIDTH] < 128).any(), "the model's name is written beside its frames"


def test_long_names_have_room_and_any_text_is_written(tmp_path: Path) -> None:
    names = ["teacher", 'student, small decoder, "int8", <b>6 steps</b>', "zwei\nZeilen \u2265 \ud800"]
    contact_sheet(tmp_path / "sheet.png", {name: [flat_clip(10)] for name in names})
    with Image.open(tmp_path / "sheet.png") as picture:
        sheet = np.asarray(picture.convert("L"))
    left = sheet.shape[1] - 3 * 64
    assert left > 2 * LABEL_WIDTH
    assert (sheet[:, left:] < 15).all(), "no name runs into the frames"


def test_large_frames_are_not_enlarged(tmp_path: Path) -> None:
    contact_sheet(tmp_path / "sheet.png", {"real": [np.zeros((2, 80, 100, 3), dtype=np.uint8)]})
    with Image.open(tmp_path / "sheet.png") as picture:
        assert picture.size == (LABEL_WIDTH + 200, 80)
