"""Every denoiser and a student of it run on a card in half precision: whatever they need is there, and stays there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from pretended import Card, moved, on_card
from tiny_clips import svd_unet
from tiny_transformers import TINY
from tiny_unets import animatediff_unet, videocrafter_pipeline
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily

from vdmini.models.registry import family_of
from vdmini.optimization import optimize
from vdmini.prune import apply_plan
from vdmini.rules import make_plan, plan_removing

UNETS: dict[str, Callable[[], nn.Module]] = {
    "svd": lambda: svd_unet(stages=3),
    "videocrafter2": lambda: videocrafter_pipeline("ddim").unet,
    "animatediff": animatediff_unet,
}
# How often diffusers' own code looks at masks of texts in a pass, in some networks once a block.
WAITS = {"mochi": 5, "framepack": 1, "hunyuanvideo-1.5-t2v": 13, "hunyuanvideo-1.5-i2v": 13}


def build(name: str) -> nn.Module:
    """The tiny teacher of that name."""
    return UNETS[name]() if name in UNETS else TINY[name].build_denoiser()


def student_of(name: str, denoiser: nn.Module) -> nn.Module:
    """A student without some of the blocks."""
    if name in UNETS:
        return apply_plan(denoiser, make_plan(denoiser, "uniform:flops=0.6"))
    return apply_plan(denoiser, plan_removing(denoiser, TINY[name].removed, "test"))


def example(denoiser: nn.Module) -> dict[str, Any]:
    """What the denoiser takes of one clip of its published size."""
    family = family_of(denoiser)
    return family.example_inputs(denoiser, family.default_input(denoiser))


def run(network: nn.Module, inputs: dict[str, Any], dtype: torch.dtype = torch.bfloat16) -> tuple[Tensor, int]:
    """The output of a network on the card, and how often the pass waited for the card."""
    with Card() as card:
        output = network(**moved(inputs, dtype)).sample
    return output, card.waits


@pytest.mark.parametrize("name", [*UNETS, *TINY])
def test_a_teacher_and_its_student_run_on_the_card(name: str, fakes: FakeTensorMode) -> None:
    with unset_fake_temporarily():
        teacher = build(name)
        student, inputs = student_of(name, teacher), example(teacher)
    # Its embeddings keep their format by an autocast that was turned off when diffusers was imported without a card.
    dtype = torch.float32 if name.startswith("kandinsky5") else torch.bfloat16
    for network in (teacher, student):
        output, waits = run(on_card(network, dtype), inputs, dtype)
        assert (output.device.type, output.dtype) == ("cuda", dtype)
        assert waits <= WAITS.get(name, 0)


@pytest.mark.parametrize("name", [*UNETS, "hunyuanvideo", "wan", "ltx", "cogvideox-2b"])
def test_an_optimized_denoiser_runs_on_the_card(name: str, fakes: FakeTensorMode) -> None:
    with unset_fake_temporarily():
        denoiser = build(name)
        inputs = example(denoiser)
    network = on_card(denoiser)
    # In single precision: in a smaller format it would try the card's kernels.
    done = optimize(network)
    with Card() as card:
        output = network(**moved(inputs)).sample
    assert output.is_cuda
    # It cuts the padding off its two texts once it has seen how long each is.
    assert card.waits == (3 if name == "hunyuanvideo" else 0), done


def planted(change: Callable[[Any], None]) -> tuple[Tensor, int]:
    """What `run` gives of a network with a fault in its first block."""
    with unset_fake_temporarily():
        denoiser: Any = build("wan")
        inputs = example(denoiser)
    network = on_card(denoiser, torch.bfloat16)
    change(network.blocks[0].ffn)
    return run(network, inputs)


def test_a_weight_left_on_the_cpu_is_found(fakes: FakeTensorMode) -> None:
    with pytest.raises(RuntimeError, match="same device"):
        planted(lambda part: part.net[2].cpu())


def test_a_weight_in_another_format_is_found(fakes: FakeTensorMode) -> None:
    with pytest.raises(TypeError, match="one number format"):
        planted(lambda part: part.net[2].float())


def test_a_copy_to_the_cpu_in_each_block_is_found(fakes: FakeTensorMode) -> None:
    def look(part: nn.Module) -> None:
        part.register_forward_hook(lambda module, inputs, output: output.cpu().to("cuda"))

    assert planted(look)[1] == 1
