"""Which dimensions have native code, and the files below `VBENCH_CACHE_DIR` that each reads."""

from __future__ import annotations

from pathlib import Path

from vdmini_bench.config.vbench_dimensions import DREAMSIM_WEIGHTS, FILTERED, TAG2TEXT_WORDS
from vdmini_bench.vbench.environment import weights_folder

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
TAG2TEXT = "caption_model/tag2text_swin_14m.pth"
TAGS, VOCABULARY = (weight.path for weight in TAG2TEXT_WORDS)
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
    "scene": (TAG2TEXT, TAGS, VOCABULARY),
    "appearance_style": (CLIP_B, WORDS),
    "temporal_style": (VICLIP, WORDS),
    "overall_consistency": (VICLIP, WORDS),
    "i2v_subject": (DINO,),
    "i2v_background": (DINO, DREAMSIM_CLIP, DREAMSIM_OPEN_CLIP, ADAPTER_SETTINGS, ADAPTER),
    STATIC: (RAFT,),
}


def is_native(dimension: str) -> bool:
    """Whether we have code for a dimension."""
    return dimension in FILES


def native_dimensions() -> list[str]:
    """Every dimension that we have code for."""
    return [name for name in FILES if name != STATIC]


def path_of(name: str) -> Path:
    """The place of a file; an adapter's is that of the format which is there, of the two that PEFT's versions write."""
    path = weights_folder() / name
    older = path.with_suffix(".bin")
    return older if name == ADAPTER and older.is_file() and not path.is_file() else path


def state_of(dimension: str) -> list[list[int]]:
    """Size and time of each of its files, which have gigabytes; of none that is not there."""
    found = [path.stat() for path in map(path_of, FILES[dimension]) if path.is_file()]
    return [[status.st_size, status.st_mtime_ns] for status in found]
