"""JEDi (Luo et al. 2024, arXiv 2410.05203): the kernel distance of V-JEPA's features, as the package videojedi has it.

V-JEPA itself runs through that package, on weights that the user imports: both are CC BY-NC 4.0.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vdmini_bench.assets.cache import asset_path
from vdmini_bench.assets.catalogue import ASSETS
from vdmini_bench.metrics.kernel import polynomial_mmd

JEDI_VERSION = "videojedi-1.1.0-vjepa-h16-ssv2-1"
WEIGHTS = ("vjepa-vith16", "vjepa-ssv2-probe")
FRAMES, SIZE = 16, 224
# What the package reads of V-JEPA's configs/evals/vith16_ssv2_16x2x3.yaml, which it would fetch at every start.
CONFIGURATION = """\
data: {num_classes: 174}
optimization: {attend_across_segments: true, resolution: 224}
pretrain: {model_name: vit_huge, checkpoint_key: target_encoder, frames_per_clip: 16, tubelet_size: 2,
  uniform_power: true, use_silu: false, tight_silu: false, use_sdpa: true, patch_size: 16, folder: "", checkpoint: ""}
"""


def jedi_distance(x: NDArray[Any], y: NDArray[Any]) -> float:
    """A hundred times the squared maximum mean discrepancy under (x . y / D)^2, each feature with itself counted.

    Args:
        x: N x D features, any real dtype and range.
        y: M x D features of the same network.

    Raises:
        ValueError: unlike D, fewer than 2 rows, or a value that is not finite.
    """
    return 100 * polynomial_mmd(x, y, unbiased=False, degree=2, offset=0.0)


def why_no_jedi(frames: int) -> str | None:
    """Why clips of that many frames have no JEDi here, and what to do about it; None where they have."""
    if frames != FRAMES:
        return f"clips of {frames} frames, and V-JEPA takes {FRAMES}"
    if find_spec("videojedi") is None or find_spec("vjepa") is None:
        return "no package videojedi: pip install --no-deps videojedi vjepa, then what their import asks for"
    return next((f"no {name}: {ASSETS[name].command}" for name in WEIGHTS if asset_path(name) is None), None)


class VJepa:
    """V-JEPA of the package videojedi, on the imported weights unless a folder and a configuration are given."""

    def __init__(self, weights: Path | None = None, configuration: str = CONFIGURATION) -> None:
        from videojedi import VJEPA

        imported = asset_path(WEIGHTS[0])
        folder = weights or (None if imported is None else imported.parent)
        if folder is None or not all((folder / Path(ASSETS[name].file_name).name).is_file() for name in WEIGHTS):
            # The package would download them.
            raise FileNotFoundError(f"{folder} lacks weights of V-JEPA")
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            file.write(configuration)
            file.flush()
            self.network = VJEPA(model_dir=str(folder), config_fname=file.name)

    def features(self, clips: Iterable[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Clips T H W C uint8 RGB of 16 frames, resized to 224x224, to N x 1280, one at a time."""
        import torch
        from torch.nn import functional

        device = next(self.network.encoder.parameters()).device
        rows = []
        for clip in clips:
            frames = torch.from_numpy(np.ascontiguousarray(clip)).permute(0, 3, 1, 2).float().to(device) / 255
            sized = functional.interpolate(frames, (SIZE, SIZE), mode="bilinear", antialias=True)
            rows.append(self.network.get_feats(sized[None])[0])
        return np.stack(rows)
