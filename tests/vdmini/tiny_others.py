"""Tiny pipelines of LTX's, CogVideoX's and the smaller families, for tiny_transformers.py."""

from __future__ import annotations

import functools
from typing import Any

from cosmos_parts import NoGuard
from diffusers import (
    AllegroPipeline,
    AllegroTransformer3DModel,
    AutoencoderKL,
    AutoencoderKLAllegro,
    AutoencoderKLCosmos,
    AutoencoderKLLTX2Audio,
    AutoencoderKLLTX2Video,
    AutoencoderKLLTXVideo,
    AutoencoderKLMagvit,
    AutoencoderKLWan,
    CogVideoXImageToVideoPipeline,
    CogVideoXTransformer3DModel,
    ConsisIDPipeline,
    ConsisIDTransformer3DModel,
    Cosmos2_5_PredictBasePipeline,
    Cosmos2VideoToWorldPipeline,
    CosmosTextToWorldPipeline,
    CosmosTransformer3DModel,
    DDIMScheduler,
    DiffusionPipeline,
    EasyAnimatePipeline,
    EasyAnimateTransformer3DModel,
    EDMEulerScheduler,
    FlowMatchEulerDiscreteScheduler,
    LattePipeline,
    LatteTransformer3DModel,
    LTX2Pipeline,
    LTX2VideoTransformer3DModel,
    LTXConditionPipeline,
    LTXPipeline,
    SanaVideoPipeline,
    SanaVideoTransformer3DModel,
    UniPCMultistepScheduler,
)
from diffusers.pipelines.ltx2 import LTX2TextConnectors
from diffusers.pipelines.ltx2.vocoder import LTX2Vocoder
from tiny_transformers import (
    MIDDLE,
    WIDTH,
    WORDS,
    Tiny,
    cogvideox_pipeline,
    ltx,
    t5_encoder,
    tokenizer,
)
from torch import nn
from transformers import (
    Gemma2Config,
    Gemma2Model,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    PreTrainedTokenizerFast,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
)

SIZES: dict[str, Any] = {
    "hidden_size": WIDTH, "intermediate_size": 32, "num_attention_heads": 2, "num_key_value_heads": 2,
    "vocab_size": len(WORDS), "pad_token_id": 0,
}  # fmt: skip


def ltx_vae() -> AutoencoderKLLTXVideo:
    """With noise that is decoded at a timestep, as later versions have it."""
    return AutoencoderKLLTXVideo(
        latent_channels=8,
        block_out_channels=(8, 8, 8, 8, 8),
        down_block_types=("LTXVideo095DownBlock3D",) * 4,
        decoder_block_out_channels=(8, 8, 8),
        layers_per_block=(1, 1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1),
        spatio_temporal_scaling=(True, True, True, True),
        decoder_spatio_temporal_scaling=(True, True, True),
        decoder_inject_noise=(False, False, False, False),
        downsample_type=("spatial", "temporal", "spatiotemporal", "spatiotemporal"),
        upsample_residual=(True, True, True),
        upsample_factor=(1, 1, 1),
        timestep_conditioning=True,
        spatial_compression_ratio=32,
        temporal_compression_ratio=8,
    ).eval()


def ltx_pipeline(native: type[DiffusionPipeline], denoiser: nn.Module) -> DiffusionPipeline:
    return native(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=ltx_vae(),
        text_encoder=t5_encoder(),
        tokenizer=tokenizer(128),
        transformer=denoiser,
    )


def ltx2(later: bool) -> nn.Module:
    return LTX2VideoTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=16,
        cross_attention_dim=32,
        audio_in_channels=4,
        audio_out_channels=4,
        audio_num_attention_heads=2,
        audio_attention_head_dim=8,
        audio_cross_attention_dim=16,
        num_layers=5,
        caption_channels=WIDTH,
        rope_type="split",
        gated_attn=later,
        cross_attn_mod=later,
        audio_gated_attn=later,
        audio_cross_attn_mod=later,
        use_prompt_embeddings=not later,
        perturbed_attn=later,
    )


def ltx2_pipeline(denoiser: nn.Module) -> DiffusionPipeline:
    text = {**SIZES, "num_hidden_layers": 2, "head_dim": 16, "max_position_embeddings": 1024}
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    gemma = Gemma3Config(text_config=text, vision_config={**vision, "image_size": 28, "patch_size": 14})
    later = not denoiser.config.use_prompt_embeddings
    connectors = LTX2TextConnectors(
        caption_channels=WIDTH,
        text_proj_in_factor=3,
        video_connector_num_attention_heads=2,
        video_connector_attention_head_dim=16,
        video_connector_num_layers=1,
        video_connector_num_learnable_registers=8,
        audio_connector_num_attention_heads=2,
        audio_connector_attention_head_dim=8 if later else 16,
        audio_connector_num_layers=1,
        audio_connector_num_learnable_registers=8,
        connector_rope_base_seq_len=32,
        rope_type="split",
        per_modality_projections=later,
        video_hidden_dim=32,
        audio_hidden_dim=16,
    )
    vae = AutoencoderKLLTX2Video(
        latent_channels=4,
        block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 8, 8),
        layers_per_block=(1, 1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1),
        upsample_factor=(1, 1, 1),
        decoder_causal=False,
        decoder_spatial_padding_mode="zeros",
        spatial_compression_ratio=32,
        temporal_compression_ratio=8,
    )
    sound = AutoencoderKLLTX2Audio(
        base_channels=4,
        ch_mult=(1,),
        num_res_blocks=1,
        attn_resolutions=None,
        resolution=32,
        latent_channels=2,
        mid_block_add_attention=False,
        mel_bins=8,
    )
    vocoder = LTX2Vocoder(
        in_channels=16,
        hidden_channels=32,
        out_channels=2,
        upsample_kernel_sizes=[4, 4],
        upsample_factors=[2, 2],
        resnet_kernel_sizes=[3],
        resnet_dilations=[[1, 3, 5]],
        output_sampling_rate=16000,
    )
    return LTX2Pipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=vae.eval(),
        audio_vae=sound.eval(),
        text_encoder=Gemma3ForConditionalGeneration(gemma).eval(),
        tokenizer=tokenizer(1024),
        connectors=connectors.eval(),
        transformer=denoiser,
        vocoder=vocoder.eval(),
    )


def cogvideox_sizes(image: bool) -> dict[str, Any]:
    return {
        "num_attention_heads": 2, "attention_head_dim": 16, "in_channels": 8 if image else 4, "out_channels": 4,
        "time_embed_dim": 8, "text_embed_dim": WIDTH, "num_layers": 6, "sample_width": 4, "sample_height": 2,
        "sample_frames": 9, "use_rotary_positional_embeddings": True,
    }  # fmt: skip


def cogvideox_1_5(image: bool) -> nn.Module:
    # Here the sides are the largest that it makes.
    more = {"sample_height": 8, "sample_width": 8, **({"ofs_embed_dim": 8} if image else {})}
    return CogVideoXTransformer3DModel(**{**cogvideox_sizes(image), **more}, patch_size_t=2, patch_bias=False)


def cogvideox_i2v() -> nn.Module:
    return CogVideoXTransformer3DModel(**cogvideox_sizes(image=True), use_learned_positional_embeddings=True)


def consisid() -> nn.Module:
    return ConsisIDTransformer3DModel(
        **cogvideox_sizes(image=True),
        use_learned_positional_embeddings=True,
        cross_attn_interval=2,
        cross_attn_dim_head=8,
        cross_attn_num_heads=2,
        LFE_id_dim=2,
        LFE_vit_dim=8,
        LFE_depth=4,
        LFE_dim_head=8,
        LFE_num_heads=2,
        LFE_num_id_token=1,
        LFE_num_querie=1,
        LFE_output_dim=21,
        LFE_ff_mult=1,
        LFE_num_scale=2,
    )


def from_image(native: type[DiffusionPipeline], denoiser: nn.Module) -> DiffusionPipeline:
    """CogVideoX's parts in a pipeline that animates an image."""
    return native(**cogvideox_pipeline(denoiser).components)


def cosmos(version: str) -> nn.Module:
    later: dict[str, Any] = {"extra_pos_embed_type": None, "in_channels": 5}
    projected = {"use_crossattn_projection": True, "crossattn_proj_in_channels": 2 * WIDTH}
    return CosmosTransformer3DModel(
        **{
            "in_channels": 4, "out_channels": 4, "num_attention_heads": 2, "attention_head_dim": 16, "num_layers": 5,
            "mlp_ratio": 2, "text_embed_dim": WIDTH, "adaln_lora_dim": 4,
            "encoder_hidden_states_channels": WIDTH,
            **({} if version == "1.0" else later), **(projected if version == "2.5" else {}),
        }
    )  # fmt: skip


def wan_vae(channels: int) -> AutoencoderKLWan:
    statistics = {"latents_mean": [0.0] * channels, "latents_std": [1.0] * channels}
    return AutoencoderKLWan(base_dim=4, z_dim=channels, num_res_blocks=1, **statistics).eval()


def cosmos_1_0_pipeline(denoiser: nn.Module) -> DiffusionPipeline:
    vae = AutoencoderKLCosmos(
        latent_channels=4,
        encoder_block_out_channels=(8, 8, 8, 8),
        decode_block_out_channels=(8, 8, 8, 8),
        attention_resolutions=(8,),
        resolution=64,
        num_layers=1,
    )
    return CosmosTextToWorldPipeline(
        text_encoder=t5_encoder(),
        tokenizer=tokenizer(512),
        transformer=denoiser,
        vae=vae.eval(),
        scheduler=EDMEulerScheduler(sigma_data=0.5),
        safety_checker=NoGuard(),
    )


def cosmos_predict2_pipeline(denoiser: nn.Module) -> DiffusionPipeline:
    return Cosmos2VideoToWorldPipeline(
        text_encoder=t5_encoder(),
        tokenizer=tokenizer(512),
        transformer=denoiser,
        vae=wan_vae(4),
        scheduler=FlowMatchEulerDiscreteScheduler(use_karras_sigmas=True),
        safety_checker=NoGuard(),
    )


def cosmos_predict2_5_pipeline(denoiser: nn.Module) -> DiffusionPipeline:
    scheduler = UniPCMultistepScheduler(
        use_karras_sigmas=True, use_flow_sigmas=True, prediction_type="flow_prediction", sigma_max=200.0, sigma_min=0.01
    )
    return Cosmos2_5_PredictBasePipeline(
        text_encoder=qwen2_vl(),
        tokenizer=chat_tokenizer(512),
        transformer=denoiser,
        vae=wan_vae(4),
        scheduler=scheduler,
        safety_checker=NoGuard(),
    )


def qwen2_vl() -> nn.Module:
    text = {**SIZES, "num_hidden_layers": 2, "max_position_embeddings": 512}
    rope = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0}
    vision = {"depth": 1, "embed_dim": 16, "num_heads": 2, "hidden_size": WIDTH, "patch_size": 14}
    ends = {"bos_token_id": 2, "eos_token_id": 2}
    config = Qwen2VLConfig(text_config={**text, **ends, "rope_parameters": rope}, vision_config=vision, **ends)
    return Qwen2VLForConditionalGeneration(config).eval()


def chat_tokenizer(length: int) -> PreTrainedTokenizerFast:
    """A tokenizer whose chats are the texts of their messages."""
    words = tokenizer(length)
    words.chat_template = "{% for message in messages %}{{ message.content[0].text }} {% endfor %}"
    return words


def sana_video() -> nn.Module:
    return SanaVideoTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        num_layers=5,
        num_cross_attention_heads=2,
        cross_attention_head_dim=12,
        cross_attention_dim=24,
        caption_channels=WIDTH,
    )


def sana_video_pipeline(denoiser: nn.Module) -> DiffusionPipeline:
    return SanaVideoPipeline(
        tokenizer=tokenizer(1024),
        text_encoder=Gemma2Model(Gemma2Config(**SIZES, num_hidden_layers=1, head_dim=16)).eval(),
        vae=AutoencoderKLWan(base_dim=4, num_res_blocks=1).eval(),
        transformer=denoiser,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=8.0),
    )


def allegro() -> nn.Module:
    return AllegroTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        num_layers=5,
        cross_attention_dim=24,
        sample_width=16,
        sample_height=16,
        sample_frames=6,
        caption_channels=WIDTH,
    )


def allegro_pipeline(denoiser: nn.Module) -> DiffusionPipeline:
    # Its tiles overlap by 120 pixels, whatever their size.
    vae = AutoencoderKLAllegro(block_out_channels=(4, 4, 4, 4), layers_per_block=1, norm_num_groups=2, sample_size=128)
    return AllegroPipeline(
        tokenizer=tokenizer(512),
        text_encoder=t5_encoder(),
        vae=vae.eval(),
        transformer=denoiser,
        scheduler=DDIMScheduler(beta_schedule="linear", beta_start=0.0001, beta_end=0.02),
    )


def latte() -> nn.Module:
    return LatteTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=4,
        out_channels=8,
        num_layers=5,
        cross_attention_dim=24,
        attention_bias=True,
        sample_size=2,
        patch_size=2,
        activation_fn="gelu-approximate",
        num_embeds_ada_norm=1000,
        norm_type="ada_norm_single",
        norm_elementwise_affine=False,
        norm_eps=1e-6,
        caption_channels=WIDTH,
        video_length=2,
    )


def latte_pipeline(denoiser: nn.Module) -> DiffusionPipeline:
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    vae = AutoencoderKL(block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=4, **blocks)
    return LattePipeline(
        tokenizer=tokenizer(120),
        text_encoder=t5_encoder(),
        vae=vae.eval(),
        transformer=denoiser,
        scheduler=DDIMScheduler(beta_schedule="linear", beta_start=0.0001, beta_end=0.02),
    )


def easyanimate() -> nn.Module:
    return EasyAnimateTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=4,
        out_channels=4,
        patch_size=2,
        time_embed_dim=8,
        text_embed_dim=WIDTH,
        num_layers=5,
        mmdit_layers=3,
        add_norm_text_encoder=True,
    )


def easyanimate_pipeline(denoiser: nn.Module) -> DiffusionPipeline:
    vae = AutoencoderKLMagvit(
        latent_channels=4,
        block_out_channels=(8, 8, 8, 8),
        layers_per_block=1,
        norm_num_groups=2,
        spatial_group_norm=False,
    )
    return EasyAnimatePipeline(
        vae=vae.eval(),
        text_encoder=qwen2_vl(),
        tokenizer=chat_tokenizer(256),
        transformer=denoiser,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
    )


LTX_CLIP: dict[str, Any] = {"frames": 9, "height": 64, "width": 64, "arguments": {"frame_rate": 7}}
LTX2_CLIP = {**LTX_CLIP, "frames": 17}
SANA_CLIP: dict[str, Any] = {
    "frames_argument": "frames", "height": 32, "width": 64, "arguments": {"use_resolution_binning": False},
}  # fmt: skip
TINY_OTHERS = {
    "ltx-0.9.5": Tiny("ltx", ltx, functools.partial(ltx_pipeline, LTXPipeline), MIDDLE, image=True, **LTX_CLIP),
    "ltx-0.9.7": Tiny(
        "ltx", ltx, functools.partial(ltx_pipeline, LTXConditionPipeline), MIDDLE, image=True, **LTX_CLIP
    ),
    "ltx-2": Tiny("ltx2", lambda: ltx2(later=False), ltx2_pipeline, MIDDLE, image=True, **LTX2_CLIP),
    "ltx-2.3": Tiny("ltx2", lambda: ltx2(later=True), ltx2_pipeline, MIDDLE, **LTX2_CLIP),
    "cogvideox1.5-5b": Tiny("cogvideox", lambda: cogvideox_1_5(False), cogvideox_pipeline, MIDDLE, frames=9),
    "cogvideox1.5-5b-i2v": Tiny(
        "cogvideox",
        lambda: cogvideox_1_5(True),
        functools.partial(from_image, CogVideoXImageToVideoPipeline),
        MIDDLE,
        frames=9,
        image=True,
    ),
    "cogvideox-5b-i2v": Tiny(
        "cogvideox",
        cogvideox_i2v,
        functools.partial(from_image, CogVideoXImageToVideoPipeline),
        MIDDLE,
        frames=9,
        image=True,
    ),
    "consisid": Tiny(
        "consisid",
        consisid,
        functools.partial(from_image, ConsisIDPipeline),
        MIDDLE,
        frames=9,
        image=True,
    ),
    "cosmos-1.0": Tiny("cosmos", lambda: cosmos("1.0"), cosmos_1_0_pipeline, MIDDLE, frames=9, arguments={"fps": 7}),
    "cosmos-predict2": Tiny(
        "cosmos", lambda: cosmos("2"), cosmos_predict2_pipeline, MIDDLE, image=True, arguments={"fps": 7}
    ),
    "cosmos-predict2.5": Tiny("cosmos", lambda: cosmos("2.5"), cosmos_predict2_5_pipeline, MIDDLE),
    "sana-video": Tiny("sana-video", sana_video, sana_video_pipeline, MIDDLE, **SANA_CLIP),
    "sana-video-image": Tiny("sana-video", sana_video, sana_video_pipeline, MIDDLE, image=True, **SANA_CLIP),
    "allegro": Tiny(
        "allegro", allegro, allegro_pipeline, MIDDLE, frames=24, height=128, width=128,
        arguments={"clean_caption": False},
    ),
    "latte": Tiny(
        "latte", latte, latte_pipeline, ("Spatial.1", "Temporal.1", "Spatial.3", "Temporal.3"), frames=2, width=16,
        frames_argument="video_length", arguments={"clean_caption": False},
    ),
    "easyanimate": Tiny(
        "easyanimate", easyanimate, easyanimate_pipeline, MIDDLE, arguments={"negative_prompt": ["", ""]}
    ),
}  # fmt: skip
