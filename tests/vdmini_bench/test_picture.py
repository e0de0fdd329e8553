"""Picture files: read as a viewer shows them, or refused by name; what is right is known from how each was written."""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from vdmini_bench.data.picture import UnreadablePictureError, list_pictures, read_picture
from vdmini_bench.data.requests import image_requests
from vdmini_bench.errors import SuiteError

Pixels = NDArray[np.uint8]
# The turn that each EXIF orientation undoes: what a camera stores of an upright picture.
STORED: dict[int, Callable[[Pixels], Pixels]] = {
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.transpose(1, 0, 2),
    6: lambda upright: np.rot90(upright, 1),
    7: lambda upright: upright[::-1, ::-1].transpose(1, 0, 2),
    8: lambda upright: np.rot90(upright, -1),
}
NO_AVIF = ".avif" not in Image.registered_extensions()


def scene() -> Pixels:
    """A picture of 32 x 48 without any symmetry, smooth enough for JPEG."""
    rows, columns = np.indices((32, 48))
    return np.stack([rows * 7, columns * 5, np.where((rows < 16) & (columns < 16), 250, 30)], axis=-1).astype(np.uint8)


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_every_orientation_is_shown_upright(tmp_path: Path, suffix: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a{suffix}"
    lossless = (
        {"lossless": True} if suffix == ".webp" else {"quality": 98, "subsampling": 0} if suffix == ".jpg" else {}
    )
    stored = np.ascontiguousarray(STORED[orientation](scene()))
    Image.fromarray(stored).save(path, exif=exif, **lossless)
    shown = read_picture(path)
    assert shown.shape == (32, 48, 3)
    assert np.abs(shown.astype(int) - scene()).max() <= (12 if suffix == ".jpg" else 0)
    if suffix == ".jpg":
        second = cv2.imread(str(path))
        assert np.abs(shown.astype(int) - second[..., ::-1]).max() <= 2


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("channels", [1, 3])
def test_16_bits_are_scaled_and_not_clipped(tmp_path: Path, suffix: str, channels: int) -> None:
    levels = np.linspace(0, 65535, 64 * channels).astype(np.uint16).reshape(8, 8, channels)
    path = tmp_path / f"deep{suffix}"
    # OpenCV writes blue first.
    assert cv2.imwrite(str(path), levels[..., ::-1].squeeze())
    shown = read_picture(path)
    assert shown.dtype == np.uint8
    assert np.abs(shown - np.broadcast_to(levels / 257, (8, 8, 3))).max() <= 1
    assert np.abs(shown.astype(int) - cv2.imread(str(path), cv2.IMREAD_COLOR)[..., ::-1]).max() <= 1


def test_a_turned_picture_of_16_bits_and_one_with_a_transparent_level(tmp_path: Path) -> None:
    levels = (np.arange(12, dtype=np.uint16) * 5000).reshape(3, 4)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.ascontiguousarray(np.rot90(levels, 1))).save(tmp_path / "turned.png", exif=exif)
    assert (read_picture(tmp_path / "turned.png")[..., 0] == levels >> 8).all()
    Image.fromarray(levels).save(tmp_path / "clear.png", transparency=5000)
    shown = read_picture(tmp_path / "clear.png")[..., 1]
    assert shown[0, 1] == 255
    assert (shown.flat[2:] == (levels >> 8).flat[2:]).all()


def test_what_is_transparent_is_white(tmp_path: Path) -> None:
    alpha = np.array([[0, 51, 255]], np.uint8)
    red = np.dstack([np.full((1, 3), 200, np.uint8), np.zeros((1, 3, 2), np.uint8), alpha])
    # By the formula of compositing: a fifth of the colour and four of white.
    expected = [[255, 255, 255], [244, 204, 204], [200, 0, 0]]
    for suffix in (".png", ".webp", ".tif"):
        lossless = {"lossless": True, "exact": True} if suffix == ".webp" else {}
        Image.fromarray(red).save(tmp_path / f"a{suffix}", **lossless)
        assert np.abs(read_picture(tmp_path / f"a{suffix}")[0].astype(int) - expected).max() <= 1
    Image.fromarray(red[..., [0, 3]]).save(tmp_path / "grey.png")
    assert np.abs(read_picture(tmp_path / "grey.png")[0, :, 2].astype(int) - [255, 244, 200]).max() <= 1
    indexed = Image.new("P", (3, 1))
    indexed.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    indexed.putdata([0, 1, 2])
    indexed.save(tmp_path / "indexed.png", transparency=1)
    assert read_picture(tmp_path / "indexed.png").tolist() == [[[10, 20, 30], [255, 255, 255], [70, 80, 90]]]
    Image.fromarray(red[..., :3]).save(tmp_path / "keyed.png", transparency=(200, 0, 0))
    assert (read_picture(tmp_path / "keyed.png") == 255).all()


def test_other_colours_are_shown_as_rgb(tmp_path: Path) -> None:
    inks = {"red": (0, 255, 255, 0), "green": (255, 0, 255, 0), "black": (0, 0, 0, 255), "white": (0, 0, 0, 0)}
    colours = {"red": (255, 0, 0), "green": (0, 255, 0), "black": (0, 0, 0), "white": (255, 255, 255)}
    for name, ink in inks.items():
        for suffix in (".tif", ".jpg"):
            Image.new("CMYK", (16, 16), ink).save(tmp_path / f"{name}{suffix}")
            shown = read_picture(tmp_path / f"{name}{suffix}").astype(int)
            assert np.abs(shown - colours[name]).max() <= (0 if suffix == ".tif" else 3)
    Image.new("1", (4, 4), 1).save(tmp_path / "bits.png")
    assert read_picture(tmp_path / "bits.png").tolist() == np.full((4, 4, 3), 255).tolist()
    Image.new("L", (4, 4), 77).save(tmp_path / "grey.bmp")
    assert (read_picture(tmp_path / "grey.bmp") == 77).all()


@pytest.mark.skipif(NO_AVIF, reason="this Pillow reads no AVIF")
def test_avif_is_read(tmp_path: Path) -> None:
    Image.fromarray(scene()).save(tmp_path / "a.avif", quality=100, subsampling="4:4:4")
    assert np.abs(read_picture(tmp_path / "a.avif").astype(int) - scene()).max() <= 12


def png(width: int, height: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of 8-bit colours that says its size and holds these chunks and nothing else."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunk(*each) for each in chunks) + chunk(b"IEND", b"")


def whole() -> bytes:
    rows = b"".join(b"\0" + bytes(range(48)) for _ in range(16))
    return png(16, 16, (b"IDAT", zlib.compress(rows)))


BROKEN = {
    "empty": (b"", ""),
    "web page": (b"<!DOCTYPE html><html>", "cannot identify"),
    "cut": (whole()[:-40], ""),
    "no data": (png(16, 16), ""),
    "bad chunk": (png(16, 16, (b"IDAT", whole()[50:60]), (b"\xa9\x8a\xbc\x07", b"x")), "broken"),
    "bomb": (png(30_000, 30_000, (b"IDAT", zlib.compress(b""))), "900000000 pixels"),
    # Above what Pillow warns of, and below what it refuses.
    "large": (png(10_000, 10_000, (b"IDAT", zlib.compress(b""))), "100000000 pixels"),
    "long text": (png(4, 4, (b"zTXt", b"a\0\0" + zlib.compress(bytes(1 << 24)))), ""),
    # Pillow would start Ghostscript.
    "program": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n", "cannot identify"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_and_oversized_pictures_are_refused_by_name_in_one_line(tmp_path: Path, kind: str) -> None:
    content, said = BROKEN[kind]
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UnreadablePictureError) as caught:
            read_picture(path)
    message = str(caught.value)
    assert message.startswith(f"{path} is no image that can be read (")
    assert said in message
    assert "\n" not in message
    assert caught.value.exit_code == 2


def test_what_is_no_picture_file_at_all_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "dangling.png").symlink_to(tmp_path / "nowhere.png")
    Image.fromarray(np.zeros((4, 4), np.float32)).save(tmp_path / "float.tif")
    for name, said in (("folder.png", "directory"), ("dangling.png", "No such file"), ("float.tif", "32 bits")):
        with pytest.raises(UnreadablePictureError, match=said):
            read_picture(tmp_path / name)


def test_a_folder_says_what_it_passes_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["a.png", "b.bmp", "c.tif", "d.jfif", "e.JPG", "f.tiff", "g.webp", "h.jpeg", "i.avif"]
    others = [".DS_Store", "._a.png", "k.heic", "notes.txt", "raw.nef", "z.mp4"]
    for name in (*names, *others):
        (tmp_path / name).touch()
    assert [path.name for path in list_pictures(tmp_path)] == names
    said = capsys.readouterr().err
    assert said.startswith("warning: 6 of 15 names")
    assert said.endswith(": .DS_Store, ._a.png, k.heic, notes.txt, raw.nef and 1 more\n")
    (tmp_path / "a.jpg").touch()
    with pytest.raises(SuiteError, match="share a name: a: rename"):
        list_pictures(tmp_path)
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "k.heic").touch()
    for folder, reason in ((tmp_path / "none", r"holds no images .* it has k\.heic"), (tmp_path / "gone", "No such")):
        with pytest.raises(SuiteError, match=reason):
            list_pictures(folder)


def test_all_unreadable_images_are_named_or_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.fromarray(scene()).save(tmp_path / "b.png")
    for name in ("a.png", "c.png"):
        (tmp_path / name).write_bytes(whole()[:-40])
    with pytest.raises(SuiteError) as caught:
        image_requests(tmp_path, [0, 1])
    assert [line.partition(" is no image")[0] for line in str(caught.value).splitlines()] == [
        str(tmp_path / name) for name in ("a.png", "c.png")
    ]
    assert caught.value.exit_code == 2
    requests = image_requests(tmp_path, [0, 1], skip_unreadable=True)
    assert [request.name for request in requests] == ["b-0", "b-1"]
    assert (requests[1].image == scene()).all()
    said = capsys.readouterr().err
    assert "warning: 2 images" in said
    assert "a.png" in said
    assert "c.png" in said
    (tmp_path / "b.png").unlink()
    with pytest.raises(SuiteError):
        image_requests(tmp_path, [0], skip_unreadable=True)
