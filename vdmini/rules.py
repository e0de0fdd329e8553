"""Named pruning rules: each chooses, from a graph of blocks, those that a student loses.

A rule is written `name` or `name:option=value,...`, for instance `random:flops=0.7,seed=1`: what a plan records.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from vdmini.blocks import BlockGraph
from vdmini.errors import PlanError, nearest
from vdmini.plan import PruningPlan, architecture_sha256

if TYPE_CHECKING:
    from torch import nn

    from vdmini.models.registry import VideoModel

Options = Mapping[str, float]


@dataclass(frozen=True)
class Rule:
    """How to choose the blocks to remove, the options it takes with their defaults, and in a few words what it does.

    A rule of which `by_stage` is true takes the names of stages as options instead.
    """

    choose: Callable[[BlockGraph, Options], Iterable[str]]
    summary: str
    options: Options = field(default_factory=dict)
    by_stage: bool = False


def make_plan(model: VideoModel | nn.Module | str, rule: str = "vdmini") -> PruningPlan:
    """Plan what a rule keeps of a model: a loaded one, a bare denoiser, or a published one by its name.

    Raises PlanError for an unknown rule or option, and when the rule does not fit the model's topology.
    """
    from vdmini.models.loading import load_model
    from vdmini.models.registry import graph_of

    chosen, options = parse_rule(rule)
    if isinstance(model, str):
        model = load_model(model, random_weights=True, device="meta")
    return plan_removing(model, {*chosen.choose(graph_of(model), options)}, rule)


def parse_rule(text: str) -> tuple[Rule, dict[str, float]]:
    """The rule that a text names and all its options; raises PlanError for what it does not know."""
    name, _, rest = text.partition(":")
    if name not in RULES:
        raise PlanError(f"unknown rule {name!r}{nearest(name, RULES)}: choose one of {', '.join(sorted(RULES))}")
    rule = RULES[name]
    options = dict(rule.options)
    for part in rest.split(",") if rest else ():
        key, _, value = part.partition("=")
        if not rule.by_stage and key not in rule.options:
            takes = f"it takes {', '.join(rule.options)}" if rule.options else "it takes none"
            raise PlanError(f"rule {name!r} has no option {key!r}{nearest(key, rule.options)}: {takes}")
        try:
            options[key] = float(value)
        except ValueError as error:
            raise PlanError(
                f"rule {name!r}: {key}={value!r} is no number: write for instance {name}:{key}=1"
            ) from error
    return rule, options


def remove_nothing(graph: BlockGraph, options: Options) -> tuple[str, ...]:
    """Keep every block: the control of any comparison."""
    return ()


def removing(rule: str, *units: str) -> Callable[[BlockGraph, Options], tuple[str, ...]]:
    """Remove these units, by a rule of this name."""
    return lambda graph, options: graph.blocks_of(_known_units(graph, rule, units))


def remove_uniformly(graph: BlockGraph, options: Options) -> tuple[str, ...]:
    """Remove as many units as leave at least `flops` of the FLOPs, spread evenly in the order they run."""
    order = [block.name for block in graph.blocks]
    units = [unit.name for unit in sorted(graph.units, key=lambda unit: min(map(order.index, unit.blocks)))]
    removed: tuple[str, ...] = ()
    for count in range(1, len(units) + 1):
        places = [int((place + 0.5) * len(units) / count) for place in range(count)]
        blocks = graph.blocks_of([units[place] for place in places])
        if _flops_left(graph, blocks) < _share(options):
            break
        removed = blocks
    return removed


def remove_at_random(graph: BlockGraph, options: Options) -> tuple[str, ...]:
    """Remove units in an order drawn from `seed`, each that leaves at least `flops` of the FLOPs."""
    units = [unit.name for unit in graph.units]
    order = np.random.default_rng(int(options["seed"])).permutation(len(units))
    return _remove_in_order(graph, [units[place] for place in order], _share(options))


def remove_deepest_first(graph: BlockGraph, options: Options) -> tuple[str, ...]:
    """Remove the deepest units, each that leaves at least `flops` of the FLOPs: the control that should cost motion."""
    return _remove_in_order(graph, _deep_to_shallow(graph), _share(options))


def remove_shallowest_first(graph: BlockGraph, options: Options) -> tuple[str, ...]:
    """Remove the shallowest units, each that leaves at least `flops` of the FLOPs: the other end of the control."""
    return _remove_in_order(graph, _deep_to_shallow(graph)[::-1], _share(options))


def remove_every_nth(graph: BlockGraph, options: Options) -> tuple[str, ...]:
    """Remove the `n`-th, 2 `n`-th, ... block of each stack of a transformer, or group that leaves together."""
    _must_be_transformer(graph, "every-nth")
    step = int(options["n"])
    if step < 2:
        raise PlanError(f"rule 'every-nth': n={step} leaves nothing of a stack: choose 2 or more")
    groups = [group for stage in graph.stages for group in _groups(graph, stage)[step - 1 :: step]]
    return tuple(name for group in groups for name in group)


def keep_in_each_stack(graph: BlockGraph, options: Options) -> tuple[str, ...]:
    """Keep the stated number of blocks in each stack of a transformer, evenly spread, the first and last among them.

    Blocks that can only leave together count as one.
    """
    _must_be_transformer(graph, "keep")
    removed: list[str] = []
    stacks = [stage for stage in graph.stages if _groups(graph, stage)]
    for stage, wanted in options.items():
        blocks = _groups(graph, stage)
        if not 1 <= int(wanted) <= len(blocks):
            raise PlanError(
                f"rule 'keep': {stage}={wanted:g} cannot be kept of {len(blocks)} blocks: the stacks are"
                f" {', '.join(f'{name} ({len(_groups(graph, name))})' for name in stacks)}"
            )
        kept = {int(place) for place in np.linspace(0, len(blocks) - 1, int(wanted)).round()}
        removed += [name for place, group in enumerate(blocks) if place not in kept for name in group]
    return tuple(removed)


# The second pairs down, each with the middle pair up that reads its skip.
SHALLOW = ("D.0.1+U.3.1", "D.1.1+U.2.1")
BK_BASE = (*SHALLOW, "D.2.1+U.1.1", "D.3.1+U.0.1")
FLOPS = {"flops": 0.7}
RULES: dict[str, Rule] = {
    "none": Rule(remove_nothing, "keep everything"),
    # Thins the shallow stages, keeps the deep ones that carry motion and drops the lowest resolution, of four a side
    # (Wu et al., arXiv 2411.18375, as its published sizes imply).
    "vdmini": Rule(removing("vdmini", *SHALLOW, "Mid", "D.3+U.0"), "the paper's rule for UNets of four stages"),
    "second-pairs": Rule(removing("second-pairs", *SHALLOW), "thin the two shallowest resolutions"),
    # Kim et al., arXiv 2305.15798.
    "bk-base": Rule(removing("bk-base", *BK_BASE), "BK-SDM Base: one pair of every stage"),
    "bk-small": Rule(removing("bk-small", *BK_BASE, "Mid"), "BK-SDM Small: Base without the middle block"),
    "bk-tiny": Rule(
        removing("bk-tiny", *BK_BASE, "Mid", "D.3+U.0"), "BK-SDM Tiny: Small without the lowest resolution"
    ),
    "uniform": Rule(remove_uniformly, "spread evenly, down to a share of the FLOPs", FLOPS),
    "random": Rule(remove_at_random, "drawn by seed, down to a share of the FLOPs", {**FLOPS, "seed": 0}),
    "deepest-first": Rule(remove_deepest_first, "a control: the deepest first, down to a share of the FLOPs", FLOPS),
    "shallowest-first": Rule(remove_shallowest_first, "its mirror: the shallowest first", FLOPS),
    "every-nth": Rule(remove_every_nth, "every n-th block of each stack of a transformer", {"n": 5}),
    "keep": Rule(keep_in_each_stack, "so many blocks of each stack, e.g. keep:Dual=16,Single=32", by_stage=True),
}


def _known_units(graph: BlockGraph, rule: str, names: tuple[str, ...]) -> tuple[str, ...]:
    known = [unit.name for unit in graph.units]
    absent = [name for name in names if name not in known]
    if absent:
        raise PlanError(
            f"rule {rule!r} removes {', '.join(absent)}, which this model does not offer; it offers"
            f" {', '.join(known) or 'nothing'}: use a rule of another kind, such as 'uniform' or, for transformers,"
            " 'every-nth'"
        )
    return names


def _deep_to_shallow(graph: BlockGraph) -> list[str]:
    depth = {block.name: block.depth for block in graph.blocks}
    units = sorted(graph.units, key=lambda unit: -max(depth[name] for name in unit.blocks))
    return [unit.name for unit in units]


def _remove_in_order(graph: BlockGraph, units: Sequence[str], share: float) -> tuple[str, ...]:
    chosen: list[str] = []
    for unit in units:
        if _flops_left(graph, graph.blocks_of([*chosen, unit])) >= share:
            chosen.append(unit)
    return graph.blocks_of(chosen)


def _flops_left(graph: BlockGraph, removed: Sequence[str]) -> float:
    return graph.without(removed).flops / graph.flops


def _share(options: Options) -> float:
    share = options["flops"]
    if not 0 < share <= 1:
        raise PlanError(f"flops={share:g} is no share of the teacher's: choose more than 0 and at most 1")
    return share


def _groups(graph: BlockGraph, stage: str) -> list[tuple[str, ...]]:
    """The blocks of a stage that may leave, those together that can only leave together."""
    names = {block.name for block in graph.stage(stage)}
    groups = [tuple(name for name in unit.blocks if name in names) for unit in graph.units]
    return [group for group in groups if group]


def _must_be_transformer(graph: BlockGraph, rule: str) -> None:
    if "D.0" in graph.stages:
        raise PlanError(f"rule {rule!r} is for transformers, this model is a UNet: use 'vdmini' or 'uniform'")


def plan_removing(model: VideoModel | nn.Module, removed: Collection[str], rule: str) -> PruningPlan:
    """The plan that removes the named blocks of a loaded model or a bare denoiser; `rule` says how they were chosen.

    Raises PlanError when a block is unknown or what is left cannot be wired.
    """
    from vdmini.models.registry import VideoModel, family_named, graph_of

    graph = graph_of(model)
    denoiser = model.denoiser if isinstance(model, VideoModel) else model
    unknown = sorted({*removed} - {*graph.prunable})
    if unknown:
        raise PlanError(f"no block {', '.join(unknown)} to remove: the blocks are {', '.join(graph.prunable)}")
    family = family_named(graph.family)
    kept = tuple(name for name in graph.prunable if name not in removed)
    gone = tuple(name for name in graph.prunable if name in removed)
    family.student_names(kept, gone)
    return PruningPlan(
        family=graph.family,
        teacher=architecture_sha256(family.architecture(denoiser)),
        rule=rule,
        kept=kept,
        removed=gone,
        skips=family.skip_wiring(kept),
    )
