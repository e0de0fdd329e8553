"""Which dimensions have native code, and the files below `VBENCH_CACHE_DIR` that each reads."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from vdmini_bench.config.vbench_dimensions import DIMENSIONS, DREAMSIM_WEIGHTS, FILTERED
from vdmini_bench.vbench.environment import weights_folder
from vdmini_bench.vbench.requirements import Readiness, how_to_fetch, weight_fault

# Raise it when a native score changes: kept ones of older code are then made again.
NATIVE_VERSION = "native-2"

DINO = "dino_model/dino_vitbase16_pretrain.pth"
CLIP_B = "clip_model/ViT-B-32.pt"
CLIP_L = "clip_model/ViT-L-14.pt"
AESTHETIC = "aesthetic_model/emb_reader/sa_0_4_vit_l_14_linear.pth"
MUSIQ = "pyiqa_model/musiq_spaq_ckpt-358bb6af.pth"
RAFT = "raft_model/models/raft-things.pth"
AMT = "amt_model/amt-s.pth"
VICLIP = "ViCLIP/ViClip-InternVid-10M-FLT.pth"
WORDS = "ViCLIP/bpe_simple_vocab_16e6.txt.gz"
DREAMSIM_CLIP, DREAMSIM_OPEN_CLIP, ADAPTER_SETTINGS, ADAPTER = (weight.path for weight in DREAMSIM_WEIGHTS)

# No dimension, but asked of videos before one: whether the official filter keeps them.
STATIC = "static_filter"
FILES: dict[str, tuple[str, ...]] = {
    "subject_consistency": (DINO,),
    "background_consistency": (CLIP_B,),
    FILTERED: (),
    "motion_smoothness": (AMT,),
    "dynamic_degree": (RAFT,),
    "aesthetic_quality": (CLIP_L, AESTHETIC),
    "imaging_quality": (MUSIQ,),
    "appearance_style": (CLIP_B, WORDS),
    "temporal_style": (VICLIP, WORDS),
    "overall_consistency": (VICLIP, WORDS),
    "i2v_subject": (DINO,),
    "i2v_background": (DINO, DREAMSIM_CLIP, DREAMSIM_OPEN_CLIP, ADAPTER_SETTINGS, ADAPTER),
    STATIC: (RAFT,),
}
_WEIGHTS = {
    weight.path: weight
    for weight in (*DREAMSIM_WEIGHTS, *(weight for dimension in DIMENSIONS.values() for weight in dimension.weights))
}


def is_native(dimension: str) -> bool:
    """Whether we have code for a dimension."""
    return dimension in FILES


def native_dimensions() -> list[str]:
    """Every dimension that we have code for."""
    return [name for name in FILES if name != STATIC]


def examine_native() -> list[Readiness]:
    """Look at every dimension that we have code for: which of its weights are there, those of its filter too."""
    return [_readiness(name) for name in native_dimensions()]


def missing_files(dimensions: Iterable[str], *, filtered: bool) -> list[tuple[str, str]]:
    """Dimension and path of every file that is not in its place; the filter's are temporal_flickering's."""
    return [
        (name, str(path)) for name in dimensions for path in paths_of(name, filtered=filtered) if not path.is_file()
    ]


def damaged_files(dimensions: Iterable[str], *, filtered: bool) -> list[tuple[str, str]]:
    """Dimension, and what is in the place of a file that is no such file; the filter's as above."""
    return [
        (name, f"{path} {fault}")
        for name in dimensions
        for path in paths_of(name, filtered=filtered)
        if path.is_file() and (fault := weight_fault(path)) is not None
    ]


def paths_of(dimension: str, *, filtered: bool = False) -> list[Path]:
    """The files that a dimension reads."""
    return [path_of(name) for name in _names(dimension, filtered=filtered)]


def path_of(name: str) -> Path:
    """The place of a file; an adapter's is that of the format which is there, of the two that PEFT's versions write."""
    path = weights_folder() / name
    older = path.with_suffix(".bin")
    return older if name == ADAPTER and older.is_file() and not path.is_file() else path


def state_of(dimension: str) -> list[list[int]]:
    """Size and time of each of its files, which have gigabytes; of none that is not there."""
    found = [path.stat() for path in paths_of(dimension) if path.is_file()]
    return [[status.st_size, status.st_mtime_ns] for status in found]


def _names(dimension: str, *, filtered: bool) -> tuple[str, ...]:
    return FILES[STATIC] if filtered and dimension == FILTERED else FILES[dimension]


def _readiness(dimension: str) -> Readiness:
    lacks = {}
    for name in _names(dimension, filtered=True):
        path = path_of(name)
        fault = weight_fault(path) if path.is_file() else ""
        if fault is not None:
            note = " (without --no-static-filter)" if dimension == FILTERED else ""
            lacks[f"{name}{note}{fault and f', which {fault}'}"] = how_to_fetch(_WEIGHTS[name])
    return Readiness(dimension, tuple(lacks), tuple(lacks.values()))
