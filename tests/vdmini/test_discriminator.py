"""The discriminator scores each clip on its own, in space and in time."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from diffusers import UNetSpatioTemporalConditionModel
from torch import Tensor

from vdmini.conditioning.svd import CONDITIONING
from vdmini.discriminator import DiscriminatorHeads

CHANNELS = (16, 24)
FRAMES = 5
SIGMAS = torch.tensor([0.1, 1.0, 20.0])


@pytest.fixture
def heads() -> DiscriminatorHeads:
    """Heads for two stages and image embeddings of 12 numbers."""
    torch.manual_seed(0)
    return DiscriminatorHeads(CHANNELS, 12)


@pytest.fixture
def features() -> list[Tensor]:
    """Two stages of three clips of five frames."""
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(3 * FRAMES, channels, size, size, generator=generator) for channels, size in ((16, 4), (24, 1))]


@pytest.fixture
def embedding() -> Tensor:
    """Image embeddings of three clips."""
    return torch.randn(3, 12, generator=torch.Generator().manual_seed(2))


def in_order(features: list[Tensor], order: list[int]) -> list[Tensor]:
    """The same frames of every clip in another order."""
    return [stage.unflatten(0, (-1, FRAMES))[:, order].flatten(0, 1) for stage in features]


def test_two_scores_a_stage_for_each_clip(heads: DiscriminatorHeads, features: list[Tensor], embedding: Tensor) -> None:
    scores = heads(features, SIGMAS, embedding, FRAMES)
    assert scores.shape == (3, 4)
    assert scores.isfinite().all()


@torch.no_grad()
def test_a_clips_scores_depend_on_that_clip_alone(
    heads: DiscriminatorHeads, features: list[Tensor], embedding: Tensor
) -> None:
    together = heads(features, SIGMAS, embedding, FRAMES)
    for clip in range(3):
        alone = heads(
            [stage[clip * FRAMES : (clip + 1) * FRAMES] for stage in features],
            SIGMAS[clip : clip + 1],
            embedding[clip : clip + 1],
            FRAMES,
        )
        torch.testing.assert_close(alone[0], together[clip])
    assert not torch.allclose(together[0], together[1])


@torch.no_grad()
def test_temporal_heads_see_the_order_of_frames_and_spatial_heads_do_not(
    heads: DiscriminatorHeads, features: list[Tensor], embedding: Tensor
) -> None:
    scores = heads(features, SIGMAS, embedding, FRAMES)
    shuffled = heads(in_order(features, [2, 0, 4, 1, 3]), SIGMAS, embedding, FRAMES)
    spatial, temporal = slice(0, None, 2), slice(1, None, 2)
    torch.testing.assert_close(shuffled[:, spatial], scores[:, spatial])
    assert ((shuffled[:, temporal] - scores[:, temporal]).abs() > 1e-4).all()


@torch.no_grad()
def test_the_order_of_identical_frames_does_not_matter(
    heads: DiscriminatorHeads, features: list[Tensor], embedding: Tensor
) -> None:
    still = in_order(features, [0] * FRAMES)
    scores = heads(still, SIGMAS, embedding, FRAMES)
    assert torch.equal(heads(in_order(still, [4, 2, 0, 3, 1]), SIGMAS, embedding, FRAMES), scores)
    # Temporal heads look along one place's own track: places may trade places.
    mirrored = [stage.flip(-1) for stage in features]
    torch.testing.assert_close(
        heads(mirrored, SIGMAS, embedding, FRAMES)[:, 1::2], heads(features, SIGMAS, embedding, FRAMES)[:, 1::2]
    )


@torch.no_grad()
def test_every_score_depends_on_both_conditions(
    heads: DiscriminatorHeads, features: list[Tensor], embedding: Tensor
) -> None:
    scores = heads(features, SIGMAS, embedding, FRAMES)
    assert ((heads(features, SIGMAS * 2, embedding, FRAMES) - scores).abs() > 1e-5).all()
    assert ((heads(features, SIGMAS, embedding + 1, FRAMES) - scores).abs() > 1e-5).all()


@torch.no_grad()
def test_every_level_that_a_task_may_draw_has_scores_of_its_own(
    heads: DiscriminatorHeads, features: list[Tensor], embedding: Tensor
) -> None:
    # Timestep 0 is a level too.
    scores = [heads(features, torch.full((3,), level), embedding, FRAMES) for level in (0.0, 1.0, 2.0, 999.0)]
    assert all(each.isfinite().all() for each in scores)
    assert all((one != other).all() for one, other in pairwise(scores))


def test_gradients_reach_the_clip_and_the_heads_but_not_the_teacher(
    tiny_teacher: UNetSpatioTemporalConditionModel, tiny_inputs: dict[str, Tensor]
) -> None:
    tiny_teacher.requires_grad_(False)
    torch.manual_seed(0)
    heads = DiscriminatorHeads(tiny_teacher.config.block_out_channels, 32)
    clips = tiny_inputs["sample"].requires_grad_()
    stages = CONDITIONING.encoder_features(tiny_teacher, tiny_inputs)
    scores = heads(stages, torch.tensor([0.5, 2.0]), tiny_inputs["encoder_hidden_states"].mean(1), 4)
    assert scores.shape == (2, 8)
    scores.mean().backward()
    assert clips.grad is not None
    assert (clips.grad.flatten(2).abs().sum(2) > 0).all()
    for name, parameter in heads.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
    assert all(parameter.grad is None for parameter in tiny_teacher.parameters())


@torch.no_grad()
def test_a_clips_scores_through_the_encoder_depend_on_that_clip_alone(
    tiny_teacher: UNetSpatioTemporalConditionModel, tiny_inputs: dict[str, Tensor]
) -> None:
    torch.manual_seed(0)
    heads = DiscriminatorHeads(tiny_teacher.config.block_out_channels, 32)

    def scores(clips: slice) -> Tensor:
        inputs = {name: tensor[clips] for name, tensor in tiny_inputs.items()}
        embedding = inputs["encoder_hidden_states"].mean(1)
        return heads(CONDITIONING.encoder_features(tiny_teacher, inputs), torch.tensor([0.5, 2.0])[clips], embedding, 4)

    together = scores(slice(None))
    torch.testing.assert_close(torch.cat([scores(slice(0, 1)), scores(slice(1, 2))]), together, rtol=1e-4, atol=1e-5)
