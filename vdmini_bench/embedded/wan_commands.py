"""The command that trains the embedded transformer teacher."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from vdmini.models.registry import EMBEDDED
from vdmini_bench.data.captions import Scene, choose_scenes
from vdmini_bench.embedded.text_commands import VALIDATION_CLIPS, VALIDATION_SEED
from vdmini_bench.system.progress import quiet_libraries

# Of one thing: of two, which captions of one do not prepare for, the others.
SINGLES = 0.75
WEIGHTS = EMBEDDED["embedded/t2v"].parent


@click.command("train-wan")
@click.option(
    "--steps", type=int, default=10000, show_default=True, help="Of the transformer; a repeated call resumes."
)
@click.option("--vae-steps", type=int, default=500, show_default=True)
@click.option("--installed-vae", is_flag=True, help="Take the installed VAE instead.")
@click.option("--go-on", is_flag=True, help="Train the networks in the folder further.")
@click.option("--emphasise", is_flag=True, help="With --go-on: follow shapes and sides in captions more closely.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the weights that training starts from.")
@click.option("--device", default="cpu", show_default=True, help="cpu or cuda.")
@click.option("--compile", "compiled", is_flag=True, help="Compile the transformer's blocks: needs a C++ compiler.")
@click.option("--clips", type=int, default=16000, show_default=True, help="Training clips.")
@click.option("--work", type=click.Path(path_type=Path), default=Path("results/teacher/wan"), show_default=True)
@click.option("--to", "folder", type=click.Path(path_type=Path), default=WEIGHTS / "wan", help="Where to save.")
def train_wan(
    steps: int, vae_steps: int, installed_vae: bool, go_on: bool, emphasise: bool, seed: int, device: str,
    compiled: bool, clips: int, work: Path, folder: Path,
) -> None:  # fmt: skip
    """Train VAE, text encoder and transformer, and save the pipeline, as `embedded/wan` if nothing else is asked."""
    if emphasise and not go_on:
        raise click.UsageError("--emphasise goes with --go-on: it is learnt from trained networks")
    import torch

    from vdmini.models.loading import load_model
    from vdmini_bench.embedded.assemble import save_wan_pipeline
    from vdmini_bench.embedded.captioned_data import captioned_clips
    from vdmini_bench.embedded.wan_training import FlowTextToVideo, train_transformer, train_video_vae

    quiet_libraries()
    work.mkdir(parents=True, exist_ok=True)
    chosen = torch.device(device)
    drawn = captioned_clips(work / f"upright-{clips}.npy", mixed_scenes(clips), 0, upright=True)
    unseen = mixed_scenes(2 * VALIDATION_CLIPS, skip=clips)
    validation = captioned_clips(work / f"upright-validation-{clips}.npy", unseen, VALIDATION_SEED, upright=True)
    vae: Any
    if installed_vae:
        vae = load_model("embedded/wan", device=chosen).vae
    else:
        vae = train_video_vae(drawn, vae_steps, work / "vae.pt", chosen)
    initial = None
    if go_on:
        pipeline: Any = load_model(str(folder), device=chosen).pipeline
        initial = FlowTextToVideo(pipeline.transformer, pipeline.text_encoder)
    checkpoint = work / f"transformer-{seed}.pt"
    networks = train_transformer(drawn, validation, vae, steps, checkpoint, chosen, seed, initial, compiled, emphasise)
    save_wan_pipeline(folder, vae, networks)
    record = {
        "steps": {"vae": 0 if installed_vae else vae_steps, "transformer": steps}, "seed": seed,
        "device": device, "clips": clips, "torch": torch.__version__, "further": go_on, "emphasised": emphasise,
    }  # fmt: skip
    (folder / "training.json").write_text(json.dumps(record, indent=1) + "\n")
    click.echo(f"wrote {folder}")


def mixed_scenes(count: int, skip: int = 0) -> list[Scene]:
    """Scenes to train on: of one thing, and of two from the place on where these end."""
    singles = round(count * SINGLES)
    pairs = choose_scenes(count - singles, "train", things=2, skip=skip)
    return [*choose_scenes(singles, "train", things=1, skip=skip), *pairs]
