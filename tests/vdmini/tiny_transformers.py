"""Text-to-video pipelines of every transformer family that run in milliseconds, from tokenizer to VAE."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from diffusers import (
    AutoencoderKLCogVideoX,
    AutoencoderKLHunyuanVideo,
    AutoencoderKLLTXVideo,
    AutoencoderKLMochi,
    AutoencoderKLWan,
    CogVideoXDDIMScheduler,
    CogVideoXPipeline,
    CogVideoXTransformer3DModel,
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    HunyuanVideoPipeline,
    HunyuanVideoTransformer3DModel,
    LTXPipeline,
    LTXVideoTransformer3DModel,
    MochiPipeline,
    MochiTransformer3DModel,
    WanPipeline,
    WanTransformer3DModel,
)
from numpy.typing import NDArray
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from torch import nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    LlamaConfig,
    LlamaModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
    UMT5Config,
    UMT5EncoderModel,
)

from vdmini.blocks import ModelInput
from vdmini.cost import is_shape
from vdmini.models.registry import family_named
from vdmini.requests import ClipRequest, SampleSettings

WORDS = ["[PAD]", "[UNK]", "[EOS]", "a", "cat", "dog", "red", "runs", "sleeps"]
WIDTH = 32


@dataclass(frozen=True)
class Tiny:
    """One family's tiny pipeline: the family's name, what builds it, and a plan's removal to try on it.


    `image` says that clips are made from images; `arguments` are those of its pipeline that `sample` sets besides the
    usual ones, or otherwise, and `frames_argument` is what it calls the number of frames. `guided` are settings that
    guide it, and `sized` whether it takes height and width. `samples` is false where the family refuses to sample.
    """

    family: str
    denoiser: Callable[[], nn.Module]
    pipeline: Callable[[nn.Module], DiffusionPipeline]
    removed: tuple[str, ...]
    frames: int = 5
    height: int = 16
    width: int = 32
    image: bool = False
    sized: bool = True
    frames_argument: str = "num_frames"
    samples: bool = True
    arguments: Mapping[str, Any] = field(default_factory=dict)
    guided: Mapping[str, Any] = field(default_factory=lambda: {"guidance": 2.0})

    def build_denoiser(self) -> nn.Module:
        """The tiny teacher with random weights, the same at every call."""
        torch.manual_seed(0)
        denoiser = self.denoiser()
        # Some weights start at zero, which would hide the parts they belong to.
        for weight in denoiser.parameters():
            if not weight.any():
                nn.init.normal_(weight, std=0.1)
        return denoiser.eval()

    def build_pipeline(self, denoiser: nn.Module) -> DiffusionPipeline:
        """A whole pipeline around a denoiser, with the same random weights at every call."""
        torch.manual_seed(1)
        pipeline = self.pipeline(denoiser)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def picture(self, seed: int) -> NDArray[np.uint8] | None:
        """A random image H W C of the clip's size, None where clips are made from words alone."""
        if not self.image:
            return None
        return np.random.default_rng(seed).integers(0, 256, (self.height, self.width, 3), dtype=np.uint8)

    @property
    def requests(self) -> tuple[ClipRequest, ClipRequest]:
        """Two clips of other seeds, prompts and images."""
        first = ClipRequest("one", 3, self.picture(3), "a cat runs")
        return first, ClipRequest("two", 4, self.picture(4), "a red dog sleeps")

    @property
    def settings(self) -> SampleSettings:
        """The smallest clip of this family, in two steps."""
        return SampleSettings(steps=2, frames=self.frames, height=self.height, width=self.width)


def tokenizer(length: int) -> PreTrainedTokenizerFast:
    """A tokenizer of nine words."""
    words = Tokenizer(WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]", eos_token="[EOS]", model_max_length=length
    )


def t5_encoder(config: type[Any] = T5Config, model: type[Any] = T5EncoderModel) -> nn.Module:
    """A text encoder of one layer."""
    sizes = {"d_model": WIDTH, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2, "vocab_size": len(WORDS)}
    return model(config(**sizes)).eval()


def hunyuanvideo() -> nn.Module:
    return HunyuanVideoTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=16,
        num_layers=3,
        num_single_layers=4,
        num_refiner_layers=1,
        text_embed_dim=WIDTH,
        pooled_projection_dim=WIDTH,
        rope_axes_dim=(4, 6, 6),
    )


def hunyuanvideo_pipeline(denoiser: nn.Module) -> DiffusionPipeline:
    sizes = {"hidden_size": WIDTH, "intermediate_size": 32, "num_attention_heads": 2, "vocab_size": len(WORDS)}
    llama = LlamaConfig(**sizes, num_hidden_layers=3, pad_token_id=0, bos_token_id=2, eos_token_id=2)
    clip = CLIPTextConfig(**sizes, num_hidden_layers=1, pad_token_id=0, bos_token_id=2, eos_token_id=2)
    vae = AutoencoderKLHunyuanVideo(
        latent_channels=4, block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=4
    )
    return HunyuanVideoPipeline(
        text_encoder=LlamaModel(llama).eval(),
        tokenizer=tokenizer(512),
        transformer=denoiser,
        vae=vae.eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=7.0),
        text_encoder_2=CLIPTextModel(clip).eval(),
        tokenizer_2=tokenizer(77),
    )


def wan() -> nn.Module:
    return WanTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        text_dim=WIDTH,
        freq_dim=16,
        ffn_dim=32,
        num_layers=5,
        rope_max_seq_len=128,
    )


def wan_pipeline(denoiser: nn.Module) -> DiffusionPipeline:
    return WanPipeline(
        tokenizer=tokenizer(512),
        text_encoder=t5_encoder(UMT5Config, UMT5EncoderModel),
        vae=AutoencoderKLWan(base_dim=4, num_res_blocks=1).eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        transformer=denoiser,
    )


def cogvideox(rotary: bool) -> nn.Module:
    return CogVideoXTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=4,
        out_channels=4,
        time_embed_dim=8,
        text_embed_dim=WIDTH,
        num_layers=5,
        sample_width=4,
        sample_height=2,
        sample_frames=9,
        use_rotary_positional_embeddings=rotary,
    )


def cogvideox_pipeline(denoiser: nn.Module) -> DiffusionPipeline:
    vae = AutoencoderKLCogVideoX(
        latent_channels=4, block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=4
    )
    scheduler = CogVideoXDDIMScheduler(
        prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing", clip_sample=False
    )
    return CogVideoXPipeline(
        tokenizer=tokenizer(226), text_encoder=t5_encoder(), vae=vae.eval(), transformer=denoiser, scheduler=scheduler
    )


def ltx() -> nn.Module:
    return LTXVideoTransformer3DModel(
        in_channels=8,
        out_channels=8,
        num_attention_heads=2,
        attention_head_dim=8,
        cross_attention_dim=16,
        num_layers=5,
        caption_channels=WIDTH,
    )


def ltx_pipeline(denoiser: nn.Module) -> DiffusionPipeline:
    vae = AutoencoderKLLTXVideo(
        latent_channels=8,
        block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 8, 8, 8),
        layers_per_block=(1, 1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1, 1),
    )
    # Those of new VAEs change nothing.
    vae.latents_mean.normal_()
    vae.latents_std.uniform_(0.5, 2.0)
    return LTXPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=vae.eval(),
        text_encoder=t5_encoder(),
        tokenizer=tokenizer(128),
        transformer=denoiser,
    )


def mochi(layers: int = 5) -> nn.Module:
    return MochiTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=layers,
        pooled_projection_dim=16,
        text_embed_dim=WIDTH,
        time_embed_dim=8,
    )


def mochi_pipeline(denoiser: nn.Module) -> DiffusionPipeline:
    vae = AutoencoderKLMochi(
        encoder_block_out_channels=(32, 32, 32, 32),
        decoder_block_out_channels=(32, 32, 32, 32),
        layers_per_block=(1, 1, 1, 1, 1),
        add_attention_block=(False, False, False, False, False),
    )
    return MochiPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(invert_sigmas=True),
        vae=vae.eval(),
        text_encoder=t5_encoder(),
        tokenizer=tokenizer(256),
        transformer=denoiser,
    )


MIDDLE = ("Block.1", "Block.3")
TINY = {
    "hunyuanvideo": Tiny("hunyuanvideo", hunyuanvideo, hunyuanvideo_pipeline, ("Dual.1", "Single.0", "Single.3")),
    "wan": Tiny("wan", wan, wan_pipeline, MIDDLE),
    "cogvideox-2b": Tiny("cogvideox", lambda: cogvideox(rotary=False), cogvideox_pipeline, MIDDLE, frames=9),
    "cogvideox-5b": Tiny("cogvideox", lambda: cogvideox(rotary=True), cogvideox_pipeline, MIDDLE, frames=9),
    "ltx": Tiny("ltx", ltx, ltx_pipeline, MIDDLE, frames=9, height=64, width=64, arguments={"frame_rate": 7}),
    "mochi": Tiny("mochi", mochi, mochi_pipeline, MIDDLE, frames=7),
}


def real_inputs(tiny: Tiny, denoiser: nn.Module) -> dict[str, Any]:
    """Random values for the family's example inputs of two clips with prompts of different lengths."""
    generator = torch.Generator().manual_seed(2)
    size = ModelInput(batch=2, frames=2, height=2, width=4)
    values: dict[str, Any] = {}
    for name, shape in family_named(tiny.family).example_inputs(denoiser, size).items():
        if not is_shape(shape):
            values[name] = shape
            continue
        values[name] = torch.rand(shape.shape, generator=generator)
        if name == "timestep":
            values[name] = torch.tensor([300.0, 700.0]).view(2, *[1] * (shape.dim() - 1)).expand(shape.shape)
        if "attention_mask" in name:
            values[name] = torch.ones(shape.shape, dtype=torch.bool)
            values[name][0, 5:] = False
    return values


# These build on what is above.
from tiny_hunyuan import TINY_HUNYUAN  # noqa: E402
from tiny_others import TINY_OTHERS  # noqa: E402
from tiny_wan import TINY_WAN  # noqa: E402

TINY |= TINY_WAN | TINY_HUNYUAN | TINY_OTHERS
# Every variant of a family in `nox -s families`, else the first.
FULL = os.environ.get("VDMINI_FAMILIES") == "full"
FIRST = {tiny.family: name for name, tiny in reversed(TINY.items())}
TRIED = {name: tiny for name, tiny in TINY.items() if FULL or name in FIRST.values()}
