"""Which clips a run reads, and a reader of them as its protocol says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vdmini_bench.config.protocol import ProtocolSpec
from vdmini_bench.config.suite import Profile
from vdmini_bench.data.clip_reader import ClipReader
from vdmini_bench.data.ucf101 import UcfSplit, VideoFile, choose_balanced
from vdmini_bench.data.video import read_timeline
from vdmini_bench.errors import SuiteError, UnreadableVideoError

# Each choice shuffles its list in its own way, the same in every run.
SEEDS = {"test": 0, "train": 1, "all": 2}


@dataclass(frozen=True)
class ChosenClips:
    """The clips of a run, disjoint but for what the split lists repeat and what a protocol's "all" takes again.

    `train` distils; `condition` gives the first frames; `real` is the held-out floor; `reference` is the real side of
    FVD where it is computed (empty where it is shipped).
    """

    train: tuple[VideoFile, ...] = ()
    condition: tuple[VideoFile, ...] = ()
    real: tuple[VideoFile, ...] = ()
    reference: tuple[VideoFile, ...] = ()

    def warnings(self) -> list[str]:
        """What makes scores look better than they are: training clips on the side they are scored against."""
        found = []
        trained = {video.relative for video in self.train}
        groups = {_group(video) for video in self.train}
        scored = {"reference": self.reference, "real": self.real, "condition": self.condition}
        for name, videos in scored.items():
            same = sum(video.relative in trained for video in videos)
            related = sum(_group(video) in groups for video in videos)
            if same:
                found.append(
                    f"{same} of {len(videos)} {name} clips are clips that the student is distilled on, which flatters"
                    " it: choose another split (protocol.reference_split, protocol.condition_split)"
                )
            elif related:
                found.append(
                    f"{related} of {len(videos)} {name} clips are cut from the same recordings (UCF101 groups) as clips"
                    " that the student is distilled on, which flatters it: say so beside the numbers"
                )
        return found


def choose_clips(split: UcfSplit, profile: Profile) -> ChosenClips:
    """Choose by class and seed: training clips from the training list, the others as the protocol says.

    Raises:
        SuiteError: a list has too few clips.
    """
    protocol = profile.protocol
    split = _long_enough(split, protocol)
    lists = _Lists(split, protocol.sampling)
    # The distillation is the same whatever the protocol samples.
    train = _Lists(split, "balanced").take("train", profile.dataset.train_clips)
    lists.taken["train"] = len(train) if protocol.sampling == "balanced" else 0
    condition = lists.take(protocol.condition_split, protocol.clips)
    real = lists.take(protocol.condition_split, protocol.clips)
    reference = _reference(lists, protocol)
    return ChosenClips(train, condition, real, reference)


def choose_reference(split: UcfSplit, profile: Profile) -> tuple[VideoFile, ...]:
    """The reference clips that `choose_clips` chooses, whether or not there are clips for a run's other rows.

    Raises:
        SuiteError: a list has too few clips.
    """
    protocol = profile.protocol
    lists = _Lists(_long_enough(split, protocol), protocol.sampling)
    if protocol.sampling == "balanced":
        lists.taken["train"] = profile.dataset.train_clips
    if protocol.condition_split == protocol.reference_split:
        lists.taken[protocol.condition_split] += 2 * protocol.clips
    return _reference(lists, protocol)


def _reference(lists: _Lists, protocol: ProtocolSpec) -> tuple[VideoFile, ...]:
    if protocol.reference == "shipped":
        return ()
    if protocol.reference_split == "all":
        # As published: the real side is the whole data set, or as many of it as there are.
        return lists.first("all", min(protocol.reference_clips, len(lists.pools["all"])))
    return lists.take(protocol.reference_split, protocol.reference_clips)


class _Lists:
    """The clips of each split, dealt from the front."""

    def __init__(self, split: UcfSplit, sampling: str) -> None:
        everything = sorted({*split.train, *split.test}, key=lambda video: video.relative)
        self.pools: dict[str, Sequence[VideoFile]] = {"train": split.train, "test": split.test, "all": everything}
        self.taken = dict.fromkeys(self.pools, 0)
        self.sampling = sampling

    def first(self, name: str, count: int) -> tuple[VideoFile, ...]:
        if self.sampling == "balanced":
            return tuple(choose_balanced(self.pools[name], count, SEEDS[name]))
        if count > len(self.pools[name]):
            raise SuiteError(f"{count} clips asked for where the data set has {len(self.pools[name])}; ask for fewer")
        return tuple(sorted(self.pools[name], key=lambda video: video.relative)[:count])

    def take(self, name: str, count: int) -> tuple[VideoFile, ...]:
        before = self.taken[name]
        self.taken[name] += count
        return self.first(name, self.taken[name])[before:]


def _long_enough(split: UcfSplit, protocol: ProtocolSpec) -> UcfSplit:
    """The videos that hold a clip of the protocol, by the times of their frames, where it leaves the others out."""
    if protocol.short_videos == "refuse":
        return split

    def fits(video: VideoFile) -> bool:
        try:
            return read_timeline(video.path).count(protocol.rate) >= protocol.frames
        except UnreadableVideoError:
            # Not a short one: reading it will name it.
            return True

    return UcfSplit(tuple(filter(fits, split.train)), tuple(filter(fits, split.test)))


def _group(video: VideoFile) -> str:
    """The recording a UCF101 clip is cut from: v_Class_gNN of v_Class_gNN_cMM.avi."""
    return video.relative.rpartition("_c")[0] or video.relative


def clip_reader(
    protocol: ProtocolSpec,
    paths: Sequence[Path],
    *,
    generated: bool = False,
    freeze: bool = False,
    workers: int = 1,
    trusted: bool = True,
) -> ClipReader:
    """What reads clips as a protocol says, real ones or generated ones, of which all frames are taken as they are."""
    offset = protocol.generated_offset if generated else protocol.reference_offset
    return ClipReader(
        paths,
        protocol.frames,
        None if generated else protocol.rate,
        protocol.resize_width,
        protocol.resize_height,
        freeze,
        preprocessing=protocol.preprocessing,
        # A still clip shows what a model is given: the first frame.
        offset_seed=protocol.offset_seed if offset == "random" and not freeze else None,
        workers=workers,
        trusted=trusted,
    )
