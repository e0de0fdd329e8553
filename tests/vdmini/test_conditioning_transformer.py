"""The first half of a video transformer serves as an encoder, and leaves no trace on it."""

from __future__ import annotations

import functools
import gc
from collections.abc import Callable

import pytest
import torch
from tiny_transformers import TINY
from torch import Tensor, nn

from vdmini.conditioning import Conditioning, conditioning_of
from vdmini.conditioning.transformer import encoder_view
from vdmini.discriminator import DiscriminatorHeads
from vdmini.features import FeatureTap
from vdmini.models import cogvideox, hunyuanvideo, ltx, mochi, wan

FRAMES, HEIGHT, WIDTH = 3, 4, 6
FAMILIES = {
    "hunyuanvideo": hunyuanvideo.FAMILY,
    "wan": wan.FAMILY,
    "cogvideox-2b": cogvideox.FAMILY,
    "cogvideox-5b": cogvideox.FAMILY,
    "mochi": mochi.FAMILY,
    "ltx": ltx.FAMILY,
}
# 7 blocks in two stacks, and 5 in one.
FIRST_HALVES = {
    "hunyuanvideo": ("Dual.0", "Dual.1", "Dual.2"),
    "wan": ("Block.0", "Block.1"),
    "cogvideox-2b": ("Block.0", "Block.1"),
    "cogvideox-5b": ("Block.0", "Block.1"),
    "mochi": ("Block.0", "Block.1"),
    "ltx": ("Block.0", "Block.1"),
}
pytestmark = pytest.mark.filterwarnings("ignore:In CPU autocast, but the target dtype is not supported:UserWarning")
every_family = pytest.mark.parametrize("name", [*FAMILIES])


@pytest.fixture
def denoiser(name: str) -> nn.Module:
    """The tiny denoiser, frozen."""
    return TINY[name].build_denoiser().requires_grad_(False)


@pytest.fixture
def conditioning(denoiser: nn.Module) -> Conditioning:
    """The family's conditioning."""
    return conditioning_of(denoiser)


@pytest.fixture
def latents(denoiser: nn.Module) -> Tensor:
    """Two clips B T C H W that want gradients."""
    shape = (2, FRAMES, denoiser.config.in_channels, HEIGHT, WIDTH)
    return torch.randn(shape, generator=torch.Generator().manual_seed(5)).requires_grad_()


def conditions() -> dict[str, Tensor]:
    """Random texts of two clips, of 226 and 3 tokens, with every name that a family may read."""
    generator = torch.Generator().manual_seed(6)
    return {
        "prompt_embeds": torch.randn(2, 226, 32, generator=generator),
        "pooled_prompt": torch.randn(2, 32, generator=generator),
        "prompt_mask": torch.tensor([[1.0] * 226, [1.0] * 3 + [0.0] * 223]),
        "rope_scale": torch.tensor([[1.0, 32.0, 32.0]] * 2),
    }


def inputs_of(conditioning: Conditioning, denoiser: nn.Module, latents: Tensor) -> dict[str, Tensor]:
    timesteps = torch.tensor([300.0, 700.0])
    return conditioning.denoiser_inputs(denoiser, latents, timesteps, conditions())


def own_features(denoiser: nn.Module, stages: tuple[str, ...], inputs: dict[str, Tensor]) -> list[Tensor]:
    """What hooks on the whole denoiser's forward pass record of these blocks: B (T H W) C."""
    with FeatureTap(denoiser, stages) as tap:
        denoiser(**inputs)
    return tap.features


@every_family
def test_features_are_those_of_the_whole_forward_pass(
    name: str, denoiser: nn.Module, conditioning: Conditioning, latents: Tensor
) -> None:
    inputs = inputs_of(conditioning, denoiser, latents)
    maps = conditioning.encoder_features(denoiser, inputs)
    whole = own_features(denoiser, FIRST_HALVES[name], inputs)
    assert len(maps) == len(whole)
    for one, tokens in zip(maps, whole, strict=True):
        # Patches of latents in one frame.
        _, rows, columns = FAMILIES[name].patch(denoiser)
        assert one.shape == (2 * FRAMES, tokens.shape[2], HEIGHT // rows, WIDTH // columns)
        back = one.unflatten(0, (2, FRAMES)).permute(0, 1, 3, 4, 2).flatten(1, 3)
        assert torch.equal(back, tokens)
    assert conditioning.encoder_channels(denoiser) == tuple(one.shape[1] for one in maps)


@every_family
def test_a_map_is_of_its_own_place_in_the_clip(
    name: str, denoiser: nn.Module, conditioning: Conditioning, latents: Tensor
) -> None:
    # With nothing but the patch embedding and the first block's residual, a token sees its own patch alone.
    for part, block in denoiser.named_modules():
        # Of LTX-Video's tokens, which are linear.
        if isinstance(block, nn.Linear) and part != "proj_in":
            block.weight.data.zero_()
            if block.bias is not None:
                block.bias.data.zero_()
    inputs = inputs_of(conditioning, denoiser, latents)
    first = conditioning.encoder_features(denoiser, inputs)[0].detach()
    for frame, row, column in ((0, 0, 0), (2, 1, 0), (1, 0, 2)):
        changed = latents.detach().clone()
        _, rows, columns = FAMILIES[name].patch(denoiser)
        changed[1, frame, :, rows * row : rows * (row + 1), columns * column : columns * (column + 1)] += 1
        moved = conditioning.encoder_features(denoiser, inputs_of(conditioning, denoiser, changed))[0] - first
        assert moved.abs().amax(1).nonzero().tolist() == [[FRAMES + frame, row, column]]


@every_family
def test_the_view_shares_all_it_holds_and_holds_half(name: str, denoiser: nn.Module) -> None:
    before = {key: value.data_ptr() for key, value in denoiser.state_dict().items()}
    view = encoder_view(denoiser, FAMILIES[name])
    held = {key: value.data_ptr() for key, value in view.state_dict().items()}
    assert held.items() <= before.items()
    blocks = [block for stack in FAMILIES[name].stacks for block in getattr(view, stack.attribute)]
    assert len(blocks) == len(FIRST_HALVES[name])
    assert {key: value.data_ptr() for key, value in denoiser.state_dict().items()} == before
    assert {id(each) for each in view.parameters()} < {id(each) for each in denoiser.parameters()}


def test_at_most_four_maps_evenly_spaced_over_both_stacks() -> None:
    denoiser = hunyuan_of(4, 20)
    conditioning = conditioning_of(denoiser)
    clips = torch.randn(2, FRAMES, 4, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(7))
    inputs = inputs_of(conditioning, denoiser, clips)
    # The first 12 of 24 blocks: every third of them.
    whole = own_features(denoiser, ("Dual.2", "Single.1", "Single.4", "Single.7"), inputs)
    maps = conditioning.encoder_features(denoiser, inputs)
    assert len(maps) == 4
    for one, tokens in zip(maps, whole, strict=True):
        assert torch.equal(one.unflatten(0, (2, FRAMES)).permute(0, 1, 3, 4, 2).flatten(1, 3), tokens)
    assert conditioning.encoder_channels(hunyuan_of(1, 1)) == (32,)


def hunyuan_of(dual: int, single: int) -> nn.Module:
    tiny = TINY["hunyuanvideo"].build_denoiser()
    config = {**tiny.config, "num_layers": dual, "num_single_layers": single}
    torch.manual_seed(0)
    return type(tiny).from_config(config).eval()


def features_and_gradient(
    denoiser: nn.Module, conditioning: Conditioning, latents: Tensor
) -> tuple[list[Tensor], Tensor]:
    maps = conditioning.encoder_features(denoiser, inputs_of(conditioning, denoiser, latents))
    loss = sum(one.float().pow(3).mean() for one in maps)
    return [one.detach() for one in maps], torch.autograd.grad(loss, latents)[0]


@every_family
def test_gradients_reach_the_latents_and_are_the_same_with_checkpointing(
    name: str, denoiser: nn.Module, conditioning: Conditioning, latents: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    maps, gradient = features_and_gradient(denoiser, conditioning, latents)
    assert (gradient.flatten(2).abs().sum(2) > 0).all()
    runs = count_runs(denoiser, name, monkeypatch)
    features_and_gradient(denoiser, conditioning, latents)
    assert runs() == len(FIRST_HALVES[name]), "only the first half runs, once"
    denoiser.enable_gradient_checkpointing()
    again, same = features_and_gradient(denoiser, conditioning, latents)
    assert runs() == 3 * len(FIRST_HALVES[name]), "checkpointing runs the first half again in the backward pass"
    assert torch.equal(same, gradient)
    for one, other in zip(maps, again, strict=True):
        assert torch.equal(one, other)
    assert denoiser.is_gradient_checkpointing


def count_runs(denoiser: nn.Module, name: str, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Count the forward passes of all of the denoiser's blocks from now on."""
    runs: list[nn.Module] = []
    classes = {type(block) for stack in FAMILIES[name].stacks for block in getattr(denoiser, stack.attribute)}
    for each in classes:
        forward = each.forward

        @functools.wraps(forward)
        def counted(self: nn.Module, *inputs: object, forward: object = forward, **named: object) -> object:
            runs.append(self)
            return forward(self, *inputs, **named)  # type: ignore[operator]

        monkeypatch.setattr(each, "forward", counted)
    return lambda: len(runs)


@every_family
def test_nothing_stays_on_the_denoiser_and_its_listeners_hear_nothing(
    name: str, denoiser: nn.Module, conditioning: Conditioning, latents: Tensor
) -> None:
    inputs = inputs_of(conditioning, denoiser, latents)
    before = [(type(module), set(vars(module))) for module in denoiser.modules()]
    conditioning.encoder_features(denoiser, inputs)
    assert [(type(module), set(vars(module))) for module in denoiser.modules()] == before
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in denoiser.modules())
    with FeatureTap(denoiser, FIRST_HALVES[name]) as tap:
        denoiser(**inputs)
        recorded = tap.features
        conditioning.encoder_features(denoiser, inputs_of(conditioning, denoiser, latents + 1))
        assert all(one is other for one, other in zip(tap.features, recorded, strict=True))


@every_family
def test_a_wrapped_forward_is_not_run(
    name: str, denoiser: nn.Module, conditioning: Conditioning, latents: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = inputs_of(conditioning, denoiser, latents)
    expected = conditioning.encoder_features(denoiser, inputs)
    # As libraries put autocast or offloading around one denoiser's forward.
    denoiser.forward = functools.partial(type(denoiser).forward, denoiser)
    runs = count_runs(denoiser, name, monkeypatch)
    for one, other in zip(conditioning.encoder_features(denoiser, inputs), expected, strict=True):
        assert torch.equal(one, other)
    assert runs() == len(FIRST_HALVES[name])


@pytest.mark.parametrize(("name", "checkpointing"), [("hunyuanvideo", False), ("hunyuanvideo", True)])
def test_features_are_freed_with_their_last_reader(
    name: str, checkpointing: bool, denoiser: nn.Module, conditioning: Conditioning, latents: Tensor
) -> None:
    if checkpointing:
        denoiser.enable_gradient_checkpointing()

    def living() -> int:
        gc.collect()
        # Of the tokens' and the maps' size.
        return sum(type(each) is Tensor and each.grad_fn is not None and each.dim() > 2 for each in gc.get_objects())

    before = living()
    maps = conditioning.encoder_features(denoiser, inputs_of(conditioning, denoiser, latents))
    assert living() >= before + len(maps)
    del maps
    assert living() == before


@every_family
def test_the_discriminators_heads_read_the_maps(
    name: str, denoiser: nn.Module, conditioning: Conditioning, latents: Tensor
) -> None:
    maps = conditioning.encoder_features(denoiser, inputs_of(conditioning, denoiser, latents))
    embedding = conditioning.condition_embedding(conditions())
    torch.manual_seed(0)
    heads = DiscriminatorHeads(conditioning.encoder_channels(denoiser), embedding.shape[1])
    scores = heads(maps, torch.tensor([0.3, 0.7]), embedding, FRAMES)
    copies = heads([one.contiguous() for one in maps], torch.tensor([0.3, 0.7]), embedding, FRAMES)
    torch.testing.assert_close(scores, copies)
    scores.mean().backward()
    assert (latents.grad.flatten(2).abs().sum(2) > 0).all()
