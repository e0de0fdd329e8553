"""Before the first job: find out what is missing, draw or index the clips, and digest everything a run reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from vdmini_bench.config.suite import Suite
from vdmini_bench.data.clip_reader import ClipReader
from vdmini_bench.suites.clip_selection import ChosenClips
from vdmini_bench.suites.context import CommonBench
from vdmini_bench.suites.jobs import GENERATED

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from vdmini.requests import ClipRequest
    from vdmini_bench.distill.recipe import Recipe


from vdmini_bench.assets.cache import asset_path, fetch_asset
from vdmini_bench.config.protocol import ProtocolSpec
from vdmini_bench.config.suite import CommonSuite, Profile
from vdmini_bench.data.ucf101 import VideoFile, read_split
from vdmini_bench.errors import AssetError, BenchError, MissingAssetsError
from vdmini_bench.metrics.reference import shipped_digest
from vdmini_bench.models.pruning import pruning_text
from vdmini_bench.models.source import model_folder, teacher_digest
from vdmini_bench.results.store import Store
from vdmini_bench.results.versions import deciding_versions
from vdmini_bench.suites.clip_selection import choose_clips
from vdmini_bench.suites.datasets import dataset_root, digest_videos, draw_dataset
from vdmini_bench.suites.jobs import Inputs, Prepared, plan_jobs
from vdmini_bench.suites.missing import Missing, find_missing, missing_table
from vdmini_bench.system.files import check_writable, sha256_of
from vdmini_bench.system.fingerprint import Fingerprint


def prepare_inputs(suite: Suite, store: Store, fingerprint: Fingerprint) -> Prepared:
    """Check, fetch and draw what the profile reads, then choose its clips and digest it all.

    Raises:
        MissingAssetsError: something has to be imported by hand; nothing was run.
        BenchError: the results folder cannot be written or the disk is full.
    """
    profile = suite.profile
    check_ready(suite, store, find_missing(profile))
    try:
        i3d = fetch_networks(profile.protocol)
    except AssetError as error:
        raise BenchError(str(error)) from error
    root = dataset_root(profile.dataset, store)
    assert root is not None
    if profile.dataset.kind == "drawn":
        draw_dataset(root, profile.dataset)
    clips = choose_clips(read_split(root, profile.dataset.split), profile)
    inputs = digest_inputs(profile, store, root, clips, i3d, fingerprint)
    return Prepared(inputs, clips, str(model_folder(profile.teacher)), tuple(plan_jobs(profile, inputs)))


def check_ready(suite: CommonSuite, store: Store, missing: list[Missing]) -> None:
    """Go on only where nothing is missing and results can be kept.

    Raises:
        MissingAssetsError: something has to be got by hand.
        BenchError: the results folder cannot be written or the disk is full.
    """
    if missing:
        raise MissingAssetsError(missing_table(suite, missing))
    check_writable(store.root)


def fetch_networks(protocol: ProtocolSpec) -> str:
    """Fetch the protocol's network; returns `networks_digest`.

    Raises:
        AssetError: it cannot be fetched.
    """
    fetch_asset(protocol.network)
    return networks_digest(protocol)


def networks_digest(protocol: ProtocolSpec) -> str:
    """The identity of the networks that scores under a protocol come from; that of FVD is in the cache."""
    network = asset_path(protocol.network)
    assert network is not None
    c3d = asset_path("c3d-ucf101") if protocol.inception == "c3d-ucf101" else None
    return sha256_of(network) + (sha256_of(c3d) if c3d is not None else "")


def digest_inputs(
    profile: Profile,
    store: Store,
    root: Path,
    clips: ChosenClips,
    i3d: str,
    fingerprint: Fingerprint,
    remember: bool = True,
) -> Inputs:
    """Digest everything that decides a number: weights, the bytes of every chosen clip, and versions."""

    def digest(name: str, videos: tuple[VideoFile, ...]) -> str:
        return digest_videos(videos, store, root, name, remember)

    return Inputs(
        teacher=teacher_digest(profile.teacher),
        plan=pruning_text(profile.plan, profile.channels),
        train_clips=digest("train", clips.train),
        condition_clips=digest("condition", clips.condition),
        real_clips=digest("real", clips.real),
        reference=digest("reference", clips.reference)
        if profile.protocol.reference == "computed"
        else shipped_digest(),
        i3d=i3d,
        versions=deciding_versions(fingerprint.versions),
        machine_id=fingerprint.machine_id,
    )


# No two values of `sample.seed` give a clip the same seed.
MOST_CLIPS = 100_000


@dataclass(frozen=True)
class Workbench(CommonBench):
    """The surroundings of a suite that is scored on distributions: its models animate first frames of real clips."""

    suite: Suite
    clips: ChosenClips

    family: ClassVar[str | None] = "svd"

    def warnings(self) -> list[str]:
        """Training clips on the side that models are scored against."""
        return self.clips.warnings()

    @property
    def recipe(self) -> Recipe:
        """What encoding, pruning and distilling work from."""
        from vdmini_bench.suites.recipes import recipe_of_suite

        return recipe_of_suite(self.suite, self.clips.train, self.teacher, self.teacher_digest, self.plan)

    @property
    def protocol_name(self) -> str:
        """The protocol's name and version."""
        return f"{self.suite.profile.protocol.name}@{self.suite.profile.protocol.version}"

    @property
    def clip_names(self) -> Sequence[str]:
        """Places of the condition clips."""
        return [f"{place:05d}" for place in range(len(self.clips.condition))]

    def requests(self, places: Sequence[int]) -> list[ClipRequest]:
        """First frames of condition clips, each with a seed that is the same for every model.

        Raises:
            IncompleteError: with all that cannot be read.
        """
        from vdmini.requests import ClipRequest

        images, first = self._first_frames(places), self.suite.profile.sample.seed * MOST_CLIPS
        return [ClipRequest(f"{place:05d}", first + place, image) for place, image in zip(places, images, strict=True)]

    def check_requests(self, places: Sequence[int]) -> None:
        """Read all of them, and keep none."""
        self._first_frames(places, keep=False)

    def _first_frames(self, places: Sequence[int], *, keep: bool = True) -> list[NDArray[np.uint8]]:
        settings, rate = self.sample_settings, self.suite.profile.rate
        paths = [self.clips.condition[place].path for place in places]
        reader = ClipReader(paths, 1, rate, settings.width, settings.height)
        images = [clip[0] for clip in reader if keep]
        reader.check()
        return images

    def examples(self, count: int) -> dict[str, list[Path]]:
        """The condition clips, and what each model made of their first frames."""
        names = self.clip_names[:count]
        real = [video.path for video in self.clips.condition[:count]]
        return {"real": real} | {model: [self.clip_path(model, name) for name in names] for model in GENERATED}
