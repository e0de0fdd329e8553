"""Models load from names and folders, and what does not load says why."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from diffusers import StableVideoDiffusionPipeline, UNetSpatioTemporalConditionModel
from torch import Tensor

import vdmini
from vdmini import ModelLoadError, VDMiniUNetSpatioTemporal, apply_plan, load_model
from vdmini.blocks import BlockGraph
from vdmini.conditioning.svd import CONDITIONING
from vdmini.models.registry import EMBEDDED, VideoModel, block_graph, family_named
from vdmini.models.svd_unet import NoMidBlock
from vdmini.plan import PruningPlan


def test_importing_the_package_imports_no_torch() -> None:
    code = (
        "import sys, vdmini, vdmini.models, vdmini.plan; sys.exit('torch' in sys.modules or 'diffusers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_export_resolves() -> None:
    for name in vdmini.__all__:
        assert getattr(vdmini, name) is not None
        assert name in dir(vdmini)
    assert vdmini.blocks.Block is vdmini.Block
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = vdmini.nothing


def test_family_name_gives_the_official_model(official: VideoModel) -> None:
    assert (official.family, official.source, official.pipeline) == ("svd", "svd", None)
    assert official.blocks is official.blocks
    assert {parameter.device.type for parameter in official.denoiser.parameters()} == {"meta"}
    half = load_model("svd", random_weights=True, device="meta", dtype=torch.float16)
    assert {parameter.dtype for parameter in half.denoiser.parameters()} == {torch.float16}


@torch.no_grad()
def test_pipeline_folder_loads(tiny_folder: Path, tiny_inputs: dict[str, Tensor]) -> None:
    model = load_model(tiny_folder, family="svd")
    original = UNetSpatioTemporalConditionModel.from_pretrained(tiny_folder / "unet")
    assert isinstance(model.pipeline, StableVideoDiffusionPipeline)
    assert model.vae is model.pipeline.vae
    assert model.denoiser is model.pipeline.unet
    assert torch.equal(model.denoiser(**tiny_inputs).sample, original(**tiny_inputs).sample)
    assert str(model.blocks.input) == "batch 1, 4 frames, 8x8 latents"
    half = load_model(str(tiny_folder), dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in half.denoiser.parameters()} == {torch.bfloat16}


def test_bare_denoiser_folder_loads(tiny_folder: Path) -> None:
    model = load_model(tiny_folder / "unet")
    assert (model.family, model.vae, model.pipeline) == ("svd", None, None)


def test_meta_device_reads_configurations_and_no_weights(tiny_folder: Path, tiny_graph: BlockGraph) -> None:
    for weights in tiny_folder.rglob("*.safetensors"):
        weights.unlink()
    for source in (tiny_folder, tiny_folder / "unet"):
        model = load_model(source, device="meta", dtype=torch.float16)
        assert {(each.device.type, each.dtype) for each in model.denoiser.parameters()} == {("meta", torch.float16)}
        assert (model.pipeline, model.blocks.params) == (None, tiny_graph.params)
    (tiny_folder / "unet" / "config.json").write_text('{"_class_name": "Transformer2DModel"}')
    with pytest.raises(ModelLoadError, match=r"describes no denoiser of UNetSpatioTemporal"):
        load_model(tiny_folder, device="meta")
    shutil.rmtree(tiny_folder / "unet")
    with pytest.raises(ModelLoadError, match="has no configuration of a denoiser"):
        load_model(tiny_folder, device="meta")


def test_a_family_name_means_its_first_published_model() -> None:
    assert load_model("wan", random_weights=True, device="meta").denoiser.config.num_layers == 30
    with pytest.raises(ModelLoadError, match="disagree"):
        load_model("wan2.1-t2v-14b", family="svd", random_weights=True, device="meta")


def test_a_file_is_an_original_checkpoint_of_the_family_that_is_named(tmp_path: Path) -> None:
    file = tmp_path / "unet_mg.pt"
    torch.save({"weight": torch.ones(1)}, file)
    with pytest.raises(ModelLoadError, match="say whose original checkpoint it is"):
        load_model(file)
    with pytest.raises(ModelLoadError, match=r"unet_mg\.pt"):
        load_model(file, family="t2v-turbo-v2")
    with pytest.raises(ModelLoadError, match="give its diffusers version"):
        load_model(file, family="svd")


def test_embedded_model_loads_from_the_package(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(EMBEDDED, "embedded/svd", tmp_path / "absent")
    with pytest.raises(ModelLoadError, match=r"'embedded/svd' is not part of this installation"):
        load_model("embedded/svd")
    monkeypatch.setitem(EMBEDDED, "embedded/svd", tiny_folder)
    assert load_model("embedded/svd").source == "embedded/svd"


def test_sources_that_do_not_load_are_named(tmp_path: Path, tiny_folder: Path) -> None:
    with pytest.raises(ModelLoadError, match="names a published model, not weights"):
        load_model("svd")
    with pytest.raises(ModelLoadError, match=r"unknown family 'sdv'.*did you mean 'svd'"):
        load_model(tiny_folder, family="sdv")
    with pytest.raises(ModelLoadError, match="'x/y' is no published model's name"):
        load_model("x/y", random_weights=True)
    with pytest.raises(ModelLoadError, match=r"has no model_index\.json"):
        load_model(tmp_path)
    with pytest.raises(ModelLoadError, match="holds no denoiser"):
        load_model(tiny_folder / "vae")


def test_code_in_a_folder_is_not_run(tiny_folder: Path) -> None:
    (tiny_folder / "unet" / "custom.py").write_text("raise SystemExit('code of the source was run')\n")
    index = tiny_folder / "model_index.json"
    index.write_text(index.read_text().replace('"diffusers",\n    "UNetSpatio', '"custom",\n    "UNetSpatio'))
    assert '"custom"' in index.read_text()
    with pytest.raises(ModelLoadError):
        load_model(tiny_folder)


def test_damaged_weights_are_a_load_error(tiny_folder: Path) -> None:
    (tiny_folder / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"<html>")
    with pytest.raises(ModelLoadError):
        load_model(tiny_folder)
    with pytest.raises(ModelLoadError):
        load_model(tiny_folder / "unet")
    shutil.rmtree(tiny_folder / "unet")
    with pytest.raises(ModelLoadError):
        load_model(tiny_folder)


def test_mid_block_is_only_built_when_asked_for() -> None:
    config = {"block_out_channels": (32, 64, 64), "num_attention_heads": 2, "cross_attention_dim": 32}
    assert isinstance(VDMiniUNetSpatioTemporal(**config).mid_block, NoMidBlock)
    with_mid = VDMiniUNetSpatioTemporal(**config, mid_block_type="UNetMidBlockSpatioTemporal")
    assert "Mid" in family_named("svd").block_modules(with_mid)
    with pytest.raises(ValueError, match="unknown mid_block_type 'other'"):
        VDMiniUNetSpatioTemporal(**config, mid_block_type="other")


def test_blocks_of_a_student_add_up(
    tiny_teacher: UNetSpatioTemporalConditionModel, tiny_plan: PruningPlan, tiny_graph: BlockGraph
) -> None:
    student = block_graph(apply_plan(tiny_teacher, tiny_plan))
    left = tiny_graph.without(tiny_plan.removed)
    assert (student.params, student.flops) == (left.params, left.flops)
    assert [(block.params, block.flops) for block in student.blocks] == [
        (block.params, block.flops) for block in left.blocks
    ]
    assert student.stages == ("embeddings", "conv_in", "D.0", "D.1", "D.2", "U.0", "U.1", "U.2", "conv_out")


@torch.no_grad()
def test_encoder_features_are_the_down_stages(
    tiny_teacher: UNetSpatioTemporalConditionModel, tiny_inputs: dict[str, Tensor]
) -> None:
    with vdmini.FeatureTap(tiny_teacher, ["D.0", "D.1", "D.2", "D.3"]) as tap:
        tiny_teacher(**tiny_inputs)
    features = CONDITIONING.encoder_features(tiny_teacher, tiny_inputs)
    assert all(torch.equal(one, other) for one, other in zip(features, tap.features, strict=True))
