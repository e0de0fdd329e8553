"""Low-rank adapters (LoRA): renamed for a student of their model, and merged into weights by diffusers and peft."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from diffusers import DiffusionPipeline
from diffusers.utils.state_dict_utils import convert_unet_state_dict_to_peft
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from vdmini.errors import ModelLoadError
from vdmini.models.folders import read_json
from vdmini.plan import PruningPlan
from vdmini.prune import SECOND_EXPERT, names_in_student

# What formats call the first of each pair of matrices.
FIRST = ("lora_A.", "lora_down.", "lora.down.")
# What stands before the name of a denoiser's layer; kohya's scripts write "_" for every "." of that name.
KOHYA = "lora_unet_"
PREFIXES = ("transformer.", "unet.", "base_model.model.", KOHYA)
# What the names of other parts' layers begin with.
OTHER_PARTS = ("text_encoder", "lora_te", "connectors.")
# In a file's header: where diffusers keeps an adapter's configuration, and we the plan that it was mapped by.
CONFIG, MAPPED = "lora_adapter_metadata", "vdmini_plan"


@dataclass(frozen=True)
class MappedLora:
    """An adapter renamed for a student, and what of it the student has no place for.

    `config` are the fields of peft's configuration, None where the weights say all. `removed` are the keys of each
    removed block that has some, `unread` those keys of a file that diffusers' loader leaves out.
    """

    weights: dict[str, Tensor]
    config: dict[str, Any] | None
    removed: dict[str, list[str]]
    unread: tuple[str, ...] = ()


def map_lora(
    weights: Mapping[str, Tensor], teacher: nn.Module, plan: PruningPlan, config: Mapping[str, Any] | None = None
) -> MappedLora:
    """The adapter of a teacher's denoiser, renamed for the student that a plan makes of it.

    `weights` have diffusers' or peft's names, which change in the numbers of blocks alone; `config` are the fields of
    peft's LoraConfig, where there is one. Alphas, biases and DoRA's magnitudes go with their layers; layers of other
    parts stay as they are. The teacher may be on the meta device. Raises ModelLoadError for layers that the teacher
    lacks or has in other sizes, PlanError as `apply_plan` does.
    """
    kept, blocks = names_in_student(teacher, plan)
    modules = dict(teacher.named_modules())
    flat = {name.replace(".", "_"): name for name in modules}
    found = MappedLora({}, None, {})
    layers: dict[str, str] = {}
    ranks: dict[str, int] = {}
    misfits = []
    for key, weight in weights.items():
        if key.startswith(OTHER_PARTS):
            found.weights[key] = weight
            continue
        prefix, written = _written_layer(key)
        layer = flat.get(written, "") if prefix == KOHYA else written
        if layer not in (kept | blocks) or not _fits(key, weight, modules[layer]):
            misfits.append(key)
        elif layer in blocks:
            found.removed.setdefault(blocks[layer], []).append(key)
        else:
            layers[layer] = kept[layer]
            name = kept[layer].replace(".", "_") if prefix == KOHYA else kept[layer]
            found.weights[prefix + name + key.removeprefix(prefix + written)] = weight
            if key.endswith(".lora_B.weight"):
                ranks[kept[layer]] = weight.shape[1]
    if misfits:
        raise ModelLoadError(
            f"{len(misfits)} of {len(weights)} keys, such as {misfits[0]!r}, fit no layer of this"
            f" {type(teacher).__name__}: give a LoRA made for this very model"
        )
    return found if config is None else replace(found, config=_config_by_layer(config, layers, ranks))


def map_lora_file(
    file: str | Path, loader: type[Any], teacher: nn.Module, plan: PruningPlan, output: Path
) -> MappedLora:
    """Write the adapter of a teacher's file for its student, as `loader`, the class of their pipelines, reads it.

    The file is in any format that diffusers reads for these pipelines. Raises ModelLoadError and PlanError as
    `map_lora` does, and where nothing is left or the file was mapped before.
    """
    weights, configs = read_lora(loader, file)
    with safe_open(file, "pt") as opened:
        if MAPPED in (opened.metadata() or {}):
            raise ModelLoadError(f"{str(file)!r} was mapped for a student: give the teacher's own file")
    prefix = "unet." if hasattr(loader, "unet_name") else "transformer."
    config = {key.removeprefix(prefix): value for key, value in configs.items() if key.startswith(prefix)}
    found = map_lora(weights, teacher, plan, config or None)
    own = load_file(file)
    if prefix == "unet." and any(key.endswith(".alpha") for key in own):
        # Nothing but kohya's names can say alphas of a UNet, so these stay.
        found = map_lora(own, teacher, plan)
    if all(key.startswith(OTHER_PARTS) for key in found.weights):
        raise ModelLoadError(f"{str(file)!r} has no layer of a block that is kept: the student needs nothing of it")
    header = {"format": "pt", MAPPED: plan.to_json()}
    if found.config is not None:
        settings = {f"{prefix}{key}": value for key, value in found.config.items()}
        header[CONFIG] = json.dumps(configs | settings, sort_keys=True)
    output.parent.mkdir(parents=True, exist_ok=True)
    # Copies, since one matrix may stand for several layers.
    save_file({key: weight.clone().contiguous() for key, weight in found.weights.items()}, output, header)
    return replace(found, unread=_unread(loader, own))


def read_lora(loader: type[Any], file: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """A file's weights by the names of a pipeline class's layers, and its configuration, as diffusers reads them.

    Raises ModelLoadError for what is no LoRA of these pipelines, and for one with DoRA's magnitudes in a format of
    which diffusers leaves these out: what is loaded then is another adapter.
    """
    try:
        if any("dora_scale" in key for key in load_file(file)):
            raise ValueError("diffusers leaves 'dora_scale' out: save these magnitudes as peft names them")
        weights, *_, config = loader.lora_state_dict(
            str(file), return_lora_metadata=True, use_safetensors=True, local_files_only=True
        )
        if not weights or not all(key.startswith((*PREFIXES[:2], *OTHER_PARTS)) for key in weights):
            raise ValueError("not all of its keys begin with 'transformer.' or 'unet.'")
    except Exception as error:  # whatever a file makes safetensors and diffusers' converters raise
        raise ModelLoadError(f"{str(file)!r} is no LoRA of a {loader.__name__}: {error}") from error
    unet = {key: weight for key, weight in weights.items() if key.startswith("unet.")}
    others = {key: weight for key, weight in weights.items() if key not in unet}
    return convert_unet_state_dict_to_peft(unet) | others, config or {}


def _unread(loader: type[Any], weights: dict[str, Tensor]) -> tuple[str, ...]:
    """The differences of weights and biases, which some speed LoRAs have, that diffusers' converters leave out."""
    differences = {key: weight for key, weight in weights.items() if key.endswith((".diff", ".diff_b"))}
    read = {id(weight) for weight in loader.lora_state_dict(dict(weights)).values()} if differences else {}
    return tuple(key for key, weight in differences.items() if id(weight) not in read)


def _written_layer(key: str) -> tuple[str, str]:
    """What stands before the name of a key's layer, and that name as the key has it."""
    prefix = next((each for each in PREFIXES if key.startswith(each)), "")
    return prefix, re.split(r"\.(?:lora[_.]|alpha$)", key.removeprefix(prefix))[0]


def _fits(key: str, weight: Tensor, layer: nn.Module) -> bool:
    """Whether a matrix has the size that its layer needs; what is no matrix goes with the matrices."""
    if weight.ndim < 2 or "magnitude" in key:
        return True
    place = int(any(first in key for first in FIRST))
    size = getattr(getattr(layer, "weight", None), "shape", ())[place : place + 1]
    return size == weight.shape[place : place + 1]


def _config_by_layer(config: Mapping[str, Any], layers: Mapping[str, str], ranks: Mapping[str, int]) -> dict[str, Any]:
    """A configuration with ranks and alphas by the student's names of `layers`: the teacher's patterns fit others."""
    patterns: Mapping[str, float] = config.get("alpha_pattern") or {}
    # The first that fits, as peft looks for it.
    fitting = {new: [each for each in patterns if re.match(rf"(.*\.)?({each})$", old)] for old, new in layers.items()}
    return {
        **config,
        "rank_pattern": {f"^{name}": rank for name, rank in ranks.items()},
        "alpha_pattern": {f"^{name}": patterns[found[0]] for name, found in fitting.items() if found},
        "target_modules": "|".join(map(re.escape, layers.values())),
        **dict.fromkeys(("exclude_modules", "layers_to_transform", "layers_pattern")),
    }


def lora_loader(folder: Path) -> type[Any] | None:
    """The class of the pipeline in a folder; None where diffusers has no loader of adapters for it."""
    import diffusers

    native = getattr(diffusers, str(read_json(folder / "model_index.json").get("_class_name")), None)
    return native if hasattr(native, "load_lora_weights") else None


def merge_lora(pipeline: DiffusionPipeline, file: str, *, second_expert: bool = False) -> None:
    """Add an adapter's products B A to a pipeline's weights, in place; nothing is left of the adapter itself.

    `file` is a .safetensors file in a format that diffusers reads for this pipeline (arXiv 2106.09685); of a pipeline
    with two experts `second_expert` says whether it is for that of the later steps. Raises ModelLoadError for a
    pipeline that takes none, without peft, and for a file that does not fit, all of it.
    """
    loader: Any = pipeline
    name = type(loader).__name__
    if not hasattr(loader, "load_lora_weights"):
        raise ModelLoadError(f"{file!r}: diffusers merges no LoRA into {name}: leave lora out")
    if second_expert and getattr(loader, SECOND_EXPERT, None) is None:
        raise ModelLoadError(f"{file!r}: this {name} has one expert alone: leave second_expert out")
    if importlib.util.find_spec("peft") is None:
        raise ModelLoadError(f"{file!r}: LoRA needs peft: pip install peft")
    try:
        layers = {_written_layer(key)[1] for key in read_lora(type(loader), file)[0] if not key.startswith(OTHER_PARTS)}
        into = {f"load_into_{SECOND_EXPERT}": True} if second_expert else {}
        loader.load_lora_weights(file, use_safetensors=True, local_files_only=True, **into)
        adapted = {part: _adapted_layers(getattr(loader, part, None)) for part in loader._lora_loadable_modules}
        if (unfit := layers.difference(*adapted.values())) or not any(adapted.values()):
            raise ValueError(
                f"{len(layers - unfit)} of its {len(layers)} layers fit: give one made for this very model, or for a"
                " student what vdmini-bench lora map makes of its teacher's"
            )
        loader.fuse_lora(components=[part for part, names in adapted.items() if names])
    except Exception as error:  # whatever a file makes safetensors, diffusers and peft raise
        raise ModelLoadError(f"{file!r} cannot be merged into {name}: {error}") from error
    finally:
        loader.unload_lora_weights()


def _adapted_layers(part: nn.Module | None) -> set[str]:
    """The names of the layers of a part of a pipeline that have an adapter."""
    named = () if part is None else part.named_modules()
    return {name for name, layer in named if len(getattr(layer, "lora_A", ()))}
