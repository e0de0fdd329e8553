"""What a VBench suite needs that is not there: training clips, the classifier, and what official dimensions read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from vdmini_bench.assets.cache import asset_path
from vdmini_bench.assets.catalogue import ASSETS, VBENCH_PROMPTS
from vdmini_bench.config.suite import DatasetSpec
from vdmini_bench.config.vbench import CaptionedFolderSpec, VBenchProfile, VBenchSpec
from vdmini_bench.config.vbench_dimensions import FILTERED, PROJECTS
from vdmini_bench.suites.missing import Missing, missing_asset
from vdmini_bench.suites.vbench_scorers import counts
from vdmini_bench.vbench.environment import Environment
from vdmini_bench.vbench.requirements import ENVIRONMENT, examine_dimensions, examine_native


def missing_classifier() -> Missing:
    """What is known of the classifier of the drawn world."""
    from vdmini_bench.metrics.scene_classifier import SHIPPED

    return Missing(
        "scene classifier", f"what scores clips of the drawn world; not part of this installation ({SHIPPED})",
        "under 5 MB", "that of this package", "this package", "install a build that has it",
    )  # fmt: skip


def missing_files(files: Mapping[str, str | None]) -> list[Missing]:
    """Files that keys of a suite name and that are not there."""
    return [
        Missing(
            key, f"a file of the suite's protocol, {name} is none", "", "", "see docs/vbench.md", f"--set {key}=FILE"
        )
        for key, name in files.items()
        if name is not None and not Path(name).is_file()
    ]


def missing_training_clips(profile: VBenchProfile) -> list[Missing]:
    """The data set or the folder that a profile trains on, where it is not there."""
    dataset = profile.dataset
    if isinstance(dataset, DatasetSpec) and dataset.kind == "ucf101" and asset_path("ucf101") is None:
        return [missing_asset("ucf101")]
    if isinstance(dataset, CaptionedFolderSpec) and not Path(dataset.path).is_dir():
        return [
            Missing(
                "training clips", f"a folder of videos with captions, {dataset.path} is none", "yours", "yours", "you",
                "--set dataset.path=FOLDER   (captions.csv, .jsonl or .parquet in it)",
            )
        ]  # fmt: skip
    return []


def missing_official(vbench: VBenchSpec, environment: Environment) -> list[Missing]:
    """What the dimensions asked for lack, each thing once; of what our own code is to score, only its weights."""
    lacks = examine_dimensions(environment) | (examine_native() if vbench.code == "native" else {})
    needed: dict[str, list[str]] = {}
    commands = {}
    if vbench.mode == "t2v" and environment.record() is None and asset_path(VBENCH_PROMPTS) is None:
        needed["VBench's prompts"], commands["VBench's prompts"] = ["all dimensions"], ASSETS[VBENCH_PROMPTS].command
    for dimension in lacks:
        if dimension in vbench.asked_dimensions and counts(dimension, vbench):
            for what, command in lacks[dimension].items():
                # Only the filter reads this dimension's weights.
                if dimension != FILTERED or vbench.static_filter or what == ENVIRONMENT:
                    needed.setdefault(what, []).append(dimension)
                    commands[what] = command
    return [
        Missing(what, f"for {', '.join(names)}", "see docs/vbench.md", *_licence_and_source(what), commands[what])
        for what, names in needed.items()
    ]


def _licence_and_source(what: str) -> tuple[str, str]:
    if "VBench-I2V" in what:
        return ASSETS["vbench-i2v"].licence, ASSETS["vbench-i2v"].source
    # What is no file of the cache is a package, or the environment of all of them.
    packages = ("a package registry", "Apache-2.0 (vbench); of others see the package's page there")
    source, licence = PROJECTS.get(what.partition("/")[0], packages)
    return licence, source
