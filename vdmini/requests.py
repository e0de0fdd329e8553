"""What a model is asked for: a clip with its seed and condition, and the settings of sampling."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

# Settings are read where nothing is sampled: what only clips need is imported when one is made.
if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from PIL import Image

# Settings that records of before do not have: they are written where they are set, so that the others stay the same.
WRITTEN_WHERE_SET = ("negative_prompt", "second_guidance", "boundary", "scheduler", "shift", "sigmas", "latents")


@dataclass(frozen=True)
class ClipRequest:
    """One clip to sample: its name, its seed, and its condition: an image H W C uint8 RGB or a prompt."""

    name: str
    seed: int
    image: NDArray[np.uint8] | None = None
    prompt: str | None = None

    def generator(self) -> torch.Generator:
        """A CPU generator of the clip's own: the device and the batch it travels in do not choose its noise."""
        import torch

        return torch.Generator().manual_seed(self.seed)

    def picture(self) -> Image.Image:
        """The condition image; raises ValueError where there is none."""
        from PIL import Image

        if self.image is None:
            raise ValueError(f"clip {self.name!r} has no image, which this model animates: give one")
        return Image.fromarray(self.image)

    @property
    def image_sha256(self) -> str | None:
        """The identity of the condition image, by its pixels."""
        if self.image is None:
            return None
        return hashlib.sha256(f"{self.image.shape}".encode() + self.image.tobytes()).hexdigest()

    def text(self) -> str:
        """The prompt; raises ValueError where there is none."""
        if self.prompt is None:
            raise ValueError(f"clip {self.name!r} has no prompt, which this model draws from: give one")
        return self.prompt


@dataclass(frozen=True)
class SampleSettings:
    """How a pipeline samples: `frames` of `height` x `width` pixels in `steps` steps.

    `guidance` is for text; four settings after it are those of Stable Video Diffusion's pipeline. None is the
    pipeline's own: `second_guidance` that of a second expert, of the sound, or of a pass without the prompt where
    `guidance` is embedded; `boundary` the share of the noise levels that the first of two experts denoises;
    `scheduler` a class of diffusers, with the settings of the pipeline's; `shift` towards high noise; `sigmas` the
    noise levels themselves; `latents` a file of one tensor, the noise that every clip starts from, whatever its seed.
    """

    steps: int
    frames: int
    height: int
    width: int
    frames_per_second: float = 7
    guidance: float | None = None
    motion_bucket: int = 127
    noise_strength: float = 0.02
    min_guidance: float = 1.0
    max_guidance: float = 3.0
    negative_prompt: str | None = None
    second_guidance: float | None = None
    boundary: float | None = None
    scheduler: str | None = None
    shift: float | None = None
    sigmas: tuple[float, ...] | None = None
    latents: str | None = None

    def to_json(self) -> dict[str, object]:
        """Its values by name as JSON has them, those of `WRITTEN_WHERE_SET` where they are set."""
        values = asdict(self) | {"sigmas": None if self.sigmas is None else [*self.sigmas]}
        return {name: value for name, value in values.items() if value is not None or name not in WRITTEN_WHERE_SET}
