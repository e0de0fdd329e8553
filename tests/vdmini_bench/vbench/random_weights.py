"""Runs inside the environment: fills a cache folder with random weights of the right shapes."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path

import torch

sys.path.append(str(Path(__file__).parent))
from seeded_weights import seeded_state, seeded_tensor, shapes_of

# As DINO's own: the weights come from torch's cache, whatever path the caller gives, and any size of image is taken.
HUBCONF = """
import timm
import torch

def dino_vitb16(pretrained=True, path=None, read_frame=None, **kwargs):
    model = timm.create_model("vit_base_patch16_224", num_classes=0, dynamic_img_size=True, dynamic_img_pad=True)
    file = torch.hub.get_dir() + "/checkpoints/dino_vitbase16_pretrain.pth"
    model.load_state_dict(torch.load(file))
    return model
"""


def main(cache: Path) -> None:
    """Write every file; needs the package and 4 GB of memory."""
    save_clip(cache / "clip_model" / "ViT-B-32.pt", 512, 12, 768, 32, 512, 8)
    save_clip(cache / "clip_model" / "ViT-L-14.pt", 768, 24, 1024, 14, 768, 12)
    head = seeded_state(shapes_of(torch.nn.Linear(768, 1).state_dict()))
    save(head, cache / "aesthetic_model" / "emb_reader" / "sa_0_4_vit_l_14_linear.pth")
    import timm
    from omegaconf import OmegaConf
    from pyiqa.archs.musiq_arch import MUSIQ
    from vbench.motion_smoothness import build_from_cfg
    from vbench.third_party.RAFT.core.raft import RAFT

    dino = seeded(timm.create_model("vit_base_patch16_224", num_classes=0))
    save(dino, cache / "dino_model" / "dino_vitbase16_pretrain.pth")
    hub = cache / "dino_model" / "facebookresearch_dino_main" / "hubconf.py"
    hub.parent.mkdir(parents=True, exist_ok=True)
    hub.write_text(HUBCONF)
    save(seeded(MUSIQ(pretrained=False)), cache / "pyiqa_model" / "musiq_spaq_ckpt-358bb6af.pth")
    raft = seeded(RAFT(argparse.Namespace(small=False, mixed_precision=False, alternate_corr=False)))
    raft = {f"module.{name}": value for name, value in raft.items()}
    save(raft, cache / "raft_model" / "models" / "raft-things.pth")
    import vbench

    settings = OmegaConf.load(Path(vbench.__file__).parent / "third_party" / "amt" / "cfgs" / "AMT-S.yaml").network
    # The published file also holds the arguments of its training script.
    amt = {"state_dict": seeded(build_from_cfg(settings)), "args": argparse.Namespace(seed=0)}
    save(amt, cache / "amt_model" / "amt-s.pth")
    save_viclip(cache / "ViCLIP")


def seeded(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Weights for a network, from its tensors' names."""
    return seeded_state(shapes_of(network.state_dict()))


def save_viclip(folder: Path) -> None:
    """ViCLIP, and the words of its tokenizer, which CLIP's package has."""
    import clip

    folder.mkdir(parents=True, exist_ok=True)
    words = "bpe_simple_vocab_16e6.txt.gz"
    shutil.copyfile(Path(clip.__file__).with_name(words), folder / words)
    from vbench.third_party.ViCLIP.viclip import ViCLIP

    save({"model": seeded(ViCLIP(pretrain=None))}, folder / "ViClip-InternVid-10M-FLT.pth")


class Holder(torch.nn.Module):
    """Parameters under given names, which a TorchScript archive keeps."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels


def save_clip(file: Path, embedding: int, layers: int, width: int, patch: int, text_width: int, heads: int) -> None:
    """A CLIP in half precision in a TorchScript archive, as published ones are."""
    from clip.model import CLIP

    root = Holder()
    with torch.device("meta"):
        shapes = shapes_of(CLIP(embedding, 224, layers, width, patch, 77, 49408, text_width, heads, 12).state_dict())
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
    torch.jit.script(root).save(str(file))


def save(content: object, file: Path) -> None:
    """Write a checkpoint."""
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, file)


if __name__ == "__main__":
    sys.path.append(sys.argv[1])
    driver = __import__("driver")
    driver.repair_torchvision()
    os.environ["VBENCH_CACHE_DIR"] = sys.argv[2]
    main(Path(sys.argv[2]))
