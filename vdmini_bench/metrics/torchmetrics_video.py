"""FVD, KVD and the Inception Score of videos as `torchmetrics` metrics, for evaluations in other programs.

Each keeps its features, from all processes when it is computed: sums would lose digits, and KVD has none.
"""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchmetrics import Metric

from vdmini_bench.metrics.frechet import frechet_distance
from vdmini_bench.metrics.fvd import NetworkResize, clips_to_features, load_i3d
from vdmini_bench.metrics.inception import inception_score
from vdmini_bench.metrics.kernel import polynomial_mmd


class VideoFeatures(Metric):
    """The features of one or more sets of clips, a row a clip.

    Args:
        network: B C T H W float32 in [-1, 1] at 224x224 to B x D; `load_i3d()`, which may fetch it, when None.
        network_resize: how frames come to 224x224, as in `clips_to_features`.
    """

    sets: tuple[str, ...] = ("real", "generated")
    is_differentiable, higher_is_better, full_state_update = False, False, False
    dimensions: Tensor

    def __init__(self, network: nn.Module | None = None, network_resize: NetworkResize = "antialiased") -> None:
        super().__init__()
        self.network = load_i3d() if network is None else network
        self.network_resize: NetworkResize = network_resize
        # Rows lie end to end, since a process that saw no clip of a set cannot know how long they are.
        self.add_state("dimensions", torch.ones((), dtype=torch.long), dist_reduce_fx="max")
        for name in self.sets:
            self.add_state(name, [], dist_reduce_fx="cat")

    def update(self, videos: Tensor, real: bool) -> None:
        """Take clips B T C H W uint8 RGB of any size, T >= 9; raises ValueError for another layout or dtype."""
        self._keep("real" if real else "generated", videos)

    def _keep(self, name: str, videos: Tensor) -> None:
        features = clips_to_features([videos], self.network, self.network_resize).to(self.device)
        self.dimensions.fill_(features.shape[1])
        getattr(self, name).append(features.flatten())

    def rows(self, name: str) -> NDArray[Any]:
        """The features N x D float32 of a set of clips: in `compute` those of all processes, process by process."""
        kept = getattr(self, name)
        flat = kept if isinstance(kept, Tensor) else torch.cat([torch.zeros(0, device=self.device), *kept])
        return flat.reshape(-1, int(self.dimensions)).cpu().numpy()


class FrechetVideoDistance(VideoFeatures):
    """`frechet_distance` of generated clips from real ones: FVD with `load_i3d()`; covariances divide by N - `ddof`."""

    def __init__(
        self, network: nn.Module | None = None, network_resize: NetworkResize = "antialiased", ddof: int = 1
    ) -> None:
        super().__init__(network, network_resize)
        self.ddof = ddof

    def compute(self) -> Tensor:
        """The distance, a float64 scalar; raises ValueError for fewer than 2 clips of a set."""
        return torch.tensor(frechet_distance(self.rows("real"), self.rows("generated"), self.ddof), dtype=torch.float64)


class KernelVideoDistance(VideoFeatures):
    """`polynomial_mmd`, unbiased, of generated clips and real ones: KVD with `load_i3d()`."""

    def compute(self) -> Tensor:
        """The squared distance, a float64 scalar; raises ValueError for fewer than 2 clips of a set."""
        return torch.tensor(polynomial_mmd(self.rows("generated"), self.rows("real")), dtype=torch.float64)


class VideoInceptionScore(VideoFeatures):
    """`inception_score` of generated clips over `splits` consecutive parts; the network gives logits."""

    sets = ("generated",)
    higher_is_better = True

    def __init__(
        self, network: nn.Module | None = None, network_resize: NetworkResize = "antialiased", splits: int = 10
    ) -> None:
        super().__init__(network, network_resize)
        self.splits = splits

    def update(self, videos: Tensor) -> None:  # type: ignore[override]
        """Take clips B T C H W uint8 RGB of any size, T >= 9; raises ValueError for another layout or dtype."""
        self._keep("generated", videos)

    def compute(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation over the parts, float64 scalars; raises ValueError for fewer clips than parts."""
        mean, deviation = inception_score(self.rows("generated"), self.splits)
        return torch.tensor(mean, dtype=torch.float64), torch.tensor(deviation, dtype=torch.float64)
