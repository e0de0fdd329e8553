"""Models of SVD's topology that run in milliseconds."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import (
    AutoencoderKLTemporalDecoder,
    EulerDiscreteScheduler,
    StableVideoDiffusionPipeline,
    UNetSpatioTemporalConditionModel,
)
from torch import Tensor
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

from vdmini.blocks import BlockGraph
from vdmini.models.loading import load_model
from vdmini.models.registry import VideoModel, block_graph
from vdmini.models.svd import SVD_UNET_CONFIG, SVD_VAE_CONFIG
from vdmini.plan import PruningPlan
from vdmini.rules import make_plan

TINY = {
    "sample_size": 8,
    "block_out_channels": (32, 64, 64, 64),
    "num_attention_heads": (1, 2, 2, 2),
    "cross_attention_dim": 32,
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 24,
    "num_frames": 4,
}


@pytest.fixture(scope="session")
def tiny_graph() -> BlockGraph:
    """The blocks of the tiny teacher."""
    return block_graph(UNetSpatioTemporalConditionModel(**{**SVD_UNET_CONFIG, **TINY}))


@pytest.fixture(scope="session")
def tiny_plan() -> PruningPlan:
    """What the rule 'vdmini' keeps of the tiny teacher."""
    return make_plan(UNetSpatioTemporalConditionModel(**{**SVD_UNET_CONFIG, **TINY}))


@pytest.fixture(scope="session")
def tiny_whole_plan() -> PruningPlan:
    """What the rule 'none' keeps of the tiny teacher: everything."""
    return make_plan(UNetSpatioTemporalConditionModel(**{**SVD_UNET_CONFIG, **TINY}), rule="none")


@pytest.fixture
def tiny_teacher() -> UNetSpatioTemporalConditionModel:
    """A four-stage UNet with random weights, the same in every test."""
    torch.manual_seed(0)
    return UNetSpatioTemporalConditionModel(**{**SVD_UNET_CONFIG, **TINY}).eval()


@pytest.fixture
def tiny_inputs() -> dict[str, Tensor]:
    """Two clips of four 8x8 latents with what the denoiser is conditioned on."""
    generator = torch.Generator().manual_seed(1)
    return {
        "sample": torch.randn(2, 4, 8, 8, 8, generator=generator),
        "timestep": torch.tensor([0.3, 1.2]),
        "encoder_hidden_states": torch.randn(2, 1, 32, generator=generator),
        "added_time_ids": torch.tensor([[6.0, 127.0, 0.02], [7.0, 63.0, 0.02]]),
    }


@pytest.fixture
def tiny_pipeline(tiny_teacher: UNetSpatioTemporalConditionModel) -> StableVideoDiffusionPipeline:
    """A whole image-to-video pipeline around the tiny teacher."""
    torch.manual_seed(2)
    vision = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        projection_dim=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=224,
        patch_size=32,
    )
    vae = {**SVD_VAE_CONFIG, "block_out_channels": (32, 32, 32, 32), "layers_per_block": 1, "sample_size": 64}
    return StableVideoDiffusionPipeline(
        vae=AutoencoderKLTemporalDecoder(**vae).eval(),
        image_encoder=CLIPVisionModelWithProjection(vision).eval(),
        unet=tiny_teacher,
        scheduler=EulerDiscreteScheduler(prediction_type="v_prediction", use_karras_sigmas=True),
        feature_extractor=CLIPImageProcessor(),
    )


@pytest.fixture
def tiny_folder(tiny_pipeline: StableVideoDiffusionPipeline, tmp_path: Path) -> Path:
    """The tiny pipeline, saved."""
    tiny_pipeline.save_pretrained(tmp_path / "teacher")
    return tmp_path / "teacher"


@pytest.fixture(scope="session")
def official() -> VideoModel:
    """SVD at its published size, without memory."""
    return load_model("svd", random_weights=True, device="meta")
