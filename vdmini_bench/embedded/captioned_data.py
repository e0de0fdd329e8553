"""Captioned clips of the drawn world to train on, drawn once and kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from vdmini_bench.data.captions import Scene, covered_places, draw_scene
from vdmini_bench.embedded.captioned_training import CaptionedClips
from vdmini_bench.system.progress import progress


def captioned_clips(stored: Path, scenes: Sequence[Scene], first_seed: int, *, upright: bool = False) -> CaptionedClips:
    """The scenes' clips, kept in a file, their captions and where they show things."""
    # N T H W C to N T C H W.
    clips = (
        torch.from_numpy(drawn_once(stored, scenes, first_seed, upright=upright)).permute(0, 1, 4, 2, 3).contiguous()
    )
    places = np.stack(
        [covered_places(scene, first_seed + place, upright=upright) for place, scene in enumerate(scenes)]
    )
    return CaptionedClips(clips, [scene.caption for scene in scenes], torch.from_numpy(places))


def drawn_once(stored: Path, scenes: Sequence[Scene], first_seed: int, *, upright: bool = False) -> NDArray[np.uint8]:
    """The scenes' clips N T H W C uint8, kept in a file."""
    if not stored.exists():
        clips = []
        with progress(f"draw {stored.stem}", len(scenes)) as advance:
            for place, scene in enumerate(scenes):
                clips.append(draw_scene(scene, first_seed + place, upright=upright).frames)
                advance()
        np.save(stored, np.stack(clips))
    return np.asarray(np.load(stored, allow_pickle=False))
