"""A folder of encoded training clips: written once, shard by shard, and read from memory-mapped files."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from vdmini.finite import is_finite
from vdmini.latent_index import (
    UNCONDITIONAL_FILE,
    LatentCacheError,
    LatentIndex,
    Shard,
    file_sha256,
    save_tensors,
    shard_name,
)
from vdmini.locks import file_lock

if TYPE_CHECKING:
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline

    from vdmini.conditioning import Conditioning
    from vdmini.conditioning.base import EncodeSettings, TrainingClip


class UnreadableClipError(Exception):
    """Raised by a `ClipSource` for a clip that is missing, damaged or too short."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.name = name
        self.reason = reason


class UnreadableClipsError(LatentCacheError):
    """Clips that could not be read, each named in `problems`; all others are encoded and stay so."""

    def __init__(self, folder: Path, problems: Sequence[UnreadableClipError]) -> None:
        listing = "\n".join(f"  {problem}" for problem in problems)
        super().__init__(
            f"{len(problems)} unreadable clips, the others are in {folder}; replace them and encode again, or encode"
            f" with skip_unreadable:\n{listing}"
        )
        self.problems = tuple(problems)


class ClipSource(Protocol):
    """Clips to train on, in an order that does not change; `clip` raises UnreadableClipError."""

    @property
    def names(self) -> Sequence[str]: ...
    def clip(self, index: int) -> TrainingClip: ...


@dataclass(frozen=True)
class LatentCache:
    """Encoded clips in a folder, in the order of `names`.

    `shapes` gives each tensor's shape for one clip, "latents" being T C H W in the denoiser's own scale. `settings`
    are the fields of the EncodeSettings, `identity` is the pipeline's as its encoder gave it, and `unconditional` the
    empty condition's float32 values without a batch dimension, None where guidance is not by text. Nothing stays
    open: a cache can be sent to other processes.
    """

    folder: Path
    family: str
    identity: str
    settings: Mapping[str, object]
    names: tuple[str, ...]
    shapes: Mapping[str, tuple[int, ...]]
    unconditional: Mapping[str, Tensor] | None
    # Each shard's number, and the position of its first clip.
    _numbers: tuple[int, ...]
    _starts: tuple[int, ...]

    @classmethod
    def open(cls, folder: Path, *, verify: bool = True) -> LatentCache:
        """Open a folder that `encode_to_cache` finished, after reading every file once to verify its checksum.

        `verify` False is for further processes of a run whose first one verified. Raises LatentCacheError.
        """
        index = LatentIndex.read(folder)
        lost = sorted(
            index.names[position] for position in index.absent() if index.names[position] not in index.skipped
        )
        if lost:
            raise LatentCacheError(
                f"{folder}: {len(lost)} of {len(index.names)} clips are not encoded yet, {lost[0]!r} among them: encode"
                " again, what is there is kept"
            )
        if verify:
            damaged = [name for name, sha256 in index.checksums() if file_sha256(folder / name) != sha256]
            if damaged:
                raise LatentCacheError(
                    f"{folder}: missing or damaged: {', '.join(damaged)}: encode again, only that is redone"
                )
        return cls._of(folder, index)

    @classmethod
    def _of(cls, folder: Path, index: LatentIndex) -> LatentCache:
        held = [shard.clips for _, shard in sorted(index.shards.items())]
        return cls(
            folder=folder,
            family=index.family,
            identity=index.identity,
            settings=index.settings,
            names=tuple(index.names[position] for clips in held for position in clips),
            shapes=index.shapes,
            unconditional=load_file(folder / UNCONDITIONAL_FILE) if index.unconditional is not None else None,
            _numbers=tuple(sorted(index.shards)),
            _starts=(0, *accumulate(len(clips) for clips in held))[:-1],
        )

    def __len__(self) -> int:
        return len(self.names)

    def batch(self, indices: Tensor) -> dict[str, Tensor]:
        """The clips at `indices` B: "latents" B T C H W and each condition B ..., float32 on the CPU.

        Only these clips are read. Raises IndexError, and LatentCacheError where a shard is gone since it was opened.
        """
        positions = [int(position) for position in indices.tolist()]
        for position in positions:
            if not 0 <= position < len(self):
                raise IndexError(f"clip {position} of {len(self)} in {self.folder}")
        places: dict[int, list[int]] = {}
        for place, position in enumerate(positions):
            places.setdefault(bisect_right(self._starts, position) - 1, []).append(place)
        batch = {name: torch.empty(len(positions), *shape) for name, shape in self.shapes.items()}
        for shard, its_places in places.items():
            path = self.folder / shard_name(self._numbers[shard])
            try:
                with safe_open(path, framework="pt") as file:
                    for name, values in batch.items():
                        rows = file.get_slice(name)
                        for place in its_places:
                            values[place] = rows[positions[place] - self._starts[shard]]
            except (OSError, SafetensorError, RuntimeError) as error:
                raise LatentCacheError(f"{path} cannot be read any more ({error}): encode again") from error
        return batch


def encode_to_cache(
    pipeline: DiffusionPipeline,
    clips: ClipSource,
    folder: Path,
    settings: EncodeSettings,
    *,
    identity: str,
    clips_per_shard: int = 64,
    skip_unreadable: bool = False,
    on_clip: Callable[[], None] = lambda: None,
    share: tuple[int, int] = (0, 1),
) -> LatentCache:
    """Encode every clip into `folder`, or only what is not there yet, whole and undamaged.

    `identity` tells one pipeline's weights from another's, for example the checkpoint's sha256. Clips are told apart by
    name: where their files may change under their names, let `identity` hold a digest of them too. Library versions are
    the caller's to record. A kill loses at most the shard in work, and the next call ends with the same bytes as an
    unbroken one. Unreadable clips are tried again by every call; with `skip_unreadable` they are left out. `on_clip`
    is called once for each clip, encoded or found.

    Several processes may encode at once, the `share` of each being its rank and their count; shards are dealt out in
    turn. When all are through, a call without a share finds their work, reports what cannot be read and leaves the
    same bytes as a process alone.

    Raises:
        UnreadableClipsError: clips could not be read, all of them where `skip_unreadable`; the others are encoded.
        LatentCacheError: the folder is of another pipeline, settings or names, or in use; or a clip's tensors are not
            finite, or not of the others' shapes.
        ValueError: no names, a name twice, or fewer than one clip a shard.
    """
    names = tuple(clips.names)
    if not names or clips_per_shard < 1:
        raise ValueError(f"{len(names)} clips, {clips_per_shard} a shard: give at least one of both")
    if len({*names}) < len(names):
        raise ValueError(f"clip {Counter(names).most_common(1)[0][0]!r} comes twice: give each a name of its own")
    problems: list[UnreadableClipError] = []
    family, conditioning = _conditioning_of(pipeline)
    rank, processes = share
    with nullcontext() if rank else _locked(folder):
        index = LatentIndex(family, identity, asdict(settings), clips_per_shard, names).continued(folder)
        if not rank:
            _write_unconditional(folder, index, pipeline, conditioning)

        def encode(position: int) -> dict[str, Tensor]:
            return _encode(pipeline, conditioning, clips.clip(position), settings, index.shapes)

        for number in range(rank, -(-len(names) // clips_per_shard), processes):
            problems += _fill_shard(folder, index, number, encode, on_clip)
        if processes > 1:
            return LatentCache._of(folder, index)
        if problems and not (skip_unreadable and len(problems) < len(names)):
            raise UnreadableClipsError(folder, problems)
        skipped = {problem.name: problem.reason for problem in problems}
        if skipped != index.skipped:
            with index.changed(folder):
                index.skipped = skipped
    return LatentCache._of(folder, index)


def _conditioning_of(pipeline: DiffusionPipeline) -> tuple[str, Conditioning]:
    from vdmini.conditioning import conditioning_of
    from vdmini.models.registry import family_of, pipeline_denoiser

    denoiser = pipeline_denoiser(pipeline)
    return family_of(denoiser).name, conditioning_of(denoiser)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    from filelock import Timeout

    try:
        with file_lock(folder / ".lock").acquire(timeout=0):
            yield
    except Timeout:
        raise LatentCacheError(f"another process is encoding into {folder}: wait for it, or give another") from None


@torch.no_grad()
def _write_unconditional(
    folder: Path, index: LatentIndex, pipeline: DiffusionPipeline, conditioning: Conditioning
) -> None:
    path = folder / UNCONDITIONAL_FILE
    if index.unconditional is not None and file_sha256(path) == index.unconditional:
        return
    values = conditioning.unconditional(pipeline)
    if values is None:
        return
    stored = {name: _stored(value) for name, value in values.items()}
    _check_finite("the empty condition", stored)
    with index.changed(folder):
        index.unconditional = save_tensors(stored, path)


@torch.no_grad()
def _encode(
    pipeline: DiffusionPipeline,
    conditioning: Conditioning,
    clip: TrainingClip,
    settings: EncodeSettings,
    shapes: dict[str, tuple[int, ...]],
) -> dict[str, Tensor]:
    encoded = {
        name: _stored(value) for name, value in sorted(conditioning.encode_clip(pipeline, clip, settings).items())
    }
    _check_finite(clip.name, encoded)
    found = {name: tuple(value.shape) for name, value in encoded.items()}
    if shapes and found != shapes:
        raise LatentCacheError(f"{clip.name} encodes to {found}, other clips to {shapes}: read all at one size")
    shapes.update(found)
    return encoded


def _check_finite(of: str, encoded: Mapping[str, Tensor]) -> None:
    for name, value in encoded.items():
        if not is_finite(value):
            # Some VAEs overflow in float16.
            raise LatentCacheError(f"{of}: its {name} are not finite: encode with a pipeline in float32")


def _fill_shard(
    folder: Path,
    index: LatentIndex,
    number: int,
    encode: Callable[[int], dict[str, Tensor]],
    on_clip: Callable[[], None],
) -> list[UnreadableClipError]:
    """Encode what a shard lacks, write it when there was something, and return the clips that cannot be read."""
    path = folder / shard_name(number)
    shard = index.shards.get(number)
    start = number * index.clips_per_shard
    positions = range(start, min(start + index.clips_per_shard, len(index.names)))
    held = shard.clips if shard is not None and file_sha256(path) == shard.sha256 else []
    rows: dict[int, dict[str, Tensor]] = {}
    filling: dict[int, Shard] = {}
    problems = []
    for position in positions:
        if position not in held:
            try:
                rows[position] = encode(position)
            except UnreadableClipError as problem:
                problems.append(problem)
        on_clip()
    if rows:
        if held:
            before = load_file(path)
            rows |= {position: {name: before[name][row] for name in before} for row, position in enumerate(held)}
        filled = sorted(rows)
        stacked = {name: torch.stack([rows[position][name] for position in filled]) for name in index.shapes}
        filling = {number: Shard(save_tensors(stacked, path), filled)}
    elif held:
        return problems
    with index.changed(folder):
        index.shards.pop(number, None)
        index.shards |= filling
    return problems


def _stored(value: Tensor) -> Tensor:
    return value.float().cpu().contiguous()
