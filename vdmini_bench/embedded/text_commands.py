"""The commands that train the embedded text-to-video teacher and score it."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click

from vdmini_bench.data.captions import choose_scenes
from vdmini_bench.system.progress import quiet_libraries

VALIDATION_CLIPS = 32
CLASSIFIER_TEST_CLIPS = 1000
# Clips for validation are drawn with seeds of their own.
VALIDATION_SEED = 1_000_000


@click.command("train-t2v")
@click.option("--steps", type=int, default=6000, show_default=True, help="Of the denoiser; a repeated call resumes.")
@click.option("--vae-steps", type=int, default=6000, show_default=True)
@click.option("--classifier-steps", type=int, default=4000, show_default=True)
@click.option("--device", default="cpu", show_default=True, help="cpu or cuda.")
@click.option("--clips", type=int, default=8000, show_default=True, help="Training clips.")
@click.option("--go-on", is_flag=True, help="Keep the installed VAE and classifier and train its denoiser further.")
@click.option("--work", type=click.Path(path_type=Path), default=Path("results/teacher/t2v"), show_default=True)
def train_t2v(
    steps: int, vae_steps: int, classifier_steps: int, device: str, clips: int, go_on: bool, work: Path
) -> None:
    """Train VAE, classifier, text encoder and denoiser, and install the pipeline as `embedded/t2v`."""
    import torch

    from vdmini.models.loading import load_model
    from vdmini.models.registry import EMBEDDED
    from vdmini_bench.embedded.assemble import save_text_pipeline
    from vdmini_bench.embedded.captioned_data import captioned_clips, drawn_once
    from vdmini_bench.embedded.classifier import save_classifier, train_classifier
    from vdmini_bench.embedded.text_training import TextToVideo, train_frame_vae, train_text_denoiser
    from vdmini_bench.metrics.scene_classifier import SHIPPED

    quiet_libraries()
    work.mkdir(parents=True, exist_ok=True)
    chosen, folder = torch.device(device), EMBEDDED["embedded/t2v"]
    scenes = choose_scenes(clips, "train")
    drawn = captioned_clips(work / f"train-{clips}.npy", scenes, 0)
    unseen = [*choose_scenes(VALIDATION_CLIPS, "train", skip=clips), *choose_scenes(VALIDATION_CLIPS, "held-out")]
    validation = captioned_clips(work / f"validation-{clips}.npy", unseen, VALIDATION_SEED)
    initial = None
    if go_on:
        pipeline: Any = load_model("embedded/t2v", device=chosen).pipeline
        vae, initial = pipeline.vae, TextToVideo(pipeline.unet, pipeline.text_encoder)
        vae_steps = classifier_steps = 0
    else:
        frames_vae: Any = load_model("embedded/svd").vae
        vae = train_frame_vae(drawn.clips, vae_steps, work / "vae.pt", chosen, frames_vae.encoder)
        every = choose_scenes(clips, "any")
        pictures = drawn_once(work / f"any-{clips}.npy", every, 0)
        classifier = train_classifier(pictures, every, classifier_steps, work / "classifier.pt", chosen)
        click.echo(json.dumps(save_classifier(SHIPPED, classifier, vae, CLASSIFIER_TEST_CLIPS), indent=1))
    checkpoint = work / "denoiser.pt"
    networks = train_text_denoiser(drawn, validation, vae, steps, checkpoint, chosen, initial)
    save_text_pipeline(folder, vae, networks)
    trained = {"vae": vae_steps, "classifier": classifier_steps, "denoiser": steps}
    record = {"steps": trained, "device": device, "clips": clips, "torch": torch.__version__, "further": go_on}
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
    loaded = load_for_use(model)
    settings = EMBEDDED_SETTINGS["embedded/wan" if loaded.family == "wan" else "embedded/t2v"]
    settings = replace(settings, steps=steps or settings.steps)
    settings = settings if guidance is None else replace(settings, guidance=guidance)
    pipeline = loaded.pipeline
    if pipeline is None:
        raise click.UsageError(f"{model} holds no pipeline: give the folder that one was saved to")
    scores = score_captions(pipeline, load_classifier(), scoring_scenes(clips, held_out=held_out), settings)
    click.echo(json.dumps([asdict(score) for score in scores], indent=1))
