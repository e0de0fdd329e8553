"""The index of a folder of encoded clips: what was encoded, how, and the checksum of every file."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from vdmini.files import replacing
from vdmini.locks import file_lock

INDEX_FILE = "index.json"
UNCONDITIONAL_FILE = "unconditional.safetensors"
FORMAT = 1


class LatentCacheError(RuntimeError):
    """A latent cache that cannot be read or continued; the message names the file and says what to do."""


@dataclass
class Shard:
    """A whole shard: its file's checksum, and the positions in the index's names of its clips, one a row, rising."""

    sha256: str
    clips: list[int]


@dataclass
class LatentIndex:
    """What a folder holds, and what it is meant to hold: a clip whose shard is not listed is not encoded yet.

    `unconditional` is the checksum of the empty condition's file, None where there is none; `shapes` are those of one
    clip's tensors; `skipped` are the clips left out on demand, and why.
    """

    family: str
    identity: str
    settings: Mapping[str, object]
    clips_per_shard: int
    names: tuple[str, ...]
    unconditional: str | None = None
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    shards: dict[int, Shard] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> LatentIndex:
        """Read a folder's index; raises LatentCacheError."""
        path = folder / INDEX_FILE
        try:
            read = json.loads(path.read_text(encoding="utf-8"))
            if read.pop("format") != FORMAT:
                raise ValueError("another version of VDMini wrote it")
            shards = {int(number): Shard(**shard) for number, shard in read.pop("shards").items()}
            shapes = {name: tuple(shape) for name, shape in read.pop("shapes").items()}
            return cls(**{**read, "names": tuple(read["names"]), "shards": shards, "shapes": shapes})
        except FileNotFoundError:
            raise LatentCacheError(f"{folder} holds no encoded clips: encode some into it first") from None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise LatentCacheError(f"{path} cannot be read ({error}): remove the folder and encode again") from error

    def continued(self, folder: Path) -> LatentIndex:
        """What a folder for this index holds already; raises LatentCacheError where that is of anything else."""
        if not (folder / INDEX_FILE).exists():
            return self
        found = LatentIndex.read(folder)
        changed = [
            f"{name} is {getattr(found, name)!r} there and {getattr(self, name)!r} here"
            for name in ("family", "identity", "clips_per_shard", "settings")
            if getattr(found, name) != getattr(self, name)
        ]
        if found.names != self.names:
            names = f"its {len(found.names)} clips have other names or another order than these {len(self.names)}"
            changed.append(names)
        if changed:
            raise LatentCacheError(f"{folder} was encoded otherwise: {'; '.join(changed)}: give another folder")
        return found

    @contextmanager
    def changed(self, folder: Path) -> Iterator[None]:
        """Change it and replace a folder's with it, one process at a time; what others put there is taken over before.

        Raises LatentCacheError where their clips have other shapes.
        """
        with file_lock(folder / ".index.lock"):
            found = self.continued(folder)
            if self.shapes and found.shapes and self.shapes != found.shapes:
                raise LatentCacheError(
                    f"{folder}: clips encode to {self.shapes}, others to {found.shapes}: read all at one size"
                )
            self.shapes.update(found.shapes)
            self.shards, self.unconditional = found.shards, found.unconditional
            yield
            self.write(folder)

    def write(self, folder: Path) -> None:
        """Replace a folder's index in one step."""
        with replacing(folder / INDEX_FILE) as partial, partial.open("w", encoding="utf-8", newline="\n") as file:
            shards = {str(number): asdict(shard) for number, shard in sorted(self.shards.items())}
            written = {field: value for field, value in vars(self).items() if field != "shards"}
            json.dump({"format": FORMAT, **written, "shards": shards}, file)
            file.flush()
            # A crash of the machine may not leave an empty index under the old one's name.
            os.fsync(file.fileno())

    def absent(self) -> set[int]:
        """The positions of clips that no shard holds."""
        return {*range(len(self.names))}.difference(*(shard.clips for shard in self.shards.values()))

    def checksums(self) -> Iterator[tuple[str, str]]:
        """Every file that the index vouches for, with its checksum."""
        if self.unconditional is not None:
            yield UNCONDITIONAL_FILE, self.unconditional
        yield from ((shard_name(number), shard.sha256) for number, shard in self.shards.items())


def shard_name(number: int) -> str:
    """The file name of a shard."""
    return f"{number:05d}.safetensors"


def save_tensors(tensors: dict[str, Tensor], path: Path) -> str:
    """Write the file in one step and return its checksum."""
    with replacing(path) as partial:
        save_file(tensors, partial)
        return file_sha256(partial)


def file_sha256(path: Path) -> str:
    """The file's checksum, "" where it is missing or cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""
