"""The embedded text-to-video teacher: what it is built of, how it is trained, saved and asked."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from diffusers import AutoencoderKL
from torch import Tensor
from transformers import CLIPTokenizer

from vdmini import load_model
from vdmini.errors import ModelLoadError
from vdmini.models.registry import EMBEDDED, family_of
from vdmini.models.videocrafter_unet import VideoCrafterUNet
from vdmini.prune import apply_plan
from vdmini.rules import make_plan
from vdmini.sample import sample_clips
from vdmini_bench.data.captions import choose_scenes, covered_places, draw_scenes, parse_caption
from vdmini_bench.data.requests import EMBEDDED_SETTINGS, choose_requests, choose_settings
from vdmini_bench.embedded import captioned_training, text_training, training_loop
from vdmini_bench.embedded.__main__ import main
from vdmini_bench.embedded.assemble import save_text_pipeline
from vdmini_bench.embedded.captioned_training import CaptionedClips, Recipe
from vdmini_bench.embedded.text_scores import scoring_scenes
from vdmini_bench.embedded.text_to_video import (
    TEXT_TOKENS,
    build_frame_vae,
    build_text_denoiser,
    build_text_encoder,
    caption_words,
    write_tokenizer,
)
from vdmini_bench.embedded.text_training import TextToVideo, train_frame_vae, train_text_denoiser
from vdmini_bench.models.source import load_for_use

CPU = torch.device("cpu")
SCENES = choose_scenes(6, "train")
CAPTIONS = [scene.caption for scene in SCENES]


def small_denoiser() -> VideoCrafterUNet:
    """The teacher's topology at its smallest."""
    return VideoCrafterUNet(
        sample_size=(8, 8),
        block_out_channels=(32, 32, 32, 32),
        layers_per_block=1,
        cross_attention_dim=128,
        attention_head_dim=16,
        num_frames=10,
    )


def small_vae() -> AutoencoderKL:
    """A VAE that compresses as the teacher's does."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(32, 32, 32),
        layers_per_block=1,
        sample_size=32,
        scaling_factor=0.5,
    )


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train small networks."""
    monkeypatch.setattr(training_loop, "REPORT_EVERY", 10)
    monkeypatch.setattr(text_training, "build_text_denoiser", small_denoiser)
    monkeypatch.setattr(text_training, "build_frame_vae", small_vae)
    monkeypatch.setattr(text_training, "FRAMES_PER_STEP", 4)
    monkeypatch.setattr(text_training, "RECIPE", Recipe(clips=2, pictures=4, learning_rate=8e-4))


@pytest.fixture(scope="module")
def clips() -> Tensor:
    """Drawn clips N T C H W uint8."""
    return torch.from_numpy(draw_scenes(SCENES, 0)).permute(0, 1, 4, 2, 3)


def test_every_word_of_a_caption_is_one_token_also_after_saving(tmp_path: Path) -> None:
    tokenizer = write_tokenizer(tmp_path / "written")
    tokenizer.save_pretrained(tmp_path / "saved")
    for found in (tokenizer, *(CLIPTokenizer.from_pretrained(tmp_path / name) for name in ("written", "saved"))):
        assert len({found.encode(word)[1] for word in caption_words()}) == len(caption_words())
        for scene in choose_scenes(50, "any"):
            tokens = found(scene.caption).input_ids
            assert len(tokens) == len(scene.caption.split()) + 2 <= TEXT_TOKENS
            assert (tokens[0], tokens[-1]) == (found.bos_token_id, found.eos_token_id)
            assert found.decode(tokens, skip_special_tokens=True) == scene.caption
        assert len(found("an unknown zebra").input_ids) > 5, "other words are spelled"
        assert max(found.get_vocab().values()) == len(found.get_vocab()) - 1


def test_the_teacher_has_the_published_topology_and_fits_in_30_megabytes() -> None:
    with torch.device("meta"):
        denoiser, published = build_text_denoiser(), VideoCrafterUNet()
        parts = (denoiser, build_frame_vae(), build_text_encoder())
    mine, theirs = (family_of(net).block_modules(net).keys() for net in (denoiser, published))
    assert list(mine) == list(theirs)
    assert sum(parameter.numel() for part in parts for parameter in part.parameters()) * 2 < 29e6
    assert denoiser.config.block_out_channels[0] >= 96
    assert parts[1].config.block_out_channels[0] >= 96


def test_the_vae_starts_from_a_trained_encoder_and_learns(
    tmp_path: Path, clips: Tensor, small: None, capsys: pytest.CaptureFixture[str]
) -> None:
    encoder = small_vae().encoder
    with torch.no_grad():
        encoder.conv_in.bias.fill_(7.0)
    vae = train_frame_vae(clips, 0, tmp_path / "vae.pt", CPU, encoder)
    assert torch.equal(vae.encoder.conv_in.bias, encoder.conv_in.bias)
    trained = train_frame_vae(clips, 30, tmp_path / "vae.pt", CPU)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("step")]
    losses = [float(line.split()[-1]) for line in lines]
    assert losses[-1] < losses[0]
    latents = trained.encode(clips[0].float() / 127.5 - 1).latent_dist.mean * trained.config.scaling_factor
    assert 0.5 < float(latents.detach().std()) < 2


def train_small(folder: Path, clips: Tensor, steps: int, initial: TextToVideo | None = None) -> TextToVideo:
    """Train the denoiser on drawn clips, its VAE the same at every call."""
    torch.manual_seed(0)
    vae = small_vae().eval()
    folder.mkdir(exist_ok=True)
    checkpoint = folder / "denoiser.pt"
    places = torch.from_numpy(np.stack([covered_places(scene, place) for place, scene in enumerate(SCENES)]))
    drawn = CaptionedClips(clips, CAPTIONS, places)
    few = CaptionedClips(clips[:4], CAPTIONS[:4], places[:4])
    return train_text_denoiser(drawn, few, vae, steps, checkpoint, CPU, initial)


@pytest.mark.slow
def test_training_that_was_stopped_goes_on_exactly(
    tmp_path: Path, clips: Tensor, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_loop, "CHECKPOINT_SECONDS", 0.0)
    whole = train_small(tmp_path / "whole", clips, 5)
    stop_at, update_average = iter([False] * 3 + [True]), training_loop.update_average

    def stopping(average: TextToVideo, model: TextToVideo, steps: int) -> None:
        if next(stop_at):
            raise KeyboardInterrupt
        update_average(average, model, steps)

    with monkeypatch.context() as patch:
        patch.setattr(training_loop, "update_average", stopping)
        with pytest.raises(KeyboardInterrupt):
            train_small(tmp_path / "stopped", clips, 5)
    assert (tmp_path / "stopped" / "denoiser.pt").is_file()
    resumed = train_small(tmp_path / "stopped", clips, 5)
    for expected, found in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(expected, found)
    untrained = train_small(tmp_path / "untrained", clips, 0)
    for part in ("denoiser", "text_encoder"):
        before, after = (getattr(networks, part).state_dict() for networks in (untrained, whole))
        assert not all(torch.equal(before[name], after[name]) for name in before), f"{part} is trained"


def test_going_on_starts_from_the_networks_given(tmp_path: Path, clips: Tensor, small: None) -> None:
    torch.manual_seed(3)
    initial = TextToVideo(small_denoiser(), build_text_encoder())
    found = train_small(tmp_path, clips, 0, initial)
    assert all(torch.equal(a, b) for a, b in zip(initial.parameters(), found.parameters(), strict=True))


def test_the_validation_loss_falls_and_captions_matter(
    tmp_path: Path, clips: Tensor, small: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(captioned_training, "VALIDATE_EVERY", 5)
    networks = train_small(tmp_path, clips, 15)
    lines = [line for line in capsys.readouterr().out.splitlines() if "validation loss" in line]
    losses = [float(line.split()[-1]) for line in lines]
    assert len(losses) == 3
    assert losses[-1] < losses[0]
    tokens = text_training._tokens([CAPTIONS[0], CAPTIONS[1]], tmp_path)
    noisy = torch.randn(1, 10, 4, 8, 8).expand(2, -1, -1, -1, -1)
    with torch.inference_mode():
        first, second = networks(noisy, torch.tensor([500.0, 500.0]), tokens)
    assert not torch.equal(first, second)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved pipeline of small networks."""
    folder = tmp_path_factory.mktemp("teacher") / "t2v"
    torch.manual_seed(0)
    save_text_pipeline(folder, small_vae().eval(), TextToVideo(small_denoiser(), build_text_encoder()).eval())
    return folder


def test_an_installed_teacher_samples_by_its_own_settings(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EMBEDDED, "embedded/t2v", installed)
    model = load_model("embedded/t2v")
    assert model.family == "videocrafter2"
    assert model.pipeline is not None
    assert model.pipeline.dtype == torch.float32
    requests = choose_requests("embedded/t2v", None, None, "0", 2)
    settings = choose_settings("embedded/t2v", {})
    levels: list[int] = []
    hook = model.denoiser.register_forward_pre_hook(lambda module, inputs: levels.append(int(inputs[1])))
    clips = sample_clips(model.pipeline, requests, settings)
    hook.remove()
    assert clips.shape == (2, 10, 32, 32, 3)
    # From the last timestep on, evenly to the first step's length.
    assert levels == [*range(999, 0, -100)]
    assert not np.array_equal(clips[0], clips[1])
    student = apply_plan(model.denoiser, make_plan(model, "uniform:flops=0.5"))
    assert sum(map(torch.numel, student.parameters())) < sum(map(torch.numel, model.denoiser.parameters()))


def test_default_requests_are_captions_of_held_out_combinations() -> None:
    requests = choose_requests("embedded/t2v", None, None, "0", 40)
    scenes = [parse_caption(request.text()) for request in requests]
    assert all(scene.held_out for scene in scenes)
    assert len({request.prompt for request in requests}) > 30
    assert [request.seed for request in requests] == [*range(40)]
    assert requests[:3] == choose_requests("embedded/t2v", None, None, "0", 3)


def test_a_teacher_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EMBEDDED, "embedded/t2v", tmp_path / "absent")
    with pytest.raises(ModelLoadError, match="'embedded/t2v' is not part of this installation"):
        load_model("embedded/t2v")
    with pytest.raises(ModelLoadError, match="'embedded/t2v' is not part of this installation"):
        load_for_use("embedded/t2v")


def test_scoring_asks_for_one_thing_and_two_in_turn() -> None:
    scenes = scoring_scenes(7, held_out=False)
    assert [len(scene.things) for scene in scenes] == [1, 2, 1, 2, 1, 2, 1]
    assert not any(scene.held_out for scene in scenes)
    assert all(scene.held_out for scene in scoring_scenes(6, held_out=True))


@pytest.mark.slow
def test_one_command_trains_installs_and_scores(tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole command on small networks."""
    from vdmini_bench.embedded import text_commands
    from vdmini_bench.metrics import scene_classifier

    monkeypatch.setitem(EMBEDDED, "embedded/t2v", tmp_path / "t2v")
    monkeypatch.setattr(scene_classifier, "SHIPPED", tmp_path / "classifier")
    monkeypatch.setattr(scene_classifier.load_classifier, "__defaults__", (tmp_path / "classifier",))
    monkeypatch.setattr(text_commands, "CLASSIFIER_TEST_CLIPS", 12)
    monkeypatch.setattr(text_commands, "VALIDATION_CLIPS", 2)
    monkeypatch.setattr(text_training, "build_frame_vae", build_frame_vae)
    few = ["--steps", "6", "--vae-steps", "3", "--classifier-steps", "2"]
    command = ["train-t2v", *few, "--clips", "8", "--work", str(tmp_path / "work")]
    result = CliRunner().invoke(main, command, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "t2v" / "training.json").read_text())
    assert record["steps"] == {"vae": 3, "classifier": 2, "denoiser": 6}
    assert (record["clips"], record["further"]) == (8, False)
    score = ["score-t2v", "--clips", "4", "--steps", "2"]
    scores = json.loads(CliRunner().invoke(main, score, catch_exceptions=False).stdout)
    assert {each["dimension"]: each["n"] for each in scores}["embedded-spatial_relationship"] == 2
    assert all(each["label"].startswith("stand-in") for each in scores)
    before = load_model("embedded/t2v").pipeline
    command[-1] = str(tmp_path / "further")
    assert CliRunner().invoke(main, [*command, "--go-on"], catch_exceptions=False).exit_code == 0
    after = load_model("embedded/t2v").pipeline
    assert before is not None
    assert after is not None
    assert torch.equal(before.vae.encoder.conv_in.weight, after.vae.encoder.conv_in.weight)
    assert not torch.equal(before.unet.conv_in.weight, after.unet.conv_in.weight)


def as_saved(architecture: dict[str, object]) -> object:
    """Tuples and lists are one in a file."""
    return json.loads(json.dumps(architecture))


def test_the_shipped_teacher_fits_and_its_configuration_is_the_scripts() -> None:
    folder = EMBEDDED["embedded/t2v"]
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 30e6
    found = load_model("embedded/t2v", device="meta").denoiser
    with torch.device("meta"):
        expected = build_text_denoiser()
    assert as_saved(family_of(found).architecture(found)) == as_saved(family_of(expected).architecture(expected))
    assert EMBEDDED_SETTINGS["embedded/t2v"].frames == found.config.num_frames
