"""Tiny pipelines of Wan's other models, and of classes made from Wan's."""

from __future__ import annotations

from typing import Any

from diffusers import (
    AnyFlowPipeline,
    AnyFlowTransformer3DModel,
    AutoencoderKLWan,
    ChronoEditPipeline,
    ChronoEditTransformer3DModel,
    DiffusionPipeline,
    FlowMapEulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    HeliosPipeline,
    HeliosScheduler,
    HeliosTransformer3DModel,
    SkyReelsV2DiffusionForcingPipeline,
    SkyReelsV2ImageToVideoPipeline,
    SkyReelsV2Pipeline,
    SkyReelsV2Transformer3DModel,
    UniPCMultistepScheduler,
    WanAnimatePipeline,
    WanAnimateTransformer3DModel,
    WanImageToVideoPipeline,
    WanPipeline,
    WanTransformer3DModel,
    WanVACEPipeline,
    WanVACETransformer3DModel,
)
from tiny_transformers import MIDDLE, WIDTH, Tiny, t5_encoder, tokenizer
from torch import nn
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel, UMT5Config, UMT5EncoderModel

SIZES: dict[str, Any] = {
    "num_attention_heads": 2, "attention_head_dim": 12, "text_dim": WIDTH, "freq_dim": 16, "ffn_dim": 32,
    "num_layers": 5,
}  # fmt: skip
FROM_IMAGE: dict[str, Any] = {"in_channels": 36, "image_dim": WIDTH, "added_kv_proj_dim": 24}
FACES = {"4": 8, "8": 8, "16": 8}


def parts(denoiser: nn.Module, scheduler: Any = None, wan22: bool = False) -> dict[str, Any]:
    """What every pipeline has, its VAE that of Wan 2.1 or of Wan 2.2."""
    vae = AutoencoderKLWan(base_dim=4, num_res_blocks=1)
    if wan22:
        vae = AutoencoderKLWan(
            base_dim=4, num_res_blocks=1, z_dim=48, is_residual=True, in_channels=12, out_channels=12, patch_size=2,
            scale_factor_spatial=16, latents_mean=[0.1] * 48, latents_std=[0.9] * 48,
        )  # fmt: skip
    return {
        "tokenizer": tokenizer(512),
        "text_encoder": t5_encoder(UMT5Config, UMT5EncoderModel),
        "vae": vae.eval(),
        "scheduler": scheduler or FlowMatchEulerDiscreteScheduler(shift=3.0),
        "transformer": denoiser,
    }


def clip() -> dict[str, Any]:
    """An encoder of images, of one layer that is read and one that is not."""
    config = CLIPVisionConfig(
        hidden_size=WIDTH, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=8, patch_size=4
    )
    processor = CLIPImageProcessor(crop_size={"height": 8, "width": 8}, size={"shortest_edge": 8})
    return {"image_encoder": CLIPVisionModel(config).eval(), "image_processor": processor}


def wan(**options: Any) -> nn.Module:
    return WanTransformer3DModel(**SIZES, rope_max_seq_len=128, **options)


def vace() -> nn.Module:
    return WanVACETransformer3DModel(**{**SIZES, "num_layers": 6}, rope_max_seq_len=128, vace_layers=[0, 2, 3, 5])


def animate() -> nn.Module:
    return WanAnimateTransformer3DModel(
        **{**SIZES, "num_layers": 6}, **FROM_IMAGE, rope_max_seq_len=128, motion_encoder_channel_sizes=FACES,
        motion_encoder_size=16, motion_style_dim=8, motion_dim=4, motion_encoder_dim=16, face_encoder_hidden_dim=16,
        face_encoder_num_heads=2, inject_face_latents_blocks=2,
    )  # fmt: skip


def skyreels(**options: Any) -> nn.Module:
    return SkyReelsV2Transformer3DModel(**SIZES, rope_max_seq_len=128, **options)


def chronoedit() -> nn.Module:
    return ChronoEditTransformer3DModel(**SIZES, **FROM_IMAGE, rope_max_seq_len=128)


def anyflow() -> nn.Module:
    return AnyFlowTransformer3DModel(**SIZES, rope_max_seq_len=128)


def helios() -> nn.Module:
    return HeliosTransformer3DModel(**SIZES, rope_dim=(4, 4, 4))


def animate_pipeline(denoiser: nn.Module) -> DiffusionPipeline:
    return WanAnimatePipeline(**parts(denoiser), **clip())


def skyreels_pipeline(native: Any, denoiser: nn.Module, **more: Any) -> DiffusionPipeline:
    scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=8.0)
    return native(**parts(denoiser, scheduler), **more)


def helios_pipeline(denoiser: nn.Module) -> DiffusionPipeline:
    scheduler = HeliosScheduler(stage_range=[0, 1], stages=1, use_dynamic_shifting=True)
    return HeliosPipeline(**parts(denoiser, scheduler))


TINY_WAN = {
    "wan2.1-i2v": Tiny(
        "wan", lambda: wan(**FROM_IMAGE), lambda net: WanImageToVideoPipeline(**parts(net), **clip()), MIDDLE,
        image=True,
    ),
    "wan2.2-i2v": Tiny(
        "wan", lambda: wan(in_channels=36), lambda net: WanImageToVideoPipeline(**parts(net)), MIDDLE, image=True
    ),
    "wan2.2-ti2v": Tiny(
        "wan", lambda: wan(in_channels=48, out_channels=48),
        lambda net: WanPipeline(**parts(net, wan22=True), expand_timesteps=True), MIDDLE, height=32,
    ),
    "wan2.2-ti2v-image": Tiny(
        "wan", lambda: wan(in_channels=48, out_channels=48),
        lambda net: WanImageToVideoPipeline(**parts(net, wan22=True), expand_timesteps=True), MIDDLE, height=32,
        image=True,
    ),
    "wan-vace": Tiny("wan-vace", vace, lambda net: WanVACEPipeline(**parts(net)), ("Block.2", "Block.4")),
    "wan-animate": Tiny(
        "wan-animate", animate, animate_pipeline, ("Block.2", "Block.3"), image=True, samples=False
    ),
    "skyreels-v2": Tiny("skyreels-v2", skyreels, lambda net: skyreels_pipeline(SkyReelsV2Pipeline, net), MIDDLE),
    "skyreels-v2-i2v": Tiny(
        "skyreels-v2", lambda: skyreels(**FROM_IMAGE),
        lambda net: skyreels_pipeline(SkyReelsV2ImageToVideoPipeline, net, **clip()), MIDDLE, image=True,
    ),
    "skyreels-v2-df": Tiny(
        "skyreels-v2", lambda: skyreels(inject_sample_info=True),
        lambda net: skyreels_pipeline(SkyReelsV2DiffusionForcingPipeline, net), MIDDLE, arguments={"fps": 7},
    ),
    "chronoedit": Tiny(
        "chronoedit", chronoedit, lambda net: ChronoEditPipeline(**parts(net), **clip()), MIDDLE, frames=9, image=True,
        arguments={"enable_temporal_reasoning": True, "num_temporal_reasoning_steps": 2},
    ),
    "anyflow": Tiny(
        "anyflow", anyflow, lambda net: AnyFlowPipeline(**parts(net, FlowMapEulerDiscreteScheduler(shift=5.0))), MIDDLE
    ),
    "helios": Tiny(
        "helios", helios, helios_pipeline, MIDDLE, frames=33,
    ),
    "helios-image": Tiny("helios", helios, helios_pipeline, MIDDLE, frames=33, image=True),
}  # fmt: skip
