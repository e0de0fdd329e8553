"""Sizes and configurations of HunyuanVideo's published kin, Motif-Video and Kandinsky 5, from their sources."""

from __future__ import annotations

# Family and billions of parameters.
PUBLISHED_HUNYUAN = {
    "hunyuanvideo-i2v": ("hunyuanvideo", "12.821"),
    "hunyuanvideo-i2v-33ch": ("hunyuanvideo", "12.811"),
    "skyreels-v1-t2v": ("hunyuanvideo", "12.821"),
    "skyreels-v1-i2v": ("hunyuanvideo", "12.821"),
    "hunyuanvideo-1.5-480p-t2v": ("hunyuanvideo-1.5", "8.327"),
    "hunyuanvideo-1.5-480p-i2v": ("hunyuanvideo-1.5", "8.327"),
    "hunyuanvideo-1.5-720p-t2v": ("hunyuanvideo-1.5", "8.327"),
    "hunyuanvideo-1.5-720p-i2v": ("hunyuanvideo-1.5", "8.327"),
    "hunyuanvideo-1.5-480p-i2v-step-distilled": ("hunyuanvideo-1.5", "8.331"),
    "framepack-i2v-hy": ("framepack", "12.874"),
    "motif-video-2b": ("motif-video", "2.038"),
    "kandinsky5-t2v-lite": ("kandinsky5", "2.008"),
    "kandinsky5-i2v-lite": ("kandinsky5", "2.008"),
    "kandinsky5-t2v-pro": ("kandinsky5", "19.311"),
    "kandinsky5-i2v-pro": ("kandinsky5", "19.311"),
    "kandinsky6-pro": ("kandinsky6", "30.136"),
}
# diffusers' scripts/convert_hunyuan_video_to_diffusers.py, HYVideo-T/2-I2V-16ch and -33ch, whole.
HYVIDEO = {
    "in_channels": 16, "out_channels": 16, "num_attention_heads": 24, "attention_head_dim": 128, "num_layers": 20,
    "num_single_layers": 40, "num_refiner_layers": 2, "mlp_ratio": 4.0, "patch_size": 2, "patch_size_t": 1,
    "qk_norm": "rms_norm", "guidance_embeds": True, "text_embed_dim": 4096, "pooled_projection_dim": 768,
    "rope_theta": 256.0, "rope_axes_dim": (16, 56, 56),
}  # fmt: skip
# dit_params of kandinskylab/kandinsky-5's configs/k5_{lite,pro}_*_5s_sft_sd.yaml, whole.
K5 = {"in_visual_dim": 16, "out_visual_dim": 16, "in_text_dim": 3584, "in_text_dim2": 768, "patch_size": (1, 2, 2)}
K5_LITE = {
    **K5, "time_dim": 512, "model_dim": 1792, "ff_dim": 7168, "num_text_blocks": 2, "num_visual_blocks": 32,
    "axes_dims": (16, 24, 24), "visual_cond": True,
}  # fmt: skip
K5_PRO = {
    **K5, "time_dim": 1024, "model_dim": 4096, "ff_dim": 16384, "num_text_blocks": 4, "num_visual_blocks": 60,
    "axes_dims": (32, 48, 48), "visual_cond": True,
}  # fmt: skip
CONVERTED_HUNYUAN = {
    "hunyuanvideo-i2v": {**HYVIDEO, "image_condition_type": "token_replace"},
    "hunyuanvideo-i2v-33ch": {
        **HYVIDEO, "in_channels": 33, "guidance_embeds": False, "image_condition_type": "latent_concat"
    },
    "skyreels-v1-t2v": HYVIDEO,
    # The pipeline for it halves the channels, and embeds a guidance.
    "skyreels-v1-i2v": {**HYVIDEO, "in_channels": 32},
    # diffusers' scripts/convert_hunyuan_video1_5_to_diffusers.py.
    "hunyuanvideo-1.5-480p-t2v": {"target_size": 640, "task_type": "t2v"},
    "hunyuanvideo-1.5-480p-i2v": {"target_size": 640, "task_type": "i2v"},
    "hunyuanvideo-1.5-720p-t2v": {"target_size": 960, "task_type": "t2v"},
    "hunyuanvideo-1.5-720p-i2v": {"target_size": 960, "task_type": "i2v"},
    "hunyuanvideo-1.5-480p-i2v-step-distilled": {"target_size": 640, "task_type": "i2v", "use_meanflow": True},
    # What musubi-tuner's frame_pack/hunyuan_video_packed.py builds for the published files.
    "framepack-i2v-hy": {**HYVIDEO, "has_image_proj": True, "image_proj_dim": 1152, "has_clean_x_embedder": True},
    # 12 dual, 16 single and 8 decoder blocks by diffusers' documentation; widths by the authors' ComfyUI nodes.
    "motif-video-2b": {
        "in_channels": 33, "out_channels": 16, "num_attention_heads": 12, "attention_head_dim": 128, "num_layers": 12,
        "num_single_layers": 24, "num_decoder_layers": 8, "text_embed_dim": 2560, "image_embed_dim": 1152,
        "patch_size": 2, "patch_size_t": 1, "rope_axes_dim": (16, 56, 56), "rope_theta": 10000.0,
        "enable_text_cross_attention_single": True,
    },
    "kandinsky5-t2v-lite": K5_LITE,
    "kandinsky5-i2v-lite": K5_LITE,
    "kandinsky5-t2v-pro": K5_PRO,
    "kandinsky5-i2v-pro": K5_PRO,
    # The DIT_CONFIG of a public port of Kandinsky-6.0-Pro, whole.
    "kandinsky6-pro": {
        **K5_PRO, "in_audio_dim": 40, "out_audio_dim": 40, "model_dim_a": 2048, "ff_dim_a": 7168, "time_dim_a": 1024,
        "axes_dims_a": (32, 48, 48), "audio_freqs_scaling": 0.144, "text_token_padding": True, "ca_rope": True,
        "cross_gates": True, "fix_modulation": True, "visual_token_type_num_embeddings": 2,
    },
}  # fmt: skip
