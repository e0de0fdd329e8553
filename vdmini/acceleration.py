"""Put measures of existing engines on a pipeline, take them off, and say beforehand what an engine refuses."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import BitsAndBytesConfig, DiffusionPipeline, GGUFQuantizationConfig, QuantoConfig, TorchAoConfig
from diffusers.models.attention_dispatch import _AttentionBackendRegistry as Registry
from diffusers.models.attention_dispatch import dispatch_attention_fn
from diffusers.models.attention_processor import AttnProcessor2_0
from diffusers.quantizers import DiffusersAutoQuantizer
from torch import nn

from vdmini.errors import AccelerationError
from vdmini.measures import Measure, cache_class
from vdmini.models.folders import weights_files
from vdmini.models.registry import DENOISERS, family_of, pipeline_denoiser
from vdmini.optimization import compile_denoiser, optimize, slices
from vdmini.requests import SampleSettings

# Which family a cache of diffusers 0.42 cannot work with, found by trying, and why.
MIXES = "its pipeline runs a pass with the prompt and then one without, and this cache would mix them up"
NO_STEPS = "its pipeline does not tell the step and its noise level, without which this cache skips nothing"
UNFIT = {("faster", "wan"): MIXES, ("pyramid", "wan"): MIXES}
UNFIT |= {("sea", family): NO_STEPS for family in ("hunyuanvideo", "cogvideox", "ltx", "mochi")}
# Their pipelines mask the padding of texts; and FasterCache can skip no pass of theirs without the prompt, since there
# is none (HunyuanVideo) or since its output is no frames (LTX-Video).
MASKED = ATTENTION_ALONE = ("hunyuanvideo", "ltx")


@dataclass(frozen=True)
class Acceleration:
    """What `accelerate` put on a pipeline.

    `reset` forgets what a cache keeps of a clip: call it between batches, also after an error within one. `undo` gives
    the plain pipeline back. With `one_clip_at_a_time` the clips of a batch would decide for each other; where
    `passes_vary` the time of a single pass of the denoiser means nothing.
    """

    one_clip_at_a_time: bool
    passes_vary: bool
    reset: Callable[[], None]
    undo: Callable[[], None]


def check_measures(
    denoiser: nn.Module,
    vae: nn.Module | None,
    measures: Sequence[Measure],
    *,
    device_type: str,
    settings: SampleSettings | None = None,
) -> None:
    """Raise AccelerationError for what cannot be put on a model, alone or together, before anything runs.

    The model may be on the meta device; `device_type` is where it shall run. What depends on the VAE, or on how clips
    are sampled, is checked where these are given.
    """
    kinds = [measure.kind for measure in measures]
    for measure in measures:
        why, way = "", measure.kind.removeprefix("vae_")
        if kinds.count(measure.kind) > 1:
            why = f"one {measure.kind} at a time: leave the others out"
        elif measure.kind == "cache":
            why = _cache_refusal(measure, denoiser, settings)
        elif measure.kind == "quantize":
            why = _quantizer_refusal(measure, denoiser, device_type)
        elif measure.kind == "attention":
            why = _attention_refusal(measure, denoiser, device_type)
        elif way != measure.kind and vae is not None and not _works(vae, way):
            why = f"{type(vae).__name__} has no {way} that works: leave it out"
        elif measure.kind == "optimize" and "quantize" in kinds and AttnProcessor2_0 in _processors(denoiser):
            why = f"it joins layers of {type(denoiser).__name__} that are quantized: leave one of the two out"
        if why:
            raise AccelerationError(f"{'accelerate' if way == measure.kind else 'memory'}: {measure}: {why}")


def accelerate(
    pipeline: DiffusionPipeline, measures: Sequence[Measure], denoiser_folder: Path | None = None, *,
    device_type: str | None = None,
) -> Acceleration:  # fmt: skip
    """Put measures on a loaded pipeline, in place, on both denoisers where it has two.

    It lies where it will run, or else will be moved to a device of `device_type`.

    A quantized denoiser is loaded by its engine from `denoiser_folder`, which holds config.json and weights, that of a
    second denoiser from the folder beside it. Raises AccelerationError as `check_measures` does, and then leaves the
    pipeline as it was.
    """
    run: Any = pipeline
    denoiser, vae = pipeline_denoiser(pipeline), getattr(run, "vae", None)
    given = {each.kind: each for each in measures}
    here = next(denoiser.parameters()).device.type
    check_measures(denoiser, vae, measures, device_type=device_type or here)
    names = [name for name in DENOISERS if isinstance(getattr(run, name, None), nn.Module)]
    if len(names) > 1 and {each.engine for each in measures} & {"gguf", "mag"}:
        raise AccelerationError("accelerate: gguf and the mag cache are for one denoiser: leave them out for two")
    with ExitStack() as stack:
        for name in names if "quantize" in given else ():
            folder = denoiser_folder.parent / name if denoiser_folder and name != names[0] else denoiser_folder
            _quantize(run, name, given["quantize"], folder, stack)
        for part in (getattr(run, name) for name in names):
            if "attention" in given:
                _set_attention(part, given["attention"].engine, stack)
            if "cache" in given:
                part.enable_cache(_cache_config(given["cache"], lambda: run.current_timestep))
                stack.callback(part.disable_cache)
            if "compile" in given:
                stack.callback(compile_denoiser(part))
        for way in ("tiling", "slicing"):
            if f"vae_{way}" in given and not getattr(vae, f"use_{way}"):
                getattr(vae, f"enable_{way}")()
                stack.callback(getattr(vae, f"disable_{way}"))
        if "optimize" in given:
            stack.callback(optimize(pipeline).undo)
        undo = stack.pop_all().close

    def reset() -> None:
        for name in names if "cache" in given else ():
            getattr(run, name)._reset_stateful_cache()

    return Acceleration(any(each.one_clip_at_a_time for each in measures), "cache" in given, reset, undo)


def _quantize(run: Any, name: str, measure: Measure, folder: Path | None, stack: ExitStack) -> None:
    """Put a quantized denoiser in the place of a pipeline's own, which waits on the CPU."""
    plain = getattr(run, name)
    device, dtype = next(plain.parameters()).device, next(plain.parameters()).dtype
    found = weights_files(folder) if folder is not None and folder.is_dir() else None
    if found is None:
        raise AccelerationError(f"accelerate: {measure}: needs a folder with the weights of {name}: save it first")
    options: dict[str, Any] = {"quantization_config": _quantization(measure, dtype), "dtype": dtype}
    try:
        if measure.engine == "gguf":
            network = type(plain).from_single_file(dict(measure.settings)["file"], config=str(folder), **options)
        else:
            options |= {"variant": found[0].variant, "use_safetensors": found[0].kind == "safetensors"}
            network = type(plain).from_pretrained(folder, local_files_only=True, **options)
        network.eval()
        if measure.engine != "bitsandbytes":  # which loads to the GPU itself
            network.to(device)
    except Exception as error:  # whatever files make engines raise
        raise AccelerationError(f"accelerate: {measure}: does not load: {error}") from error
    setattr(run, name, network)
    plain.to("cpu")
    stack.callback(lambda: setattr(run, name, plain.to(device)))


def _quantization(measure: Measure, dtype: torch.dtype) -> Any:
    settings = dict(measure.settings)
    if measure.engine == "gguf":
        return GGUFQuantizationConfig(compute_dtype=dtype)
    kind, kept = settings["type"], [*settings["modules_to_not_convert"]] or None
    if measure.engine == "torchao":
        return TorchAoConfig(_torchao(kind), modules_to_not_convert=kept)
    if measure.engine == "quanto":
        return QuantoConfig(weights_dtype=kind, modules_to_not_convert=kept)
    bits = {"load_in_8bit": True} if kind == "int8" else {"load_in_4bit": True, "bnb_4bit_quant_type": kind}
    return BitsAndBytesConfig(**bits, bnb_4bit_compute_dtype=dtype, llm_int8_skip_modules=kept)


def _torchao(kind: str) -> Any:
    quantization: Any = importlib.import_module("torchao.quantization")
    return getattr(quantization, "".join(part.capitalize() for part in kind.split("_")) + "Config")()


def _cache_config(measure: Measure, current_timestep: Callable[[], object]) -> Any:
    native, settings = cache_class(measure.engine), dict(measure.settings)
    if measure.engine == "taylor_seer":
        settings["taylor_factors_dtype"] = getattr(torch, settings["taylor_factors_dtype"])
    if measure.engine in ("faster", "pyramid"):
        settings["current_timestep_callback"] = current_timestep
    return native(**settings)


def _works(vae: nn.Module, way: str) -> bool:
    return slices(vae) if way == "slicing" else hasattr(vae, "use_tiling")


def _cache_refusal(measure: Measure, denoiser: Any, settings: SampleSettings | None) -> str:
    family, name, chosen = family_of(denoiser).name, type(denoiser).__name__, dict(measure.settings)
    if not hasattr(denoiser, "enable_cache"):
        return f"{name} has no such hooks (diffusers' caches are for transformers): leave it out"
    if (measure.engine, family) in UNFIT:
        return f"{name}: {UNFIT[measure.engine, family]}: leave it out"
    if measure.engine == "faster":
        alone = chosen["is_guidance_distilled"]
        guidance = settings.guidance if settings is not None else None
        if not alone and (family in ATTENTION_ALONE or (guidance is not None and guidance <= 1)):
            return f"{name} runs no passes without the prompt that it can skip: add is_guidance_distilled: true"
        if alone and chosen["spatial_attention_timestep_skip_range"][1] > 999:
            return "the first step has nothing to reuse: end spatial_attention_timestep_skip_range at 999"
    if settings is not None and chosen.get("num_inference_steps", settings.steps) != settings.steps:
        return f"clips are sampled in {settings.steps} steps: set num_inference_steps to that"
    try:
        denoiser.enable_cache(_cache_config(measure, lambda: 0))
        hooked = any(each._diffusers_hook.hooks for each in denoiser.modules() if hasattr(each, "_diffusers_hook"))
        denoiser.disable_cache()
    except Exception as error:  # whatever settings and blocks that it does not know make an engine raise
        return f"{name} cannot have it ({type(error).__name__}: {error}): leave it out"
    return "" if hooked else f"it finds no layers of {name}: name them in its identifiers, or use_lite_mode: true"


def _quantizer_refusal(measure: Measure, denoiser: nn.Module, device_type: str) -> str:
    chosen = dict(measure.settings)
    if measure.engine == "bitsandbytes" and device_type == "cpu":
        return "it needs a GPU: take torchao or quanto"
    if measure.engine == "gguf" and not hasattr(denoiser, "from_single_file"):
        return f"diffusers reads no GGUF files of {type(denoiser).__name__}: take torchao"
    if measure.engine == "gguf" and not Path(chosen["file"]).is_file():
        return f"there is no file {chosen['file']}"
    weight = next(denoiser.parameters())
    try:
        DiffusersAutoQuantizer.from_config(_quantization(measure, weight.dtype)).validate_environment()
        if measure.engine == "torchao":
            layer = nn.Linear(128, 128, device=device_type, dtype=weight.dtype).requires_grad_(False)
            importlib.import_module("torchao.quantization").quantize_(layer, _torchao(chosen["type"]))
            layer(torch.zeros_like(layer.bias).expand(16, 128))
    except Exception as error:  # of many types: packages that are missing, and what an engine has no kernel for
        missing = isinstance(error, ModuleNotFoundError) and f"pip install {str(error.name).partition('.')[0]}"
        return f"it does not run here ({error}): {missing or 'take another, or what it asks for'}"
    return ""


def _processors(denoiser: nn.Module) -> set[type]:
    return {type(getattr(each, "processor", None)) for each in denoiser.modules()}


def _set_attention(denoiser: Any, backend: str, stack: ExitStack) -> None:
    before = Registry.get_active_backend()[0]
    stack.callback(denoiser.reset_attention_backend)
    denoiser.set_attention_backend(backend)
    # It changes the choice of all other models too, which may run beside this one.
    Registry.set_active_backend(before)


def _attention_refusal(measure: Measure, denoiser: Any, device_type: str) -> str:
    name, dtype = type(denoiser).__name__, next(denoiser.parameters()).dtype
    if not any(hasattr(each, "_attention_backend") for each in _processors(denoiser)):
        return f"{name} does not choose its attention this way: leave it out"
    query = torch.zeros(1, 128, 2, 64, device=device_type, dtype=dtype)
    mask = query.new_ones(1, 1, 1, 128, dtype=torch.bool) if family_of(denoiser).name in MASKED else None
    try:
        with ExitStack() as stack:
            _set_attention(denoiser, measure.engine, stack)
            dispatch_attention_fn(query, query, query, attn_mask=mask, backend=measure.engine)
    except Exception as error:  # of many types: packages, devices, number formats, masks
        return f"{name} cannot have it here ({error}): leave it out"
    return ""
