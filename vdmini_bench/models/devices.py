"""Where a command computes, and in which number format: what was asked for, or what suits the machine and the files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vdmini_bench.errors import NoDeviceError, SuiteError

if TYPE_CHECKING:
    import torch
    from torch import nn


def choose_device(asked: str | None) -> torch.device:
    """The device that was asked for; for None the first GPU, or the CPU where there is none.

    Raises:
        SuiteError: no device can have that name.
        NoDeviceError: torch has no such device here.
    """
    import torch

    if asked is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(asked)
    except RuntimeError:
        device = torch.device("meta")
    if device.type == "meta":
        raise SuiteError(f"--device {asked}: no device is called so: give cpu, cuda or cuda:1")
    try:
        torch.empty(1, device=device)
    except Exception as error:  # torch raises an unrelated type for each kind of device that it lacks
        raise NoDeviceError(
            f"--device {asked}: torch {torch.__version__} has no such device here"
            f" ({torch.cuda.device_count()} GPUs): take another, or cpu"
        ) from error
    return device


def choose_dtype(asked: str | None, source: str, device: torch.device) -> torch.dtype:
    """The number format that was asked for; for None that of the denoiser's files.

    On a CPU float32 takes the place of float16, in which CPUs compute some fifteen times slower.

    Raises:
        ModelLoadError: the model's files are not there, or not whole.
    """
    import torch

    from vdmini.models.folders import denoiser_dtype
    from vdmini.models.hub import source_folder

    if asked is not None:
        dtype: torch.dtype = getattr(torch, asked)
        return dtype
    found = denoiser_dtype(source_folder(source))
    return torch.float32 if device.type == "cpu" and found == torch.float16 else found


def dtype_name(network: nn.Module) -> str:
    """The number format of a network's weights as options and records call it."""
    return str(next(network.parameters()).dtype).removeprefix("torch.")
