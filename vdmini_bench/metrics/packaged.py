"""Metrics whose networks run through packages of their authors: rows where a protocol asks for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from vdmini_bench.config.protocol import ProtocolSpec
from vdmini_bench.data.clip_reader import ClipReader
from vdmini_bench.metrics.fvmd import FVMD_VERSION, clip_tracks, fvmd_distance, load_pips, why_no_fvmd
from vdmini_bench.metrics.jedi import JEDI_VERSION, VJepa, jedi_distance, why_no_jedi
from vdmini_bench.metrics.plugged import Block, Plugged
from vdmini_bench.metrics.scorer import NO_FRAMES
from vdmini_bench.results.score import Better

Features = NDArray[Any]


@dataclass
class FeatureMetric:
    """A distance between features of generated and of real clips; the real ones are seen once for all blocks."""

    name: str
    version: str
    load: Callable[[], Callable[[ClipReader], Features]]
    distance: Callable[[Features, Features], float]
    unit: str = ""
    better: Better = "lower"
    _see: Callable[[ClipReader], Features] | None = field(default=None, init=False)
    _real: Features | None = field(default=None, init=False)

    def of_block(self, block: Block) -> float:
        """The distance of one block's clips from the real ones."""
        assert block.real is not None
        self._see = self._see or self.load()
        if self._real is None:
            self._real = self._see(block.real)
            block.real.check()
        return self.distance(self._see(block.clips), self._real)


def packaged_metrics(protocol: ProtocolSpec) -> Sequence[Plugged]:
    """The ones that a protocol asks for, each ready or with why it cannot be had here; nothing is loaded yet."""
    made = {
        "jedi": (why_no_jedi, FeatureMetric("jedi", JEDI_VERSION, lambda: VJepa().features, jedi_distance)),
        "fvmd": (why_no_fvmd, FeatureMetric("fvmd", FVMD_VERSION, _load_tracker, fvmd_distance)),
    }
    found = []
    for why_not, metric in (made[name] for name in protocol.packaged_metrics):
        problem = NO_FRAMES if protocol.reference == "shipped" else why_not(protocol.frames)
        found.append(Plugged(metric.name, metric.version, metric if problem is None else None, problem or ""))
    return found


def _load_tracker() -> Callable[[ClipReader], Features]:
    network = load_pips()
    return lambda clips: clip_tracks(clips, network)
