"""The weights of StyleGAN-V's `i3d_torchscript.pt` in our own I3D, once it was seen to answer as the file does.

The file is called as `script(x, rescale, resize, return_features)` with x B 3 T H W. Its layers are told by the order
and the shapes of their weights, since ports of the network to PyTorch name them in several ways.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from vdmini_bench.assets.torchscript import ask_script, open_script
from vdmini_bench.metrics.agreement import ROUNDING, largest_difference, probe_clips
from vdmini_bench.metrics.fvd import prepare_clips
from vdmini_bench.metrics.i3d import CLASSES, ConvolutionUnit, InceptionI3d

# The original's batch norms have the first, ports to PyTorch often the second; no file says which.
EPSILONS = (1e-3, 1e-5)
# A layer's tensors by what they are: `weight` and `bias` of the convolution, `norm.` and the rest.
Layer = dict[str, Tensor]


def read_i3d_script(path: Path) -> dict[str, Tensor]:
    """The state dict of `InceptionI3d` with folded norms that answers as the file does, on frames it resizes too.

    Raises:
        ValueError: the file is no TorchScript, or another network.
    """
    script = open_script(path)
    clips = probe_clips()
    video = prepare_clips(clips, torch.device("cpu"), "plain")
    answers = [
        ask_script(script, video, rescale=False, resize=False, return_features=True),
        ask_script(script, clips.transpose(1, 2), rescale=True, resize=True, return_features=True),
    ]
    if any(tuple(answer.shape) != (len(clips), CLASSES) for answer in answers):
        raise ValueError(f"it gives {tuple(answers[0].shape)} where I3D has B x {CLASSES} logits")
    layers = _layers(script.state_dict())
    candidates = [_network(layers, epsilon) for epsilon in EPSILONS]
    with torch.inference_mode():
        differences = [max(largest_difference(network(video), answer) for answer in answers) for network in candidates]
    nearest = min(differences)
    # Said this way round, a difference that is no number is refused too.
    if not nearest <= ROUNDING:
        raise ValueError(f"with its weights our I3D gives logits that are {nearest:.2g} from its own: another network")
    return candidates[differences.index(nearest)].state_dict()


def _layers(state: Mapping[str, Tensor]) -> list[Layer]:
    """The layers of a state dict in their order, each told by its 5-dimensional weight."""
    layers: list[Layer] = []
    owner = ""
    for name, value in state.items():
        module, _, leaf = name.rpartition(".")
        if value.ndim == 5:
            layers.append({"weight": value})
            owner = module
        elif layers and value.ndim == 1:
            layers[-1][leaf if module == owner else f"norm.{leaf}"] = value
    return layers


def _network(layers: Sequence[Layer], epsilon: float) -> InceptionI3d:
    """Our network with the layers' weights; the classifier may stand anywhere among them, the others stand in order.

    Raises:
        ValueError: there are other layers.
    """
    network = InceptionI3d().requires_grad_(False)
    units = [module for module in network.modules() if isinstance(module, ConvolutionUnit)]
    wanted = [tuple(unit.convolution.weight.shape) for unit in units]
    last = tuple(network.logits.weight.shape)
    own = [layer for layer in layers if tuple(layer["weight"].shape) != last]
    classifiers = [layer for layer in layers if tuple(layer["weight"].shape) == last]
    found = [tuple(layer["weight"].shape) for layer in own]
    if found != wanted or len(classifiers) != 1:
        raise ValueError(
            f"it has {len(layers)} convolutions over time of other shapes than I3D's {len(wanted) + 1}: another network"
        )
    network.logits.weight.copy_(classifiers[0]["weight"])
    assert network.logits.bias is not None
    network.logits.bias.copy_(classifiers[0].get("bias", torch.zeros(CLASSES)))
    for unit, layer in zip(units, own, strict=True):
        _fill(unit, layer, epsilon)
    return network


def _fill(unit: ConvolutionUnit, layer: Layer, epsilon: float) -> None:
    """Give a unit a layer's weights, its batch norm folded; a layer without one was folded before."""
    shift = layer.get("bias", torch.zeros(len(layer["weight"])))
    norm = unit.norm
    if "norm.running_mean" not in layer:
        unit.fold_norm()
        unit.convolution.weight = nn.Parameter(layer["weight"].clone(), requires_grad=False)
        unit.convolution.bias = nn.Parameter(shift.clone(), requires_grad=False)
        return
    assert isinstance(norm, nn.BatchNorm3d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    unit.convolution.weight.copy_(layer["weight"])
    norm.eps = epsilon
    norm.running_mean.copy_(layer["norm.running_mean"] - shift)
    norm.running_var.copy_(layer["norm.running_var"])
    norm.weight.copy_(layer.get("norm.weight", torch.ones_like(norm.weight)))
    norm.bias.copy_(layer.get("norm.bias", torch.zeros_like(norm.bias)))
    unit.fold_norm()
