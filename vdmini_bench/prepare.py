"""Before the first job: find out what is missing, draw or index the clips, and digest everything a run reads."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path

from vdmini_bench.asset_catalogue import ASSETS
from vdmini_bench.assets import AssetError, asset_path, fetch_asset, sha256_of
from vdmini_bench.clips import ChosenClips, choose_clips
from vdmini_bench.datasets.synthetic import WORLD_VERSION, clip_count, write_dataset
from vdmini_bench.datasets.ucf101 import VideoFile, content_digest, read_split
from vdmini_bench.errors import BenchError, MissingAssetsError, SuiteError
from vdmini_bench.fingerprint import Fingerprint
from vdmini_bench.jobs import Inputs, Job, RunInputs, plan_jobs
from vdmini_bench.progress import progress, say
from vdmini_bench.store import Store
from vdmini_bench.suite import CommonProfile, CommonSuite, DatasetSpec, Profile, ProtocolSpec, Suite

DRAWN = "drawn.txt"
# The one network of FVD that is fetched by itself.
I3D = "i3d-kinetics400"
FREE_BYTES_NEEDED = 500 * 2**20
# Neither a rule nor the JSON of a plan holds an empty line.
CHANNELS_MARK = "\n\nchannels "
# The packages whose versions a job's key holds.
DECIDING = ("torch", "diffusers", "transformers", "av")


@dataclass(frozen=True)
class Missing:
    """One thing a run needs that is not there, and the command that brings it."""

    name: str
    what: str
    size: str
    licence: str
    source: str
    command: str


@dataclass(frozen=True)
class Prepared:
    """The jobs of a run and what they start from; `clips` are of the suite's own kind, as its workbench has them."""

    inputs: RunInputs
    clips: object
    teacher: str
    jobs: tuple[Job, ...]


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
    """Fetch I3D unless the protocol's network or a file of the user's takes its place; returns `networks_digest`.

    Raises:
        AssetError: it cannot be fetched.
    """
    if protocol.network != I3D:
        fetch_asset(protocol.network)
    elif protocol.reference == "shipped" or asset_path("i3d-torchscript") is None:
        fetch_asset("i3d-kinetics400")
    return networks_digest(protocol)


def networks_digest(protocol: ProtocolSpec) -> str:
    """The identity of the networks that scores under a protocol come from; that of FVD must be in the cache.

    Raises:
        AssetError: it is not.
    """
    replaceable = protocol.network == I3D and protocol.reference != "shipped"
    network = (asset_path("i3d-torchscript") if replaceable else None) or asset_path(protocol.network)
    if network is None:
        verb = "fetch i3d-kinetics400" if protocol.network == I3D else f"import {protocol.network} PATH"
        raise AssetError(protocol.network, "it is not in the cache", f"vdmini-bench assets {verb}")
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


def digest_videos(videos: tuple[VideoFile, ...], store: Store, root: Path, name: str, remember: bool = True) -> str:
    """Digest the order and the bytes of videos under `root`; the store remembers what each file's are."""
    place = hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:8]
    order = hashlib.sha256("\n".join(video.relative for video in videos).encode()).hexdigest()
    content = content_digest(videos, store.root / "data" / f"index-{place}-{name}.json", remember)
    return hashlib.sha256(f"{order}{content}".encode()).hexdigest()


def deciding_versions(versions: dict[str, str]) -> dict[str, str]:
    """The versions that a job's key holds."""
    return {name: versions[name] for name in DECIDING}


def find_missing(profile: Profile, *, measured: bool = True) -> list[Missing]:
    """Everything the profile needs that this program cannot fetch by itself, to train alone unless `measured`."""
    missing = missing_teacher(profile)
    needed = ["ucf101"] if profile.dataset.kind == "ucf101" else []
    needed += ["pytorch-fid-inception"] if measured and profile.protocol.frame_fid else []
    missing += [missing_asset(name) for name in needed if asset_path(name) is None]
    return missing + (missing_networks(profile.protocol) if measured else [])


def missing_networks(protocol: ProtocolSpec) -> list[Missing]:
    """The network of FVD where it is one that has to be imported, and was not."""
    here = protocol.network == I3D or asset_path(protocol.network) is not None
    return [] if here else [missing_asset(protocol.network)]


def missing_teacher(profile: CommonProfile) -> list[Missing]:
    """The teacher where it is neither part of this installation nor a folder nor downloaded."""
    from vdmini.models import EMBEDDED

    try:
        model_folder(profile.teacher)
    except BenchError as error:
        if profile.teacher in EMBEDDED:
            next_step = "install a build that has it   (or --set teacher=FOLDER)"
            return [Missing("teacher", str(error), "under 30 MB", "that of this package", "this package", next_step)]
        if "stable-video-diffusion" not in profile.teacher:
            next_step = "--download, where it is a hub id   (or --set teacher=FOLDER, a pipeline's folder)"
            return [Missing("teacher", str(error), "unknown", "its authors'", "its authors", next_step)]
        return [
            Missing(
                "teacher", str(error), "about 9 GB in float16", "Stability AI Community License", "huggingface.co",
                f"--download, or first: hf download {profile.teacher}   (or --set teacher=FOLDER)",
            )
        ]  # fmt: skip
    return []


def missing_asset(name: str) -> Missing:
    """What is known of an asset that is to be imported."""
    asset = ASSETS[name]
    size = f"{asset.size_bytes / 1e6:,.0f} MB" if asset.size_bytes else "unknown"
    return Missing(name, asset.what, size, asset.licence, asset.source, f"vdmini-bench assets import {name} PATH")


def missing_table(suite: CommonSuite, missing: list[Missing]) -> str:
    """The missing things as text, one paragraph each."""
    lines = [f"profile {suite.profile_name!r} of suite {suite.name!r} cannot run yet; nothing was run. Missing:"]
    for item in missing:
        lines += [
            f"  {item.name}: {item.what}",
            f"    size     {item.size}",
            f"    licence  {item.licence}",
            f"    from     {item.source}",
            f"    next     {item.command}",
        ]
    return "\n".join(lines)


def dataset_root(dataset: DatasetSpec, store: Store) -> Path | None:
    """Where the data set lies or will lie; None when the real one was not imported."""
    if dataset.kind == "ucf101":
        return asset_path("ucf101")
    return store.root / "data" / f"drawn-{WORLD_VERSION}-{dataset.drawn_train_per_group}-{dataset.drawn_test_per_group}"


def draw_dataset(root: Path, dataset: DatasetSpec) -> None:
    """Draw the stand-in data set unless it is there; the marker of completeness is written last."""
    if (root / DRAWN).exists():
        return
    counts = (dataset.drawn_train_per_group, dataset.drawn_test_per_group)
    with progress("draw clips", clip_count(*counts)) as advance:
        write_dataset(root, *counts, on_clip=advance)
    (root / DRAWN).write_text("complete\n")
    say(f"drew {clip_count(*counts)} clips into {root}")


def check_writable(root: Path) -> None:
    """Fail now rather than after hours of work.

    Raises:
        BenchError: the folder cannot be made or written, or the disk is nearly full.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        probe = root / ".write-probe"
        probe.write_text("")
        probe.unlink()
    except OSError as error:
        raise BenchError(f"{root} cannot be written ({error}); choose another folder with --results") from error
    free = shutil.disk_usage(root).free
    if free < FREE_BYTES_NEEDED:
        raise BenchError(f"{root}: {free / 2**20:.0f} MiB free where a run needs 500; free some or use --results")


def model_folder(source: str) -> Path:
    """The local folder of a model source: an embedded name, a folder, or a hub id in the local hub cache.

    Raises:
        SuiteError: there is none.
    """
    from vdmini.models import ModelLoadError
    from vdmini.models.hub import source_folder

    try:
        return source_folder(source)
    except ModelLoadError as error:
        raise SuiteError(str(error)) from error


def pruning_text(rule_or_file: str, channels: str | None, family: str = "svd") -> str:
    """All that decides what the pruned student is: a rule or the text of a plan file, and the channel rule if any.

    Raises:
        SuiteError: no rule has that name, the file is no plan, or the channel rule cannot be used in a run.
    """
    plan = _plan_text(rule_or_file)
    if channels is None:
        return plan
    from vdmini_bench.generation import read_channel_rule

    return f"{plan}{CHANNELS_MARK}{read_channel_rule(channels, family)}"


def split_pruning_text(text: str) -> tuple[str, str | None]:
    """What `pruning_text` joined: a rule or the JSON of a plan, and the channel rule or None."""
    plan, mark, channels = text.partition(CHANNELS_MARK)
    return plan, channels if mark else None


def _plan_text(rule_or_file: str) -> str:
    from vdmini.plan import PlanError, PruningPlan
    from vdmini.rules import parse_rule

    try:
        if not rule_or_file.endswith(".json"):
            parse_rule(rule_or_file)
            return rule_or_file
        return PruningPlan.from_json(Path(rule_or_file).read_text(encoding="utf-8")).to_json()
    except (OSError, UnicodeDecodeError, PlanError) as error:
        raise SuiteError(f"plan: {rule_or_file}: {error}") from error


def teacher_digest(source: str) -> str:
    """The identity of the teacher's checkpoint."""
    from vdmini import checkpoint_sha256

    return checkpoint_sha256(model_folder(source))


def shipped_digest() -> str:
    """The identity of the reference that ships with the package; raises SuiteError where it does not."""
    from vdmini_bench.stages.reference import FLOWS, MOMENTS, SHIPPED

    try:
        return "".join(sha256_of(SHIPPED / name) for name in (MOMENTS, FLOWS))
    except OSError as error:
        raise SuiteError(
            f"the shipped reference is not part of this installation ({error}); use --set protocol.reference=computed"
        ) from error
