"""Features for distillation: which stages of student and teacher correspond, and how their outputs are recorded."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from types import TracebackType
from typing import Self

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from vdmini.models.registry import family_named, family_of
from vdmini.plan import PruningPlan


def feature_pairs(plan: PruningPlan) -> list[tuple[str, str]]:
    """(student stage, teacher stage) whose outputs have the same shape, in the order they run.

    A teacher stage that goes on to a downsampler the student lacks is tapped at its last kept block, for instance
    `D.2.1`. Raises PlanError when the plan's kept blocks do not fit together.
    """
    return family_named(plan.family).feature_pairs(plan.kept, plan.removed)


class FeatureTap:
    """Records the outputs of a denoiser's stages or blocks at each forward pass, until closed.

        with FeatureTap(denoiser, ["D.0", "U.1"]) as tap:
            denoiser(...)
        content, motion = tap.features  # (B T) C H W each

    Hooks sit on the modules themselves, so they also run when the denoiser is called through a wrapper. Give the
    denoiser itself, not the wrapper. Raises ValueError for a stage the denoiser lacks.
    """

    def __init__(self, denoiser: nn.Module, stages: Iterable[str]) -> None:
        family = family_of(denoiser)
        modules = {name: submodules[-1] for name, submodules in family.block_modules(denoiser).items()}
        modules |= family.stage_modules(denoiser)
        self.stages = tuple(stages)
        for stage in self.stages:
            if stage not in modules:
                raise ValueError(f"the denoiser has no stage {stage!r}: it has {', '.join(modules)}")
        self._outputs: dict[str, Tensor] = {}
        self._handles: list[RemovableHandle] = [denoiser.register_forward_pre_hook(self._start)]
        for stage in self.stages:
            self._handles.append(modules[stage].register_forward_hook(partial(self._record, stage)))

    @property
    def features(self) -> list[Tensor]:
        """The outputs of the last forward pass, (B T) C H W each, in the order the stages were asked for."""
        absent = [stage for stage in self.stages if stage not in self._outputs]
        if absent:
            raise RuntimeError(f"no output of {', '.join(absent)} was recorded: run the denoiser's forward first")
        return [self._outputs[stage] for stage in self.stages]

    def close(self) -> None:
        """Stop recording; what was recorded last stays in `features`."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _start(self, denoiser: nn.Module, inputs: tuple[object, ...]) -> None:
        self._outputs = {}

    def _record(self, stage: str, module: nn.Module, inputs: tuple[object, ...], output: object) -> None:
        hidden = output[0] if isinstance(output, tuple) else output
        if not isinstance(hidden, Tensor):
            raise TypeError(f"stage {stage!r} put out {type(hidden).__name__}, not a tensor")
        # Gradient checkpointing runs a module again in the backward pass; the first output is the one in the loss.
        self._outputs.setdefault(stage, hidden)
