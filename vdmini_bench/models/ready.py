"""A model as it will run: its own decoder in place, its measures applied."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vdmini.acceleration import Acceleration, accelerate
from vdmini.measures import CpuOffload, Measure
from vdmini.models.loading import load_model, vae_class
from vdmini.models.registry import DENOISERS, VideoModel
from vdmini_bench.errors import BenchError


@dataclass(frozen=True)
class ReadyModel:
    """A model with its pipeline, and what was applied to it."""

    model: VideoModel
    acceleration: Acceleration


def load_ready(
    folder: Path, decoder: Path | None, measures: Sequence[Measure], device: torch.device, dtype: torch.dtype,
    cpu_offload: CpuOffload | None = None,
) -> ReadyModel:  # fmt: skip
    """Load a pipeline's folder on a device; `decoder` is a folder whose VAE takes the place of the pipeline's.

    With `cpu_offload` networks, or their layers (`group`), lie on the CPU, and on the device while they run.

    Raises:
        BenchError: the folder holds a denoiser alone.
    """
    rests_on = device if cpu_offload is None else torch.device("cpu")
    model = load_model(str(folder), device=rests_on, dtype=dtype)
    pipeline: Any = model.pipeline
    if pipeline is None:
        raise BenchError(f"{folder} holds no pipeline; give a folder with a model_index.json")
    if decoder is not None:
        pipeline.vae = load_decoder(decoder).to(rests_on, dtype)
        model = VideoModel(model.source, model.family, model.denoiser, pipeline.vae, pipeline)
    denoiser = next(folder / part for part in DENOISERS if (folder / part).is_dir())
    applied = accelerate(pipeline, measures, denoiser, device_type=device.type)
    if cpu_offload == "model":
        pipeline.enable_model_cpu_offload(device=device)
    elif cpu_offload == "group":
        # Its leaves, since accelerate's sequential offloading cannot move the text encoders of transformers 5.
        pipeline.enable_group_offload(device, offload_type="leaf_level")
    return ReadyModel(model, applied)


def load_decoder(folder: Path) -> Any:
    """The VAE that a decoder's job left in a folder."""
    config = json.loads((folder / "vae" / "config.json").read_text(encoding="utf-8"))
    return vae_class(config["_class_name"]).from_pretrained(folder / "vae")
