"""Files as their authors published them load into the same models, and files that are something else are refused."""

from __future__ import annotations

import copy
import dataclasses
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
import torch
from diffusers import CogVideoXTransformer3DModel, UNetSpatioTemporalConditionModel
from safetensors.torch import save_file
from tiny_transformers import TINY, Tiny, mochi, real_inputs
from torch import Tensor, nn

from vdmini.errors import ModelLoadError
from vdmini.models.loading import load_model
from vdmini.models.registry import family_named
from vdmini.models.svd_checkpoint import load_unet
from vdmini.models.weights import read_weights

Weights = dict[str, Tensor]

# Mochi asks for autocast to float32, which CPUs have no use for.
pytestmark = pytest.mark.filterwarnings("ignore:In CPU autocast, but the target dtype is not supported:UserWarning")


def renamed(weights: Mapping[str, Tensor], names: Mapping[str, str]) -> Weights:
    """The weights with every match of our patterns, tried in turn, replaced by the original's name."""
    original = {}
    for name, tensor in weights.items():
        for ours, theirs in names.items():
            name = re.sub(ours, theirs, name)
        original[name] = tensor.clone()
    return original


def fused(weights: Mapping[str, Tensor], stack: str, parts: Sequence[str], whole: str) -> Weights:
    """The weights with the layers `parts` of each block of a stack as one layer, called `whole`."""
    original = {**weights}
    for name in weights:
        if name.startswith(stack) and parts[0] in name:
            pieces = [original.pop(name.replace(parts[0], part)) for part in parts]
            original[name.replace(parts[0], whole)] = torch.cat(pieces)
    return original


def with_halves_swapped(weights: Mapping[str, Tensor], pattern: str) -> Weights:
    """The weights with the halves of each that matches a pattern in the other order."""
    return {
        name: torch.cat([*reversed(tensor.chunk(2))]) if re.match(pattern, name) else tensor
        for name, tensor in weights.items()
    }


def original_hunyuanvideo(weights: Mapping[str, Tensor]) -> Weights:
    """HunyuanVideo's weights as its own file has them: fused layers, and a shift before its scale at the end."""
    attention = ("attn.to_q.", "attn.to_k.", "attn.to_v.")
    refiner = "context_embedder.token_refiner.refiner_blocks"
    weights = fused(weights, "transformer_blocks", attention, "img_attn_qkv.")
    text = ("attn.add_q_proj.", "attn.add_k_proj.", "attn.add_v_proj.")
    weights = fused(weights, "transformer_blocks", text, "txt_attn_qkv.")
    weights = fused(weights, "single_transformer_blocks", (*attention, "proj_mlp."), "linear1.")
    weights = fused(weights, refiner, attention, "self_attn_qkv.")
    names = {
        "^norm_out.linear": "final_layer.adaLN_modulation.1",
        "^proj_out": "final_layer.linear",
        "^x_embedder": "img_in",
        "^context_embedder.time_text_embed.timestep_embedder.linear_1": "txt_in.t_embedder.mlp.0",
        "^context_embedder.time_text_embed.timestep_embedder.linear_2": "txt_in.t_embedder.mlp.2",
        "^context_embedder.time_text_embed.text_embedder": "txt_in.c_embedder",
        "^context_embedder.proj_in": "txt_in.input_embedder",
        f"^{refiner}": "txt_in.individual_token_refiner.blocks",
        r"^(txt_in.*)\.attn.to_out.0": r"\1.self_attn_proj",
        r"^(txt_in.*)\.norm_out.linear": r"\1.adaLN_modulation.1",
        r"^(txt_in.*)\.ff\.": r"\1.mlp.",
        "^time_text_embed.timestep_embedder.linear_1": "time_in.mlp.0",
        "^time_text_embed.timestep_embedder.linear_2": "time_in.mlp.2",
        "^time_text_embed.guidance_embedder.linear_1": "guidance_in.mlp.0",
        "^time_text_embed.guidance_embedder.linear_2": "guidance_in.mlp.2",
        "^time_text_embed.text_embedder.linear_1": "vector_in.in_layer",
        "^time_text_embed.text_embedder.linear_2": "vector_in.out_layer",
        r"^single_transformer_blocks\.(\d+)\.norm\.": r"single_blocks.\1.modulation.",
        r"^single_transformer_blocks\.(\d+)\.proj_out\.": r"single_blocks.\1.linear2.",
        r"^single_transformer_blocks\.(\d+)\.attn\.norm_([qk])\.": r"single_blocks.\1.\2_norm.",
        "^single_transformer_blocks": "single_blocks",
        "^transformer_blocks": "double_blocks",
        "attn.norm_added_([qk])": r"txt_attn_\1_norm",
        "attn.norm_([qk])": r"img_attn_\1_norm",
        "attn.to_add_out": "txt_attn_proj",
        "attn.to_out.0": "img_attn_proj",
        r"norm1\.linear": "img_mod.linear",
        r"norm1_context\.linear": "txt_mod.linear",
        r"\.ff\.": ".img_mlp.",
        r"\.ff_context\.": ".txt_mlp.",
        r"net\.0\.proj": "fc1",
        r"net\.2": "fc2",
    }
    return renamed(with_halves_swapped(weights, "norm_out"), names)


def original_mochi(weights: Mapping[str, Tensor]) -> Weights:
    """Mochi's weights as its own file has them: fused layers, gates after values, a shift before its scale."""
    stack = "transformer_blocks"
    weights = fused(weights, stack, ("attn1.to_q.", "attn1.to_k.", "attn1.to_v."), "attn.qkv_x.")
    weights = fused(weights, stack, ("attn1.add_q_proj.", "attn1.add_k_proj.", "attn1.add_v_proj."), "attn.qkv_y.")
    weights = with_halves_swapped(weights, r"norm_out|.*\.ff(_context)?\.net\.0\.")
    names = {
        "^patch_embed": "x_embedder",
        "^time_embed.timestep_embedder.linear_1": "t_embedder.mlp.0",
        "^time_embed.timestep_embedder.linear_2": "t_embedder.mlp.2",
        "^time_embed.pooler": "t5_y_embedder",
        "^time_embed.caption_proj": "t5_yproj",
        "^transformer_blocks": "blocks",
        "^norm_out.linear": "final_layer.mod",
        "^proj_out": "final_layer.linear",
        r"norm1\.linear": "mod_x",
        r"norm1_context\.linear(_1)?": "mod_y",
        r"attn1\.norm_([qk])": r"attn.\1_norm_x",
        r"attn1\.norm_added_([qk])": r"attn.\1_norm_y",
        r"attn1\.to_out\.0": "attn.proj_x",
        r"attn1\.to_add_out": "attn.proj_y",
        r"ff\.net\.0\.proj": "mlp_x.w1",
        r"ff\.net\.2": "mlp_x.w2",
        r"ff_context\.net\.0\.proj": "mlp_y.w1",
        r"ff_context\.net\.2": "mlp_y.w2",
    }
    return renamed(weights, names)


def original_wan(weights: Mapping[str, Tensor]) -> Weights:
    """Wan's weights under the names of its own files."""
    names = {
        "condition_embedder.time_embedder.linear_1": "time_embedding.0",
        "condition_embedder.time_embedder.linear_2": "time_embedding.2",
        "condition_embedder.text_embedder.linear_1": "text_embedding.0",
        "condition_embedder.text_embedder.linear_2": "text_embedding.2",
        "condition_embedder.time_proj": "time_projection.1",
        r"\.attn1\.": ".self_attn.",
        r"\.attn2\.": ".cross_attn.",
        r"\.to_out\.0\.": ".o.",
        r"\.to_([qkv])\.": r".\1.",
        r"\.norm2\.": ".norm3.",
        r"ffn\.net\.0\.proj": "ffn.0",
        r"ffn\.net\.2": "ffn.2",
        "^scale_shift_table": "head.modulation",
        r"\.scale_shift_table": ".modulation",
        "^proj_out": "head.head",
    }
    return renamed(weights, names)


def original_ltx(weights: Mapping[str, Tensor]) -> Weights:
    """LTX-Video's weights under the names of its own file, which holds the VAE as well."""
    names = {
        "^proj_in": "patchify_proj",
        "^time_embed": "adaln_single",
        "norm_([qk])": r"\1_norm",
        "^": "model.diffusion_model.",
    }
    return renamed(weights, names) | {"vae.encoder.conv_in.conv.weight": torch.ones(3)}


@dataclasses.dataclass(frozen=True)
class Original:
    """A published name, a tiny model to stand for it, and its weights in the layout of the original file."""

    name: str
    tiny: Tiny
    layout: Callable[[Mapping[str, Tensor]], Weights]


# diffusers' converter of Mochi's file counts on the published number of blocks.
MOCHI = dataclasses.replace(TINY["mochi"], denoiser=lambda: mochi(layers=48))
ORIGINALS = {
    "hunyuanvideo": Original("hunyuanvideo", TINY["hunyuanvideo"], original_hunyuanvideo),
    "wan": Original("wan2.1-t2v-1.3b", TINY["wan"], original_wan),
    "ltx": Original("ltx-video-2b", TINY["ltx"], original_ltx),
    "mochi": Original("mochi-1-preview", MOCHI, original_mochi),
}


def stand_in(family: str, monkeypatch: pytest.MonkeyPatch) -> tuple[nn.Module, Weights]:
    """The tiny model, whose configuration is now what is published, and its weights in the original layout."""
    original, module = ORIGINALS[family], family_named(family)
    denoiser = original.tiny.build_denoiser()
    monkeypatch.setattr(module, "configs", {original.name: module.architecture(denoiser)})
    return denoiser, original.layout(denoiser.state_dict())


def write(weights: Mapping[str, object], path: Path) -> Path:
    """A file of the kind that its suffix says; pickled ones wrap the weights as HunyuanVideo's own does."""
    save_file(weights, path) if path.suffix == ".safetensors" else torch.save({"module": weights}, path)
    return path


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
@pytest.mark.parametrize("family", ORIGINALS)
@torch.no_grad()
def test_an_original_file_gives_the_same_model(
    family: str, suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    denoiser, weights = stand_in(family, monkeypatch)
    # Names that the model has already would not be converted.
    assert len({*weights} & {*denoiser.state_dict()}) < 0.1 * len(weights)
    model = load_model(write(weights, tmp_path / f"original.{suffix}"), family=family)
    assert (model.family, model.pipeline, type(model.denoiser)) == (family, None, type(denoiser))
    loaded = model.denoiser.state_dict()
    assert loaded.keys() == denoiser.state_dict().keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in denoiser.state_dict().items())
    inputs = real_inputs(ORIGINALS[family].tiny, denoiser)
    # Weights mapped from a file lie at any address, on which a last bit may depend: copies do not.
    output = copy.deepcopy(model.denoiser)(**inputs).sample
    assert (output - denoiser(**inputs).sample).abs().max().item() == 0.0
    assert output.isfinite().all()


@pytest.mark.parametrize("family", ORIGINALS)
def test_files_that_are_not_the_whole_model_are_refused(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, weights = stand_in(family, monkeypatch)
    last = [name for name in weights if "vae" not in name][-1]
    wrong = {
        "part": {name: tensor for name, tensor in weights.items() if name != last},
        "wider": {**weights, last: torch.zeros(3, *weights[last].shape)},
        "quantised": {**weights, f"{last}_scale": torch.ones(1)},
        "other": {"other": torch.zeros(1)},
    }
    for name, tensors in wrong.items():
        with pytest.raises(ModelLoadError, match=rf"{name}\.safetensors.*check the"):
            load_model(write(tensors, tmp_path / f"{name}.safetensors"), family=family)


def test_more_blocks_than_the_model_has_are_not_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    denoiser, weights = stand_in("wan", monkeypatch)
    module = family_named("wan")
    monkeypatch.setattr(module, "configs", {"wan2.1-t2v-1.3b": {**module.architecture(denoiser), "num_layers": 4}})
    with pytest.raises(ModelLoadError, match=r"'wan2\.1-t2v-1\.3b'.* 27 unknown \(blocks\.4\..*, \.\.\.\): check"):
        load_model(write(weights, tmp_path / "original.pt"), family="wan")


def test_a_page_and_a_pickled_object_are_refused(tmp_path: Path) -> None:
    (tmp_path / "page.safetensors").write_bytes(b"<html>")
    (tmp_path / "page.pt").write_bytes(b"<html>")
    write({"weight": Path("an object")}, tmp_path / "object.pt")
    reasons = {"page.safetensors": "is a web page", "page.pt": "is a web page", "object.pt": "cannot be read"}
    for name, reason in reasons.items():
        with pytest.raises(ModelLoadError, match=f"{name}' {reason}"):
            load_model(tmp_path / name, family="hunyuanvideo")


def test_a_file_of_cogvideox_is_refused_with_the_way_to_convert_it(tmp_path: Path) -> None:
    # Once diffusers reads them, so should this project.
    assert not hasattr(CogVideoXTransformer3DModel, "from_single_file")
    with pytest.raises(ModelLoadError, match=r"diffusers folder or hub id, or convert .*convert_\*_to_diffusers"):
        load_model(write({"weight": torch.zeros(1)}, tmp_path / "file.pt"), family="cogvideox-5b")


@torch.no_grad()
def test_a_unet_of_svd_in_one_file_is_the_same_unet(
    tiny_teacher: UNetSpatioTemporalConditionModel, tiny_inputs: dict[str, Tensor], tmp_path: Path
) -> None:
    half = copy.deepcopy(tiny_teacher).half()
    file = write(half.state_dict(), tmp_path / "AnimateLCM-SVD-xt.safetensors")
    loaded = load_unet(file, tiny_teacher.config)
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float16}
    assert all(parameter.requires_grad for parameter in loaded.parameters())
    output = copy.deepcopy(loaded).float()(**tiny_inputs).sample
    assert (output - half.float()(**tiny_inputs).sample).abs().max().item() == 0.0


def test_files_that_are_not_the_unet_of_svd_are_refused(
    tiny_teacher: UNetSpatioTemporalConditionModel, tmp_path: Path
) -> None:
    weights = tiny_teacher.state_dict()
    wrong = {
        r"1 missing \(conv_out\.bias\)": {name: weight for name, weight in weights.items() if name != "conv_out.bias"},
        r"1 unknown \(out\.2\.bias\)": {**weights, "out.2.bias": torch.zeros(4)},
        r"1 of another shape \(conv_in\.weight has 32x4x3x3 for 32x8x3x3\)": {
            **weights,
            "conv_in.weight": torch.zeros(32, 4, 3, 3),
        },
    }
    for problem, tensors in wrong.items():
        file = write(tensors, tmp_path / "unet.safetensors")
        with pytest.raises(ModelLoadError, match=rf"{problem}: .* give its diffusers version"):
            load_unet(file, tiny_teacher.config)
    (tmp_path / "page.safetensors").write_bytes(b"<html>")
    for name, reason in {"page": "is a web page", "absent": "cannot be read"}.items():
        with pytest.raises(ModelLoadError, match=rf"{name}\.safetensors' {reason}"):
            load_unet(tmp_path / f"{name}.safetensors", tiny_teacher.config)


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "model.diffusion_model.", "module._orig_mod.", "model."])
def test_one_prefix_of_all_names_is_left_out_and_said(
    prefix: str, tiny_teacher: UNetSpatioTemporalConditionModel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    weights = tiny_teacher.state_dict()
    file = write({f"{prefix}{name}": weight for name, weight in weights.items()}, tmp_path / "unet.pt")
    loaded = load_unet(file, tiny_teacher.config).state_dict()
    assert all(torch.equal(loaded[name], weight) for name, weight in weights.items())
    assert f"without the prefix {prefix!r}" in caplog.text
    assert f"{len(weights)} weights" in caplog.text


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "model.diffusion_model."])
def test_a_prefixed_original_of_a_transformer_is_the_same_model(
    prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    denoiser, weights = stand_in("wan", monkeypatch)
    beside = {"vae.decoder.weight": torch.ones(2)} if prefix.endswith("diffusion_model.") else {}
    named = {f"{prefix}{name}": weight for name, weight in weights.items()}
    loaded = load_model(write(named | beside, tmp_path / "wan.safetensors"), family="wan").denoiser.state_dict()
    assert all(torch.equal(loaded[name], weight) for name, weight in denoiser.state_dict().items())
    assert ("1 others, of networks beside it, are not" in caplog.text) == bool(beside)


def test_a_file_with_diffusers_names_is_read_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    denoiser, _ = stand_in("ltx", monkeypatch)
    weights = denoiser.state_dict()
    loaded = load_model(write(weights, tmp_path / "ltx.safetensors"), family="ltx").denoiser.state_dict()
    assert all(torch.equal(loaded[name], weight) for name, weight in weights.items())
    weights.pop("proj_out.bias")
    with pytest.raises(ModelLoadError, match=r"1 missing \(proj_out\.bias\): check"):
        load_model(write(weights, tmp_path / "part.safetensors"), family="ltx")


def test_files_of_other_kinds_are_called_what_they_are(
    tiny_teacher: UNetSpatioTemporalConditionModel, tmp_path: Path
) -> None:
    contents = {
        "a Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n",
        "a GGUF file": b"GGUF" + bytes(64),
        "a web page": b"\xef\xbb\xbf\n<!DOCTYPE html>",
        "empty": b"",
    }
    for kind, content in contents.items():
        (tmp_path / "unet.safetensors").write_bytes(content)
        with pytest.raises(ModelLoadError, match=rf"unet\.safetensors' is {kind}"):
            load_unet(tmp_path / "unet.safetensors", tiny_teacher.config)
    weights = tiny_teacher.state_dict()
    torch.save({"generator": weights, "critic": weights}, tmp_path / "two.pt")
    with pytest.raises(ModelLoadError, match=r"several sets of weights \(generator, critic\)"):
        load_unet(tmp_path / "two.pt", tiny_teacher.config)


def test_a_header_that_begins_like_a_page_is_none(tmp_path: Path) -> None:
    # 0x3c20 = 15,392 bytes of header: a space and a "<" come first.
    header = json.dumps({"weight": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).ljust(0x3C20).encode()
    (tmp_path / "file.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    assert (tmp_path / "file.safetensors").read_bytes()[:2] == b" <"
    assert read_weights(tmp_path / "file.safetensors")["weight"].tolist() == [0.0]
