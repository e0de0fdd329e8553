"""Picture files, read as a viewer shows them: upright, of 8 bits, and without transparency."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from vdmini_bench.errors import SuiteError, few
from vdmini_bench.system.progress import say

SUFFIXES = (".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".tif", ".tiff", ".avif")
# Not all that Pillow opens: some formats start other programs.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "AVIF")


class UnreadablePictureError(SuiteError):
    """A picture that is damaged, too large, or of a kind that cannot be shown."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path} is no image that can be read ({reason}): replace or remove it")
        self.path = path
        self.reason = reason


def read_picture(path: Path) -> NDArray[np.uint8]:
    """A picture's pixels, H W C uint8 RGB: the first frame, turned as its EXIF data say, transparent parts white.

    Of 16 bits the higher 8 count. Colour profiles are left aside, as the published pipelines do.

    Raises:
        UnreadablePictureError: it cannot be decoded whole, has more pixels than Pillow takes for harmless, or values
            of 32 bits, whose white nothing tells.
    """
    known = {*Image.registered_extensions().values()}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=[name for name in FORMATS if name in known]) as image:
                upright = _of_8_bits(ImageOps.exif_transpose(image))
                return np.asarray(_on_white(upright).convert("RGB"))
    except Exception as error:  # whatever a file makes Pillow raise, SyntaxError too, the file is at fault
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise UnreadablePictureError(path, " ".join(reason.split())) from error


def list_pictures(folder: Path) -> list[Path]:
    """The pictures of a folder in the order of their names; the files that it passes over are named on stderr.

    Raises:
        SuiteError: there is no such folder, or it holds no pictures, or two of one name.
    """
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise SuiteError(f"{folder} cannot be listed ({error.strerror}): give a folder of pictures") from error
    paths, others = [], []
    for path in entries:
        if path.suffix.lower() in SUFFIXES and not path.name.startswith("."):
            paths.append(path)
        else:
            others.append(path.name)
    if not paths:
        holds = f"; it has {few(others)}" if others else ""
        raise SuiteError(f"{folder} holds no images ({', '.join(SUFFIXES)}){holds}: give a folder that does")
    names = [path.stem for path in paths]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SuiteError(f"{folder}: images that share a name: {few(twice)}: rename all but one of each")
    if others:
        say(
            f"warning: {len(others)} of {len(entries)} names in {folder} are no images by their suffix, or hidden, and"
            f" were passed over: {few(others)}"
        )
    return paths


def _of_8_bits(image: Image.Image) -> Image.Image:
    # Pillow itself cuts what is above 255 here, and keeps the higher byte of colours, as libpng does.
    if image.mode.startswith("I;16"):
        levels = np.asarray(image).astype(np.uint16)
        grey = Image.fromarray((levels >> 8).astype(np.uint8))
        if "transparency" in image.info:
            grey.putalpha(Image.fromarray(np.where(levels == image.info["transparency"], 0, 255).astype(np.uint8)))
        return grey
    if image.mode in ("I", "F"):
        raise ValueError(f"values of 32 bits, mode {image.mode}; save it with 8 or 16")
    return image


def _on_white(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
