"""The planner: the set of units whose loss matters least for a wanted cost, as an integer program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vdmini.blocks import BlockGraph, Unit
from vdmini.errors import PlanError
from vdmini.plan import PruningPlan
from vdmini.rules import plan_removing

if TYPE_CHECKING:
    from torch import nn

    from vdmini.models.registry import VideoModel


@dataclass(frozen=True)
class Target:
    """What a student may cost, as shares of its teacher in (0, 1]; None does not limit.

    `time` is counted with the costs that the planner is given, `flops` and `params` with those of the graph.
    """

    flops: float | None = None
    params: float | None = None
    time: float | None = None

    def __post_init__(self) -> None:
        if not self._limits:
            raise PlanError("no target: give a share of the teacher's flops, params or time")
        for name, limit in self._limits.items():
            if not 0 < limit <= 1:
                raise PlanError(f"target {name}={limit:g} is no share of the teacher's: choose more than 0, at most 1")

    @property
    def _limits(self) -> dict[str, float]:
        return {name: limit for name, limit in vars(self).items() if limit is not None}

    def __str__(self) -> str:
        return ",".join(f"{name}={limit:g}" for name, limit in self._limits.items())


def plan_for_target(
    model: VideoModel | nn.Module,
    target: Target,
    scores: Mapping[str, float],
    unit_seconds: Mapping[str, float] | None = None,
    total_seconds: float | None = None,
) -> PruningPlan:
    """The plan that meets a target and loses the least score.

    `scores` says for each unit how much its removal costs: 0 or more, for instance what `importance` measured.
    `unit_seconds` and `total_seconds` are measured times of the units and of the whole denoiser, for a time target.
    Raises PlanError when scores are missing or the target cannot be met.
    """
    from vdmini.models.registry import graph_of

    graph = graph_of(model)
    removed = graph.blocks_of(cheapest_units(graph, target, scores, unit_seconds, total_seconds))
    return plan_removing(model, {*removed}, f"planner:{target}")


def cheapest_units(
    graph: BlockGraph,
    target: Target,
    scores: Mapping[str, float],
    unit_seconds: Mapping[str, float] | None = None,
    total_seconds: float | None = None,
) -> tuple[str, ...]:
    """Names of the units to remove: the least sum of scores among all sets that meet the target and its wiring.

    Equal sums are decided for the set that saves more. Raises PlanError as `plan_for_target` does.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp

    units = graph.units
    _check_scores(units, scores)
    savings, needed = _savings(graph, target, unit_seconds, total_seconds)
    cost = np.array([scores[unit.name] for unit in units])
    # Integer rounding aside, a saving of everything weighs less than the smallest difference of scores that matters.
    tie_break = 1e-9 * max(float(cost.max(initial=0.0)), 1e-9) * savings.mean(axis=0)
    constraints = [LinearConstraint(savings, lb=needed)]
    if wiring := _wiring(units):
        constraints.append(LinearConstraint(np.array(wiring), lb=0.0))
    result = milp(
        cost - tie_break, integrality=np.ones(len(units)), bounds=Bounds(0, 1), constraints=constraints,
        options={"mip_rel_gap": 0.0},
    )  # fmt: skip
    if result.x is None:
        least = 1 - savings.sum(axis=1)
        raise PlanError(
            f"target {target} cannot be met: with every unit removed {', '.join(f'{share:.3f}' for share in least)} of"
            " the teacher's cost is left: choose a larger share"
        )
    return tuple(unit.name for unit, chosen in zip(units, result.x, strict=True) if chosen > 0.5)


def _savings(
    graph: BlockGraph, target: Target, unit_seconds: Mapping[str, float] | None, total_seconds: float | None
) -> tuple[np.ndarray[tuple[int, int], np.dtype[np.float64]], list[float]]:
    """What each unit saves of each limited cost, as shares (limits x units), and what must be saved."""
    blocks = {block.name: block for block in graph.blocks}
    rows: list[list[float]] = []
    needed: list[float] = []
    for cost, limit in (("flops", target.flops), ("params", target.params)):
        if limit is not None:
            spent = {name: getattr(block, cost) for name, block in blocks.items()}
            whole = getattr(graph, cost)
            rows.append([sum(spent[name] for name in unit.blocks) / whole for unit in graph.units])
            needed.append(1 - limit)
    if target.time is not None:
        if unit_seconds is None or not total_seconds:
            raise PlanError("a time target needs measured times: run importance, which writes them, or target flops")
        rows.append([unit_seconds[unit.name] / total_seconds for unit in graph.units])
        needed.append(1 - target.time)
    return np.array(rows), needed


def _wiring(units: Sequence[Unit]) -> list[list[float]]:
    """One row for each requirement: a unit may only be gone when what it requires is."""
    return [
        [float(each.name == required) - float(each is unit) for each in units]
        for unit in units
        for required in unit.requires
    ]


def _check_scores(units: Sequence[Unit], scores: Mapping[str, float]) -> None:
    missing = [unit.name for unit in units if unit.name not in scores]
    if missing or not units:
        raise PlanError(f"no score for {', '.join(missing) or 'any unit'}: measure importance of this model first")
    wrong = [name for name, score in scores.items() if not (np.isfinite(score) and score >= 0)]
    if wrong:
        raise PlanError(f"scores of {', '.join(wrong)} are not 0 or more: measure importance of this model again")
