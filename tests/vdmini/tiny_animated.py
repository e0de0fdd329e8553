"""Pipelines that animate an image, small enough to run in milliseconds, around the parts of those from text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from diffusers import (
    CogVideoXImageToVideoPipeline,
    DiffusionPipeline,
    HunyuanSkyreelsImageToVideoPipeline,
    HunyuanVideoImageToVideoPipeline,
    HunyuanVideoTransformer3DModel,
    LTXImageToVideoPipeline,
    WanImageToVideoPipeline,
    WanPipeline,
)
from tiny_transformers import TINY, WIDTH, WORDS
from tokenizers import Regex, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split
from torch import nn
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    CLIPVisionModel,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedTokenizerFast,
)

# What HunyuanVideo's prompt template is marked by.
MARKS = ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<image>"]


def rebuilt(name: str, **changes: Any) -> nn.Module:
    """A tiny denoiser with some settings changed, and random weights none of which are zero."""
    config = {**TINY[name].build_denoiser().config, **changes}
    native = type(TINY[name].build_denoiser())
    torch.manual_seed(0)
    denoiser = native(**{key: value for key, value in config.items() if not key.startswith("_")})
    for weight in denoiser.parameters():
        if not weight.any():
            nn.init.normal_(weight, std=0.1)
    return denoiser.eval()


def vision(side: int, patch: int) -> tuple[CLIPVisionConfig, CLIPImageProcessor]:
    sizes = {"hidden_size": WIDTH, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    processor = CLIPImageProcessor(size={"shortest_edge": side}, crop_size={"height": side, "width": side})
    return CLIPVisionConfig(**sizes, image_size=side, patch_size=patch), processor


def parts_of(name: str, denoiser: nn.Module) -> dict[str, Any]:
    return dict(TINY[name].build_pipeline(denoiser).components)


def wan(seen_by_clip: bool) -> DiffusionPipeline:
    """Wan 2.1's and 2.2's: mask and latents of the image beside the noise, and CLIP's embeddings in the older one."""
    more = {"image_dim": WIDTH, "added_kv_proj_dim": 24} if seen_by_clip else {}
    parts = parts_of("wan", rebuilt("wan", in_channels=36, **more))
    config, processor = vision(16, 8)
    encoders = {"image_encoder": CLIPVisionModel(config).eval(), "image_processor": processor} if seen_by_clip else {}
    return WanImageToVideoPipeline(**{**parts, **encoders})


def timed_wan(native: type[Any]) -> DiffusionPipeline:
    """Wan 2.2 TI2V-5B's kind, which times every token."""
    return native(**parts_of("wan", rebuilt("wan")), expand_timesteps=True)


def cogvideox() -> DiffusionPipeline:
    denoiser = rebuilt("cogvideox-5b", in_channels=8)
    return CogVideoXImageToVideoPipeline(**parts_of("cogvideox-5b", denoiser))


def ltx() -> DiffusionPipeline:
    return LTXImageToVideoPipeline(**parts_of("ltx", rebuilt("ltx")))


def hunyuanvideo(kind: str) -> DiffusionPipeline:
    """Its first version's, `latent_concat`, and its second's, `token_replace`, whose guidance is embedded."""
    joined = kind == "latent_concat"
    denoiser = rebuilt(
        "hunyuanvideo", in_channels=9 if joined else 4, out_channels=4, guidance_embeds=not joined,
        image_condition_type=kind,
    )  # fmt: skip
    assert isinstance(denoiser, HunyuanVideoTransformer3DModel)
    words = Tokenizer(WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="[UNK]"))
    # Short pieces, since the pipeline cuts off the first 103 of its template.
    words.pre_tokenizer = Split(Regex(r"\w{1,4}|[^\w\s]"), "removed", invert=True)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]", eos_token="[EOS]", model_max_length=512
    )
    tokenizer.add_special_tokens({"additional_special_tokens": MARKS})
    # 24x24 patches, as many as the template has room for.
    seen, processor = vision(96, 4)
    text = LlamaConfig(
        hidden_size=WIDTH, intermediate_size=32, num_attention_heads=2, vocab_size=len(WORDS) + len(MARKS),
        num_hidden_layers=3, pad_token_id=0, bos_token_id=2, eos_token_id=2,
    )  # fmt: skip
    image_token = tokenizer.convert_tokens_to_ids("<image>")
    llava = LlavaConfig(vision_config=seen, text_config=text, image_token_index=image_token, pad_token_id=0)
    encoder = LlavaForConditionalGeneration(llava).eval()
    changed = {"text_encoder": encoder, "tokenizer": tokenizer, "image_processor": processor}
    return HunyuanVideoImageToVideoPipeline(**{**parts_of("hunyuanvideo", denoiser), **changed})


def skyreels() -> DiffusionPipeline:
    """HunyuanVideo with the image's latents beside the noise."""
    denoiser = rebuilt("hunyuanvideo", in_channels=8, out_channels=4)
    return HunyuanSkyreelsImageToVideoPipeline(**parts_of("hunyuanvideo", denoiser))


ANIMATED: dict[str, Callable[[], DiffusionPipeline]] = {
    "wan2.1-i2v": lambda: wan(seen_by_clip=True),
    "wan2.2-i2v": lambda: wan(seen_by_clip=False),
    "wan2.2-ti2v": lambda: timed_wan(WanImageToVideoPipeline),
    "wan2.2-ti2v-text": lambda: timed_wan(WanPipeline),
    "cogvideox-i2v": cogvideox,
    "ltx-i2v": ltx,
    "hunyuanvideo-i2v-concat": lambda: hunyuanvideo("latent_concat"),
    "hunyuanvideo-skyreels": skyreels,
    "hunyuanvideo-i2v-replace": lambda: hunyuanvideo("token_replace"),
}
