"""What a run needs that is not there, and the commands that bring it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vdmini_bench.assets.cache import asset_path
from vdmini_bench.assets.catalogue import ASSETS, I3D
from vdmini_bench.config.protocol import ProtocolSpec
from vdmini_bench.config.suite import CommonProfile, CommonSuite
from vdmini_bench.errors import BenchError
from vdmini_bench.models.source import model_folder


@dataclass(frozen=True)
class Missing:
    """One thing a run needs that is not there, and the command that brings it."""

    name: str
    what: str
    size: str
    licence: str
    source: str
    command: str


def missing_networks(protocol: ProtocolSpec) -> list[Missing]:
    """The network of FVD where it is one that has to be imported, and was not."""
    here = protocol.network == I3D or asset_path(protocol.network) is not None
    return [] if here else [missing_asset(protocol.network)]


def missing_teacher(profile: CommonProfile) -> list[Missing]:
    """The teacher where it is neither part of this installation nor a folder nor downloaded."""
    from vdmini.models.registry import EMBEDDED

    try:
        model_folder(profile.teacher)
    except BenchError as error:
        if profile.teacher in EMBEDDED:
            next_step = "install a build that has it   (or --set teacher=FOLDER)"
            return [Missing("teacher", str(error), "under 30 MB", "that of this package", "this package", next_step)]
        if "stable-video-diffusion" not in profile.teacher:
            next_step = "--download, where it is a hub id   (or --set teacher=FOLDER, a pipeline's folder)"
            name = Path(profile.teacher).name
            card = f"its model card: https://huggingface.co/models?search={name}"
            return [Missing("teacher", str(error), "see the card", f"see {card}", card, next_step)]
        return [
            Missing(
                "teacher", str(error), "about 9 GB in float16", "Stability AI Community License",
                f"https://huggingface.co/{profile.teacher}",
                f"--download, or first: hf download {profile.teacher}   (or --set teacher=FOLDER)",
            )
        ]  # fmt: skip
    return []


def missing_asset(name: str) -> Missing:
    """What is known of an asset that is to be imported."""
    asset = ASSETS[name]
    size = f"{asset.size_bytes / 1e6:,.0f} MB" if asset.size_bytes else "unknown"
    return Missing(name, asset.what, size, asset.licence, asset.source, asset.command)


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
