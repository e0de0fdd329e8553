"""Tiny pipelines of HunyuanVideo's kin, Motif-Video and Kandinsky 5."""

from __future__ import annotations

from typing import Any

from diffusers import (
    AutoencoderKLHunyuanVideo,
    AutoencoderKLHunyuanVideo15,
    AutoencoderKLWan,
    ClassifierFreeGuidance,
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    HunyuanSkyreelsImageToVideoPipeline,
    HunyuanVideo15ImageToVideoPipeline,
    HunyuanVideo15Pipeline,
    HunyuanVideo15Transformer3DModel,
    HunyuanVideoFramepackPipeline,
    HunyuanVideoFramepackTransformer3DModel,
    HunyuanVideoImageToVideoPipeline,
    HunyuanVideoTransformer3DModel,
    Kandinsky5I2VPipeline,
    Kandinsky5T2VPipeline,
    Kandinsky5Transformer3DModel,
    Kandinsky6TI2VAPipeline,
    Kandinsky6Transformer3DModel,
    MMAudioVAE,
    MMAudioVocoder,
    MotifVideoImage2VideoPipeline,
    MotifVideoPipeline,
    MotifVideoTransformer3DModel,
)
from tiny_transformers import WIDTH, WORDS, Tiny, t5_encoder, tokenizer
from torch import nn
from transformers import (
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPVisionConfig,
    LlamaConfig,
    LlamaModel,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLTextConfig,
    Qwen2_5_VLTextModel,
    SiglipImageProcessor,
    SiglipVisionConfig,
    SiglipVisionModel,
    T5Gemma2Encoder,
    T5Gemma2EncoderConfig,
    T5Gemma2TextConfig,
)

IMAGE, END_HEADER = "<image>", "<|end_header_id|>"
SIZES = {"hidden_size": WIDTH, "intermediate_size": 32, "num_attention_heads": 2, "vocab_size": len(WORDS) + 2}
TOKENS = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 2}
SIGLIP = {
    "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 16,
    "patch_size": 8,
}  # fmt: skip


def headed_tokenizer(length: int) -> PreTrainedTokenizerFast:
    """A tokenizer that also knows what pipelines look for in their templates."""
    words = tokenizer(length)
    words.add_special_tokens({"additional_special_tokens": [IMAGE, END_HEADER]})
    return words


def siglip() -> dict[str, Any]:
    """An image encoder of four tokens, and what prepares its images."""
    return {
        "image_encoder": SiglipVisionModel(SiglipVisionConfig(**SIGLIP)).eval(),
        "feature_extractor": SiglipImageProcessor(size={"height": 16, "width": 16}),
    }


def clip_encoder() -> nn.Module:
    return CLIPTextModel(CLIPTextConfig(**SIZES, **TOKENS, num_hidden_layers=1)).eval()


def hunyuan_parts() -> dict[str, Any]:
    """What HunyuanVideo's pipelines have around their denoisers."""
    vae = AutoencoderKLHunyuanVideo(
        latent_channels=4, block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=4
    )
    return {
        "text_encoder": LlamaModel(LlamaConfig(**SIZES, **TOKENS, num_hidden_layers=3)).eval(),
        "tokenizer": tokenizer(512),
        "vae": vae.eval(),
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=7.0),
        "text_encoder_2": clip_encoder(),
        "tokenizer_2": tokenizer(77),
    }


HUNYUAN = {
    "out_channels": 4, "num_attention_heads": 2, "attention_head_dim": 16, "num_layers": 3, "num_single_layers": 4,
    "num_refiner_layers": 1, "text_embed_dim": WIDTH, "pooled_projection_dim": WIDTH, "rope_axes_dim": (4, 6, 6),
}  # fmt: skip


def hunyuan_from_images(**changed: Any) -> nn.Module:
    return HunyuanVideoTransformer3DModel(**{**HUNYUAN, **changed})


def hunyuan_image_pipeline(denoiser: nn.Module) -> DiffusionPipeline:
    vision = CLIPVisionConfig(
        hidden_size=8, intermediate_size=8, num_attention_heads=2, num_hidden_layers=2, image_size=336, patch_size=14
    )
    llava = LlavaConfig(
        vision_config=vision,
        text_config=LlamaConfig(**SIZES, **TOKENS, num_hidden_layers=3),
        image_token_index=len(WORDS),
        pad_token_id=0,
    )
    parts = hunyuan_parts() | {
        "text_encoder": LlavaForConditionalGeneration(llava).eval(),
        "tokenizer": headed_tokenizer(512),
        "image_processor": CLIPImageProcessor(size=336, crop_size=336),
    }
    return HunyuanVideoImageToVideoPipeline(transformer=denoiser, **parts)


def skyreels_pipeline(denoiser: nn.Module) -> DiffusionPipeline:
    return HunyuanSkyreelsImageToVideoPipeline(transformer=denoiser, **hunyuan_parts())


def framepack() -> nn.Module:
    return HunyuanVideoFramepackTransformer3DModel(
        in_channels=4, **HUNYUAN, has_image_proj=True, image_proj_dim=8, has_clean_x_embedder=True
    )


def framepack_pipeline(denoiser: nn.Module) -> DiffusionPipeline:
    return HunyuanVideoFramepackPipeline(transformer=denoiser, **hunyuan_parts(), **siglip())


def hunyuan15(**changed: Any) -> nn.Module:
    settings = {
        "in_channels": 9, "out_channels": 4, "num_attention_heads": 2, "attention_head_dim": 16, "num_layers": 5,
        "num_refiner_layers": 1, "mlp_ratio": 2.0, "text_embed_dim": WIDTH, "text_embed_2_dim": WIDTH,
        "image_embed_dim": 8, "rope_axes_dim": (4, 6, 6), "target_size": 23,
    }  # fmt: skip
    return HunyuanVideo15Transformer3DModel(**{**settings, **changed})


def hunyuan15_parts() -> dict[str, Any]:
    vae = AutoencoderKLHunyuanVideo15(
        latent_channels=4,
        block_out_channels=(8, 8, 8, 8, 8),
        layers_per_block=1,
        downsample_match_channel=False,
        upsample_match_channel=False,
    )
    rope = {"mrope_section": [2, 3, 3], "rope_type": "default", "type": "default"}
    qwen = Qwen2_5_VLTextConfig(
        **SIZES, **TOKENS, num_hidden_layers=3, num_key_value_heads=2, rope_scaling=rope, max_position_embeddings=2048
    )
    words = tokenizer(2048)
    # The system's message in the published model is 108 tokens long, which the pipeline cuts off.
    words.chat_template = "{{ 'a ' * 108 }}{{ messages[1]['content'] }}"
    return {
        "text_encoder": Qwen2_5_VLTextModel(qwen).eval(),
        "tokenizer": words,
        "vae": vae.eval(),
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=7.0),
        "text_encoder_2": t5_encoder(),
        "tokenizer_2": tokenizer(256),
        "guider": ClassifierFreeGuidance(guidance_scale=6.0),
    }


def hunyuan15_pipeline(denoiser: nn.Module) -> DiffusionPipeline:
    return HunyuanVideo15Pipeline(transformer=denoiser, **hunyuan15_parts())


def hunyuan15_image_pipeline(denoiser: nn.Module) -> DiffusionPipeline:
    return HunyuanVideo15ImageToVideoPipeline(transformer=denoiser, **hunyuan15_parts(), **siglip())


def motif() -> nn.Module:
    return MotifVideoTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        num_layers=4,
        num_single_layers=7,
        num_decoder_layers=3,
        text_embed_dim=WIDTH,
        image_embed_dim=8,
        rope_axes_dim=(4, 4, 4),
        enable_text_cross_attention_single=True,
    )


def motif_parts() -> dict[str, Any]:
    text = T5Gemma2TextConfig(
        **SIZES,
        **TOKENS,
        num_hidden_layers=1,
        max_position_embeddings=512,
        head_dim=16,
        num_key_value_heads=2,
        dropout_rate=0.0,
    )
    config = T5Gemma2EncoderConfig(text_config=text, vision_config=SiglipVisionConfig(**SIGLIP))
    return {
        "text_encoder": T5Gemma2Encoder(config).eval(),
        "tokenizer": tokenizer(512),
        "vae": AutoencoderKLWan(base_dim=4, num_res_blocks=1).eval(),
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=2.5),
        "guider": ClassifierFreeGuidance(guidance_scale=6.0),
        "feature_extractor": siglip()["feature_extractor"],
    }


def motif_pipeline(denoiser: nn.Module) -> DiffusionPipeline:
    return MotifVideoPipeline(transformer=denoiser, **motif_parts())


def motif_image_pipeline(denoiser: nn.Module) -> DiffusionPipeline:
    return MotifVideoImage2VideoPipeline(transformer=denoiser, **motif_parts())


# What both have.
KANDINSKY: dict[str, Any] = {
    "in_visual_dim": 4, "out_visual_dim": 4, "in_text_dim": WIDTH, "in_text_dim2": WIDTH, "time_dim": 16,
    "model_dim": WIDTH, "ff_dim": 32, "num_text_blocks": 2, "num_visual_blocks": 5, "axes_dims": (4, 6, 6),
}  # fmt: skip


def kandinsky5() -> nn.Module:
    return Kandinsky5Transformer3DModel(
        **KANDINSKY,
        visual_cond=True,
    )


def kandinsky5_parts() -> dict[str, Any]:
    rope = {"mrope_section": [2, 3, 3], "rope_type": "default", "type": "default"}
    qwen = Qwen2_5_VLConfig(
        text_config={**SIZES, **TOKENS, "num_hidden_layers": 2, "num_key_value_heads": 2, "rope_scaling": rope},
        vision_config={"depth": 1, "hidden_size": 8, "intermediate_size": 8, "num_heads": 2, "out_hidden_size": WIDTH},
    )
    parts = hunyuan_parts()
    return parts | {"text_encoder": Qwen2_5_VLForConditionalGeneration(qwen).eval(), "tokenizer": tokenizer(1024)}


def kandinsky5_pipeline(denoiser: nn.Module) -> DiffusionPipeline:
    return Kandinsky5T2VPipeline(transformer=denoiser, **kandinsky5_parts())


def kandinsky5_image_pipeline(denoiser: nn.Module) -> DiffusionPipeline:
    return Kandinsky5I2VPipeline(transformer=denoiser, **kandinsky5_parts())


def kandinsky6() -> nn.Module:
    return Kandinsky6Transformer3DModel(
        **KANDINSKY,
        in_audio_dim=4,
        out_audio_dim=4,
        text_token_padding=True,
        ca_rope=True,
        cross_gates=True,
        fix_modulation=True,
        visual_token_type_num_embeddings=2,
    )


def kandinsky6_pipeline(denoiser: nn.Module) -> DiffusionPipeline:
    sound = MMAudioVAE(
        mel_bins=4, latent_channels=4, hidden_channels=8, channel_multipliers=(1, 1), layers_per_block=1,
        n_fft=2048, hop_length=512,
    )  # fmt: skip
    vocoder = MMAudioVocoder(
        num_mels=4, upsample_initial_channel=8, upsample_rates=(32, 16), upsample_kernel_sizes=(32, 16),
        resblock_kernel_sizes=(3,), resblock_dilation_sizes=((1,),),
    )  # fmt: skip
    return Kandinsky6TI2VAPipeline(
        transformer=denoiser, **kandinsky5_parts(), audio_vae=sound.eval(), vocoder=vocoder.eval()
    )


STACKS = ("Dual.1", "Single.0", "Single.3")
DUAL = ("Dual.1", "Dual.3")
DECODED = ("Dual.1", "Single.0", "Single.3", "Decoder.1")
VISUAL = ("Visual.1", "Visual.3")
# With an image, a pass without the prompt guides where nothing is embedded.
APART = {"second_guidance": 2.0, "negative_prompt": "red dog"}
TINY_HUNYUAN = {
    "hunyuanvideo-i2v": Tiny(
        "hunyuanvideo",
        lambda: hunyuan_from_images(in_channels=4, image_condition_type="token_replace"),
        hunyuan_image_pipeline,
        STACKS,
        image=True,
    ),
    "hunyuanvideo-i2v-33ch": Tiny(
        "hunyuanvideo",
        lambda: hunyuan_from_images(in_channels=9, guidance_embeds=False, image_condition_type="latent_concat"),
        hunyuan_image_pipeline,
        STACKS,
        image=True,
        arguments={"num_frames": 9},
        guided=APART,
    ),
    "skyreels-v1-i2v": Tiny(
        "hunyuanvideo", lambda: hunyuan_from_images(in_channels=8), skyreels_pipeline, STACKS, image=True
    ),
    "framepack": Tiny(
        "framepack", framepack, framepack_pipeline, STACKS, frames=37, image=True,
        arguments={"num_frames": 33},
    ),
    "hunyuanvideo-1.5-t2v": Tiny("hunyuanvideo-1.5", hunyuan15, hunyuan15_pipeline, DUAL),
    "hunyuanvideo-1.5-i2v": Tiny(
        "hunyuanvideo-1.5", lambda: hunyuan15(use_meanflow=True), hunyuan15_image_pipeline, DUAL, image=True,
        sized=False,
    ),
    "motif-video-t2v": Tiny("motif-video", motif, motif_pipeline, DECODED),
    "motif-video-i2v": Tiny("motif-video", motif, motif_image_pipeline, DECODED, image=True),
    "kandinsky5-t2v": Tiny("kandinsky5", kandinsky5, kandinsky5_pipeline, VISUAL),
    "kandinsky6-t2v": Tiny("kandinsky6", kandinsky6, kandinsky6_pipeline, VISUAL, arguments={"frame_rate": 7}),
    "kandinsky6-i2v": Tiny(
        "kandinsky6", kandinsky6, kandinsky6_pipeline, VISUAL, image=True, arguments={"frame_rate": 7}
    ),
    "kandinsky5-i2v": Tiny(
        "kandinsky5", kandinsky5, kandinsky5_image_pipeline, VISUAL, image=True, frames=17
    ),
}  # fmt: skip
