"""Text-to-video pipelines around small UNets that run in milliseconds, from tokenizer to VAE."""

from __future__ import annotations

import string
from typing import Any

import torch
from diffusers import AnimateDiffPipeline, AutoencoderKL, DDIMScheduler, UNetMotionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from vdmini.models import animatediff
from vdmini.models.unet import STABLE_DIFFUSION_VAE
from vdmini.models.videocrafter import VideoCrafterUNet
from vdmini.models.videocrafter_pipeline import VideoCrafterPipeline, consistency_scheduler, ddim_scheduler

ANIMATEDIFF: dict[str, Any] = {
    "sample_size": 8,
    "block_out_channels": (32, 64, 64, 64),
    "cross_attention_dim": 32,
    "num_attention_heads": 4,
    "motion_num_attention_heads": 4,
    "motion_max_seq_length": 8,
}


def animatediff_unet(config: dict[str, Any] = ANIMATEDIFF) -> UNetMotionModel:
    """A four-stage UNet with motion modules and random weights, the same in every test."""
    torch.manual_seed(0)
    return UNetMotionModel(**{**animatediff.UNET_CONFIG, **config}).eval()


def animatediff_pipeline(denoiser: nn.Module) -> AnimateDiffPipeline:
    """A text-to-video pipeline that runs in milliseconds."""
    torch.manual_seed(2)
    letters = [*string.ascii_lowercase, *(f"{letter}</w>" for letter in string.ascii_lowercase)]
    vocabulary = {token: index for index, token in enumerate([*letters, "<|startoftext|>", "<|endoftext|>"])}
    text = CLIPTextConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=16,
        bos_token_id=vocabulary["<|startoftext|>"],
        eos_token_id=vocabulary["<|endoftext|>"],
        pad_token_id=vocabulary["<|endoftext|>"],
    )
    vae = {**STABLE_DIFFUSION_VAE, "block_out_channels": (32, 32, 32, 32), "layers_per_block": 1, "sample_size": 64}
    return AnimateDiffPipeline(
        vae=AutoencoderKL(**vae).eval(),
        text_encoder=CLIPTextModel(text).eval(),
        tokenizer=CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=16),
        unet=denoiser,
        motion_adapter=None,
        scheduler=DDIMScheduler(clip_sample=False),
    )


def spelling_tokenizer() -> CLIPTokenizer:
    """A tokenizer that spells: a token for each letter."""
    letters = [*string.ascii_lowercase, *(f"{letter}</w>" for letter in string.ascii_lowercase)]
    tokens = ["!", *letters, "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={token: index for index, token in enumerate(tokens)}, merges=[], pad_token="!")


def videocrafter_pipeline(sampler: str) -> VideoCrafterPipeline:
    """A whole pipeline with random weights, the same at every call: T2V-Turbo-v2's with "consistency"."""
    torch.manual_seed(0)
    guidance = {"time_cond_dim": 256, "motion_cond_dim": 256} if sampler == "consistency" else {}
    unet = VideoCrafterUNet(
        sample_size=(8, 8),
        # Wider than the norms have groups: a norm of single channels would take the embeddings out again.
        block_out_channels=(32, 64, 64, 64),
        cross_attention_dim=32,
        attention_head_dim=16,
        num_frames=3,
        **guidance,
    )
    text = CLIPTextConfig(
        vocab_size=55,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=12,
        bos_token_id=53,
        eos_token_id=54,
    )
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(32, 32),
        scaling_factor=0.18215,
    )
    scheduler = consistency_scheduler() if sampler == "consistency" else ddim_scheduler()
    pipeline = VideoCrafterPipeline(
        unet.eval(), vae.eval(), CLIPTextModel(text).eval(), spelling_tokenizer(), scheduler
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
