"""The official weight files in small, filled with seeded numbers: written alike in both environments, with torch alone.

Sizes that a network's file shows are small ones; those of MUSIQ, RAFT and AMT are fixed, and come from a list.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from seeded_weights import seeded_state, seeded_tensor

Shapes = dict[str, list[int]]
# All of 64 channels a head.
WIDTH, DEPTH, FEATURES, WORDS, TEXT_WIDTH = 128, 2, 768, 49408, 64
# Of DreamSim's adapter.
RANK = 4


class Holder(torch.nn.Module):
    """Parameters under given names, which a TorchScript archive keeps."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels


def save_clip(file: Path, shapes: Mapping[str, list[int]]) -> None:
    """A CLIP in half precision in a TorchScript archive, as published ones are."""
    root = Holder()
    for name, shape in shapes.items():
        place = root
        *parents, last = name.split(".")
        for parent in parents:
            if not hasattr(place, parent):
                place.add_module(parent, Holder())
            place = getattr(place, parent)
        value = seeded_tensor(name, shape).half()
        place.register_parameter(last, torch.nn.Parameter(value, requires_grad=False))
    file.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        # That PyTorch gives the format up is no news here.
        warnings.simplefilter("ignore")
        torch.jit.script(root).save(str(file))


def save(content: object, file: Path) -> None:
    """Write a checkpoint."""
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, file)


def write_small_cache(cache: Path, fixed: Mapping[str, Shapes]) -> None:
    """Every file but the tokenizer's words; `fixed` has the shapes of `musiq`, `raft` and `amt`."""
    save(seeded_state(dino_shapes()), cache / "dino_model" / "dino_vitbase16_pretrain.pth")
    for name in ("ViT-B-32.pt", "ViT-L-14.pt"):
        save_clip(cache / "clip_model" / name, clip_shapes())
    head = {"weight": [1, FEATURES], "bias": [1]}
    save(seeded_state(head), cache / "aesthetic_model" / "emb_reader" / "sa_0_4_vit_l_14_linear.pth")
    save(seeded_state(fixed["musiq"]), cache / "pyiqa_model" / "musiq_spaq_ckpt-358bb6af.pth")
    raft = {f"module.{name}": value for name, value in seeded_state(fixed["raft"]).items()}
    save(raft, cache / "raft_model" / "models" / "raft-things.pth")
    # The published file also holds the arguments of its training script.
    amt = {"state_dict": seeded_state(fixed["amt"]), "args": argparse.Namespace(seed=0)}
    save(amt, cache / "amt_model" / "amt-s.pth")
    save({"model": seeded_state(viclip_shapes())}, cache / "ViCLIP" / "ViClip-InternVid-10M-FLT.pth")
    save_dreamsim(cache / "dreamsim_model", WIDTH, DEPTH, RANK)


def save_dreamsim(folder: Path, width: int, depth: int, rank: int) -> None:
    """DreamSim's release but for DINO's own weights: two networks and the adapter of all three."""
    from safetensors.torch import save_file

    shapes = dino_shapes(width, depth) | _norms("", ("pos_drop",), width) | {"proj": [width, 512]}
    for name in ("clip_vitb16", "open_clip_vitb16"):
        # Of names that differ, so that the networks do.
        state = seeded_state({f"{name}.{part}": shape for part, shape in shapes.items()})
        content = {"state_dict": {part.removeprefix(f"{name}."): value for part, value in state.items()}}
        save(content, folder / f"{name}_pretrain.pth.tar")
    blocks = [f"extractor_list.{network}.model.blocks.{place}" for network in range(3) for place in range(depth)]
    halves = {"A": [rank, width], "B": [3 * width, rank]}
    adapter = {f"base_model.model.{of}.attn.qkv.lora_{half}.weight": halves[half] for of in blocks for half in halves}
    (folder / "ensemble_lora").mkdir(parents=True, exist_ok=True)
    save_file(seeded_state(adapter), folder / "ensemble_lora" / "adapter_model.safetensors")
    settings = {"r": rank, "lora_alpha": 0.5, "lora_dropout": 0.3, "bias": "none", "target_modules": ["qkv"]}
    (folder / "ensemble_lora" / "adapter_config.json").write_text(json.dumps(settings), encoding="utf-8")


def tag2text_state(shapes: Mapping[str, list[int]], end: int) -> dict[str, torch.Tensor]:
    """Tag2Text's tensors: some tags are sure, and sentences, whose last token has the number `end`, come to an end."""
    state = seeded_state(shapes)
    state["fc.W"], state["fc.b"] = 0.3 * shapes["fc.W"][1] ** 0.5 * state["fc.W"], torch.zeros(shapes["fc.b"])
    words, head = "text_decoder.bert.embeddings.word_embeddings.weight", "text_decoder.cls.predictions."
    state[words] = 3 * state[words]
    state[f"{head}bias"][end] = 4
    # One tensor under two names, as the official code has them.
    state[f"{head}decoder.weight"], state[f"{head}decoder.bias"] = state[words], state[f"{head}bias"]
    tied = {name.replace("vision_multi", "tag_encoder"): value for name, value in state.items() if "vision" in name}
    return state | {name: value for name, value in tied.items() if name in state}


def save_tag2text(folder: Path, recorded: Mapping[str, Any]) -> None:
    """Tag2Text in small with its words, and the tags that it was seen to give in their places among others."""
    words = recorded["vocabulary"]
    save({"model": tag2text_state(recorded["shapes"], words.index("[SEP]"))}, folder / "tag2text_swin_14m.pth")
    (folder / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    tags = [recorded["tags"].get(str(place), "another") for place in range(recorded["shapes"]["fc.b"][1])]
    (folder / "tag_class.py").write_text(f"import numpy as np\n\ntra_array = {tags!r}\n", encoding="utf-8")


def dino_shapes(width: int = WIDTH, depth: int = DEPTH) -> Shapes:
    """DINO's names: a ViT of patches of 16."""
    shapes = {"cls_token": [1, 1, width], "pos_embed": [1, 197, width]}
    shapes |= {"patch_embed.proj.weight": [width, 3, 16, 16], "patch_embed.proj.bias": [width]}
    for place in range(depth):
        maps = {"attn.qkv": (width, 3), "attn.proj": (width, 1), "mlp.fc1": (width, 4)}
        shapes |= _maps(f"blocks.{place}.", maps) | _norms(f"blocks.{place}.", ("norm1", "norm2"), width)
        shapes |= {f"blocks.{place}.mlp.fc2.weight": [width, 4 * width], f"blocks.{place}.mlp.fc2.bias": [width]}
    return shapes | _norms("", ("norm",), width)


def clip_shapes() -> Shapes:
    """CLIP's names: patches of 32."""
    shapes = {"positional_embedding": [77, TEXT_WIDTH], "text_projection": [TEXT_WIDTH, FEATURES], "logit_scale": []}
    shapes |= _vision("visual.", [WIDTH, 3, 32, 32], 50)
    shapes |= _blocks("transformer.resblocks.", TEXT_WIDTH) | {"token_embedding.weight": [WORDS, TEXT_WIDTH]}
    return shapes | _norms("", ("ln_final",), TEXT_WIDTH)


def viclip_shapes() -> Shapes:
    """ViCLIP's names: patches of 14 in eight frames, and texts of 32 tokens."""
    shapes = _vision("vision_encoder.", [WIDTH, 3, 1, 14, 14], 257) | {"temp": []}
    shapes["vision_encoder.temporal_positional_embedding"] = [1, 8, WIDTH]
    shapes["text_encoder.positional_embedding"] = [32, TEXT_WIDTH]
    shapes["text_encoder.text_projection"] = [TEXT_WIDTH, FEATURES]
    shapes["text_encoder.token_embedding.weight"] = [WORDS, TEXT_WIDTH]
    shapes |= _blocks("text_encoder.transformer.resblocks.", TEXT_WIDTH)
    return shapes | _norms("text_encoder.", ("ln_final",), TEXT_WIDTH)


def _vision(prefix: str, kernel: list[int], places: int) -> Shapes:
    shapes = {f"{prefix}conv1.weight": kernel, f"{prefix}class_embedding": [WIDTH]}
    shapes |= {f"{prefix}positional_embedding": [places, WIDTH], f"{prefix}proj": [WIDTH, FEATURES]}
    return shapes | _blocks(f"{prefix}transformer.resblocks.", WIDTH) | _norms(prefix, ("ln_pre", "ln_post"), WIDTH)


def _blocks(prefix: str, width: int) -> Shapes:
    shapes: Shapes = {}
    for place in range(DEPTH):
        of = f"{prefix}{place}."
        shapes |= {f"{of}attn.in_proj_weight": [3 * width, width], f"{of}attn.in_proj_bias": [3 * width]}
        shapes |= _maps(of, {"attn.out_proj": (width, 1), "mlp.c_fc": (width, 4)})
        shapes |= {f"{of}mlp.c_proj.weight": [width, 4 * width], f"{of}mlp.c_proj.bias": [width]}
        shapes |= _norms(of, ("ln_1", "ln_2"), width)
    return shapes


def _maps(prefix: str, maps: Mapping[str, tuple[int, int]]) -> Shapes:
    weights = {f"{prefix}{name}.weight": [times * width, width] for name, (width, times) in maps.items()}
    return weights | {f"{prefix}{name}.bias": [times * width] for name, (width, times) in maps.items()}


def _norms(prefix: str, names: tuple[str, ...], width: int) -> Shapes:
    return {f"{prefix}{name}.{part}": [width] for name in names for part in ("weight", "bias")}
