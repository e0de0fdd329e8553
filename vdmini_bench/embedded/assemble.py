"""Put the trained networks together as a diffusers pipeline folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKLTemporalDecoder, StableVideoDiffusionPipeline

from vdmini_bench.embedded.architecture import build_feature_extractor, build_scheduler
from vdmini_bench.embedded.denoiser import ImageToVideo


def save_pipeline(folder: Path, vae: AutoencoderKLTemporalDecoder, networks: ImageToVideo) -> None:
    """Write the pipeline as float16 safetensors, in place of what is there."""
    pipeline = StableVideoDiffusionPipeline(
        vae=vae,
        image_encoder=networks.image_encoder,
        unet=networks.denoiser,
        scheduler=build_scheduler(),
        feature_extractor=build_feature_extractor(),
    ).to("cpu", torch.float16)
    shutil.rmtree(folder, ignore_errors=True)
    pipeline.save_pretrained(folder, safe_serialization=True)
    for path in folder.glob("*/config.json"):
        # Where the parts were loaded from is a path of the machine that trained them.
        config = json.loads(path.read_text(encoding="utf-8"))
        config.pop("_name_or_path", None)
        path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
