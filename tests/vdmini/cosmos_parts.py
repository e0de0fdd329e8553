"""What Cosmos's pipelines need of packages that are not here, so that diffusers alone can run them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from diffusers.models.transformers import transformer_cosmos
from diffusers.utils import is_torchvision_available
from torch.nn.functional import interpolate


class NoGuard:
    """In the place of NVIDIA's guardrail, which is a package and gigabytes of weights: all is safe."""

    def to(self, device: Any) -> None:
        """It is nowhere."""

    def check_text_safety(self, prompt: str) -> bool:
        return True

    def check_video_safety(self, frames: Any) -> Any:
        return frames


def loaded_with(native: str) -> dict[str, Any]:
    """The parts that `from_pretrained` must be given for a pipeline's class, by its name."""
    return {"safety_checker": NoGuard()} if native.startswith("Cosmos") else {}


if not is_torchvision_available():
    transformer_cosmos.transforms = SimpleNamespace(
        functional=SimpleNamespace(resize=lambda mask, size, interpolation: interpolate(mask, size, mode="nearest")),
        InterpolationMode=SimpleNamespace(NEAREST="nearest"),
    )
