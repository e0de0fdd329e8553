"""Channel pruning, the baselines: a UNet with narrower layers, by the rules of Torch-Pruning's dependency graph.

A rule is written `importance` or `importance:option=value,...`, for instance `depgraph-l2:ratio=0.2,pair_gates=1`.
"""

from __future__ import annotations

import copy
import importlib
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vdmini.blocks import ModelInput
from vdmini.errors import PlanError, nearest
from vdmini.models.family import Family
from vdmini.models.registry import FAMILIES, family_named, family_of

IMPORTANCES = ("depgraph-l2", "depgraph-taylor", "magnitude")
# Heads and normalisation groups lose whole channels each, so the share that goes is near the one asked for, not equal.
TOLERANCE = 0.02
# Torch-Pruning walks the graph of a four-stage UNet with skip connections deeper than its own and Python's limits.
WALK_LIMIT = 1_000_000
PYTHON_LIMIT = 20_000

# What its graph of HunyuanVideo, Wan, CogVideoX, LTX-Video and Mochi gets wrong, in 1.6.1.
TRANSFORMERS = (
    ", a transformer, whose channels Torch-Pruning loses where modulation splits them, positions rotate them or texts"
    " join videos"
)


class RatioError(RuntimeError):
    """A share of channels that cannot be removed; the message says what could be, and what to do."""


@dataclass(frozen=True)
class ChannelRule:
    """How channels are ranked and which share of them goes; the names are those of `prune_channels`."""

    importance: str
    ratio: float = 0.2
    pair_gates: bool = False
    tolerance: float = TOLERANCE

    def __str__(self) -> str:
        """The rule as `parse_channel_rule` reads it, the same for every way of writing it."""
        options = [f"ratio={self.ratio!r}", *(["pair_gates=1"] if self.pair_gates else [])]
        options += [f"tolerance={self.tolerance!r}"] if self.tolerance != TOLERANCE else []
        return f"{self.importance}:{','.join(options)}"


def parse_channel_rule(text: str) -> ChannelRule:
    """The rule that a text such as `depgraph-l2:ratio=0.2` names; raises PlanError for what it does not know."""
    name, _, rest = text.partition(":")
    if name not in IMPORTANCES:
        raise PlanError(
            f"unknown channel rule {name!r}{nearest(name, IMPORTANCES)}: choose one of {', '.join(IMPORTANCES)}"
        )
    options = {"ratio": ChannelRule.ratio, "pair_gates": float(ChannelRule.pair_gates), "tolerance": TOLERANCE}
    for part in rest.split(",") if rest else ():
        key, _, value = part.partition("=")
        if key not in options:
            raise PlanError(
                f"channel rule {name!r} has no option {key!r}{nearest(key, options)}: it takes {', '.join(options)}"
            )
        try:
            options[key] = float(value)
        except ValueError as error:
            raise PlanError(
                f"channel rule {name!r}: {key}={value!r} is no number: write for instance {name}:ratio=0.2"
            ) from error
    if not 0.0 < options["ratio"] < 1.0:
        raise PlanError(f"channel rule {name!r}: ratio={options['ratio']:g} is no share: choose between 0 and 1")
    if options["pair_gates"] not in (0.0, 1.0):
        raise PlanError(f"channel rule {name!r}: pair_gates={options['pair_gates']:g} is neither 1 nor 0")
    if not 0.0 <= options["tolerance"] < 1.0:
        raise PlanError(f"channel rule {name!r}: tolerance={options['tolerance']:g} is no share: take 0 to below 1")
    return ChannelRule(name, options["ratio"], bool(options["pair_gates"]), options["tolerance"])


def prune_channels(
    denoiser: nn.Module,
    example_inputs: Mapping[str, Tensor] | None = None,
    *,
    importance: str = "depgraph-l2",
    ratio: float = 0.2,
    loss: Callable[[nn.Module], Tensor] | None = None,
    pair_gates: bool = False,
    tolerance: float = TOLERANCE,
) -> nn.Module:
    """A copy of SVD's or VideoCrafter2's UNet, whole or block-pruned, without the least important `ratio` of channels.

    `importance` ranks the channels of each group of layers that must be pruned together: "depgraph-l2" by the L2 norm
    of all their weights, "depgraph-taylor" by the first-order change of `loss(denoiser)`, a scalar that is computed
    once on the copy, "magnitude" by the L1 norm of the group's first layer alone. Every head and every normalisation
    group loses the same number. Torch-Pruning ranks the values and the gates of a feed-forward apart, and then removes
    each with its partner, so that about twice `ratio` of them go; with `pair_gates`, needed from a ratio of 0.5 on, the
    pairs are ranked and `ratio` of them go. `example_inputs` are the arguments of one forward pass, of any size that
    runs, a very small one by default. On the meta device, where no weight has a value, the last channels go: sizes are
    those of a real run with `pair_gates`, and near them without.

    The result saves and reloads like any diffusers model. Raises TypeError for another family's network, ModelLoadError
    for one of none, ValueError for unusable arguments, RatioError when the share of channels removed is not within
    `tolerance` of `ratio`, and ImportError without Torch-Pruning. Source: DepGraph (Fang et al., CVPR 2023); Molchanov
    et al., CVPR 2019; Li et al., ICLR 2017.
    """
    family = family_of(denoiser)
    native = channel_class(family)
    if importance not in IMPORTANCES:
        raise ValueError(f"unknown importance {importance!r}: choose one of {', '.join(IMPORTANCES)}")
    if not 0.0 < ratio < 1.0:
        raise ValueError(f"ratio is the share of channels to remove, between 0 and 1, got {ratio}")
    if ratio >= 0.5 and not pair_gates:
        raise RatioError(
            f"with ratio {ratio:g} the values and the gates of a feed-forward, ranked apart, would leave nothing of it:"
            " set pair_gates, or choose a ratio below 0.5"
        )
    if (loss is not None) != (importance == "depgraph-taylor"):
        raise ValueError(f"importance 'depgraph-taylor' needs a loss and no other does, got {importance!r}")
    on_meta = next(denoiser.parameters()).device.type == "meta"
    score = _score_nothing if on_meta else _score(importance)
    network: Any = copy.deepcopy(denoiser).requires_grad_(True)
    fixed = {layer for name in family.fixed_layers if (layer := getattr(network, name, None))}
    network.disable_gradient_checkpointing()
    with torch.enable_grad():
        if loss is not None and not on_meta:
            _differentiate(network, loss)
        before = _channels(network, fixed)
        _prune(network, example_inputs or _small_inputs(family, denoiser), score, ratio, pair_gates, fixed)
    achieved = 1 - _channels(network, fixed) / before
    if abs(achieved - ratio) > tolerance:
        raise RatioError(
            f"asked to remove {ratio:.3f} of the channels, {achieved:.3f} could go: a normalisation group or a head"
            " too small for that ratio stays whole, so choose a ratio that takes a whole number of channels of each, or"
            " a wider tolerance"
        )
    return _native(native, denoiser, network).train(denoiser.training)


def channel_class(family: Family) -> type[nn.Module]:
    """The class of a family's students that lost channels; raises TypeError where channel pruning does not know it."""
    if family.channel_class is None:
        from vdmini.models.transformer import TransformerFamily

        known = [repr(name) for name in FAMILIES if family_named(name).channel_class]
        why = TRANSFORMERS if isinstance(family, TransformerFamily) else ""
        raise TypeError(
            f"channel pruning knows families {' and '.join(known)}, this model is of family {family.name!r}{why}: prune"
            " its blocks alone, without channels"
        )
    return family.channel_class


def _small_inputs(family: Family, denoiser: nn.Module) -> dict[str, Tensor]:
    """Zeros for one clip of two frames, two latents a side at the lowest resolution."""
    network: Any = denoiser
    side = 2 ** len(network.down_blocks)
    weight = next(denoiser.parameters())
    shapes = family.example_inputs(denoiser, ModelInput(batch=1, frames=2, height=side, width=side))
    return {name: torch.zeros_like(shape, dtype=weight.dtype, device=weight.device) for name, shape in shapes.items()}


def _torch_pruning() -> Any:
    try:
        return importlib.import_module("torch_pruning")
    except ImportError as error:
        raise ImportError("channel pruning needs Torch-Pruning: pip install 'vdmini[channels]'") from error


def _score(importance: str) -> Callable[[Any], Tensor | None]:
    scores = _torch_pruning().pruner.importance
    if importance == "depgraph-l2":
        score: Callable[[Any], Tensor | None] = scores.GroupMagnitudeImportance(p=2)
    elif importance == "depgraph-taylor":
        score = scores.GroupTaylorImportance()
    else:
        score = scores.GroupMagnitudeImportance(p=1, group_reduction="first")
    return score


def _score_nothing(group: Any) -> Tensor:
    """Scores on the CPU that fall with the index, for weights without values."""
    return -torch.arange(len(group[0].idxs), dtype=torch.float32)


def _differentiate(network: nn.Module, loss: Callable[[nn.Module], Tensor]) -> None:
    network.eval()
    loss(network).backward()
    untouched = [name for name, parameter in network.named_parameters() if parameter.grad is None]
    if untouched:
        raise ValueError(
            f"the loss does not depend on {untouched[0]} and {len(untouched) - 1} more weights: compute it from the"
            " output of the network that it is given"
        )


def _prune(
    network: nn.Module,
    example_inputs: Mapping[str, Tensor],
    score: Callable[[Any], Tensor | None],
    ratio: float,
    pair_gates: bool,
    fixed: set[nn.Module],
) -> None:
    """Remove channels in place, but none that the `fixed` layers write."""
    # Here, since scoring videos needs no diffusers and its import takes seconds.
    from diffusers.models.attention_processor import Attention

    torch_pruning = _torch_pruning()
    heads = {
        projection: attention.heads
        for attention in network.modules()
        if isinstance(attention, Attention)
        for projection in (attention.to_q, attention.to_k, attention.to_v)
    }
    with _deep_walks(), warnings.catch_warnings():
        # The blending factors: one number each, which no channel count touches.
        warnings.filterwarnings("ignore", "Unwrapped parameters detected")
        warnings.filterwarnings("error", "Maximum recursive depth")
        pruner = torch_pruning.pruner.BasePruner(
            network,
            dict(example_inputs),
            importance=score,
            pruning_ratio=ratio,
            ignored_layers=[*fixed],
            num_heads=heads,
            # Its defaults are dictionaries that all pruners of a process would share.
            in_channel_groups={},
            out_channel_groups=dict.fromkeys(_gated_projections(network), 2) if pair_gates else {},
            forward_fn=lambda model, inputs: model(**inputs).sample,
        )
        pruner.step()


@contextmanager
def _deep_walks() -> Iterator[None]:
    constants: Any = importlib.import_module("torch_pruning.dependency.constants")
    walk_limit, python_limit = constants.MAX_RECURSION_DEPTH, sys.getrecursionlimit()
    constants.MAX_RECURSION_DEPTH = WALK_LIMIT
    sys.setrecursionlimit(max(python_limit, PYTHON_LIMIT))
    try:
        yield
    finally:
        constants.MAX_RECURSION_DEPTH = walk_limit
        sys.setrecursionlimit(python_limit)


def _gated_projections(network: nn.Module) -> list[nn.Linear]:
    """The layers that write a feed-forward's values and, in their second half, the gates of those values."""
    from diffusers.models.activations import GEGLU

    return [module.proj for module in network.modules() if isinstance(module, GEGLU)]


def _channels(network: nn.Module, fixed: set[nn.Module]) -> int:
    """Number of channels that layers write, those of `fixed` ones and of gated feed-forwards left out."""
    left_out = {*fixed, *_gated_projections(network)}
    layers = (each for each in network.modules() if isinstance(each, nn.Conv2d | nn.Conv3d | nn.Linear))
    return sum(layer.weight.shape[0] for layer in layers if layer not in left_out)


def _native(native: type[nn.Module], denoiser: nn.Module, network: nn.Module) -> nn.Module:
    """The pruned weights in the class whose configuration tells their shapes."""
    before = denoiser.state_dict()
    weights = network.state_dict()
    layer_channels = {
        name.removesuffix(".weight"): [*weight.shape[:2]]
        for name, weight in weights.items()
        if name.endswith(".weight") and weight.shape != before[name].shape
    }
    settings: Any = denoiser.config
    config = {name: value for name, value in settings.items() if not name.startswith("_")}
    # Of a network that was narrowed before, layers that stay as they are keep the widths they have.
    layer_channels = (config.get("layer_channels") or {}) | layer_channels
    config |= {"layer_channels": layer_channels}
    with torch.device("meta"):
        student = native(**config)
    student.load_state_dict(weights, assign=True)
    return student
