"""Train the embedded teachers again: `python -m vdmini_bench.embedded train`, then `... reference`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import click
import numpy as np

from vdmini_bench.data.clip_reader import ClipReader
from vdmini_bench.data.synthetic import ACTIONS, COLOURS, FRAMES, FRAMES_PER_SECOND, GROUPS, TEST_GROUPS, draw_clip
from vdmini_bench.data.video import read_frames, write_video
from vdmini_bench.embedded.text_commands import score_t2v, train_t2v
from vdmini_bench.embedded.wan_commands import train_wan
from vdmini_bench.system.program import Program
from vdmini_bench.system.progress import prepare_torch, progress, quiet_libraries

WORK = click.option("--work", type=click.Path(path_type=Path), default=Path("results/teacher"), show_default=True)
# Beyond any index that a run draws, so that the reference shares no clip with the real and condition sets.
REFERENCE_INDICES = range(101, 131)


@click.group(cls=Program)
def main() -> None:
    """Train the embedded teachers and compute reference statistics."""
    prepare_torch()


@main.command()
@click.option("--steps", type=int, default=3000, show_default=True, help="Of the denoiser; a repeated call resumes.")
@click.option("--vae-steps", type=int, default=12000, show_default=True)
@click.option("--device", default="cpu", show_default=True, help="cpu or cuda.")
@click.option("--clips-per-group", type=int, default=45, show_default=True, help="Training clips: 180 times this.")
@click.option("--go-on", is_flag=True, help="Keep the installed VAE and train its denoiser further.")
@click.option("--decoder-steps", type=int, default=0, show_default=True, help="Of the VAE's decoder alone, after all.")
@click.option("--decoder-colour", type=click.Choice([*COLOURS]), help="Show the decoder more clips of this colour.")
@WORK
def train(
    steps: int,
    vae_steps: int,
    device: str,
    clips_per_group: int,
    go_on: bool,
    decoder_steps: int,
    decoder_colour: str | None,
    work: Path,
) -> None:
    """Train VAE, image encoder and denoiser, and install the pipeline as `embedded/svd`."""
    import torch

    from vdmini.models.loading import load_model
    from vdmini.models.registry import EMBEDDED
    from vdmini_bench.embedded.assemble import save_pipeline
    from vdmini_bench.embedded.denoiser import ImageToVideo, train_denoiser
    from vdmini_bench.embedded.vae import finetune_decoder, train_vae

    quiet_libraries()
    work.mkdir(parents=True, exist_ok=True)
    clips = torch.from_numpy(_training_clips(work, clips_per_group)).permute(0, 1, 4, 2, 3).contiguous()
    chosen = torch.device(device)
    folder = EMBEDDED["embedded/svd"]
    if go_on:
        pipeline: Any = load_model("embedded/svd", device=chosen).pipeline
        vae, networks = pipeline.vae, ImageToVideo(pipeline.unet, pipeline.image_encoder)
        vae_steps = 0
    else:
        vae, networks = train_vae(clips, vae_steps, work / "vae.pt", chosen), None
    if networks is None or steps:
        networks = train_denoiser(clips, vae, steps, work / "denoiser.pt", chosen, networks)
    if decoder_steps:
        hard = None
        if decoder_colour:
            captions = [draw_clip(*name).caption for name in _training_names(clips_per_group)]
            hard = torch.tensor([place for place, caption in enumerate(captions) if decoder_colour in caption.split()])
        finetune_decoder(vae, clips, decoder_steps, work / "decoder.pt", hard)
    save_pipeline(folder, vae, networks)
    trained = {"vae": vae_steps, "denoiser": steps, "decoder": decoder_steps}
    record = {"steps": trained, "device": device, "clips": len(clips), "torch": torch.__version__, "further": go_on}
    (folder / "training.json").write_text(json.dumps(record, indent=1) + "\n")
    click.echo(f"wrote {folder}")


@main.command()
@WORK
def reference(work: Path) -> None:
    """Score 2,100 held-out drawn clips and install their statistics as the shipped reference."""
    from vdmini_bench.metrics.features import Measured
    from vdmini_bench.metrics.reference import SHIPPED, write_reference

    quiet_libraries()
    folder = work / "reference"
    paths = [
        folder / f"{action}_{group}_{index}.avi"
        for index in REFERENCE_INDICES
        for group in TEST_GROUPS
        for action in ACTIONS
    ]
    with progress("draw reference clips", len(paths)) as advance:
        for path in paths:
            action, group, index = path.stem.split("_")
            write_video(path, draw_clip(action, int(group), int(index)).frames, FRAMES_PER_SECOND)
            advance()
    SHIPPED.mkdir(parents=True, exist_ok=True)
    reader = ClipReader(paths, FRAMES, FRAMES_PER_SECOND)
    write_reference(SHIPPED, reader, "score reference clips", Measured())
    shutil.rmtree(folder)
    click.echo(f"wrote {SHIPPED}")


def _training_names(clips_per_group: int) -> list[tuple[str, int, int]]:
    """Action, group and index of each training clip."""
    groups = [group for group in range(1, GROUPS + 1) if group not in TEST_GROUPS]
    return [(action, group, index) for index in range(1, clips_per_group + 1) for group in groups for action in ACTIONS]


def _training_clips(work: Path, clips_per_group: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Training clips N T H W C uint8 as a run would read them: drawn, written as AVI, decoded; kept in `work`."""
    stored = work / f"clips-{clips_per_group}.npy"
    if not stored.exists():
        names = _training_names(clips_per_group)
        path = work / "clip.avi"
        clips = []
        with progress("draw training clips", len(names)) as advance:
            for name in names:
                write_video(path, draw_clip(*name).frames, FRAMES_PER_SECOND)
                clips.append(read_frames(path, FRAMES))
                advance()
        np.save(stored, np.stack(clips))
    return np.asarray(np.load(stored, allow_pickle=False))


main.add_command(train_t2v)
main.add_command(score_t2v)
main.add_command(train_wan)

if __name__ == "__main__":
    main()
