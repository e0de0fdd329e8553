"""Pictures for people: the contact sheet of all rows' frames."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from vdmini_bench.system.tables import visible

# What names take at least.
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
    gap, font = 8, ImageFont.load_default()
    names = [visible(" ".join(model.split())) for model in clips]
    left = max(LABEL_WIDTH, *(math.ceil(font.getlength(name)) + 8 for name in names))
    sheet_height = examples * (len(clips) * height + gap) - gap
    sheet = Image.new("RGB", (left + frames * width, sheet_height), "white")
    draw = ImageDraw.Draw(sheet)
    for example in range(examples):
        for line, (name, shown) in enumerate(zip(names, clips.values(), strict=True)):
            top = example * (len(clips) * height + gap) + line * height
            draw.text((4, top + height // 2 - 6), name, fill="black", font=font)
            for position, frame in enumerate(shown[example]):
                image = Image.fromarray(frame).resize((width, height), Image.Resampling.NEAREST)
                sheet.paste(image, (left + position * width, top))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)
