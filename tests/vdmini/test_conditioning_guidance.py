"""What a denoiser is told of guidance, and what a discriminator is told of the text."""

from __future__ import annotations

import torch
from tiny_transformers import TINY
from tiny_unets import videocrafter_pipeline
from torch import Tensor

from vdmini.conditioning import conditioning_of


def test_guidance_is_embedded_only_by_networks_that_have_the_weights() -> None:
    scales = torch.tensor([5.0, 14.0])
    turbo, plain = (videocrafter_pipeline(name).unet for name in ("consistency", "ddim"))
    conditions = {"context": torch.zeros(2, 3, 32), "fps": torch.full((2,), 8.0)}
    timesteps = torch.tensor([499.0, 500.0])
    latents = torch.zeros(2, 3, 4, 8, 12)
    conditioning = conditioning_of(turbo)
    with_scales = conditioning.denoiser_inputs(turbo, latents, timesteps, {**conditions, "guidance": scales})
    default = conditioning.denoiser_inputs(turbo, latents, timesteps, conditions)
    one = conditioning.denoiser_inputs(turbo, latents, timesteps, {**conditions, "guidance": torch.full((2,), 7.5)})
    assert not torch.equal(with_scales["timestep_cond"][0], with_scales["timestep_cond"][1])
    assert torch.equal(default["timestep_cond"], one["timestep_cond"])
    # No motion guidance below timestep 500: sines of 0, then cosines.
    assert torch.equal(with_scales["motion_cond"][0], torch.cat([torch.zeros(128), torch.ones(128)]))
    assert not torch.equal(with_scales["motion_cond"][0], with_scales["motion_cond"][1])
    assert not {"timestep_cond", "motion_cond"} & {
        *conditioning.denoiser_inputs(plain, latents, timesteps, {**conditions, "guidance": scales})
    }


def test_hunyuanvideo_embeds_a_thousand_times_the_guidance() -> None:
    denoiser = TINY["hunyuanvideo"].build_denoiser()
    conditioning = conditioning_of(denoiser)
    conditions = {
        "prompt_embeds": torch.zeros(1, 5, 32),
        "prompt_mask": torch.ones(1, 5),
        "pooled_prompt": torch.zeros(1, 32),
    }

    def guidance(scale: Tensor | None) -> Tensor | None:
        latents, timesteps = torch.zeros(1, 3, 4, 2, 4), torch.tensor([500])
        given = conditions if scale is None else {**conditions, "guidance": scale}
        return conditioning.denoiser_inputs(denoiser, latents, timesteps, given).get("guidance")

    assert torch.equal(guidance(torch.tensor([3.0])), torch.tensor([3000.0]))
    assert torch.equal(guidance(None), torch.tensor([6000.0]))
    denoiser.register_to_config(guidance_embeds=False)
    assert guidance(torch.tensor([3.0])) is None


def test_text_embeddings_are_means_over_the_prompts_own_tokens() -> None:
    tokens = torch.randn(1, 5, 3, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[1.0, 1.0, 1.0, 0.0, 0.0]])
    padded = tokens * mask[..., None]
    for name, conditions in (
        ("wan", {"prompt_embeds": padded}),
        ("mochi", {"prompt_embeds": tokens, "prompt_mask": mask}),
    ):
        conditioning = conditioning_of(TINY[name].build_denoiser())
        torch.testing.assert_close(conditioning.condition_embedding(conditions), tokens[:, :3].mean(1))
