"""A student is its teacher with the removed blocks bypassed: shown on the very weights before it is used."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from vdmini.cost import is_shape
from vdmini.errors import PlanError


@torch.no_grad()
def prove_student(
    teacher: nn.Module,
    student: nn.Module,
    removed: Mapping[str, nn.Module],
    inputs: Mapping[str, Any],
    adding: Iterable[nn.Module] = (),
    hands_on: str | None = None,
) -> None:
    """Run both on the same inputs, the teacher with every removed block, by name, handing on what it was given.

    The modules in `adding` add nothing there, and hand on their argument `hands_on`, if any. `inputs` are shapes on any
    device; random values take their place. Raises PlanError unless the outputs are equal to the last bit.
    """
    inputs = _with_values(inputs, next(teacher.parameters()))
    modes = teacher.training, student.training
    try:
        with bypassed(removed.values(), adding, hands_on):
            expected = _outputs(teacher.eval()(**inputs))
        found = _outputs(student.eval()(**inputs))
    finally:
        teacher.train(modes[0])
        student.train(modes[1])
    if len(expected) != len(found) or not all(map(torch.equal, expected, found)):
        raise PlanError(
            f"a {type(teacher).__name__} without {', '.join(removed)} is not itself with these blocks bypassed: this"
            " version of diffusers runs its blocks in another way than is known here; report it"
        )


@contextmanager
def bypassed(
    blocks: Iterable[nn.Module], adding: Iterable[nn.Module] = (), hands_on: str | None = None
) -> Iterator[None]:
    """Have blocks hand on what they were given, and modules beside them add nothing, as if they were not there."""
    with ExitStack() as stack:
        for block in blocks:
            stack.enter_context(patch.object(block, "forward", _handing_on(block)))
        for module in adding:
            stack.enter_context(patch.object(module, "forward", _adding_nothing(module, hands_on)))
        yield


def _handing_on(block: nn.Module) -> Any:
    """A forward of the same signature that gives back the first of its arguments, as many as the block gives."""
    forward: Any = block.forward
    signature = inspect.signature(forward)

    def hand_on(*args: Any, **kwargs: Any) -> Any:
        output = forward(*args, **kwargs)
        given = [*signature.bind(*args, **kwargs).arguments.values()]
        return tuple(given[: len(output)]) if isinstance(output, tuple) else given[0]

    return hand_on


def _adding_nothing(module: nn.Module, hands_on: str | None) -> Any:
    """A forward of the same signature whose first output is zero, and its second the argument that it hands on."""
    forward: Any = module.forward
    signature = inspect.signature(forward)

    def add_nothing(*args: Any, **kwargs: Any) -> Any:
        output = forward(*args, **kwargs)
        if hands_on is None:
            return torch.zeros_like(output)
        return torch.zeros_like(output[0]), signature.bind(*args, **kwargs).arguments[hands_on]

    return add_nothing


def _with_values(inputs: Mapping[str, Any], weight: Tensor) -> dict[str, Any]:
    generator, values = torch.Generator().manual_seed(0), {**inputs}
    for name, shape in inputs.items():
        if not is_shape(shape):
            values[name] = shape.to(weight.device) if isinstance(shape, Tensor) else shape
            continue
        value = torch.rand(shape.shape, generator=generator)
        if "timestep" in name or "mask" in name or not shape.is_floating_point():
            # A time in the middle; masks and places that leave nothing out.
            value = torch.full(shape.shape, 500.0 if "timestep" in name else 1.0)
        kept = weight.dtype if shape.is_floating_point() and "timestep" not in name else shape.dtype
        values[name] = value.to(weight.device, kept)
    return values


def _outputs(output: Any) -> list[Tensor]:
    values = output.values() if isinstance(output, dict) else output if isinstance(output, tuple) else (output,)
    return [value for value in values if isinstance(value, Tensor)]
