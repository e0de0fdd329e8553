"""Wan's published models and those of classes made from Wan's: sizes, and what diffusers' scripts pass to the class."""

from __future__ import annotations

from typing import Any

SMALL: dict[str, Any] = {"num_attention_heads": 12, "ffn_dim": 8960, "num_layers": 30}
LARGE: dict[str, Any] = {"num_attention_heads": 40, "ffn_dim": 13824, "num_layers": 40}
BY_CLIP: dict[str, Any] = {"in_channels": 36, "out_channels": 16, "image_dim": 1280, "added_kv_proj_dim": 5120}
ALL_FIFTHS = [0, 5, 10, 15, 20, 25, 30, 35]

PUBLISHED_WAN = {
    "wan2.1-i2v-14b-480p": ("wan", "16.395"),
    "wan2.1-i2v-14b-720p": ("wan", "16.395"),
    "wan2.2-i2v-a14b": ("wan", "14.289"),
    "wan2.2-ti2v-5b": ("wan", "5.000"),
    "wan2.1-vace-1.3b": ("wan-vace", "2.154"),
    "wan2.1-vace-14b": ("wan-vace", "17.338"),
    "wan2.2-vace-fun-a14b": ("wan-vace", "17.338"),
    "wan2.2-animate-14b": ("wan-animate", "17.275"),
    "skyreels-v2-t2v-14b-540p": ("skyreels-v2", "14.288"),
    "skyreels-v2-t2v-14b-720p": ("skyreels-v2", "14.288"),
    "skyreels-v2-i2v-1.3b-540p": ("skyreels-v2", "1.564"),
    "skyreels-v2-i2v-14b-540p": ("skyreels-v2", "16.395"),
    "skyreels-v2-i2v-14b-720p": ("skyreels-v2", "16.395"),
    "skyreels-v2-df-1.3b-540p": ("skyreels-v2", "1.436"),
    "skyreels-v2-df-14b-540p": ("skyreels-v2", "14.288"),
    "skyreels-v2-df-14b-720p": ("skyreels-v2", "14.288"),
    "chronoedit-14b": ("chronoedit", "16.395"),
    "anyflow-wan2.1-t2v-1.3b": ("anyflow", "1.422"),
    "anyflow-wan2.1-t2v-14b": ("anyflow", "14.316"),
    "helios-base": ("helios", "14.312"),
}
CONVERTED_WAN = {
    "wan2.1-i2v-14b-480p": {**LARGE, **BY_CLIP},
    "wan2.1-i2v-14b-720p": {**LARGE, **BY_CLIP},
    "wan2.2-i2v-a14b": {**LARGE, "in_channels": 36, "out_channels": 16},
    "wan2.2-ti2v-5b": {
        "num_attention_heads": 24, "ffn_dim": 14336, "num_layers": 30, "in_channels": 48, "out_channels": 48,
    },
    "wan2.1-vace-1.3b": {**SMALL, "vace_layers": [0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28]},
    "wan2.1-vace-14b": {**LARGE, "vace_layers": ALL_FIFTHS},
    "wan2.2-vace-fun-a14b": {**LARGE, "vace_layers": ALL_FIFTHS},
    "wan2.2-animate-14b": {
        **LARGE, **BY_CLIP, "motion_encoder_size": 512, "motion_style_dim": 512, "motion_dim": 20,
        "motion_encoder_dim": 512, "face_encoder_hidden_dim": 1024, "face_encoder_num_heads": 4,
        "inject_face_latents_blocks": 5,
    },
    "skyreels-v2-t2v-14b-540p": {**LARGE, "inject_sample_info": False},
    "skyreels-v2-t2v-14b-720p": {**LARGE, "inject_sample_info": False},
    "skyreels-v2-i2v-1.3b-540p": {**SMALL, **BY_CLIP, "added_kv_proj_dim": 1536, "inject_sample_info": False},
    "skyreels-v2-i2v-14b-540p": {**LARGE, **BY_CLIP, "inject_sample_info": False},
    "skyreels-v2-i2v-14b-720p": {**LARGE, **BY_CLIP, "inject_sample_info": False},
    "skyreels-v2-df-1.3b-540p": {**SMALL, "inject_sample_info": True},
    "skyreels-v2-df-14b-540p": {**LARGE, "inject_sample_info": False},
    "skyreels-v2-df-14b-720p": {**LARGE, "inject_sample_info": False},
    # No script: listings of the published config.json.
    "chronoedit-14b": {**LARGE, **BY_CLIP},
    # The script loads Wan 2.1's own configuration and passes these beside it.
    "anyflow-wan2.1-t2v-1.3b": {**SMALL, "gate_value": 0.25, "deltatime_type": "r"},
    "anyflow-wan2.1-t2v-14b": {**LARGE, "gate_value": 0.25, "deltatime_type": "r"},
    # No script: the settings of its repository's training, and listings of the distilled model's config.json.
    "helios-base": {
        **LARGE, "rope_dim": (44, 42, 42), "has_multi_term_memory_patch": True, "history_scale_mode": "per_head",
        "guidance_cross_attn": True, "zero_history_timestep": True, "is_amplify_history": False,
    },
}  # fmt: skip
