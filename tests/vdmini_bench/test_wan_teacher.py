"""The embedded transformer teacher: what it is built of, how it is trained, saved and asked."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from diffusers import WanTransformer3DModel
from torch import Tensor
from transformers import AutoTokenizer

from vdmini import load_model
from vdmini.conditioning.wan import CONDITIONING
from vdmini.models.registry import EMBEDDED, family_of
from vdmini.prompts import cut_prompts
from vdmini.requests import ClipRequest
from vdmini.sample import sample_clips
from vdmini_bench.data.captions import choose_scenes, draw_scenes
from vdmini_bench.data.requests import EMBEDDED_SETTINGS, choose_requests, choose_settings
from vdmini_bench.embedded import training_loop, wan_commands, wan_training
from vdmini_bench.embedded.__main__ import main
from vdmini_bench.embedded.assemble import save_wan_pipeline
from vdmini_bench.embedded.captioned_training import CaptionedClips, Recipe
from vdmini_bench.embedded.linear_vae import start_linear
from vdmini_bench.embedded.text_to_video import caption_words
from vdmini_bench.embedded.wan import build_text_encoder, build_tokenizer, build_transformer, build_video_vae
from vdmini_bench.embedded.wan_commands import mixed_scenes
from vdmini_bench.embedded.wan_training import FlowTextToVideo, encode_videos, train_video_vae
from vdmini_bench.metrics.scene_classifier import load_classifier, read_clips
from vdmini_bench.metrics.semantic import Reading

CPU = torch.device("cpu")
NAMES = ("shapes", "colours", "motion", "background")


def small_transformer() -> WanTransformer3DModel:
    """The teacher's class at its smallest."""
    return WanTransformer3DModel(
        patch_size=(3, 1, 1), num_attention_heads=2, attention_head_dim=12, in_channels=32, out_channels=32,
        text_dim=64, freq_dim=16, ffn_dim=32, num_layers=4, rope_max_seq_len=64,
    )  # fmt: skip


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wan_training, "build_transformer", small_transformer)
    monkeypatch.setattr(wan_training, "CLIPS_PER_VAE_STEP", 2)
    monkeypatch.setattr(wan_training, "RECIPE", Recipe(clips=4, pictures=6, learning_rate=1e-3))
    monkeypatch.setattr(wan_commands, "VALIDATION_CLIPS", 2)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved pipeline of small networks with seeded weights."""
    folder = tmp_path_factory.mktemp("teacher") / "wan"
    torch.manual_seed(0)
    save_wan_pipeline(
        folder, build_video_vae().eval(), FlowTextToVideo(small_transformer(), build_text_encoder()).eval()
    )
    return folder


@pytest.fixture(scope="module")
def clips() -> Tensor:
    """Drawn clips N T C H W uint8."""
    return torch.from_numpy(draw_scenes(choose_scenes(4, "train"), 0)).permute(0, 1, 4, 2, 3)


def test_every_word_of_a_caption_is_one_token_also_after_saving(installed: Path) -> None:
    saved = AutoTokenizer.from_pretrained(installed / "tokenizer")
    for found in (build_tokenizer(), saved):
        assert len({found.encode(word)[0] for word in caption_words()}) == len(caption_words())
        for scene in choose_scenes(50, "any"):
            tokens = found(scene.caption).input_ids
            assert len(tokens) == len(scene.caption.split()) + 1 <= found.model_max_length
            assert found.decode(tokens, skip_special_tokens=True) == scene.caption
        assert found("an unknown zebra").input_ids.count(found.unk_token_id) == 2


def test_the_teacher_has_equal_blocks_and_fits_in_30_megabytes() -> None:
    with torch.device("meta"):
        transformer = build_transformer()
        parts = (transformer, build_video_vae(), build_text_encoder())
    sizes = {sum(map(torch.numel, block.parameters())) for block in transformer.blocks}
    assert (len(transformer.blocks), len(sizes)) == (12, 1)
    assert sum(parameter.numel() for part in parts for parameter in part.parameters()) * 2 < 29e6
    size = family_of(transformer).default_input(transformer)
    assert family_of(transformer).input_shapes(transformer, size)["encoder_hidden_states"] == (1, 24, 64)
    assert (size.frames, size.height, size.width) == (9, 4, 4)


def test_what_it_is_trained_on_is_what_its_pipeline_gives_the_network(installed: Path) -> None:
    pipeline: Any = load_model(str(installed)).pipeline
    networks = FlowTextToVideo(pipeline.transformer, pipeline.text_encoder)
    caption = choose_scenes(1, "train")[0].caption
    seen: list[dict[str, Tensor]] = []
    hook = pipeline.transformer.register_forward_pre_hook(
        lambda module, inputs, named: seen.append(named), with_kwargs=True
    )
    with torch.inference_mode():
        noisy, level = torch.randn(1, 9, 32, 4, 4), torch.tensor([0.7])
        networks(noisy, 1000 * level, wan_training._tokens([caption]))
        pipeline(caption, height=32, width=32, num_frames=8, num_inference_steps=1, max_sequence_length=24)
    hook.remove()
    mine, theirs = (each["encoder_hidden_states"] for each in seen[:2])
    assert torch.equal(mine, theirs)
    assert mine.shape == (1, 24, 64)
    assert seen[0].keys() <= seen[1].keys()


def test_training_of_the_vae_starts_from_the_principal_components_of_patches(clips: Tensor) -> None:
    pixels = wan_training._pixels(clips, CPU)
    vae = build_video_vae().eval()
    start_linear(vae, pixels)
    with torch.inference_mode():
        posterior = vae.encode(pixels).latent_dist
        found = vae.decode(posterior.mean).sample
    patches = pixels.unfold(3, 8, 8).unfold(4, 8, 8).permute(0, 2, 3, 4, 1, 5, 6).flatten(0, 3).flatten(1).double()
    centred = patches - patches.mean(0)
    _, _, rows = torch.linalg.svd(centred, full_matrices=False)
    best = (centred @ rows[:32].T @ rows[:32] + patches.mean(0)).reshape(4, 9, 4, 4, 3, 8, 8)
    expected = best.permute(0, 4, 1, 2, 5, 3, 6).reshape(pixels.shape).clamp(-1, 1).float()
    assert (found - expected).abs().mean() < 0.003
    # What the norms change is a small part of what so few components leave out.
    assert (found - expected).square().mean() < 0.1 * (pixels - expected).square().mean()
    assert torch.allclose(posterior.mean.std(dim=(0, 2, 3, 4)), torch.ones(32), atol=0.05)


def test_latents_are_normalised_as_the_conditioning_of_wan_does(tmp_path: Path, clips: Tensor, small: None) -> None:
    torch.manual_seed(0)
    places = torch.ones(len(clips), 32, 32, dtype=torch.bool)
    vae = train_video_vae(CaptionedClips(clips, [], places), 2, tmp_path / "vae.pt", CPU)
    latents = encode_videos(vae, clips)
    assert latents.shape == (4, 9, 32, 4, 4)
    assert torch.allclose(latents.mean(dim=(0, 1, 3, 4)), torch.zeros(32), atol=1e-3)
    sizes = latents.std(dim=(0, 1, 3, 4))
    assert float(sizes.square().mean()) == pytest.approx(1, abs=1e-3)
    # The components come in the order of what they are of a frame.
    assert torch.equal(sizes.argsort(), torch.arange(32))
    assert sizes[-1] > 2 * sizes[0]


def test_an_installed_teacher_samples_by_its_own_settings(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EMBEDDED, "embedded/wan", installed)
    model = load_model("embedded/wan")
    assert (model.family, model.blocks.input.frames) == ("wan", 9)
    requests, settings = choose_requests("embedded/wan", None, None, "0", 2), choose_settings("embedded/wan", {})
    assert model.pipeline is not None
    assert cut_prompts(model.pipeline, [request.text() for request in requests]) == []
    tokens: list[int] = []
    hook = model.denoiser.register_forward_pre_hook(
        lambda module, inputs, named: tokens.append(named["encoder_hidden_states"].shape[1]), with_kwargs=True
    )
    clips = sample_clips(model.pipeline, requests, settings)
    hook.remove()
    assert clips.shape == (2, 9, 32, 32, 3)
    assert {*tokens} == {24}
    assert not np.array_equal(clips[0], clips[1])
    with pytest.raises(ValueError, match="not 10: ask for 9 frames"):
        sample_clips(model.pipeline, requests, replace(settings, frames=10))
    assert CONDITIONING.encode_prompt(model.pipeline, "a red disc")["prompt_embeds"].shape == (24, 64)


def test_its_clips_are_scored_by_its_own_settings(installed: Path) -> None:
    result = CliRunner().invoke(main, ["score-t2v", str(installed), "--clips", "2", "--steps", "1"])
    assert result.exit_code == 0, result.output
    assert {score["dimension"] for score in json.loads(result.stdout)} > {"embedded-color"}


def test_the_shipped_teacher_shows_what_captions_say() -> None:
    """Of 240 captions it had nine in ten of the shapes with their colours and of the actions, and every background."""
    pipeline: Any = load_model("embedded/wan").pipeline
    scenes = choose_scenes(16, "train", things=1, skip=4_000_000)
    requests = [ClipRequest(str(seed), seed, prompt=scene.caption) for seed, scene in enumerate(scenes)]
    clips = sample_clips(pipeline, requests, EMBEDDED_SETTINGS["embedded/wan"])
    seen = read_clips(load_classifier().network, clips)
    asked = [Reading.of(scene) for scene in scenes]
    right = {
        name: sum(getattr(a, name) == getattr(b, name) for a, b in zip(asked, seen, strict=True)) for name in NAMES
    }
    assert right["background"] == 16
    assert right["colours"] >= 14
    assert right["motion"] >= 13
    assert right["shapes"] >= 12
    files = [*EMBEDDED["embedded/wan"].rglob("*")]
    assert sum(file.stat().st_size for file in files) <= 30e6


def test_one_command_trains_installs_and_goes_on(
    tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(EMBEDDED, "embedded/wan", tmp_path / "wan")
    monkeypatch.setattr(training_loop, "REPORT_EVERY", 2)
    work, folder = ["--clips", "8", "--work", str(tmp_path / "work")], ["--to", str(tmp_path / "wan")]

    def train(*options: str) -> Any:
        result = CliRunner().invoke(main, ["train-wan", *options], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        pipeline: Any = load_model(options[options.index("--to") + 1]).pipeline
        return pipeline

    first = train("--steps", "4", "--vae-steps", "3", *work, *folder)
    record = json.loads((tmp_path / "wan" / "training.json").read_text())
    assert record["steps"] == {"vae": 3, "transformer": 4}
    same = train("--steps", "4", "--vae-steps", "3", *work, "--to", str(tmp_path / "again"))
    assert torch.equal(first.transformer.proj_out.weight, same.transformer.proj_out.weight)
    other = train("--steps", "2", "--installed-vae", "--seed", "1", *work, "--to", str(tmp_path / "other"))
    assert torch.equal(first.vae.encoder.conv_in.weight, other.vae.encoder.conv_in.weight)
    assert not torch.equal(first.transformer.proj_out.weight, other.transformer.proj_out.weight)
    assert (first.vae.config.latents_mean, other.vae.config.latents_mean) == (first.vae.config.latents_mean,) * 2
    further = [*work[:-1], str(tmp_path / "further")]
    after = train("--steps", "2", "--installed-vae", "--go-on", *further, "--to", str(tmp_path / "other"))
    assert not torch.equal(other.transformer.proj_out.weight, after.transformer.proj_out.weight)
    assert (other.transformer.proj_out.weight - after.transformer.proj_out.weight).abs().max() < 0.02
    further[-1] = str(tmp_path / "emphasised")
    train("--steps", "2", "--installed-vae", "--go-on", "--emphasise", *further, "--to", str(tmp_path / "other"))
    assert json.loads((tmp_path / "other" / "training.json").read_text())["emphasised"]
    refused = CliRunner().invoke(main, ["train-wan", "--emphasise", *work])
    assert (refused.exit_code, "goes with --go-on" in refused.output) == (2, True)


def test_words_are_emphasised_beyond_what_clips_teach(monkeypatch: pytest.MonkeyPatch) -> None:
    """A guide that stays as it is moves the target on by what other shapes or sides in the caption change in it."""
    torch.manual_seed(0)
    guide = FlowTextToVideo(small_transformer(), build_text_encoder()).eval()
    guide.denoiser.proj_out.weight.data.normal_()
    model = FlowTextToVideo(small_transformer(), build_text_encoder(), guide).eval()
    assert {*model.state_dict()} == {*guide.state_dict()}
    clean, noise, levels = torch.randn(2, 9, 32, 4, 4), torch.randn(2, 9, 32, 4, 4), torch.tensor([0.4, 0.8])
    said, other, none = (
        wan_training._tokens([text] * 2) for text in ("a red disc rests", "a red ring rests", "a red thing rests")
    )
    monkeypatch.setattr(wan_training, "contradicted", lambda tokens: other if tokens is said else tokens)
    with torch.no_grad():
        noisy, timesteps = model.task.network_input(model.task.noisy(clean, noise, levels), levels)
        moved = guide(noisy, timesteps, said) - guide(noisy, timesteps, other)
        assert moved.abs().max() > 1e-3
        for tokens, target in ((said, noise - clean + moved), (none, noise - clean)):
            expected = (model(noisy, timesteps, tokens) - target).square()
            assert torch.allclose(model.errors(clean, noise, levels, tokens), expected, atol=1e-5)


def test_a_caption_is_contradicted_in_its_shapes_or_in_its_side() -> None:
    tokenizer = build_tokenizer()
    texts = [
        "a red disc rests over a moss background",
        "a red disc is left of a blue ring and both rise over a moss background",
        "",
    ]
    torch.manual_seed(0)
    seen: list[set[str]] = [set(), set(), set()]
    for _ in range(40):
        changed = wan_training.contradicted(wan_training._tokens(texts))
        for text, found in zip(seen, tokenizer.batch_decode(changed, skip_special_tokens=True), strict=True):
            text.add(found)
    assert seen[0] == {texts[0].replace("disc", shape) for shape in ("square", "triangle", "ring")}
    shapes = (("square", "disc"), ("triangle", "square"), ("ring", "triangle"))
    others = {texts[1].replace("disc", one).replace("blue ring", f"blue {two}") for one, two in shapes}
    assert seen[1] == others | {texts[1].replace("left", "right")}
    assert seen[2] == {""}


def test_scenes_to_train_on_are_mostly_of_one_thing() -> None:
    scenes = mixed_scenes(40)
    assert [len(scene.things) for scene in scenes] == [1] * 30 + [2] * 10
    assert not any(scene.held_out for scene in scenes)
    assert not {scene.caption for scene in mixed_scenes(8, skip=40)} <= {scene.caption for scene in scenes}
