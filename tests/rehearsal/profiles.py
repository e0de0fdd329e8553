"""The paper's profiles, and what of them is made small: sizes, steps and counts, nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

SUITES = Path(__file__).parents[2] / "suites"
TRAINING = (
    "distill.steps=2", "distill.batch_size=2", "distill.checkpoint_every=1", "dataset.train_clips=4",
    "timing.runs=3", "timing.warmup=1",
)  # fmt: skip
DISTRIBUTIONS = (
    "protocol.clips_per_block=2", "protocol.blocks=2", "protocol.reference_clips=4", "sample.height=64",
    "sample.width=64",
)  # fmt: skip
# The official code of some dimensions reads frames of 121 pixels and more.
JUDGED = ("sample.height=128", "sample.width=128", "clip.frames=5")
DECODER = "models.student, small decoder.decoder"
# The published number of weights and the published ratio are those of the published widths.
SMALL_DECODER = (f"{DECODER}.parameters=2000000", f"{DECODER}.finetune.steps=2", f"{DECODER}.finetune.frames=2")
NARROW = tuple(
    f"models.{row}.channels={rule}:ratio=0.3,tolerance=0.3"
    for row, rule in {
        "DepGraph L2": "depgraph-l2",
        "DepGraph Taylor": "depgraph-taylor",
        "magnitude": "magnitude",
    }.items()
)


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

    def arguments(self, results: Path) -> list[str]:
        """What follows `vdmini-bench`."""
        options = [part for setting in self.settings for part in ("--set", setting)]
        suite = str(SUITES / f"{self.suite}.yaml")
        return ["run", suite, "--profile", self.profile, *options, "--results", str(results), "--json"]


REHEARSALS = [
    Rehearsal(
        "ucf101", "paper", (*TRAINING, *DISTRIBUTIONS, *NARROW, *SMALL_DECODER, "sample.steps=2"), ("inception",)
    ),
    Rehearsal("ucf101", "sf-v", (*TRAINING, *DISTRIBUTIONS, *NARROW, *SMALL_DECODER), ("inception",)),
    Rehearsal("ucf101", "text", (*TRAINING, *DISTRIBUTIONS, "sample.steps=2")),
    Rehearsal("vbench_t2v", "paper", (*TRAINING, *JUDGED, "sample.steps=2")),
    Rehearsal("vbench_t2v", "hunyuanvideo", (*TRAINING, *JUDGED, "sample.steps=2")),
    Rehearsal("vbench_i2v", "paper", (*TRAINING, *JUDGED, *NARROW, *SMALL_DECODER, "sample.steps=2")),
    Rehearsal("vbench_i2v", "sf-v", (*TRAINING, *JUDGED, *NARROW, *SMALL_DECODER)),
    Rehearsal("alternatives", "paper", (*TRAINING, *DISTRIBUTIONS, "sample.steps=2"), ("inception",)),
]
