"""What VBench measures: each dimension's range, weight and group, and what its official code needs to run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from vdmini_bench.errors import SuiteError

Mode = Literal["t2v", "i2v", "custom"]
Group = Literal["quality", "semantic", "i2v"]

VBENCH_VERSION = "0.1.5"


@dataclass(frozen=True)
class WeightFile:
    """A file that the official code reads from its cache: `path` below the cache folder, and where it comes from.

    Where `fetch` is given it is the command that gets it, run in the cache folder; otherwise `url` is the file itself.
    """

    path: str
    url: str
    fetch: str = ""


@dataclass(frozen=True)
class Dimension:
    """One dimension: the range its scores are mapped from, and its weight within its group.

    `custom` says whether videos of any prompt can be scored. `may_skip` says that the official code leaves out videos
    which it finds nothing to judge in. `percent` says that it scores one video from 0 to 100. `frames` are the fewest
    that it takes, `side` is the fewest pixels of a frame's shorter side, and `gif` says whether it reads that suffix.
    """

    name: str
    group: Group
    low: float = 0.0
    high: float = 1.0
    weight: float = 1.0
    weights: tuple[WeightFile, ...] = ()
    modules: tuple[str, ...] = ()
    custom: bool = True
    may_skip: bool = False
    percent: bool = False
    frames: int = 2
    side: int = 1
    gif: bool = True

    @property
    def package(self) -> str:
        """The official package that holds its code."""
        return "vbench2_beta_i2v" if self.group == "i2v" else "vbench"

    @property
    def needs_images(self) -> bool:
        """Whether a video is compared with the image it was made from."""
        return self.name in ("i2v_subject", "i2v_background")


_HUB = "https://huggingface.co"
_CLIP = "https://openaipublic.azureedge.net/clip/models"
# By the folder of the cache that a file lies in: whose it is, and under which licence.
PROJECTS = {
    "clip_model": ("github.com/openai/CLIP", "MIT"),
    "aesthetic_model": ("github.com/LAION-AI/aesthetic-predictor", "MIT"),
    "dino_model": ("github.com/facebookresearch/dino", "Apache-2.0"),
    "amt_model": ("github.com/MCG-NKU/AMT", "CC BY-NC 4.0, not for commercial use"),
    "raft_model": ("github.com/princeton-vl/RAFT", "BSD-3-Clause"),
    "pyiqa_model": ("github.com/chaofengc/IQA-PyTorch", "see its LICENSE files"),
    "umt_model": ("github.com/OpenGVLab/unmasked_teacher", "see its LICENSE"),
    "grit_model": ("github.com/JialianW/GRiT", "MIT"),
    "caption_model": ("github.com/xinyu1205/recognize-anything", "Apache-2.0"),
    "ViCLIP": ("github.com/OpenGVLab/InternVideo", "Apache-2.0"),
    "dreamsim_model": ("github.com/ssundaram21/dreamsim", "MIT"),
}

_CLIP_B = WeightFile(
    "clip_model/ViT-B-32.pt", f"{_CLIP}/40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af/ViT-B-32.pt"
)
_CLIP_L = WeightFile(
    "clip_model/ViT-L-14.pt", f"{_CLIP}/b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836/ViT-L-14.pt"
)
_AESTHETIC = WeightFile(
    "aesthetic_model/emb_reader/sa_0_4_vit_l_14_linear.pth",
    "https://github.com/LAION-AI/aesthetic-predictor/raw/main/sa_0_4_vit_l_14_linear.pth",
)
_DINO = (
    WeightFile(
        "dino_model/facebookresearch_dino_main/hubconf.py",
        "https://github.com/facebookresearch/dino",
        "git clone https://github.com/facebookresearch/dino dino_model/facebookresearch_dino_main",
    ),
    WeightFile(
        "dino_model/dino_vitbase16_pretrain.pth",
        "https://dl.fbaipublicfiles.com/dino/dino_vitbase16_pretrain/dino_vitbase16_pretrain.pth",
    ),
)
_AMT = WeightFile("amt_model/amt-s.pth", f"{_HUB}/lalala125/AMT/resolve/main/amt-s.pth")
_RAFT = WeightFile(
    "raft_model/models/raft-things.pth",
    "https://dl.dropboxusercontent.com/s/4j4z58wuv8o0mfz/models.zip",
    "curl -L -o models.zip https://dl.dropboxusercontent.com/s/4j4z58wuv8o0mfz/models.zip"
    " && unzip -d raft_model models.zip",
)
_MUSIQ = WeightFile(
    "pyiqa_model/musiq_spaq_ckpt-358bb6af.pth",
    "https://github.com/chaofengc/IQA-PyTorch/releases/download/v0.1-weights/musiq_spaq_ckpt-358bb6af.pth",
)
_UMT = WeightFile(
    "umt_model/l16_ptk710_ftk710_ftk400_f16_res224.pth",
    f"{_HUB}/OpenGVLab/VBench_Used_Models/resolve/main/l16_ptk710_ftk710_ftk400_f16_res224.pth",
)
_GRIT = WeightFile(
    "grit_model/grit_b_densecap_objectdet.pth",
    f"{_HUB}/OpenGVLab/VBench_Used_Models/resolve/main/grit_b_densecap_objectdet.pth",
)
_TAG2TEXT = WeightFile(
    "caption_model/tag2text_swin_14m.pth",
    f"{_HUB}/spaces/xinyu1205/recognize-anything/resolve/main/tag2text_swin_14m.pth",
)
_VICLIP = (
    WeightFile(
        "ViCLIP/ViClip-InternVid-10M-FLT.pth",
        f"{_HUB}/OpenGVLab/VBench_Used_Models/resolve/main/ViClip-InternVid-10M-FLT.pth",
    ),
    WeightFile(
        "ViCLIP/bpe_simple_vocab_16e6.txt.gz",
        "https://raw.githubusercontent.com/openai/CLIP/main/clip/bpe_simple_vocab_16e6.txt.gz",
    ),
)

# The official code has the package dreamsim fetch these into `models` of whatever folder it is called in.
_DREAMSIM_FETCH = (
    "curl -L -o dreamsim.zip https://github.com/ssundaram21/dreamsim/releases/download/v0.2.0-checkpoints/"
    "dreamsim_ensemble_checkpoint.zip && unzip -d dreamsim_model dreamsim.zip"
)
DREAMSIM_WEIGHTS = tuple(
    WeightFile(f"dreamsim_model/{name}", "https://github.com/ssundaram21/dreamsim", _DREAMSIM_FETCH)
    for name in (
        "clip_vitb16_pretrain.pth.tar",
        "open_clip_vitb16_pretrain.pth.tar",
        "ensemble_lora/adapter_config.json",
        "ensemble_lora/adapter_model.safetensors",
    )
)

# The official code has the first in its package, and the other from the hub's cache.
TAG2TEXT_WORDS = (
    WeightFile(
        "caption_model/tag_class.py",
        "https://raw.githubusercontent.com/Vchitect/VBench/master/vbench/third_party/tag2Text/tag_class.py",
    ),
    WeightFile("caption_model/vocab.txt", f"{_HUB}/bert-base-uncased/resolve/main/vocab.txt"),
)

# RAFT and AMT halve maps of an eighth of the frame three times, then divide by the side less one: on frames that are
# padded (to multiples of 8 and 16) to less than 128 they fail, or find flows that are not numbers and seem no motion.
_RAFT_SIDE, _AMT_SIDE = 121, 113

# Ranges and weights are those of the official scripts/constant.py.
DIMENSIONS = {
    dimension.name: dimension
    for dimension in (
        Dimension("subject_consistency", "quality", 0.1462, weights=_DINO),
        Dimension("background_consistency", "quality", 0.2615, weights=(_CLIP_B,)),
        Dimension("temporal_flickering", "quality", 0.6293),
        Dimension("motion_smoothness", "quality", 0.706, 0.9975, weights=(_AMT,), frames=3, side=_AMT_SIDE, gif=False),
        Dimension("dynamic_degree", "quality", weight=0.5, weights=(_RAFT,), side=_RAFT_SIDE, gif=False),
        Dimension("aesthetic_quality", "quality", weights=(_CLIP_L, _AESTHETIC)),
        Dimension("imaging_quality", "quality", weights=(_MUSIQ,), percent=True),
        Dimension("object_class", "semantic", weights=(_GRIT,), modules=("detectron2",), custom=False),
        Dimension("multiple_objects", "semantic", weights=(_GRIT,), modules=("detectron2",), custom=False),
        Dimension("human_action", "semantic", weights=(_UMT,)),
        Dimension("color", "semantic", weights=(_GRIT,), modules=("detectron2",), custom=False, may_skip=True),
        Dimension("spatial_relationship", "semantic", weights=(_GRIT,), modules=("detectron2",), custom=False),
        Dimension("scene", "semantic", 0.0, 0.8222, weights=(_TAG2TEXT,), custom=False),
        Dimension("appearance_style", "semantic", 0.0009, 0.2855, weights=(_CLIP_B,), custom=False),
        Dimension("temporal_style", "semantic", 0.0, 0.364, weights=_VICLIP),
        Dimension("overall_consistency", "semantic", 0.0, 0.364, weights=_VICLIP),
        Dimension("i2v_subject", "i2v", 0.1462, weights=_DINO),
        Dimension("i2v_background", "i2v", 0.2615, modules=("dreamsim",)),
        Dimension("camera_motion", "i2v", weight=0.1),
    )
}

T2V = tuple(name for name, dimension in DIMENSIONS.items() if dimension.group != "i2v")
I2V_QUALITY = tuple(
    name for name, dimension in DIMENSIONS.items() if dimension.group == "quality" and name != "temporal_flickering"
)
I2V = (*(name for name, dimension in DIMENSIONS.items() if dimension.group == "i2v"), *I2V_QUALITY)
CUSTOM = tuple(name for name, dimension in DIMENSIONS.items() if dimension.custom)
OF_MODE: dict[Mode, tuple[str, ...]] = {"t2v": T2V, "i2v": I2V, "custom": CUSTOM}
# Videos are sorted out before this dimension is scored, with the network of `dynamic_degree`.
FILTERED = "temporal_flickering"
FILTER_WEIGHTS = (_RAFT,)
FILTER_SIDE = _RAFT_SIDE


def choose_dimensions(mode: Mode, wanted: Iterable[str]) -> tuple[str, ...]:
    """The dimensions asked for, in the official order; all of the mode when none is named.

    Raises:
        SuiteError: a name is unknown, or the mode does not score it.
    """
    asked = {part for name in wanted for part in name.replace(",", " ").split()}
    unknown = sorted(asked - {*DIMENSIONS})
    if unknown:
        raise SuiteError(f"no VBench dimension {', '.join(unknown)}; there are {', '.join(OF_MODE[mode])}")
    left_out = sorted(asked - {*OF_MODE[mode]})
    if left_out:
        raise SuiteError(f"{', '.join(left_out)}: not scored in mode {mode}, which has {', '.join(OF_MODE[mode])}")
    return tuple(name for name in OF_MODE[mode] if name in asked or not asked)
