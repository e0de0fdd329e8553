"""The networks of all dimensions, each loaded when it is first asked for, and once."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import nn

from vdmini_bench.vbench.native import catalogue
from vdmini_bench.vbench.native.amt import AmtS
from vdmini_bench.vbench.native.catalogue import path_of
from vdmini_bench.vbench.native.clip import ClipTexts, clip_texts, load_clip_images, read_clip_archive
from vdmini_bench.vbench.native.dreamsim import DreamSim, load_dreamsim
from vdmini_bench.vbench.native.musiq import Musiq, musiq_state
from vdmini_bench.vbench.native.raft import Raft
from vdmini_bench.vbench.native.tag2text import Tag2Text, load_tag2text
from vdmini_bench.vbench.native.tokens import Tokenizer
from vdmini_bench.vbench.native.transformer import filled, read_checkpoint, rename, require_names
from vdmini_bench.vbench.native.viclip import ViClip, load_viclip
from vdmini_bench.vbench.native.vision import VisionTransformer


class Networks:
    """What is read from the official files, on one device.

    Raises:
        MissingAssetsError: asked for a network, where its file is another one.
        NotFiniteError: asked for a network, where a weight is not finite.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device

    @cached_property
    def dino(self) -> VisionTransformer:
        """DINO's ViT-B/16."""
        path = path_of(catalogue.DINO)
        state = read_checkpoint(path)
        require_names(state, ("patch_embed.proj.weight", "pos_embed", "cls_token", "norm.weight"), path, "DINO")
        return filled(lambda: VisionTransformer(state, nn.GELU(), 1e-6), state, path).to(self.device)

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
        path = path_of(catalogue.MUSIQ)
        return filled(Musiq, musiq_state(read_checkpoint(path)), path).to(self.device)

    @cached_property
    def raft(self) -> Raft:
        """RAFT of FlyingThings."""
        path = path_of(catalogue.RAFT)
        # A norm that belongs to two modules is in the file twice.
        state = {name: value for name, value in read_checkpoint(path).items() if ".norm3." not in name}
        return filled(Raft, rename(state, {"module.": ""}), path).to(self.device)

    @cached_property
    def amt(self) -> AmtS:
        """AMT-S."""
        path = path_of(catalogue.AMT)
        checkpoint = read_checkpoint(path)
        require_names(checkpoint, ("state_dict",), path, "AMT")
        return filled(AmtS, checkpoint["state_dict"], path).to(self.device)

    @cached_property
    def viclip(self) -> ViClip:
        """ViCLIP of InternVid."""
        return load_viclip(path_of(catalogue.VICLIP)).to(self.device)

    @cached_property
    def tag2text(self) -> Tag2Text:
        """Tag2Text of Swin-B."""
        weights, tags, words = (path_of(name) for name in (catalogue.TAG2TEXT, catalogue.TAGS, catalogue.VOCABULARY))
        return load_tag2text(weights, tags, words, self.device)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """CLIP's words, which ViCLIP has too."""
        return Tokenizer(path_of(catalogue.WORDS))
