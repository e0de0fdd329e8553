"""Runs inside the environment: fills a cache folder with random weights of the right shapes."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path

import torch

sys.path.append(str(Path(__file__).parent))
from seeded_weights import seeded_state, shapes_of
from small_networks import save, save_clip, save_dreamsim

# As DINO's own: the weights come from torch's cache, whatever path the caller gives, and frames of any shape are taken,
# with the trained grid of places stretched to theirs.
HUBCONF = """
import timm
import torch
from torch.nn.functional import interpolate

def dino_vitb16(pretrained=True, path=None, read_frame=None, **kwargs):
    model = timm.create_model("vit_base_patch16_224", num_classes=0, dynamic_img_size=True)
    file = torch.hub.get_dir() + "/checkpoints/dino_vitbase16_pretrain.pth"
    model.load_state_dict(torch.load(file))
    # As a size is known, timm refuses sides that are no multiples of a patch, whose rest DINO leaves out.
    model.patch_embed.img_size = None

    def add_places(patches):
        batch, rows, columns, width = patches.shape
        first, grid = model.pos_embed[:, :1], model.pos_embed[:, 1:].view(1, 14, 14, width).permute(0, 3, 1, 2)
        if (rows, columns) != (14, 14):
            grid = interpolate(grid, scale_factor=((rows + 0.1) / 14, (columns + 0.1) / 14), mode="bicubic")
        tokens = torch.cat([model.cls_token.expand(batch, -1, -1), patches.flatten(1, 2)], dim=1)
        return tokens + torch.cat([first, grid.flatten(2).transpose(1, 2)], dim=1)

    model._pos_embed = add_places
    return model
"""


def main(cache: Path) -> None:
    """Write every file; needs the package and 4 GB of memory."""
    from clip.model import CLIP

    with torch.device("meta"):
        small = CLIP(512, 224, 12, 768, 32, 77, 49408, 512, 8, 12)
        large = CLIP(768, 224, 24, 1024, 14, 77, 49408, 768, 12, 12)
    save_clip(cache / "clip_model" / "ViT-B-32.pt", shapes_of(small.state_dict()))
    save_clip(cache / "clip_model" / "ViT-L-14.pt", shapes_of(large.state_dict()))
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
    save_dreamsim(cache / "dreamsim_model", 768, 12, 16)


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


if __name__ == "__main__":
    sys.path.append(sys.argv[1])
    driver = __import__("driver")
    driver.repair_torchvision()
    os.environ["VBENCH_CACHE_DIR"] = sys.argv[2]
    main(Path(sys.argv[2]))
