"""Make a smaller VAE decoder in a folder: pruned, fine-tuned where asked for, with its losses and what it took."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

from torch import nn

from vdmini.cost import count_parameters
from vdmini.decoder_finetuning import FinetuneSettings, finetune_decoder
from vdmini.finite import check_weights
from vdmini.latents import ClipSource
from vdmini.vae import decoder_flops, prune_decoder
from vdmini_bench.config.decoder import DecoderSpec
from vdmini_bench.distill.loss_log import logged
from vdmini_bench.distill.trainer import CHECKPOINT
from vdmini_bench.metrics.perceptual import load_perceptual
from vdmini_bench.results.store import SUMMARY
from vdmini_bench.system.files import write_atomically

VAE = "vae"


def make_decoder(folder: Path, vae: nn.Module, clips: ClipSource, specification: DecoderSpec) -> None:
    """Leave `folder/vae`, a diffusers folder of the student, `summary.json` and, where fine-tuned, `losses.csv`.

    `vae` is the teacher's, on the device to train on; `clips` are the training clips as large as the models sample
    them. Goes on after a kill; the summary's `seconds` are those of the fine-tuning by the run that ended it.

    Raises:
        TypeError: this kind of VAE cannot be pruned.
        ValueError: the sizes do not fit, or the clips are too few or too short.
        AssetError: there is no perceptual network.
        DivergedError: a loss is not finite.
    """
    finetune, teacher, asked = specification.finetune, vae, specification.parameters
    sizes = specification.model_dump(exclude={"finetune", "parameters"})
    student: Any = prune_decoder(teacher, parameters=None if asked is None else round(asked), **sizes)
    frames, height, width = clips.clip(0).frames.shape[:3]
    pixels = 2 ** (len(student.config.block_out_channels) - 1)
    flops = [decoder_flops(each, frames, height // pixels, width // pixels) for each in (student, teacher)]
    summary: dict[str, object] = {"parameters": count_parameters(student.decoder), "flops_share": flops[0] / flops[1]}
    if finetune is not None:
        network, dtype, started = load_perceptual().to(student.device), student.dtype, time.monotonic()
        settings = FinetuneSettings(**finetune.model_dump())
        with logged(folder, settings.steps, label="fine-tune decoder") as note:
            # Weights train in float32: small steps vanish in half precision.
            finetune_decoder(student.float(), clips, settings, folder / CHECKPOINT, network, note)
        student.to(dtype)
        summary |= {"perceptual": network.name, "steps": settings.steps, "seconds": time.monotonic() - started}
    check_weights(student)
    shutil.rmtree(folder / VAE, ignore_errors=True)
    student.save_pretrained(folder / VAE)
    write_atomically(folder / SUMMARY, json.dumps(summary, indent=1) + "\n")
    (folder / CHECKPOINT).unlink(missing_ok=True)
