"""What other programs put into .mp4 files."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import av
from PIL import Image


def box(kind: bytes, body: bytes) -> bytes:
    """A part of an .mp4 file."""
    return struct.pack(">I", 8 + len(body)) + kind + body


def with_cover(path: Path) -> Path:
    """The .mp4 with a red cover picture, which FFmpeg lists as its first stream."""
    picture = io.BytesIO()
    Image.new("RGB", (32, 32), "red").save(picture, "PNG")
    cover = box(b"covr", box(b"data", struct.pack(">II", 14, 0) + picture.getvalue()))
    handler = box(b"hdlr", struct.pack(">II", 0, 0) + b"mdirappl" + bytes(9))
    data = box(b"udta", box(b"meta", struct.pack(">I", 0) + handler + box(b"ilst", cover)))
    content = path.read_bytes()
    at = content.index(b"moov") - 4
    size, head = struct.unpack(">I", content[at : at + 4])[0], struct.unpack(">I", content[at + 8 : at + 12])[0]
    film = content[at + 8 : at + size]
    path.write_bytes(content[:at] + box(b"moov", film[:head] + data + film[head:]) + content[at + size :])
    with av.open(str(path)) as container:
        assert container.streams[0].disposition & av.stream.Disposition.attached_pic
    return path
