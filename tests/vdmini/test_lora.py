"""A merged adapter is the weights plus its product, and nothing else."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tiny_clips import svd_pipeline, svd_unet
from tiny_transformers import TINY
from torch import Tensor

from vdmini.errors import ModelLoadError
from vdmini.lora import merge_lora

LAYERS = ("blocks.0.attn1.to_q", "blocks.3.ffn.net.2")
needs_peft = pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="pip install peft")


def tiny_wan() -> Any:
    return TINY["wan"].build_pipeline(TINY["wan"].build_denoiser())


def write_lora(denoiser: Any, layers: tuple[str, ...], file: Path, prefix: str = "transformer.") -> dict[str, Tensor]:
    """The products of an adapter of rank 2, by layer."""
    generator, products, saved = torch.Generator().manual_seed(0), {}, {}
    for layer in layers:
        rows, columns = denoiser.get_submodule(layer).weight.shape
        first, second = torch.randn(2, columns, generator=generator), torch.randn(rows, 2, generator=generator)
        saved |= {f"{prefix}{layer}.lora_A.weight": first, f"{prefix}{layer}.lora_B.weight": second}
        products[f"{layer}.weight"] = second @ first
    save_file(saved, file)
    return products


@needs_peft
def test_the_merged_weights_are_the_old_ones_plus_the_product(tmp_path: Path) -> None:
    pipeline = tiny_wan()
    before = {name: weight.clone() for name, weight in pipeline.transformer.state_dict().items()}
    products = write_lora(pipeline.transformer, LAYERS, tmp_path / "a.safetensors")
    merge_lora(pipeline, str(tmp_path / "a.safetensors"))
    after = pipeline.transformer.state_dict()
    assert after.keys() == before.keys()
    for name, weight in after.items():
        torch.testing.assert_close(weight, before[name] + products.get(name, 0))


@needs_peft
def test_files_that_do_not_fit_are_refused_and_change_nothing(tmp_path: Path) -> None:
    pipeline, file = tiny_wan(), tmp_path / "a.safetensors"
    before = {name: weight.clone() for name, weight in pipeline.transformer.state_dict().items()}
    shorter = tiny_wan()
    shorter.transformer.blocks = shorter.transformer.blocks[:2]
    write_lora(pipeline.transformer, LAYERS, file)
    with pytest.raises(ModelLoadError, match="1 of its 2 layers fit"):
        merge_lora(shorter, str(file))
    write_lora(pipeline.transformer, LAYERS, file, prefix="another.")
    with pytest.raises(ModelLoadError, match="0 of its 2 layers fit"):
        merge_lora(pipeline, str(file))
    file.write_bytes(b"damaged")
    with pytest.raises(ModelLoadError, match="cannot be merged into WanPipeline"):
        merge_lora(pipeline, str(file))
    after = pipeline.transformer.state_dict()
    assert all(torch.equal(weight, before[name]) for name, weight in after.items())
    assert after.keys() == before.keys()


def test_pipelines_without_lora_and_a_missing_peft_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelLoadError, match="no LoRA into StableVideoDiffusionPipeline"):
        merge_lora(svd_pipeline(svd_unet()), "a.safetensors")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelLoadError, match="pip install peft"):
        merge_lora(tiny_wan(), "a.safetensors")
