"""Published models of LTX's, CogVideoX's and the smaller families: families, billions of weights, configurations.

Weights are those of the classes built as diffusers' scripts/convert_*_to_diffusers.py build them. Where there is no
script, they are what the published files count: EasyAnimate's 11,799,265,856 and 6,814,670,912.
"""

from __future__ import annotations

from typing import Any

LTX2 = {"rope_type": "split"}
LTX2_GATED = {
    **LTX2, "gated_attn": True, "cross_attn_mod": True, "audio_gated_attn": True, "audio_cross_attn_mod": True,
    "use_prompt_embeddings": False, "perturbed_attn": True,
}  # fmt: skip
LTX_13B = {"attention_head_dim": 128, "cross_attention_dim": 4096, "num_layers": 48}
COGVIDEOX_5B = {"num_attention_heads": 48, "num_layers": 42, "use_rotary_positional_embeddings": True}
COGVIDEOX_1_5 = {
    **COGVIDEOX_5B, "patch_size_t": 2, "patch_bias": False, "sample_height": 300, "sample_width": 300,
    "sample_frames": 81,
}  # fmt: skip
COSMOS_14B = {"num_attention_heads": 40, "num_layers": 36}
COSMOS_2 = {"extra_pos_embed_type": None}
COSMOS_2_5 = {
    **COSMOS_2, "in_channels": 17, "rope_scale": (1.0, 3.0, 3.0), "use_crossattn_projection": True,
    "crossattn_proj_in_channels": 100352, "encoder_hidden_states_channels": 1024,
}  # fmt: skip
EASYANIMATE = {"in_channels": 16, "out_channels": 16, "patch_size": 2, "add_norm_text_encoder": True}

# Of each model its family, its weights in billions, and what it has in place of its class's defaults.
OTHERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "ltx-2": ("ltx2", "18.876", LTX2),
    "ltx-2.3": ("ltx2", "18.989", LTX2_GATED),
    "ltx-2.5": ("ltx2", "18.988", {**LTX2_GATED, "ff_bias": False, "use_keyframes_abs_pos_embedding": True}),
    **{f"ltx-video-2b-{version}": ("ltx", "1.923", {}) for version in ("0.9.1", "0.9.5", "0.9.6", "0.9.8")},
    **{f"ltx-video-13b-{version}": ("ltx", "13.043", LTX_13B) for version in ("0.9.7", "0.9.8")},
    "cogvideox-5b-i2v": (
        "cogvideox", "5.570", {**COGVIDEOX_5B, "in_channels": 32, "use_learned_positional_embeddings": True},
    ),
    "cogvideox1.5-5b": ("cogvideox", "5.571", COGVIDEOX_1_5),
    "cogvideox1.5-5b-i2v": ("cogvideox", "5.572", {**COGVIDEOX_1_5, "in_channels": 32, "ofs_embed_dim": 512}),
    "consisid-preview": (
        "consisid", "6.162",
        {**COGVIDEOX_5B, "in_channels": 32, "use_learned_positional_embeddings": True, "is_train_face": True},
    ),
    "cosmos-1.0-7b-text2world": ("cosmos", "7.236", {}),
    "cosmos-1.0-7b-video2world": ("cosmos", "7.236", {"in_channels": 17}),
    "cosmos-1.0-14b-text2world": ("cosmos", "14.267", {**COSMOS_14B, "rope_scale": (2.0, 2.0, 2.0)}),
    "cosmos-1.0-14b-video2world": (
        "cosmos", "14.267", {**COSMOS_14B, "rope_scale": (2.0, 2.0, 2.0), "in_channels": 17},
    ),
    "cosmos-predict2-2b-text2image": (
        "cosmos", "1.956", {**COSMOS_2, "num_attention_heads": 16, "rope_scale": (1.0, 4.0, 4.0)},
    ),
    "cosmos-predict2-14b-text2image": ("cosmos", "14.265", {**COSMOS_2, **COSMOS_14B, "rope_scale": (1.0, 4.0, 4.0)}),
    "cosmos-predict2-2b-video2world": (
        "cosmos", "1.956",
        {**COSMOS_2, "num_attention_heads": 16, "in_channels": 17, "rope_scale": (1.0, 3.0, 3.0)},
    ),
    "cosmos-predict2-14b-video2world": (
        "cosmos", "14.265", {**COSMOS_2, **COSMOS_14B, "in_channels": 17, "rope_scale": (20 / 24, 2.0, 2.0)},
    ),
    "cosmos-predict2.5-2b": ("cosmos", "2.059", {**COSMOS_2_5, "num_attention_heads": 16}),
    "cosmos-predict2.5-14b": ("cosmos", "14.368", {**COSMOS_2_5, **COSMOS_14B}),
    "sana-video-2b-480p": ("sana-video", "2.057", {"mlp_ratio": 3.0}),
    "sana-video-2b-720p": (
        "sana-video", "2.057",
        {"mlp_ratio": 3.0, "in_channels": 128, "out_channels": 128, "sample_size": 22, "patch_size": (1, 1, 1)},
    ),
    "easyanimate-v5.1-12b": ("easyanimate", "11.799", EASYANIMATE),
    "easyanimate-v5.1-12b-inp": ("easyanimate", "11.799", {**EASYANIMATE, "in_channels": 33}),
    "easyanimate-v5.1-7b-inp": (
        "easyanimate", "6.815", {**EASYANIMATE, "in_channels": 33, "num_layers": 36, "mmdit_layers": 18},
    ),
    "allegro": ("allegro", "2.772", {}),
    "latte-1": (
        "latte", "1.057",
        {
            "num_attention_heads": 16, "attention_head_dim": 72, "in_channels": 4, "out_channels": 8, "num_layers": 28,
            "cross_attention_dim": 1152, "attention_bias": True, "patch_size": 2, "activation_fn": "gelu-approximate",
            "num_embeds_ada_norm": 1000, "norm_type": "ada_norm_single", "norm_elementwise_affine": False,
            "norm_eps": 1e-6, "caption_channels": 4096,
        },
    ),
}  # fmt: skip
