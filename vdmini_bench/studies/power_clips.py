"""Scenes as two models show them, of which the second loses some: what every metric reads of each, measured once.

Neither shows a scene just where the teacher does: each moves it as a whole by about a pixel, by itself. A scene that is
lost has the severest corruption of the sensitivity study: it stands still (motion), or is blurred (content).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from vdmini.files import replacing
from vdmini_bench.data.captions import parse_caption
from vdmini_bench.data.synthetic import FRAMES, TEST_GROUPS, WORLD_VERSION, DrawnClip, draw_clip, seeded_by
from vdmini_bench.metrics.fidelity import clip_fidelity
from vdmini_bench.metrics.flow import fields_to_magnitudes, flow_fields
from vdmini_bench.metrics.motion_statistics import fields_to_statistics
from vdmini_bench.metrics.scene_classifier import load_classifier, read_clips
from vdmini_bench.metrics.semantic import DIMENSIONS, FAITHFULNESS, clip_marks
from vdmini_bench.studies.corruptions import Clip, blur, freeze, shifted
from vdmini_bench.studies.sensitivity import clip_names
from vdmini_bench.system.progress import progress
from vdmini_bench.vbench.native.flickering import temporal_flickering

if TYPE_CHECKING:
    from torch import nn

Take = Literal["first", "second", "motion", "content", "first_motion", "first_content"]
# The two models', the second's without motion and without content, and so the first's, which no network sees: means
# over clips are then of losses alone, and not of where a clip happens to stand.
TAKES: tuple[Take, ...] = ("first", "second", "motion", "content", "first_motion", "first_content")
SEEN: tuple[Take, ...] = ("first", "second", "motion", "content")
Loss = Literal["motion", "content"]
LOSSES: tuple[Loss, ...] = ("motion", "content")
# Standard deviation in each direction, of 32 pixels.
PLACE_SPREAD = 1.0
BLUR = 2.0
# Of yes and no more clips are needed than of a number, of sets than of single clips, and of flows too, of which a few
# in a thousand are far longer than all others: ten times as many are read by networks and by the flows.
MORE = 10
# Those that are asked of one thing, which these scenes have.
ASKED = tuple(name for name, (things, _) in {**DIMENSIONS, **FAITHFULNESS}.items() if things != 2)

Readings = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Pool:
    """Scenes of the test groups of the drawn world, from an index that no other list draws from.

    Of `count` all is read, of ten times as many what networks see and how things move.
    """

    first_index: int
    count: int

    @property
    def scenes(self) -> list[DrawnClip]:
        """The teacher's clips."""
        return [draw_clip(*name) for name in clip_names(TEST_GROUPS, MORE * self.count, self.first_index)]

    def take(self, take: Take) -> list[Clip]:
        """The same scenes as one of the two models shows them."""
        model = "first" if take.startswith("first") else "second"
        clips = []
        for place, scene in enumerate(self.scenes):
            random = seeded_by(f"power/{model}/{self.first_index}/{place}")
            clip = shifted(scene.frames, np.tile(random.normal(size=2) * PLACE_SPREAD, (FRAMES, 1)))
            if take.endswith("motion"):
                clip = freeze(clip, 1.0, random)
            clips.append(blur(clip, BLUR, random) if take.endswith("content") else clip)
        return clips


def measure_pool(pool: Pool, network: nn.Module, folder: Path) -> dict[Take, Readings]:
    """What metrics read of every take, a file each in `folder`; what is there already is not measured again.

    Arrays have a row a scene: `logits` 10 N x 400, `magnitudes` 10 N x T-1 x 2, `statistics` 10 N x 11, and N numbers
    by metric, 10 N by dimension.
    """
    found = {}
    for take in TAKES:
        path = folder / f"{WORLD_VERSION}-{pool.first_index}-{pool.count}x{MORE}-{take}.safetensors"
        if not path.exists():
            readings = read_take(pool, pool.take(take), network if take in SEEN else None)
            with replacing(path) as partial:
                save_file(readings, partial)
        found[take] = load_file(path)
    return found


def read_take(pool: Pool, take: Sequence[Clip], network: nn.Module | None) -> Readings:
    """What metrics read of clips that show the pool's scenes; without a network only those of single clips."""
    scenes, clips = pool.scenes, take[: pool.count]
    pairs = [clip_fidelity(scene.frames, clip) for scene, clip in zip(scenes, clips, strict=False)]
    asked = [parse_caption(scene.caption) for scene in scenes]
    seen = read_clips(load_classifier().network, np.stack(take))
    return {
        **({} if network is None else _read_for_sets(take, network)),
        **{name: np.array([each[name] for each in pairs]) for name in pairs[0]},
        "vbench_temporal_flickering": np.array([temporal_flickering(clip) for clip in clips]),
        **{f"vbench_{name}": np.array(clip_marks(name, asked, seen), np.float64) for name in ASKED},
    }


def _read_for_sets(take: Sequence[Clip], network: nn.Module) -> Readings:
    """How things move in each clip, and its logits."""
    flows = [(fields_to_magnitudes(fields), fields_to_statistics(fields)) for fields in map(flow_fields, take)]
    magnitudes, statistics = zip(*flows, strict=True)
    logits = network_logits(take, network)
    return {"logits": logits, "magnitudes": np.stack(magnitudes), "statistics": np.stack(statistics)}


def network_logits(clips: Sequence[Clip], network: nn.Module) -> NDArray[np.float32]:
    """I3D's logits N x 400."""
    import torch

    from vdmini_bench.metrics.fvd import clips_to_features

    with progress("I3D", len(clips)) as advance:

        def batches() -> Any:
            for clip in clips:
                yield torch.from_numpy(np.ascontiguousarray(clip)).permute(0, 3, 1, 2)[None]
                advance("")

        return clips_to_features(batches(), network).numpy()
