"""The networks of all dimensions, each loaded when it is first asked for, and once."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import nn

from vdmini_bench.vbench.native import catalogue
from vdmini_bench.vbench.native.amt import AmtS, load_amt
from vdmini_bench.vbench.native.catalogue import path_of
from vdmini_bench.vbench.native.clip import ClipTexts, clip_texts, load_clip_images, read_clip_archive
from vdmini_bench.vbench.native.dreamsim import DreamSim, load_dreamsim
from vdmini_bench.vbench.native.musiq import Musiq, load_musiq
from vdmini_bench.vbench.native.raft import Raft, load_raft
from vdmini_bench.vbench.native.tokens import Tokenizer, load_tokenizer
from vdmini_bench.vbench.native.transformer import filled, read_checkpoint
from vdmini_bench.vbench.native.viclip import ViClip, load_viclip
from vdmini_bench.vbench.native.vision import VisionTransformer, load_dino


class Networks:
    """What is read from the official files, on one device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    @cached_property
    def dino(self) -> VisionTransformer:
        """DINO's ViT-B/16."""
        return load_dino(path_of(catalogue.DINO)).to(self.device)

    @cached_property
    def dreamsim(self) -> DreamSim:
        """DreamSim's ensemble."""
        names = (catalogue.DINO, catalogue.DREAMSIM_CLIP, catalogue.DREAMSIM_OPEN_CLIP)
        adapter = (catalogue.ADAPTER_SETTINGS, catalogue.ADAPTER)
        return load_dreamsim(*(path_of(name) for name in (*names, *adapter))).to(self.device)

    @cached_property
    def clip_b(self) -> VisionTransformer:
        """What CLIP ViT-B/32 sees."""
        return load_clip_images(path_of(catalogue.CLIP_B)).to(self.device)

    @cached_property
    def clip_b_texts(self) -> tuple[ClipTexts, float]:
        """What CLIP ViT-B/32 reads, and the factor of its cosines."""
        path = path_of(catalogue.CLIP_B)
        state = read_clip_archive(path)
        return clip_texts(state, path).to(self.device), float(state["logit_scale"].float().exp())

    @cached_property
    def clip_l(self) -> VisionTransformer:
        """What CLIP ViT-L/14 sees."""
        return load_clip_images(path_of(catalogue.CLIP_L)).to(self.device)

    @cached_property
    def aesthetic(self) -> nn.Linear:
        """LAION's head on the features of CLIP ViT-L/14."""
        path = path_of(catalogue.AESTHETIC)
        return filled(lambda: nn.Linear(768, 1), read_checkpoint(path), path)

    @cached_property
    def musiq(self) -> Musiq:
        """MUSIQ of SPAQ."""
        return load_musiq(path_of(catalogue.MUSIQ)).to(self.device)

    @cached_property
    def raft(self) -> Raft:
        """RAFT of FlyingThings."""
        return load_raft(path_of(catalogue.RAFT)).to(self.device)

    @cached_property
    def amt(self) -> AmtS:
        """AMT-S."""
        return load_amt(path_of(catalogue.AMT)).to(self.device)

    @cached_property
    def viclip(self) -> ViClip:
        """ViCLIP of InternVid."""
        return load_viclip(path_of(catalogue.VICLIP)).to(self.device)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """CLIP's words, which ViCLIP has too."""
        return load_tokenizer(path_of(catalogue.WORDS))
