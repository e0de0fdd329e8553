"""Pipeline folders as people have them: variants, several files, .bin, pointers, missing parts; and the hub."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableVideoDiffusionPipeline, UNetSpatioTemporalConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor

from vdmini import ModelLoadError, checkpoint_sha256, load_model
from vdmini.models.folders import weights_entry
from vdmini.models.hub import source_folder, wanted_files

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 3046000000\n"
UNET = "diffusion_pytorch_model"


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any attempt to reach another machine fails the test."""

    def refuse(*_: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture
def half(tiny_pipeline: StableVideoDiffusionPipeline, tmp_path: Path) -> Path:
    """A folder that holds its networks as the variant fp16 alone, the UNet in several files."""
    weights = {name: value.half() for name, value in tiny_pipeline.unet.state_dict().items()}
    tiny_pipeline.unet.load_state_dict({name: value.float() for name, value in weights.items()})
    for part in (tiny_pipeline.unet, tiny_pipeline.vae, tiny_pipeline.image_encoder):
        torch.nn.Module.half(part)
    tiny_pipeline.save_pretrained(tmp_path / "half", variant="fp16", max_shard_size="2MB")
    assert len([*(tmp_path / "half" / "unet").glob("*-of-*")]) > 1
    assert not (tmp_path / "half" / "unet" / f"{UNET}.safetensors").exists()
    return tmp_path / "half"


def same(found: torch.nn.Module, expected: dict[str, Tensor]) -> bool:
    state = found.state_dict()
    return state.keys() == expected.keys() and all(torch.equal(state[name], expected[name]) for name in expected)


def test_a_folder_with_a_variant_alone_loads(half: Path, tiny_pipeline: StableVideoDiffusionPipeline) -> None:
    weights = tiny_pipeline.unet.state_dict()
    model = load_model(half)
    assert same(model.denoiser, {name: value.float() for name, value in weights.items()})
    kept: Any = load_model(half, dtype="auto").pipeline
    assert same(kept.unet, weights)
    assert [part.dtype for part in (kept.unet, kept.vae, kept.image_encoder)] == [torch.float16] * 3
    assert load_model(half / "unet", dtype="auto").denoiser.dtype == torch.float16


def test_a_variant_is_read_only_where_there_are_no_plain_files(tiny_folder: Path) -> None:
    unet, vae = (tiny_folder / part / f"{UNET}.safetensors" for part in ("unet", "vae"))
    plain = load_file(vae)
    unet.rename(unet.with_name(f"{UNET}.fp16.safetensors"))
    save_file(
        {name: torch.zeros_like(value) for name, value in plain.items()}, vae.with_name(f"{UNET}.fp16.safetensors")
    )
    pipeline: Any = load_model(tiny_folder).pipeline
    assert same(pipeline.vae, plain)
    unet.with_name(f"{UNET}.bf16.safetensors").write_bytes(b"")
    with pytest.raises(ModelLoadError, match=r"unet holds the variants bf16, fp16 and no plain weights"):
        load_model(tiny_folder)


@pytest.mark.parametrize(
    ("names", "read"),
    [
        (
            ["model.safetensors.index.fp16.json", "model.fp16-00001-of-00002.safetensors"],
            "model.safetensors.index.fp16.json",
        ),
        ([f"{UNET}.fp16.safetensors", f"{UNET}.bin"], f"{UNET}.bin"),
        ([f"{UNET}.non_ema.bin", f"{UNET}.safetensors", f"{UNET}.bin", "config.json"], f"{UNET}.safetensors"),
        (["pytorch_model.bin.index.json", "model.safetensors.index.json"], "model.safetensors.index.json"),
        (["spiece.model", "model_index.json", "README.md"], None),
    ],
)
def test_plain_files_come_before_variants_and_safetensors_before_pickles(names: list[str], read: str | None) -> None:
    entry = weights_entry(names, "unet")
    assert (None if entry is None else entry.name) == read


def test_pickled_tensors_load_and_objects_do_not(tiny_folder: Path, tmp_path: Path) -> None:
    file = tiny_folder / "unet" / f"{UNET}.safetensors"
    weights, digest = load_file(file), checkpoint_sha256(tiny_folder)
    file.unlink()
    torch.save(weights, file.with_suffix(".bin"))
    assert same(load_model(tiny_folder, dtype="auto").denoiser, weights)
    assert checkpoint_sha256(tiny_folder) != digest
    torch.save({"weights": tmp_path}, file.with_suffix(".bin"))
    with pytest.raises(ModelLoadError, match="unet does not load as UNetSpatioTemporal"):
        load_model(tiny_folder)


def test_a_part_that_is_missing_is_named(half: Path) -> None:
    gone = sorted((half / "unet").glob("*-of-*"))[-1]
    gone.unlink()
    with pytest.raises(ModelLoadError, match=rf"unet lacks {gone.name}, which .*index\.fp16\.json lists"):
        load_model(half)
    next((half / "unet").glob("*.index.*")).unlink()
    with pytest.raises(ModelLoadError, match="unet lacks the index of"):
        load_model(half)
    shutil.rmtree(half / "unet")
    with pytest.raises(ModelLoadError, match=r"lacks unet/, which its model_index\.json names"):
        load_model(half)


@pytest.mark.parametrize(
    ("file", "content", "kind"),
    [
        (f"unet/{UNET}.safetensors", POINTER, "a Git LFS pointer.*git lfs pull"),
        ("image_encoder/model.safetensors", b"GGUF" + bytes(60), "a GGUF file"),
        ("unet/config.json", b"<!DOCTYPE html><title>Sign in</title>", "a web page"),
        ("scheduler/scheduler_config.json", POINTER, "a Git LFS pointer"),
        ("model_index.json", b"", "empty"),
    ],
)
def test_what_is_no_weights_or_configuration_is_called_what_it_is(
    tiny_folder: Path, file: str, content: bytes, kind: str
) -> None:
    (tiny_folder / file).write_bytes(content)
    with pytest.raises(ModelLoadError, match=rf"{file}' is {kind}"):
        load_model(tiny_folder)


def test_networks_that_their_files_do_not_fill_are_refused_by_name(tiny_folder: Path) -> None:
    def changed(file: Path, **changes: Tensor | None) -> str:
        good = load_file(file)
        weights = {name: value for name, value in {**good, **changes}.items() if value is not None}
        save_file(weights, file, metadata={"format": "pt"})
        with pytest.raises(ModelLoadError) as raised:
            load_model(tiny_folder)
        save_file(good, file, metadata={"format": "pt"})
        return str(raised.value)

    unet = tiny_folder / "unet" / f"{UNET}.safetensors"
    assert "unet do not fit its config.json: 1 missing (conv_in.bias)" in changed(unet, **{"conv_in.bias": None})
    more = {f"up_blocks.9.{name}": torch.ones(2) for name in "abcdefg"}
    assert "7 unknown (up_blocks.9.a, " in (said := changed(unet, **more))
    assert "up_blocks.9.e, ...)" in said
    wide = changed(unet, **{"conv_in.bias": torch.ones(3, 3), "conv_out.bias": torch.ones(7)})
    assert "2 of another shape (conv_in.bias has 3x3 for 32, conv_out.bias has 7 for 4)" in wide
    # An encoder's missing weights would be random numbers.
    encoder = tiny_folder / "image_encoder" / "model.safetensors"
    name = next(iter(load_file(encoder)))
    assert f"1 missing ({name})" in changed(encoder, **{name: None})
    assert f"1 of another shape ({name} has 9 for " in changed(encoder, **{name: torch.ones(9)})


@pytest.fixture
def cached(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tiny pipeline as `owner/model` in a hub cache, laid out as the hub's client does."""
    entry = tmp_path / "hub" / "models--owner--model"
    snapshot = entry / "snapshots" / ("0" * 40)
    (entry / "refs").mkdir(parents=True)
    (entry / "refs" / "main").write_text("0" * 40)
    for number, path in enumerate(path for path in tiny_folder.rglob("*") if path.is_file()):
        blob, link = entry / "blobs" / str(number), snapshot / path.relative_to(tiny_folder)
        blob.parent.mkdir(exist_ok=True)
        link.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, blob)
        link.symlink_to(blob)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return snapshot


@pytest.mark.usefixtures("no_network")
def test_a_hub_id_in_the_cache_loads_and_no_other_is_fetched(
    cached: Path, tiny_teacher: UNetSpatioTemporalConditionModel
) -> None:
    model = load_model("owner/model")
    assert model.source == "owner/model"
    assert same(model.denoiser, tiny_teacher.state_dict())
    assert load_model("owner/model", device="meta").blocks.params == model.blocks.params
    for device in ("cpu", "meta"):
        with pytest.raises(ModelLoadError, match=r"'owner/other' is neither .* hub cache.* --download .*download=True"):
            load_model("owner/other", device=device)
    with pytest.raises(ModelLoadError, match="'no/such/folder' is no folder that exists, and no hub id"):
        load_model("no/such/folder", download=True)
    (cached / "unet" / f"{UNET}.safetensors").unlink()
    with pytest.raises(ModelLoadError, match="unet holds no weights"):
        load_model("owner/model")


def test_download_fetches_what_loading_reads_and_no_more(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    (tiny_folder / "vae" / f"{UNET}.fp16.safetensors").write_bytes(POINTER)
    (tiny_folder / "model.safetensors").write_bytes(b"all of it in one file")
    (tiny_folder / "old").mkdir()
    (tiny_folder / "old" / f"{UNET}.safetensors").write_bytes(b"of another pipeline")
    names = [str(path.relative_to(tiny_folder)) for path in tiny_folder.rglob("*") if path.is_file()]
    asked: list[str] = []

    def snapshot(name: str, allow_patterns: list[str]) -> str:
        asked[:] = sorted(allow_patterns)
        for path in allow_patterns:
            (tmp_path / "fetched" / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(tiny_folder / path, tmp_path / "fetched" / path)
        return str(tmp_path / "fetched")

    monkeypatch.setattr("huggingface_hub.HfApi.list_repo_files", lambda self, name: names)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda name, file: str(tiny_folder / file))
    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    with pytest.raises(ModelLoadError, match="--download"):
        load_model("owner/model")
    assert load_model("owner/model", download=True).family == "svd"
    weights = ["image_encoder/model.safetensors", f"unet/{UNET}.safetensors", f"vae/{UNET}.safetensors"]
    assert [name for name in asked if name.endswith(".safetensors")] == weights
    assert "model_index.json" in asked
    source_folder("owner/model", download=True, weights=False)
    assert asked == sorted(name for name in names if name.endswith(".json"))


def test_a_sharded_variant_is_fetched_without_the_others() -> None:
    plain = [f"unet/{UNET}-0000{part}-of-00002.safetensors" for part in (1, 2)]
    early = [f"unet/{UNET}.fp16-0000{part}-of-00002.safetensors" for part in (1, 2)]
    late = [f"unet/{UNET}-0000{part}-of-00002.fp16.safetensors" for part in (1, 2)]
    index = f"unet/{UNET}.safetensors.index.json"
    variant = f"unet/{UNET}.safetensors.index.fp16.json"
    found = wanted_files([*plain, *early, index, variant, "unet/config.json"], ["", "unet"], weights=True)
    assert {*found} == {*plain, index, variant, "unet/config.json"}
    assert {*wanted_files([*late, variant], ["", "unet"], weights=True)} == {*late, variant}


def test_a_hub_that_cannot_be_reached_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object) -> list[str]:
        raise OSError("no connection")

    monkeypatch.setattr("huggingface_hub.HfApi.list_repo_files", offline)
    with pytest.raises(ModelLoadError, match=r"cannot fetch 'owner/model' \(OSError: no connection\): check .*hf auth"):
        load_model("owner/model", download=True)


def test_the_number_format_of_a_mixture_is_that_of_most_weights(tiny_folder: Path) -> None:
    file = tiny_folder / "unet" / f"{UNET}.safetensors"
    weights = {name: value.bfloat16() for name, value in load_file(file).items()}
    save_file(weights | {"conv_in.bias": weights["conv_in.bias"].float()}, file, metadata={"format": "pt"})
    assert load_model(tiny_folder, dtype="auto").denoiser.dtype == torch.bfloat16
    assert load_model(tiny_folder).denoiser.dtype == torch.float32
