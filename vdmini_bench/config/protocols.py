"""Published ways of scoring videos on UCF101, each under a name and a version: a preset fills a protocol's fields.

What a preset fixes decides the number; what it suggests (how many clips, of which split) is written into the identity
of every score instead, so a smaller run is possible and never mistaken for the published one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

UCF101_VIDEOS = 13_320
Offset = Literal["start", "random"]
Condition = Literal["first-frame", "class-name"]
# What FVD and KVD compare features of; the names are those of the assets.
FeatureNetwork = Literal["i3d-kinetics400", "i3d-torchscript", "videomae-ssv2"]


@dataclass(frozen=True)
class Preset:
    """One published protocol: the fields it fixes, those it suggests, the frame counts it allows, and its source.

    `silent` names what the source does not say and was chosen here.
    """

    version: int
    fixed: Mapping[str, Any]
    suggested: Mapping[str, Any]
    frames: tuple[int, ...]
    source: str
    silent: str


# The same number of clips of all 101 classes, of the whole data set on both sides.
WHOLE = {
    "clips_per_block": UCF101_VIDEOS, "blocks": 1, "reference_clips": UCF101_VIDEOS,
    "condition_split": "all", "reference_split": "all", "sampling": "balanced",
}  # fmt: skip
CONSECUTIVE = {"frames_per_second": 25, "resample": False}
FROM_THE_START = {"reference_offset": "start", "generated_offset": "start"}
SMOOTH = {"network": "i3d-kinetics400", "network_resize": "antialiased", "covariance": "n-1"}
PLAIN = {"network_resize": "plain", "covariance": "n", "short_videos": "leave-out", "reference_offset": "random"}

CD_FVD = Preset(
    version=1,
    fixed={
        **CONSECUTIVE,
        **PLAIN,
        "network": "i3d-kinetics400",
        "preprocessing": "short-side-256-crop-square",
        "generated_offset": "random",
    },
    suggested={**WHOLE, "clips_per_block": 2048},
    frames=(16, 128),
    source="cd-fvd (github.com/songweige/content-debiased-fvd), model i3d, resolution 256",
    silent="nothing; its own I3D has batch-norm epsilon 1e-5 where the original has 1e-3, which is kept here",
)
PRESETS = {
    "sf-v": Preset(
        # 2: frames are those of FFmpeg's filter `fps`.
        version=2,
        fixed={
            **SMOOTH,
            **FROM_THE_START,
            "frames_per_second": 7,
            "resample": True,
            "preprocessing": "resize",
            "resize_width": 320,
            "resize_height": 240,
            "short_videos": "leave-out",
        },
        suggested=WHOLE,
        frames=(14,),
        source="SF-V (arXiv 2406.04324): the first frame of each UCF101 clip is animated, 14 frames at 7 fps, 320x240",
        silent="resizing (bicubic, antialiased), covariance (N - 1), clips of under 2 s (left out), the part of a clip",
    ),
    "stylegan-v": Preset(
        version=1,
        fixed={
            **CONSECUTIVE,
            **PLAIN,
            "preprocessing": "square-256-lanczos",
            "generated_offset": "start",
            # The first of the sorted list: about 15 of the 101 classes, as published.
            "sampling": "first",
        },
        # Of the two files of I3D; the metric's version says which a score is of.
        suggested={**WHOLE, "clips_per_block": 2048, "reference_clips": 2048, "network": "i3d-torchscript"},
        frames=(16,),
        source="StyleGAN-V (github.com/universome/stylegan-v), fvd2048_16f",
        silent="nothing; its data preparation also stores frames as JPEG, which is left out here",
    ),
    "svd": Preset(
        version=1,
        fixed={
            **SMOOTH,
            **CONSECUTIVE,
            **FROM_THE_START,
            "condition": "class-name",
            "preprocessing": "short-side-240-crop-320x240",
            "short_videos": "refuse",
        },
        suggested=WHOLE,
        frames=(16,),
        source="Stable Video Diffusion (arXiv 2311.15127): 13,320 videos prompted by class name, in the real histogram",
        silent="how classes are written (small words), the part of a real clip (its start), covariance (N - 1),"
        " resizing to 224 (bilinear, antialiased)",
    ),
    "cd-fvd": CD_FVD,
    "cd-fvd-videomae": replace(
        CD_FVD,
        fixed={**CD_FVD.fixed, "network": "videomae-ssv2"},
        source="cd-fvd (arXiv 2404.12391, github.com/songweige/content-debiased-fvd), model videomae, resolution 256",
        silent="nothing; the paper has no KVD, which is the kernel distance of the same features",
    ),
}
