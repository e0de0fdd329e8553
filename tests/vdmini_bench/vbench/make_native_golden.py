"""Runs inside the environment: what the official code says of the golden clips, with the seeded weights in small.

    VBENCH_ENV/bin/python make_native_golden.py FOLDER_OF_DRIVER DINO_CLONE GOLDEN_FOLDER

`FOLDER_OF_DRIVER` is vdmini_bench/vbench, `DINO_CLONE` a clone of github.com/facebookresearch/dino, `GOLDEN_FOLDER`
tests/golden, which holds the clips `vbench-*.mp4` and takes the file `vbench_native.json`. Names of dimensions after
that record these alone, and leave the others. i2v_background needs the package dreamsim, of release 0.2.1.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

sys.path.append(str(Path(__file__).parent))
from official_request import STYLE, official_request, scores_of
from seeded_weights import shapes_of
from small_networks import DEPTH, TEXT_WIDTH, WIDTH, save_tag2text, write_small_cache

DIMENSIONS = (
    "subject_consistency", "background_consistency", "temporal_flickering", "motion_smoothness", "dynamic_degree",
    "aesthetic_quality", "imaging_quality", "scene", "appearance_style", "temporal_style", "overall_consistency",
    "i2v_subject", "i2v_background",
)  # fmt: skip
TEXTS = ("  Hello,   WORLD&amp;co: it's 2023!! ", "a na\u00efve caf\u00e9 in \u6771\u4eac", "they'll've been", "")
HUBCONF = """
import sys
from functools import partial
import torch

sys.path.insert(0, {clone!r})
import vision_transformer

def dino_vitb16(pretrained=True, **others):
    norm = partial(torch.nn.LayerNorm, eps=1e-6)
    sizes = dict(patch_size=16, embed_dim={width}, depth={depth}, num_heads={heads}, mlp_ratio=4, qkv_bias=True)
    model = vision_transformer.VisionTransformer(**sizes, norm_layer=norm)
    model.load_state_dict(torch.load(torch.hub.get_dir() + "/checkpoints/dino_vitbase16_pretrain.pth"))
    return model
"""


def main(driver_folder: str, clone: Path, golden: Path, only: list[str]) -> None:
    """Make the golden file anew, or some dimensions' scores in it."""
    sys.path.append(driver_folder)
    import driver

    driver.repair_torchvision()
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder) / "weights"
        os.environ.update(VBENCH_CACHE_DIR=str(cache), TORCH_HOME=str(Path(folder) / "torch"))
        copy_words(cache)
        fixed = fixed_shapes()
        write_small_cache(cache, fixed)
        write_hubconf(cache, clone)
        shrink_viclip()
        recorded = shrink_tag2text(cache)
        clips = sorted(golden.glob("vbench-*.mp4"))
        image = golden / "vbench-image.png"
        if not only or "i2v_background" in only:
            shrink_dreamsim(cache, Path(folder) / "models")
        scores = {name: official(driver, name, clips, image, Path(folder)) for name in only or DIMENSIONS}
        if only:
            found = json.loads((golden / "vbench_native.json").read_text(encoding="utf-8"))
            found["scores"] |= scores
            if "scene" in only:
                found["tag2text"] = recorded
            (golden / "vbench_native.json").write_text(json.dumps(found), encoding="utf-8")
            return
        static = driver.find_static({"videos": [str(clip) for clip in clips]}, torch.device("cpu"))["static"]
        scores["static_filter"] = {Path(name).name: float(value) for name, value in static.items()}
        texts = [*TEXTS, STYLE, *(clip.stem.removeprefix("vbench-") for clip in clips)]
        words = {"tokens": tokens(texts), "merges": merges(texts, cache)}
        found = {"style": STYLE, "scores": scores, "speeds": speeds(clips[0], cache), **words, "shapes": fixed}
        found["tag2text"] = recorded
    (golden / "vbench_native.json").write_text(json.dumps(found), encoding="utf-8")


def copy_words(cache: Path) -> None:
    """The tokenizer's words, which CLIP's package has."""
    import clip

    words = "bpe_simple_vocab_16e6.txt.gz"
    (cache / "ViCLIP").mkdir(parents=True)
    shutil.copyfile(Path(clip.__file__).with_name(words), cache / "ViCLIP" / words)


def fixed_shapes() -> dict[str, dict[str, list[int]]]:
    """Names and shapes of the networks that the official code makes in one size only."""
    import vbench
    from omegaconf import OmegaConf
    from pyiqa.archs.musiq_arch import MUSIQ
    from vbench.motion_smoothness import build_from_cfg

    settings = OmegaConf.load(Path(vbench.__file__).parent / "third_party" / "amt" / "cfgs" / "AMT-S.yaml").network
    networks = {"musiq": MUSIQ(pretrained=False), "raft": raft(), "amt": build_from_cfg(settings)}
    return {name: shapes_of(network.state_dict()) for name, network in networks.items()}


def raft() -> torch.nn.Module:
    """The official RAFT."""
    from vbench.third_party.RAFT.core.raft import RAFT

    return RAFT(argparse.Namespace(small=False, mixed_precision=False, alternate_corr=False))


def write_hubconf(cache: Path, clone: Path) -> None:
    """DINO's own code, in small, where the official code looks for it."""
    file = cache / "dino_model" / "facebookresearch_dino_main" / "hubconf.py"
    file.parent.mkdir(parents=True)
    file.write_text(HUBCONF.format(clone=str(clone), width=WIDTH, depth=DEPTH, heads=WIDTH // 64))


def shrink_viclip() -> None:
    """Have the official ViCLIP made of fewer and narrower blocks."""
    from vbench.third_party.ViCLIP import viclip, viclip_text, viclip_vision

    def vision(**settings: object) -> torch.nn.Module:
        return viclip_vision.VisionTransformer(224, 14, WIDTH, DEPTH, WIDTH // 64, 768, num_frames=8).eval()

    def text(**settings: object) -> torch.nn.Module:
        return viclip_text.CLIP_TEXT(768, 32, 49408, TEXT_WIDTH, TEXT_WIDTH // 64, DEPTH, 0).eval()

    viclip.clip_joint_l14, viclip.clip_text_l14 = vision, text


def shrink_tag2text(cache: Path) -> dict[str, Any]:
    """Have the official Tag2Text made of fewer and narrower layers, with its file in the cache and few words.

    What it is asked for is recorded in what is returned: shapes, vocabulary, and tags and sentences as they come.
    """
    from vbench.third_party.tag2Text import tag2text

    every = [word for tag in tag2text.tra_array for word in tag.split()]
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    first = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "|", "a", "picture", "of", *letters[1:], "'", "-", "."]
    vocabulary = [*first, *(f"##{letter}" for letter in letters)]
    vocabulary += sorted({word for word in every[::23] if word not in vocabulary})[:150]
    file = cache / "caption_model" / "vocab.txt"
    file.parent.mkdir(parents=True)
    file.write_text("\n".join(vocabulary), encoding="utf-8")
    swin = {"image_res": 384, "vision_width": 256, "window_size": 12, "embed_dim": 32, "depths": [2, 2, 2, 2]}
    tag2text.read_json = lambda path: {**swin, "num_heads": [1, 2, 4, 8]}
    bert, tokenizer = tag2text.BertConfig.from_json_file, tag2text.BertTokenizer

    def config(path: str) -> Any:
        found = bert(path)
        found.num_hidden_layers, found.intermediate_size, found.max_position_embeddings = 2, 96, 64
        found.vocab_size = len(vocabulary) + 2
        return found

    tag2text.BertConfig = SimpleNamespace(from_json_file=config)
    tag2text.BertTokenizer = SimpleNamespace(from_pretrained=lambda name: tokenizer(str(file)))
    made = classmethod(lambda cls, name, **settings: cls(**settings))
    tag2text.BertModel.from_pretrained = made
    tables = ("relative_position_index", "attn_mask", "position_ids")
    whole = shapes_of(tag2text.tag2text_caption(image_size=384, vit="swin_b").state_dict())
    shapes = {name: shape for name, shape in whole.items() if not name.endswith(tables)}
    recorded: dict[str, Any] = {"shapes": shapes, "vocabulary": vocabulary, "tags": {}, "sentences": []}
    save_tag2text(file.parent, recorded)
    generate = tag2text.Tag2Text_Caption.generate

    def remember(self: Any, *images: torch.Tensor, **settings: Any) -> Any:
        sentences, tags = generate(self, *images, **settings)
        given = {tag for listed in tags for tag in listed.split(" | ")}
        recorded["tags"] |= {str(place): tag for place, tag in enumerate(tag2text.tra_array.tolist()) if tag in given}
        recorded["sentences"].append(sentences)
        return sentences, tags

    tag2text.Tag2Text_Caption.generate = remember
    return recorded


def shrink_dreamsim(cache: Path, models: Path) -> None:
    """Have the official DreamSim made of fewer and narrower blocks, on this device, from a folder as it wants it."""
    from functools import partial

    from dreamsim.feature_extraction import extractor, load_clip_as_dino, load_open_clip_as_dino
    from dreamsim.feature_extraction.vision_transformer import VisionTransformer
    from vbench2_beta_i2v import i2v_background

    shutil.copytree(cache / "dreamsim_model", models)
    (models / "checkpoints").mkdir()
    shutil.copyfile(
        cache / "dino_model" / "dino_vitbase16_pretrain.pth", models / "checkpoints" / "dino_vitbase16_pretrain.pth"
    )
    shutil.copytree(cache / "dino_model" / "facebookresearch_dino_main", models / "facebookresearch_dino_main")
    # DINO's head, which is read and not used.
    maps = {"mlp.0": (2048, WIDTH), "mlp.2": (2048, 2048), "mlp.4": (256, 2048)}
    head = {f"module.head.{name}.weight": torch.zeros(shape) for name, shape in maps.items()}
    head |= {f"module.head.{name}.bias": torch.zeros(shape[0]) for name, shape in maps.items()}
    head["module.head.last_layer.weight"] = torch.zeros(2048, 256)
    torch.save({"student": head}, models / "dino_vitb16_pretrain.pth")
    norm = partial(torch.nn.LayerNorm, eps=1e-6)
    sizes = {"embed_dim": WIDTH, "depth": DEPTH, "num_heads": WIDTH // 64, "qkv_bias": True, "norm_layer": norm}
    small = partial(VisionTransformer, **sizes)
    load_clip_as_dino.vit_base = load_open_clip_as_dino.vit_base = small
    descriptors = extractor.ViTExtractor.extract_descriptors
    # The last block's, which is the twelfth of the whole network.
    extractor.ViTExtractor.extract_descriptors = lambda self, batch, layer: descriptors(self, batch, DEPTH - 1)
    # The official code calls it with its default device, which is a GPU.
    i2v_background.dreamsim = partial(i2v_background.dreamsim, device="cpu", cache_dir=str(models))


def official(driver: object, name: str, clips: list[Path], image: Path, folder: Path) -> dict[str, float]:
    """Each clip's score in one dimension."""
    videos = [(clip, clip.stem.removeprefix("vbench-"), image) for clip in clips]
    return scores_of(driver.evaluate(official_request(name, videos, folder), torch.device("cpu")))


def tokens(texts: list[str]) -> dict[str, list[int]]:
    """Each text's token numbers, without start and end."""
    from clip.simple_tokenizer import SimpleTokenizer

    tokenizer = SimpleTokenizer()
    return {text: tokenizer.encode(text) for text in texts}


def merges(texts: list[str], cache: Path) -> dict[str, str]:
    """The merges, by their place in the file, that can happen in these texts."""
    from clip.simple_tokenizer import bytes_to_unicode

    letters = bytes_to_unicode()
    written = ["".join(letters[byte] for byte in text.lower().encode()) for text in texts]
    packed = (cache / "ViCLIP" / "bpe_simple_vocab_16e6.txt.gz").read_bytes()
    lines = gzip.decompress(packed).decode().split("\n")[1 : 49152 - 256 - 2 + 1]
    joined = ["".join(line.split()).replace("</w>", "") for line in lines]
    used = [place for place, word in enumerate(joined) if any(word in text for text in written)]
    return {str(place): lines[place] for place in used}


def speeds(clip: Path, cache: Path) -> list[float]:
    """How far the fastest pixels move in each pair of frames: a truth value says little of a network."""
    from vbench.dynamic_degree import DynamicDegree

    degree = DynamicDegree(
        argparse.Namespace(
            model=str(cache / "raft_model" / "models" / "raft-things.pth"),
            small=False, mixed_precision=False, alternate_corr=False,
        ),
        torch.device("cpu"),
    )  # fmt: skip
    found: list[float] = []
    measure = degree.get_score

    def remember(*pair: torch.Tensor) -> float:
        found.append(measure(*pair))
        return found[-1]

    degree.get_score = remember
    degree.infer(str(clip))
    return found


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]).absolute(), Path(sys.argv[3]).absolute(), sys.argv[4:])
