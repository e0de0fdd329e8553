"""Values that are NaN or infinite: found where they arise, and named, so that none becomes a black clip or a number."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline
    from numpy.typing import NDArray
    from torch import Tensor, nn

SHOWN = 3


class NotFiniteError(ArithmeticError):
    """A weight, a latent, a frame or a feature is NaN or infinite; the message says which."""


def is_finite(values: Tensor) -> bool:
    """Whether every value is a finite number; waits for the device."""
    if not values.numel():
        return True
    # Both are NaN where any value is. Thirty times as fast as asking of each value, and without a copy.
    least, greatest = (values if values.element_size() > 1 else values.float()).aminmax()
    return math.isfinite(float(least)) and math.isfinite(float(greatest))


def check_weights(model: nn.Module | DiffusionPipeline) -> None:
    """Look at every weight and saved buffer of a network, or of all networks of a pipeline, by its name there.

    Raises:
        NotFiniteError: naming tensors such as `unet.conv_in.weight`, and how many of their values are not finite.
    """
    found: dict[str, Tensor] = {}
    for part, network in _networks(model).items():
        for name, values in network.state_dict().items():
            if values.is_floating_point() and values.device.type != "meta" and not is_finite(values):
                found[f"{part}{name}"] = values
    if not found:
        return
    shown = [
        f"{name}: {int((~values.isfinite()).sum()):,} of {values.numel():,} values are not finite"
        for name, values in [*found.items()][:SHOWN]
    ]
    more = f"; and {len(found) - SHOWN} more tensors" if len(found) > SHOWN else ""
    half = any(values.element_size() < 4 for values in found.values())
    remedy = "load it in float32, or get it again" if half else "get it again"
    raise NotFiniteError(f"{'; '.join(shown)}{more}: the checkpoint is damaged or does not fit its type: {remedy}")


def check_rows(rows: NDArray[np.floating[Any]], names: Sequence[str], what: str) -> None:
    """Look at N x ... values, one row for each of N names, such as the features of clips.

    Raises:
        NotFiniteError: naming the first rows with a value that is not finite, as `what` of that name.
    """
    import numpy as np

    bad = [names[row] for row in np.flatnonzero(~np.isfinite(rows.reshape(len(rows), -1)).all(axis=1)).tolist()]
    if bad:
        more = f" and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
        raise NotFiniteError(f"{what} of {', '.join(bad[:SHOWN])}{more} are not finite ({len(bad)} of {len(rows)})")


def _networks(model: nn.Module | DiffusionPipeline) -> Mapping[str, nn.Module]:
    from torch import nn

    if isinstance(model, nn.Module):
        return {"": model}
    return {f"{name}.": part for name, part in model.components.items() if isinstance(part, nn.Module)}
