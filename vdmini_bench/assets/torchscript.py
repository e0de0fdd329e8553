"""TorchScript files. PyTorch gives the format up, so they are opened where their weights are taken, and not later."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch


def open_script(path: Path) -> torch.jit.ScriptModule:
    """Load a TorchScript file on the CPU, in eval mode; raises ValueError where it is none, or a part of one."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.jit.load(str(path), map_location="cpu").eval()
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"{path} is no TorchScript file, or a part of one ({reason})") from error


def ask_script(script: torch.jit.ScriptModule, *inputs: torch.Tensor, **options: bool) -> torch.Tensor:
    """What a script answers, without gradients.

    Raises:
        ValueError: it cannot be called so, or answers with something else than a tensor.
    """
    try:
        with torch.inference_mode():
            answer = script(*inputs, **options)
    except RuntimeError as error:
        raise ValueError(
            f"it cannot be called as the published file is ({str(error).strip().splitlines()[-1]})"
        ) from error
    if not isinstance(answer, torch.Tensor):
        raise ValueError(f"it answers with {type(answer).__name__}, where the published file gives a tensor")
    return answer
