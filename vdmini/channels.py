"""Channel pruning, the baselines: a UNet with narrower layers, by the rules of Torch-Pruning's dependency graph."""

from __future__ import annotations

import copy
import importlib
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from diffusers.configuration_utils import register_to_config
from diffusers.models.activations import GEGLU
from diffusers.models.attention_processor import Attention
from diffusers.models.downsampling import Downsample2D
from diffusers.models.unets.unet_spatio_temporal_condition import UNetSpatioTemporalConditionModel
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn

from vdmini.models.svd import MID_BLOCK_TYPE, VDMiniUNetSpatioTemporal

IMPORTANCES = ("depgraph-l2", "depgraph-taylor", "magnitude")
# Heads and normalisation groups lose whole channels each, so the share that goes is near the one asked for, not equal.
TOLERANCE = 0.02
# Torch-Pruning walks the graph of a four-stage UNet with skip connections deeper than its own and Python's limits.
WALK_LIMIT = 1_000_000
PYTHON_LIMIT = 20_000


class VDMiniChannelPrunedUNetSpatioTemporal(VDMiniUNetSpatioTemporal):
    """SVD's UNet, whole or block-pruned, with layers of their own widths.

    `layer_channels` gives the first two sizes of the weight (one for a normalisation) of every layer, by its name,
    whose width the other arguments do not tell. Raises ValueError for a layer that is not there or would grow.
    """

    # diffusers writes this name into model_index.json and asks the module of this name for the class when loading.
    __module__ = "vdmini"

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        sample_size: int | None = None,
        in_channels: int = 8,
        out_channels: int = 4,
        down_block_types: tuple[str, ...] = (*("CrossAttnDownBlockSpatioTemporal",) * 3, "DownBlockSpatioTemporal"),
        up_block_types: tuple[str, ...] = ("UpBlockSpatioTemporal", *("CrossAttnUpBlockSpatioTemporal",) * 3),
        block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280),
        addition_time_embed_dim: int = 256,
        projection_class_embeddings_input_dim: int = 768,
        layers_per_block: int | tuple[int, ...] = 2,
        cross_attention_dim: int | tuple[int, ...] = 1024,
        transformer_layers_per_block: int | tuple[int, ...] = 1,
        num_attention_heads: int | tuple[int, ...] = (5, 10, 20, 20),
        num_frames: int = 25,
        mid_block_type: str | None = MID_BLOCK_TYPE,
        layer_channels: dict[str, list[int]] | None = None,
    ) -> None:
        super().__init__(
            sample_size=sample_size,
            in_channels=in_channels,
            out_channels=out_channels,
            down_block_types=down_block_types,
            up_block_types=up_block_types,
            block_out_channels=block_out_channels,
            addition_time_embed_dim=addition_time_embed_dim,
            projection_class_embeddings_input_dim=projection_class_embeddings_input_dim,
            layers_per_block=layers_per_block,
            cross_attention_dim=cross_attention_dim,
            transformer_layers_per_block=transformer_layers_per_block,
            num_attention_heads=num_attention_heads,
            num_frames=num_frames,
            mid_block_type=mid_block_type,
        )
        for name, channels in (layer_channels or {}).items():
            _narrow(self, name, channels)
        _follow_layers(self)


def prune_channels(
    denoiser: nn.Module,
    example_inputs: Mapping[str, Tensor],
    *,
    importance: str = "depgraph-l2",
    ratio: float = 0.2,
    loss: Callable[[nn.Module], Tensor] | None = None,
    pair_gates: bool = False,
) -> VDMiniChannelPrunedUNetSpatioTemporal:
    """A copy of SVD's UNet, or of a block-pruned student, without the least important `ratio` of the channels.

    `importance` ranks the channels of each group of layers that must be pruned together: "depgraph-l2" by the L2 norm
    of all their weights, "depgraph-taylor" by the first-order change of `loss(denoiser)`, a scalar that is computed
    once on the copy, "magnitude" by the L1 norm of the group's first layer alone. Every head and every normalisation
    group loses the same number. Torch-Pruning ranks the values and the gates of a feed-forward apart, and then removes
    each with its partner, so that up to twice `ratio` of them go; with `pair_gates` the pairs are ranked and `ratio` of
    them go. `example_inputs` are the arguments of one forward pass, of any size that runs. On the meta device, where no
    weight has a value, the last channels go: sizes and costs are close to those of a real run.

    The result saves and reloads like any diffusers model. Raises TypeError for another network, ValueError for unusable
    arguments, RuntimeError when the share of channels removed is not within 0.02 of `ratio`, and ImportError without
    Torch-Pruning. Source: DepGraph (Fang et al., CVPR 2023); Molchanov et al., CVPR 2019; Li et al., ICLR 2017.
    """
    if not isinstance(denoiser, UNetSpatioTemporalConditionModel):
        raise TypeError(f"channel pruning knows UNetSpatioTemporalConditionModel, not {type(denoiser).__name__}")
    if importance not in IMPORTANCES:
        raise ValueError(f"unknown importance {importance!r}: choose one of {', '.join(IMPORTANCES)}")
    if not 0.0 < ratio < 1.0:
        raise ValueError(f"ratio is the share of channels to remove, between 0 and 1, got {ratio}")
    if (loss is not None) != (importance == "depgraph-taylor"):
        raise ValueError(f"importance 'depgraph-taylor' needs a loss and no other does, got {importance!r}")
    on_meta = next(denoiser.parameters()).device.type == "meta"
    score = _score_nothing if on_meta else _score(importance)
    network: Any = copy.deepcopy(denoiser).requires_grad_(True)
    network.disable_gradient_checkpointing()
    with torch.enable_grad():
        if loss is not None and not on_meta:
            _differentiate(network, loss)
        _prune(network, example_inputs, score, ratio, pair_gates)
    achieved = 1 - _channels(network) / _channels(denoiser)
    if abs(achieved - ratio) > TOLERANCE:
        raise RuntimeError(
            f"asked to remove {ratio:.3f} of the channels, {achieved:.3f} could go: a normalisation group or a head"
            " too small for that ratio stays whole, so choose a ratio that takes a whole number of channels of each"
        )
    return _native(denoiser, network).train(denoiser.training)


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
) -> None:
    """Remove channels in place."""
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
            ignored_layers=[network.conv_out],
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
    return [module.proj for module in network.modules() if isinstance(module, GEGLU)]


def _channels(network: nn.Module) -> int:
    """Number of channels that layers write, those of the output and of gated feed-forwards left out."""
    left_out = {network.conv_out, *_gated_projections(network)}
    layers = (each for each in network.modules() if isinstance(each, nn.Conv2d | nn.Conv3d | nn.Linear))
    return sum(layer.weight.shape[0] for layer in layers if layer not in left_out)


def _native(denoiser: nn.Module, network: nn.Module) -> VDMiniChannelPrunedUNetSpatioTemporal:
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
    config = {"mid_block_type": MID_BLOCK_TYPE} | config | {"layer_channels": layer_channels}
    with torch.device("meta"):
        student = VDMiniChannelPrunedUNetSpatioTemporal(**config)
    student.load_state_dict(weights, assign=True)
    return student


def _narrow(network: nn.Module, name: str, channels: Sequence[int]) -> None:
    """Cut one layer's weights to the first channels."""
    try:
        layer: Any = network.get_submodule(name)
        before = layer.weight.shape[:2]
    except AttributeError as error:
        raise ValueError(f"layer_channels names {name!r}, which this network lacks") from error
    if len(channels) != len(before) or any(not 0 < new <= old for new, old in zip(channels, before, strict=True)):
        raise ValueError(f"{name} has {[*before]} channels, which {[*channels]} cannot be cut from")
    layer.weight = nn.Parameter(layer.weight.detach()[tuple(slice(0, size) for size in channels)].clone())
    if layer.bias is not None:
        layer.bias = nn.Parameter(layer.bias.detach()[: channels[0]].clone())
    if isinstance(layer, nn.GroupNorm):
        layer.num_channels = channels[0]
    elif isinstance(layer, nn.LayerNorm):
        layer.normalized_shape = (channels[0],)
    elif isinstance(layer, nn.Linear):
        layer.out_features, layer.in_features = channels
    else:
        layer.out_channels, layer.in_channels = channels


def _follow_layers(network: nn.Module) -> None:
    """Tell the modules that remember a width what the layers inside them have now."""
    for module in network.modules():
        if isinstance(module, Upsample2D | Downsample2D):
            module.channels, module.out_channels = module.conv.in_channels, module.conv.out_channels
        elif isinstance(module, Attention):
            module.inner_dim = module.inner_kv_dim = module.to_q.out_features
            module.query_dim = module.to_q.in_features
            module.cross_attention_dim = module.to_k.in_features
            module.out_dim = module.to_out[0].out_features
            module.scale = (module.inner_dim // module.heads) ** -0.5
