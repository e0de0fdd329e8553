"""One call of each model as a trace to look into, in Chrome's format."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from vdmini.files import short_name


def write_traces(calls: Mapping[str, Callable[[], object]], scope: str, folder: Path, device: torch.device) -> None:
    """Leave `<model>-<scope>.json` of one more call each: its operators, and on a GPU its kernels.

    Opens in chrome://tracing and ui.perfetto.dev. A traced call is slower, and is not among those that are timed.
    """
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    folder.mkdir(parents=True, exist_ok=True)
    for model, call in calls.items():
        with torch.inference_mode(), profile(activities=activities) as profiler:
            call()
        profiler.export_chrome_trace(str(folder / short_name(f"{model.replace('/', '-')}-{scope}.json")))
