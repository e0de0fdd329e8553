"""What to time and how; no torch is needed to ask."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Scope = Literal["denoiser", "vae_decode", "end_to_end"]
Dtype = Literal["float32", "bfloat16", "float16"]
Attention = Literal["auto", "flash", "efficient", "cudnn", "math"]

SCOPES: tuple[Scope, ...] = ("denoiser", "vae_decode", "end_to_end")
DTYPES: tuple[Dtype, ...] = ("float32", "bfloat16", "float16")
TEACHER = "teacher"
FEWEST_RUNS = 10
# torch's names of the backends of its attention.
ATTENTION = {
    "flash": "FLASH_ATTENTION",
    "efficient": "EFFICIENT_ATTENTION",
    "cudnn": "CUDNN_ATTENTION",
    "math": "MATH",
}
# What the published models are sampled in, where it is not 50.
STEPS = {"svd": 25, "svd-xt": 25, "t2v-turbo-v2": 16, "mochi-1-preview": 64, "embedded/svd": 12, "embedded/t2v": 10}


@dataclass(frozen=True)
class SpeedRequest:
    """Sizes and steps that are None are the model's own.

    `plans` are rules or plan files, a student each; `size` is height and width in pixels. `decoder` gives the widths of
    the students' VAE decoder (SVD's family), `channels` the width of a smaller model of the same topology. With
    `projected_steps` the time of one pass is also multiplied by that many steps.
    """

    model: str
    plans: tuple[str, ...] = ()
    random_weights: bool = False
    size: tuple[int, int] | None = None
    frames: int | None = None
    steps: int | None = None
    dtype: Dtype = "float32"
    attention: Attention = "auto"
    compiled: bool = False
    optimized: bool = False
    guidance: float | None = None
    runs: int = FEWEST_RUNS
    warmup: int = 2
    scopes: tuple[Scope, ...] = SCOPES
    decoder: tuple[int, ...] | None = None
    channels: int | None = None
    projected_steps: int | None = None
    attributed: bool = True
