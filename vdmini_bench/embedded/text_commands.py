"""The commands that train the embedded text-to-video teacher and score it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
from numpy.typing import NDArray

from vdmini_bench.data.captions import Scene, choose_scenes, covered_places, draw_scene
from vdmini_bench.system.progress import progress, quiet_libraries

if TYPE_CHECKING:
    from vdmini_bench.embedded.text_training import CaptionedClips

VAE_SHARE, CLASSIFIER_SHARE = 0.24, 0.21
VALIDATION_CLIPS = 32
CLASSIFIER_TEST_CLIPS = 1000
# Clips for validation are drawn with seeds of their own.
VALIDATION_SEED = 1_000_000


@click.command("train-t2v")
@click.option("--minutes", type=float, default=130.0, show_default=True, help="Training time; a repeated call resumes.")
@click.option("--device", default="cpu", show_default=True, help="cpu or cuda.")
@click.option("--clips", type=int, default=8000, show_default=True, help="Training clips.")
@click.option("--go-on", is_flag=True, help="Keep the installed VAE and classifier and train its denoiser further.")
@click.option("--work", type=click.Path(path_type=Path), default=Path("results/teacher/t2v"), show_default=True)
def train_t2v(minutes: float, device: str, clips: int, go_on: bool, work: Path) -> None:
    """Train VAE, classifier, text encoder and denoiser, and install the pipeline as `embedded/t2v`."""
    import torch

    from vdmini.models.loading import load_model
    from vdmini.models.registry import EMBEDDED
    from vdmini_bench.embedded.assemble import save_text_pipeline
    from vdmini_bench.embedded.classifier import save_classifier, train_classifier
    from vdmini_bench.embedded.text_training import TextToVideo, train_frame_vae, train_text_denoiser
    from vdmini_bench.metrics.scene_classifier import SHIPPED

    quiet_libraries()
    work.mkdir(parents=True, exist_ok=True)
    chosen, folder = torch.device(device), EMBEDDED["embedded/t2v"]
    scenes = choose_scenes(clips, "train")
    drawn = _captioned(work / f"train-{clips}.npy", scenes, 0)
    unseen = [*choose_scenes(VALIDATION_CLIPS, "train", skip=clips), *choose_scenes(VALIDATION_CLIPS, "held-out")]
    validation = _captioned(work / f"validation-{clips}.npy", unseen, VALIDATION_SEED)
    initial = None
    if go_on:
        pipeline: Any = load_model("embedded/t2v", device=chosen).pipeline
        vae, initial = pipeline.vae, TextToVideo(pipeline.unet, pipeline.text_encoder)
        spent = {"vae": 0.0, "classifier": 0.0}
    else:
        frames_vae: Any = load_model("embedded/svd").vae
        spent = {"vae": minutes * VAE_SHARE, "classifier": minutes * CLASSIFIER_SHARE}
        vae = train_frame_vae(drawn.clips, spent["vae"], work / "vae.pt", chosen, frames_vae.encoder)
        every = choose_scenes(clips, "any")
        pictures = _drawn_once(work / f"any-{clips}.npy", every, 0)
        classifier = train_classifier(pictures, every, spent["classifier"], work / "classifier.pt", chosen)
        click.echo(json.dumps(save_classifier(SHIPPED, classifier, vae, CLASSIFIER_TEST_CLIPS), indent=1))
    spent["denoiser"] = minutes - sum(spent.values())
    checkpoint = work / "denoiser.pt"
    networks = train_text_denoiser(drawn, validation, vae, spent["denoiser"], checkpoint, chosen, initial)
    save_text_pipeline(folder, vae, networks)
    record = {"minutes": spent, "device": device, "clips": clips, "torch": torch.__version__, "further": go_on}
    (folder / "training.json").write_text(json.dumps(record, indent=1) + "\n")
    click.echo(f"wrote {folder}")


@click.command("score-t2v")
@click.argument("model", default="embedded/t2v")
@click.option("--clips", type=int, default=240, show_default=True, help="Captions of one thing and of two in turn.")
@click.option("--held-out", is_flag=True, help="Captions with combinations that training never drew.")
@click.option("--steps", type=int, help="Instead of the embedded teacher's own.")
@click.option("--guidance", type=float, help="Instead of the embedded teacher's own.")
def score_t2v(model: str, clips: int, held_out: bool, steps: int | None, guidance: float | None) -> None:
    """Sample captions from MODEL, the embedded teacher or a student of it, and print its semantic scores as JSON."""
    from vdmini_bench.data.requests import EMBEDDED_SETTINGS
    from vdmini_bench.embedded.text_scores import score_captions, scoring_scenes
    from vdmini_bench.metrics.scene_classifier import load_classifier
    from vdmini_bench.models.source import load_for_use

    quiet_libraries()
    settings = EMBEDDED_SETTINGS["embedded/t2v"]
    settings = replace(settings, steps=steps or settings.steps)
    settings = settings if guidance is None else replace(settings, guidance=guidance)
    pipeline = load_for_use(model).pipeline
    if pipeline is None:
        raise click.UsageError(f"{model} holds no pipeline: give the folder that one was saved to")
    scores = score_captions(pipeline, load_classifier(), scoring_scenes(clips, held_out=held_out), settings)
    click.echo(json.dumps([asdict(score) for score in scores], indent=1))


def _captioned(stored: Path, scenes: Sequence[Scene], first_seed: int) -> CaptionedClips:
    """The scenes' clips, kept in a file, their captions and where they show things."""
    import torch

    from vdmini_bench.embedded.text_training import CaptionedClips

    # N T H W C to N T C H W.
    clips = torch.from_numpy(_drawn_once(stored, scenes, first_seed)).permute(0, 1, 4, 2, 3).contiguous()
    places = np.stack([covered_places(scene, first_seed + place) for place, scene in enumerate(scenes)])
    return CaptionedClips(clips, [scene.caption for scene in scenes], torch.from_numpy(places))


def _drawn_once(stored: Path, scenes: Sequence[Scene], first_seed: int) -> NDArray[np.uint8]:
    """The scenes' clips N T H W C uint8, kept in a file."""
    if not stored.exists():
        clips = []
        with progress(f"draw {stored.stem}", len(scenes)) as advance:
            for place, scene in enumerate(scenes):
                clips.append(draw_scene(scene, first_seed + place).frames)
                advance()
        np.save(stored, np.stack(clips))
    return np.asarray(np.load(stored, allow_pickle=False))
