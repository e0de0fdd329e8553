"""Pictures for people: the contact sheet of real, teacher, pruned and student frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

LABEL_WIDTH = 64
ENLARGED_SIDE = 64


def contact_sheet(path: Path, clips: Mapping[str, Sequence[NDArray[np.uint8]]]) -> None:
    """Write a PNG: for each example one line a model, the frames from left to right.

    `clips` holds for each model its clips T H W C uint8, the same examples in the same order.
    """
    examples = min(len(shown) for shown in clips.values())
    frames, height, width = next(iter(clips.values()))[0].shape[:3]
    scale = max(1, ENLARGED_SIDE // height)
    height, width = height * scale, width * scale
    gap = 8
    sheet_height = examples * (len(clips) * height + gap) - gap
    sheet = Image.new("RGB", (LABEL_WIDTH + frames * width, sheet_height), "white")
    draw = ImageDraw.Draw(sheet)
    for example in range(examples):
        for line, (model, shown) in enumerate(clips.items()):
            top = example * (len(clips) * height + gap) + line * height
            draw.text((4, top + height // 2 - 6), model, fill="black")
            for position, frame in enumerate(shown[example]):
                image = Image.fromarray(frame).resize((width, height), Image.Resampling.NEAREST)
                sheet.paste(image, (LABEL_WIDTH + position * width, top))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)
