"""Weights that follow from their names alone, so that two environments make the same ones without passing files.

They are not what networks are initialised with: there biases are zero and norms one, and one left out would not show.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence

import numpy as np
import torch

TABLES = ("cls", "class_embedding", "pos_embed", "position_emb", "positional", "scale_emb", "token_embedding")


def seeded_tensor(name: str, shape: Sequence[int]) -> torch.Tensor:
    """Random numbers for a tensor of that name: maps keep the size of what they are given, norms stay near one."""
    noise = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(tuple(shape), dtype=np.float32)
    if name.endswith("num_batches_tracked"):
        return torch.tensor(1)
    if name.endswith(("running_var", "logit_scale")):
        return torch.from_numpy(np.asarray(1 + 0.2 * np.abs(noise)))
    if any(part in name for part in TABLES):
        return torch.from_numpy(0.3 * noise)
    if len(shape) < 2:
        return torch.from_numpy(np.asarray((0.8 if name.endswith("weight") else 0) + 0.2 * noise))
    return torch.from_numpy(noise / np.float32(np.sqrt(np.prod(shape[1:]))))


def seeded_state(shapes: Mapping[str, Sequence[int]]) -> dict[str, torch.Tensor]:
    """A whole network's."""
    return {name: seeded_tensor(name, shape) for name, shape in shapes.items()}


def shapes_of(state: Mapping[str, torch.Tensor]) -> dict[str, list[int]]:
    """What `seeded_state` needs to know of a network."""
    return {name: list(value.shape) for name, value in state.items()}
