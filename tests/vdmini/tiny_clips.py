"""Small clips of noise, encoded by tiny pipelines into latent caches to distil on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import (
    AutoencoderKLTemporalDecoder,
    DiffusionPipeline,
    EulerDiscreteScheduler,
    StableVideoDiffusionPipeline,
    UNetSpatioTemporalConditionModel,
)
from tiny_transformers import TINY, WORDS
from tiny_unets import animatediff_pipeline, animatediff_unet, videocrafter_pipeline
from torch import Tensor, nn
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

from vdmini.conditioning.base import EncodeSettings, TrainingClip
from vdmini.latents import LatentCache, encode_to_cache


@dataclass(frozen=True)
class NoiseClips:
    """Clips of noise, another for each position, with prompts of different lengths."""

    count: int
    frames: int
    height: int
    width: int

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f"clip{index}" for index in range(self.count))

    def clip(self, index: int) -> TrainingClip:
        shape = (self.frames, self.height, self.width, 3)
        frames = np.random.default_rng(index).integers(0, 256, shape, dtype=np.uint8)
        return TrainingClip(self.names[index], frames, " ".join(WORDS[3 : 5 + index % 4]), seed=index)


def encoded(pipeline: DiffusionPipeline, clips: NoiseClips, folder: Path) -> LatentCache:
    """The clips in a latent cache of two shards."""
    pipeline.set_progress_bar_config(disable=True)
    settings = EncodeSettings(frames_per_second=7, noise_strength=0.02)
    half = -(-clips.count // 2)
    return encode_to_cache(pipeline, clips, folder, settings, identity="tiny", clips_per_shard=half)


def svd_unet(stages: int = 2, layers: int = 1) -> UNetSpatioTemporalConditionModel:
    """Stable Video Diffusion's UNet with a few blocks a stage and the same random weights at every call."""
    torch.manual_seed(0)
    unet = UNetSpatioTemporalConditionModel(
        sample_size=8,
        down_block_types=("CrossAttnDownBlockSpatioTemporal",) * (stages - 1) + ("DownBlockSpatioTemporal",),
        up_block_types=("UpBlockSpatioTemporal",) + ("CrossAttnUpBlockSpatioTemporal",) * (stages - 1),
        block_out_channels=(32, *[64] * (stages - 1)),
        layers_per_block=layers,
        num_attention_heads=(1, *[2] * (stages - 1)),
        cross_attention_dim=32,
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=24,
        num_frames=2,
    )
    return unet.eval()


def svd_pipeline(unet: UNetSpatioTemporalConditionModel | None = None) -> StableVideoDiffusionPipeline:
    """An image-to-video pipeline around a UNet, `svd_unet`'s where none is given."""
    unet = svd_unet() if unet is None else unet
    torch.manual_seed(1)
    vision = CLIPVisionConfig(
        hidden_size=32, intermediate_size=32, projection_dim=32, num_hidden_layers=1, num_attention_heads=2
    )
    vae = AutoencoderKLTemporalDecoder(
        down_block_types=("DownEncoderBlock2D",) * 4, block_out_channels=(32,) * 4, force_upcast=True
    )
    return StableVideoDiffusionPipeline(
        vae=vae.eval(),
        image_encoder=CLIPVisionModelWithProjection(vision).eval(),
        unet=unet,
        scheduler=EulerDiscreteScheduler(prediction_type="v_prediction", use_karras_sigmas=True),
        feature_extractor=CLIPImageProcessor(),
    )


def weights(module: nn.Module) -> dict[str, Tensor]:
    """A copy of a module's weights."""
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Whether two sets of weights are equal to the last bit."""
    return one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def _transformer(name: str) -> Callable[[], DiffusionPipeline]:
    return lambda: TINY[name].build_pipeline(TINY[name].build_denoiser())


# Every text-to-video model that can be distilled, with three of the smallest clips of more than one latent frame.
TEXT_MODELS: dict[str, tuple[Callable[[], DiffusionPipeline], NoiseClips]] = {
    "videocrafter2": (lambda: videocrafter_pipeline("ddim"), NoiseClips(3, 2, 16, 16)),
    "t2v-turbo-v2": (lambda: videocrafter_pipeline("consistency"), NoiseClips(3, 2, 16, 16)),
    "animatediff": (lambda: animatediff_pipeline(animatediff_unet()), NoiseClips(3, 2, 16, 16)),
    "hunyuanvideo": (_transformer("hunyuanvideo"), NoiseClips(3, 5, 16, 32)),
    "wan": (_transformer("wan"), NoiseClips(3, 5, 16, 32)),
    "cogvideox-2b": (_transformer("cogvideox-2b"), NoiseClips(3, 9, 16, 32)),
    "mochi": (_transformer("mochi"), NoiseClips(3, 7, 16, 32)),
    "ltx": (_transformer("ltx"), NoiseClips(3, 9, 64, 64)),
}
