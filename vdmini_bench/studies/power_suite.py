"""What a suite's protocol can see, before it is run: by metric the smallest loss, and how many clips others need."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vdmini_bench.config.suite import Suite
from vdmini_bench.config.vbench import VBenchSuite
from vdmini_bench.config.vbench_dimensions import FILTERED
from vdmini_bench.data.captions import parse_caption
from vdmini_bench.metrics.fidelity import MEASURES
from vdmini_bench.metrics.semantic import DIMENSIONS, FAITHFULNESS
from vdmini_bench.results.store import Store
from vdmini_bench.studies.power_clips import ASKED, LOSSES, Loss
from vdmini_bench.studies.power_prediction import MOST_CLIPS, Effects
from vdmini_bench.suites.vbench import OFFICIAL_VIDEOS, ask_for_videos
from vdmini_bench.vbench.prompts import SAMPLES

# Of which it is said how many clips they need.
SHARES = (0.05, 0.1, 0.2)


@dataclass(frozen=True)
class Sample:
    """What a metric's interval is of: blocks of `size` clips each; `grow` says what more clips are more of."""

    metric: str
    blocks: int
    size: int
    grow: str


@dataclass(frozen=True)
class Line:
    """What a metric sees of a loss: `smallest` is the share lost that shows in 80 % of runs, `needed` clips by share.

    None: no loss, no number of clips up to 100,000. `measured` is the largest block that effects were measured on, None
    for means over clips; `gains` are the shares whose loss moves the metric as a gain would.
    """

    metric: str
    loss: Loss
    blocks: int
    size: int
    smallest: float | None
    needed: dict[float, int | None]
    measured: int | None
    gains: tuple[float, ...]

    def cells(self) -> list[str]:
        """The line of a table: counts to two digits, marked where the loss passes for a gain."""
        smallest = "none" if self.smallest is None else f"{self._about(self.size)}{self.smallest:.0%}"
        needed = []
        for share, count in self.needed.items():
            if count is None:
                needed.append(f"> {MOST_CLIPS:,}")
                continue
            gain = " (gain)" if share in self.gains else ""
            needed.append(f"{self._about(count // self.blocks)}{float(f'{count:.1e}'):,.0f}{gain}")
        return [self.metric, self.loss, f"{self.blocks} x {self.size}", smallest, *needed]

    def _about(self, size: int) -> str:
        """A mark for what follows from larger blocks than were measured."""
        return "~" if self.measured is not None and size > self.measured else ""

    def to_json(self) -> dict[str, Any]:
        """The same as an object."""
        return {**vars(self), "needed": {f"{share:g}": count for share, count in self.needed.items()}}


def samples_of(suite: Suite | VBenchSuite, results: Path) -> Iterator[Sample]:
    """What each metric of a suite's table that was measured has its interval from."""
    if isinstance(suite, Suite):
        protocol = suite.profile.protocol
        clips = protocol.clips
        sets = ["flow_distance", "frechet_motion"]
        if protocol.network == "i3d-kinetics400":
            sets = ["fvd", *(["kvd"] if protocol.reference == "computed" else []), *sets]
        yield from (Sample(name, protocol.blocks, protocol.clips_per_block, "clips a block") for name in sets)
    else:
        vbench = suite.profile.vbench
        prompts = _prompts(suite, results)
        samples = vbench.samples_per_prompt or SAMPLES
        clips = OFFICIAL_VIDEOS[vbench.mode] if prompts is None else len(prompts) * samples
        if prompts is not None and vbench.prompts == "embedded":
            things = [len(parse_caption(prompt).things) for prompt in prompts]
            for name, (asked, _) in (DIMENSIONS if vbench.mode == "t2v" else FAITHFULNESS).items():
                if name in ASKED:
                    count = sum(asked in (None, each) for each in things)
                    yield Sample(f"vbench_{name}", count, samples, "prompts")
        if prompts is not None and FILTERED in vbench.asked_dimensions and vbench.prompts != "official":
            yield Sample(f"vbench_{FILTERED}", len(prompts), samples, "prompts")
    yield from (Sample(name, clips, 1, "clips") for name in MEASURES)


def _prompts(suite: VBenchSuite, results: Path) -> list[str] | None:
    """The prompts that models are asked for; None for the official ones, of which each dimension has its own."""
    vbench = suite.profile.vbench
    if vbench.prompts == "official":
        return None
    return [*dict.fromkeys(video.prompt for video in ask_for_videos(vbench, Store(results))[1])]


def predict(sample: Sample, loss: Loss, effects: Effects) -> Line:
    """What one metric sees of one loss."""
    grown = sample.blocks if sample.grow == "clips a block" else None
    needed = {share: effects.clips_needed(sample.metric, loss, share, grown, sample.size) for share in SHARES}
    smallest = effects.share_seen(sample.metric, loss, sample.blocks, sample.size)
    measured = None if grown is None else effects.largest_block(sample.metric)
    gain = 1 if sample.metric in ("psnr", "ssim") or sample.metric.startswith("vbench") else -1
    gains = tuple(share for share in SHARES if effects.sign(sample.metric, loss, share, sample.size) == gain)
    return Line(sample.metric, loss, sample.blocks, sample.size, smallest, needed, measured, gains)


def predict_suite(suite: Suite | VBenchSuite, results: Path) -> list[Line]:
    """What each measured metric of a suite sees of each loss, by the effects that ship with the package."""
    effects = Effects.read()
    return [predict(sample, loss, effects) for sample in samples_of(suite, results) for loss in LOSSES]
