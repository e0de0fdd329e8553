"""What a distillation will need, found before it starts: memory by a step on tensors without values."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vdmini.cost import FlopCounter
from vdmini.distill.batch import Batch
from vdmini.distill.processes import Processes, sharded_modules
from vdmini.distill.settings import DistillSettings
from vdmini.distill.training import Training
from vdmini.plan import PruningPlan
from vdmini.prune import apply_plan
from vdmini.tasks.base import Noised, Task


@dataclass(frozen=True)
class Estimate:
    """One process's share of a step: bytes that stay between steps, bytes at the worst moment, and FLOPs of the step.

    1 MAC = 2 FLOP, recomputation by gradient checkpointing included. `shares` are of the worst moments by FSDP on one
    process and on very many: bytes of each process's own, and bytes that are cut into shards, which are the student's
    weights, average, moments and gradients. Weights of `gathered_bytes` are whole all the same while they work.
    """

    held_bytes: int
    peak_bytes: int
    step_flops: int
    shares: tuple[tuple[int, int], ...] = ()
    gathered_bytes: int = 0

    def peak_in_shards(self, processes: int) -> int:
        """Bytes at the worst moment on each of so many processes that share the student by FSDP, of an equal share."""
        return max(own + cut // processes for own, cut in self.shares) + self.gathered_bytes


class PeakMemory(TorchDispatchMode):
    """Counts the bytes of all tensors that operations make while it is active, with values or without.

    What kernels take for themselves and what an allocator keeps back is not seen.
    """

    def __init__(self) -> None:
        super().__init__()
        self.held = 0
        # Of what is held, what `divide` named; and all else with this, when both and when all else alone was most.
        self._divided = 0
        self.shares = [(0, 0), (0, 0)]
        self._sizes: dict[int, int] = {}
        self._marked: set[int] = set()

    def __torch_dispatch__(
        self,
        func: Callable[..., object],
        types: Sequence[type],
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        """Run the operation and note the storages it made."""
        if func is torch.ops.aten.nonzero.default and isinstance(mask := args[0], Tensor):
            # How many entries are not 0 is not known: a mask counts as full.
            output: object = torch.zeros(mask.numel(), mask.dim(), dtype=torch.long)
        else:
            output = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(output):
            if isinstance(leaf, Tensor) and leaf.device.type != "meta":
                self._note(leaf.untyped_storage())
        return output

    def _note(self, storage: Any) -> None:
        address = storage._cdata
        if address not in self._sizes:
            self._sizes[address] = storage.nbytes()
            self.held += self._sizes[address]
            self._look()
            weakref.finalize(storage, self._forget, address)

    def reset(self) -> None:
        """Take what is held now for the worst moment."""
        self.shares = [(0, 0), (0, 0)]
        self._look()

    @property
    def peak(self) -> int:
        """Bytes at the worst moment."""
        return sum(self.shares[0])

    def _look(self) -> None:
        now = self.held - self._divided, self._divided
        whole, cut = self.shares
        self.shares = [max(whole, now, key=sum), max(cut, now)]

    def divide(self, tensors: Iterable[Tensor]) -> None:
        """Count these as divided for as long as they are held."""
        for tensor in tensors:
            address = tensor.untyped_storage()._cdata
            if address not in self._marked:
                self._marked.add(address)
                self._divided += self._sizes[address]

    def _forget(self, address: int) -> None:
        size = self._sizes.pop(address)
        self.held -= size
        if address in self._marked:
            self._marked.remove(address)
            self._divided -= size


@dataclass(frozen=True)
class _Shapes:
    """Clips of which only the shapes are known; stands where a LatentCache would."""

    shapes: Mapping[str, tuple[int, ...]]

    @property
    def unconditional(self) -> Mapping[str, Tensor]:
        return {name: torch.zeros(shape) for name, shape in self.shapes.items() if name != "latents"}

    def __len__(self) -> int:
        return 1

    def batch(self, indices: Tensor) -> dict[str, Tensor]:
        return {name: torch.zeros(len(indices), *shape) for name, shape in self.shapes.items()}


def estimate_step(
    teacher: nn.Module,
    plan: PruningPlan,
    shapes: Mapping[str, tuple[int, ...]],
    task: Task,
    settings: DistillSettings,
    *,
    teacher_dtype: torch.dtype = torch.float32,
    processes: int = 1,
) -> Estimate:
    """What a step of `distill` takes on each of `processes` processes that hold everything whole, as DDP's do.

    `teacher` is on the meta device, `shapes` are a latent cache's: of each tensor for one clip. Runs a step in full on
    tensors without values: it takes no memory and no device, and time only for the number of its operations.
    """
    # torch's own `to`: diffusers' warns of casts, which lose nothing where there are no values.
    student = nn.Module.to(apply_plan(teacher, plan), torch.float32)
    teacher = nn.Module.to(copy.deepcopy(teacher), teacher_dtype)
    share = settings.share(processes)
    micro = settings.micro_batch_size or share
    # What a task works out once and keeps, it must keep with values.
    one = torch.zeros(1, *shapes["latents"])
    task.network_input(task.noisy(one, one, levels := task.draw_levels(1, torch.Generator())), levels)
    with FakeTensorMode(allow_non_fake_inputs=True), PeakMemory() as memory, _everything_in_place():
        teacher, student = teacher.to_empty(device="cpu"), student.to_empty(device="cpu")
        training = Training(Processes(torch.device("cpu")), teacher, student, plan, _Shapes(shapes), task, settings)
        training.step = settings.discriminator_warmup
        with training:
            # What the optimisers hold comes with their first step, whatever the gradients.
            heads = training.adversary.heads.parameters() if settings.lambda_mca else ()
            for weight in (*student.parameters(), *heads):
                weight.grad = torch.zeros_like(weight)
            for weight in student.parameters():
                weight.register_post_accumulate_grad_hook(lambda it: memory.divide([it.grad]))
            for optimizer in (training.optimizer, training.adversary.optimizer):
                optimizer.step()
                # Those of one micro-batch are held while the next is worked on.
                if micro == share:
                    optimizer.zero_grad()
            memory.divide(_of_the_student(training))
            memory.reset()
            with FlopCounter() as counter:
                training.backward(_batch(shapes, task, micro), 1.0)
            training.update_weights(training.gradient_norm())
            held, flops = memory.held, counter.total * share // micro
    return Estimate(held, memory.peak, flops, tuple(memory.shares), _gathered_bytes(student))


def _of_the_student(training: Training) -> Iterator[Tensor]:
    """All that is kept for each of its weights."""
    yield from training.average.weights.values()
    for weight in training.bare_student.parameters():
        moments = training.optimizer.state[weight].values()
        yield from (each for each in (weight, weight.grad, *moments) if isinstance(each, Tensor))


def _gathered_bytes(student: nn.Module) -> int:
    """Bytes of what FSDP gathers at once: two blocks, as one is fetched while another works, and what is in none."""
    whole, *sizes = (
        sum(weight.numel() * weight.itemsize for weight in module.parameters())
        for module in (student, *sharded_modules(student))
    )
    return whole - sum(sizes) + sum(sorted(sizes)[-2:])


@contextmanager
def _everything_in_place() -> Iterator[None]:
    """Let modules stay where they are: torch cannot move weights without values, and these need not be moved."""
    with patch.object(nn.Module, "to", lambda module, *_: module):
        yield


def _batch(shapes: Mapping[str, tuple[int, ...]], task: Task, micro: int) -> Batch:
    clean = torch.zeros(micro, *shapes["latents"])
    conditions = {name: torch.zeros(micro, *shape) for name, shape in shapes.items() if name != "latents"}
    levels = torch.full((micro,), 0.5)
    if task.draw_guidance(1, torch.Generator()) is not None:
        conditions["guidance"] = torch.ones(micro)
    return Batch(Noised(clean, clean, levels), conditions, clean, levels)
