"""What a model may be made faster with, by engines of other libraries: each measure as plain data, and its identity."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_type_hints

from vdmini.errors import AccelerationError, nearest

PLAIN = ("optimize", "compile", "vae_tiling", "vae_slicing")
# How networks wait on the CPU while others run: each whole, or layer by layer (diffusers' group offloading).
CpuOffload = Literal["model", "group"]
KINDS = ("cache", "quantize", "attention")
# The settings of each cache of diffusers, in `diffusers.hooks`.
CACHES = {
    "first_block": "FirstBlockCacheConfig",
    "faster": "FasterCacheConfig",
    "pyramid": "PyramidAttentionBroadcastConfig",
    "taylor_seer": "TaylorSeerCacheConfig",
    "mag": "MagCacheConfig",
    "sea": "SeaCacheConfig",
}
# torchao's types are its configurations: int8_weight_only for `Int8WeightOnlyConfig`.
TORCHAO = Literal[
    "int8_weight_only",
    "int8_dynamic_activation_int8_weight",
    "int4_weight_only",
    "float8_weight_only",
    "float8_dynamic_activation_float8_weight",
]
_KEPT = {"modules_to_not_convert": (tuple[str, ...], ())}
QUANTIZERS: dict[str, dict[str, Any]] = {
    "torchao": {"type": (TORCHAO, "int8_weight_only"), **_KEPT},
    "quanto": {"type": (Literal["int8", "int4", "int2", "float8"], "int8"), **_KEPT},
    "bitsandbytes": {"type": (Literal["int8", "nf4", "fp4"], "int8"), **_KEPT},
    "gguf": {"file": (str, ...)},
}


@dataclass(frozen=True)
class Measure:
    """One measure: its kind, its engine where there are several, and all settings of that engine by name.

    `str` gives the identity, the same however the measure was written: YAML that is read as this measure again.
    """

    kind: str
    engine: str = ""
    settings: tuple[tuple[str, Any], ...] = ()

    @property
    def one_clip_at_a_time(self) -> bool:
        """Whether clips of a batch would decide for each other: it looks at all, or rounds what it reads, at once."""
        judges = self.engine in ("first_block", "sea", "bitsandbytes")
        return judges or "dynamic" in dict(self.settings).get("type", "")

    def __str__(self) -> str:
        named = [f"{name}: {json.dumps(value)}" for name, value in self.settings]
        return f"{{{', '.join([f'{self.kind}: {self.engine}', *named])}}}" if self.engine else self.kind


def parse_measure(data: Mapping[str, object] | str) -> Measure:
    """A measure of its YAML: a name of `PLAIN`, or one of `KINDS` with its engine and settings of that engine.

    What is left out has the engine's default. Raises AccelerationError with the unknown key or value and the nearest
    that is known.
    """
    if not isinstance(data, Mapping):
        return Measure(_choose(str(data), PLAIN, f", or a measure with {', '.join(KINDS)}"))
    kinds = [kind for kind in KINDS if kind in data]
    if len(kinds) != 1:
        raise AccelerationError(f"accelerate: {dict(data)} must have one of {', '.join(KINDS)}, and one only")
    kind, given = kinds[0], {str(name): value for name, value in data.items() if name != kinds[0]}
    if kind == "attention":
        from diffusers.models.attention_dispatch import AttentionBackendName

        # Those named hub are fetched, which nothing here does unasked.
        known = [each.value for each in AttentionBackendName if not each.value.endswith("_hub")]
    else:
        known = [*(CACHES if kind == "cache" else QUANTIZERS)]
    engine = _choose(str(data[kind]), known)
    allowed = _cache_settings(engine, given) if kind == "cache" else QUANTIZERS.get(engine, {})
    return Measure(kind, engine, _validated(engine, given, allowed))


def _choose(name: str, known: Iterable[str], more: str = "") -> str:
    if name in known:
        return name
    choices = ", ".join(known)
    raise AccelerationError(f"accelerate: unknown {name!r}{nearest(name, known)}: choose one of {choices}{more}")


def cache_class(engine: str) -> Any:
    """The class of a cache's settings; raises AccelerationError where the installed diffusers lacks it."""
    from diffusers import hooks

    if not hasattr(hooks, CACHES[engine]):
        raise AccelerationError(f"accelerate: this diffusers has no {CACHES[engine]}: pip install -U diffusers")
    return getattr(hooks, CACHES[engine])


def _cache_settings(engine: str, given: Mapping[str, object]) -> dict[str, Any]:
    """The types and defaults of a cache's settings, but for those that only a program can give."""
    native = cache_class(engine)
    hints, ranges = get_type_hints(native), [name for name in given if name.endswith("block_skip_range")]
    known: dict[str, Any] = {each.name: (hints[each.name], each.default) for each in fields(native)}
    if engine == "pyramid" and not ranges:  # as the engine does
        known["spatial_attention_block_skip_range"] = (int, 2)
    if engine == "taylor_seer":
        known["taylor_factors_dtype"] = (Literal["float32", "bfloat16", "float16"], "bfloat16")
    if engine == "mag":  # calibrating skips nothing
        known = {**known, "mag_ratios": (tuple[float, ...], ...), "calibrate": (Literal[False], False)}
    return {name: each for name, each in known.items() if not name.startswith("_") and not name.endswith("callback")}


def _validated(engine: str, given: Mapping[str, object], known: dict[str, Any]) -> tuple[tuple[str, Any], ...]:
    """All settings in their order and types, lists as tuples; raises AccelerationError for others."""
    from pydantic import ConfigDict, ValidationError, create_model

    model = create_model("Settings", __config__=ConfigDict(extra="forbid"), **known)
    try:
        settings = dict(model.model_validate(given))
    except ValidationError as error:
        wrong = error.errors()[0]
        name, said = str(wrong["loc"][0]), str(wrong["msg"])
        if name in known:
            message = f"{name!r}: {said}{nearest(str(given.get(name)), said.split(chr(39)))}"
        else:
            message = f"unknown {name!r}{nearest(name, known)}: it takes {', '.join(known) or 'no settings'}"
        raise AccelerationError(f"accelerate: {engine}: {message}") from error
    return tuple((name, tuple(value) if isinstance(value, list) else value) for name, value in settings.items())
