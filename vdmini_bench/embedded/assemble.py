"""Put the trained networks together as a diffusers pipeline folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLTemporalDecoder,
    AutoencoderKLWan,
    StableVideoDiffusionPipeline,
    WanPipeline,
)
from diffusers.pipelines.pipeline_utils import DiffusionPipeline

from vdmini.models.videocrafter_pipeline import VideoCrafterPipeline
from vdmini_bench.embedded.architecture import build_feature_extractor, build_scheduler
from vdmini_bench.embedded.denoiser import ImageToVideo
from vdmini_bench.embedded.text_to_video import build_text_scheduler, write_tokenizer
from vdmini_bench.embedded.text_training import TextToVideo
from vdmini_bench.embedded.wan import build_flow_scheduler, build_tokenizer
from vdmini_bench.embedded.wan_training import FlowTextToVideo


def save_pipeline(folder: Path, vae: AutoencoderKLTemporalDecoder, networks: ImageToVideo) -> None:
    """Write the pipeline as float16 safetensors, in place of what is there."""
    pipeline = StableVideoDiffusionPipeline(
        vae=vae,
        image_encoder=networks.image_encoder,
        unet=networks.denoiser,
        scheduler=build_scheduler(),
        feature_extractor=build_feature_extractor(),
    )
    _install(pipeline, folder)


def save_text_pipeline(folder: Path, vae: AutoencoderKL, networks: TextToVideo) -> None:
    """Write the text-to-video pipeline as float16 safetensors, in place of what is there."""
    with TemporaryDirectory() as scratch:
        pipeline = VideoCrafterPipeline(
            unet=networks.denoiser,
            vae=vae,
            text_encoder=networks.text_encoder,
            tokenizer=write_tokenizer(Path(scratch)),
            scheduler=build_text_scheduler(),
        )
        _install(pipeline, folder)
    # The plain files that every release of the tokenizer's class reads.
    write_tokenizer(folder / "tokenizer")


def save_wan_pipeline(folder: Path, vae: AutoencoderKLWan, networks: FlowTextToVideo) -> None:
    """Write the transformer's pipeline as float16 safetensors, in place of what is there."""
    pipeline = WanPipeline(
        tokenizer=build_tokenizer(),
        text_encoder=networks.text_encoder,
        vae=vae,
        scheduler=build_flow_scheduler(),
        transformer=networks.denoiser,
    )
    _install(pipeline, folder)


def _install(pipeline: DiffusionPipeline, folder: Path) -> None:
    pipeline.to("cpu", torch.float16)
    shutil.rmtree(folder, ignore_errors=True)
    pipeline.save_pretrained(folder, safe_serialization=True)
    for path in folder.glob("*/config.json"):
        # Where the parts were loaded from is a path of the machine that trained them.
        config = json.loads(path.read_text(encoding="utf-8"))
        config.pop("_name_or_path", None)
        path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
