"""The pipelines around published denoisers: encoders of their published sizes, tokenizers that only split words.

Networks are built on the meta device, from sizes written here: nothing is read from a hub.
"""

from __future__ import annotations

import string
from collections.abc import Callable
from typing import Any

import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from torch import nn


def build_pipeline(name: str, denoiser: nn.Module, vae: nn.Module, share: float) -> DiffusionPipeline | None:
    """The pipeline of a published model around its denoiser and VAE; None for a family that is not described here.

    `share` below 1 makes the encoders narrower and shallower, for models of a smaller width.
    """
    builder = PIPELINES.get(name)
    if builder is None:
        return None
    pipeline = builder(denoiser, vae, share)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _svd(denoiser: nn.Module, vae: nn.Module, share: float) -> DiffusionPipeline:
    from diffusers import EulerDiscreteScheduler, StableVideoDiffusionPipeline
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

    config: Any = denoiser.config
    # OpenCLIP ViT-H/14.
    vision = CLIPVisionConfig(
        hidden_size=_size(1280, share),
        intermediate_size=_size(5120, share),
        projection_dim=config.cross_attention_dim,
        num_hidden_layers=_layers(32, share),
        num_attention_heads=16,
        image_size=224,
        patch_size=14,
    )
    # The published scheduler's settings.
    scheduler = EulerDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        use_karras_sigmas=True,
        sigma_min=0.002,
        sigma_max=700.0,
        timestep_type="continuous",
        timestep_spacing="leading",
        steps_offset=1,
    )
    return StableVideoDiffusionPipeline(
        vae=vae,
        image_encoder=_on_meta(CLIPVisionModelWithProjection, vision),
        unet=denoiser,
        scheduler=scheduler,
        feature_extractor=CLIPImageProcessor(),
    )


def _videocrafter(consistency: bool) -> Callable[[nn.Module, nn.Module, float], DiffusionPipeline]:
    def build(denoiser: Any, vae: nn.Module, share: float) -> DiffusionPipeline:
        from transformers import CLIPTextConfig, CLIPTextModel

        from vdmini.models.videocrafter_pipeline import VideoCrafterPipeline, consistency_scheduler, ddim_scheduler

        config = denoiser.config
        # OpenCLIP ViT-H's text tower without its last layer.
        text = CLIPTextConfig(
            vocab_size=49408,
            hidden_size=config.cross_attention_dim,
            intermediate_size=_size(4096, share),
            num_hidden_layers=_layers(23, share),
            num_attention_heads=16,
            max_position_embeddings=77,
            hidden_act="gelu",
            bos_token_id=53,
            eos_token_id=54,
        )
        scheduler = consistency_scheduler() if consistency else ddim_scheduler()
        return VideoCrafterPipeline(denoiser, vae, _on_meta(CLIPTextModel, text), spelling_tokenizer(), scheduler)

    return build


def _hunyuanvideo(denoiser: nn.Module, vae: nn.Module, share: float) -> DiffusionPipeline:
    from diffusers import FlowMatchEulerDiscreteScheduler, HunyuanVideoPipeline
    from transformers import CLIPTextConfig, CLIPTextModel, LlamaConfig, LlamaModel

    config: Any = denoiser.config
    # The language model of LLaVA-Llama-3-8B, and CLIP ViT-L's text tower.
    llama = LlamaConfig(
        vocab_size=128320,
        hidden_size=config.text_embed_dim,
        intermediate_size=_size(14336, share),
        num_hidden_layers=max(3, _layers(32, share)),
        num_attention_heads=32,
        num_key_value_heads=8,
        max_position_embeddings=8192,
    )
    clip = CLIPTextConfig(
        hidden_size=config.pooled_projection_dim,
        intermediate_size=_size(3072, share),
        num_hidden_layers=_layers(12, share),
        num_attention_heads=12,
        bos_token_id=2,
        eos_token_id=2,
    )
    # Whole clips of the published size do not fit into any memory at once.
    vae.enable_tiling()  # type: ignore[operator]
    return HunyuanVideoPipeline(
        text_encoder=_on_meta(LlamaModel, llama),
        tokenizer=word_tokenizer(512),
        transformer=denoiser,
        vae=vae,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=7.0),
        text_encoder_2=_on_meta(CLIPTextModel, clip),
        tokenizer_2=word_tokenizer(77),
    )


PIPELINES: dict[str, Callable[[nn.Module, nn.Module, float], DiffusionPipeline]] = {
    "svd": _svd,
    "svd-xt": _svd,
    "videocrafter2": _videocrafter(consistency=False),
    "t2v-turbo-v2": _videocrafter(consistency=True),
    "hunyuanvideo": _hunyuanvideo,
}


def word_tokenizer(length: int) -> Any:
    """A tokenizer to which most words are one unknown word: prompts are padded to their length anyway."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import PreTrainedTokenizerFast

    padding, unknown, end = words = ["[PAD]", "[UNK]", "[EOS]"]
    tokenizer = Tokenizer(WordLevel({word: index for index, word in enumerate(words)}, unk_token=unknown))
    tokenizer.pre_tokenizer = Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=padding, unk_token=unknown, eos_token=end, model_max_length=length
    )


def spelling_tokenizer() -> Any:
    """A CLIP tokenizer without merges: a token for each letter."""
    from transformers import CLIPTokenizer

    letters = [*string.ascii_lowercase, *(f"{letter}</w>" for letter in string.ascii_lowercase)]
    padding = "!"
    tokens = [padding, *letters, "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={token: index for index, token in enumerate(tokens)}, merges=[], pad_token=padding)


def _on_meta(network: Callable[[Any], nn.Module], config: Any) -> nn.Module:
    with torch.device("meta"):
        return network(config)


def _size(full: int, share: float) -> int:
    return max(64, round(full * share / 64) * 64)


def _layers(full: int, share: float) -> int:
    return max(1, round(full * share))
