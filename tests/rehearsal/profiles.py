"""The paper's profiles, and what of them is made small: sizes, steps and counts, nothing else."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from number_formats import NUMBERS

# Every profile, class and kill; else a part in minutes.
FULL = os.environ.get("VDMINI_REHEARSAL") == "full"
SUITES = Path(__file__).parents[2] / "suites"
TRAINING = (
    "distill.steps=2", "distill.batch_size=2", "distill.checkpoint_every=1", "dataset.train_clips=4",
    "timing.runs=3", "timing.warmup=1",
)  # fmt: skip
DISTRIBUTIONS = (
    "protocol.clips_per_block=2", "protocol.blocks=2", "protocol.reference_clips=4", "sample.height=64",
    "sample.width=64",
)  # fmt: skip
# Some dimensions read frames of 121 pixels and more; a filter with random weights sees motion everywhere.
JUDGED = ("sample.height=128", "sample.width=128", "clip.frames=5", "vbench.static_filter=false")
DECODER = "models.student, small decoder.decoder"
FINETUNE = (f"{DECODER}.finetune.steps=2", f"{DECODER}.finetune.frames=2")
# The published number of weights and the published ratio are those of the published widths.
SMALL_DECODER = (f"{DECODER}.parameters=543115", *FINETUNE)
SMALL_FRAME_DECODER = (f"{DECODER}.parameters=617987", *FINETUNE)
RULES = {"DepGraph L2": "depgraph-l2", "DepGraph Taylor": "depgraph-taylor", "magnitude": "magnitude"}
NARROW = tuple(f"models.{row}.channels={rule}:ratio=0.3,tolerance=0.3" for row, rule in RULES.items())
STACKED = (
    *SMALL_DECODER, *(setting.replace("student, small", "small") for setting in SMALL_DECODER),
    "models.channels.channels=depgraph-l2:ratio=0.3,tolerance=0.3",
)  # fmt: skip
UNETS = (*TRAINING, *NARROW, *SMALL_DECODER)
TEXT_UNETS = (*TRAINING, *NARROW, *SMALL_FRAME_DECODER)
# Rows have steps of their own.
FEWER, SVD = "models.fewer steps.sample.steps=1", "models.SVD, 25 steps.sample.steps=2"
STEPS = tuple(f"models.{row}.sample.steps=1" for row in ("17 steps", "10 steps", "5 steps", "student, int8, 17 steps"))


@dataclass(frozen=True)
class Rehearsal:
    """A profile of a suite, what makes it small, and the metrics that no file that could be had would bring."""

    suite: str
    profile: str
    settings: tuple[str, ...]
    without: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Suite and profile."""
        return f"{self.suite}-{self.profile}"

    def arguments(self, results: Path, *, frame_fid: bool) -> list[str]:
        """What follows `vdmini-bench`; `frame_fid` says whether pytorch-fid and its file are there."""
        without = self.suite in ("ucf101", "alternatives") and not frame_fid
        settings = (*NUMBERS, *self.settings, *(["protocol.frame_fid=false"] if without else []))
        options = [part for setting in settings for part in ("--set", setting)]
        suite = str(SUITES / f"{self.suite}.yaml")
        return ["run", suite, "--profile", self.profile, *options, "--results", str(results), "--json"]


# The longest first, which are those that are killed: two at a time end together.
REHEARSALS = [
    Rehearsal("ucf101", "text", (*TEXT_UNETS, *DISTRIBUTIONS, FEWER, "sample.steps=2")),
    Rehearsal("vbench_t2v", "hunyuanvideo", (*TRAINING, *JUDGED, FEWER, "sample.steps=2")),
    Rehearsal("alternatives", "paper", (*TRAINING, *DISTRIBUTIONS, *STACKED, *STEPS, "sample.steps=2"), ("inception",)),
    Rehearsal("ucf101", "paper", (*UNETS, *DISTRIBUTIONS, FEWER, "sample.steps=2"), ("inception",)),
    Rehearsal("ucf101", "sf-v", (*UNETS, *DISTRIBUTIONS, SVD), ("inception",)),
    Rehearsal("vbench_i2v", "paper", (*UNETS, *JUDGED, FEWER, "sample.steps=2")),
    Rehearsal("vbench_i2v", "sf-v", (*UNETS, *JUDGED, SVD)),
    Rehearsal("vbench_t2v", "paper", (*TEXT_UNETS, *JUDGED, FEWER, "sample.steps=2")),
]
# A part of both kinds in minutes: a teacher that is trained first, and a transformer on official prompts.
FEW = "{teacher: {distill: {real: data}}, fewer steps: {}, student: {from: teacher, plan: vdmini, distill: {}}}"
BLOCKS = '{teacher: {}, fewer steps: {sample: {steps: 1}}, 16 + 32: {plan: "every-nth:n=5", distill: {}}}'
SHORT = [
    Rehearsal("ucf101", "sf-v", (*TRAINING, *DISTRIBUTIONS, f"models={FEW}", "published=[]"), ("inception",)),
    Rehearsal("vbench_t2v", "hunyuanvideo", (*TRAINING, *JUDGED, "sample.steps=2", f"models={BLOCKS}", "published=[]")),
]
