"""Count what a row's model costs: weights, and operations of a denoiser pass and of the VAE's decode."""

from __future__ import annotations

from pathlib import Path

from vdmini.cost import count_parameters
from vdmini_bench.results.score import Score
from vdmini_bench.speed.blocks import block_costs
from vdmini_bench.speed.scopes import ClipSize, decode_flops, latent_size
from vdmini_bench.suites.context import SuiteContext, write_scores

VERSION = "1"


def run_stage(context: SuiteContext, subject: str, folder: Path) -> None:
    """Write parameters and FLOPs, counted from sizes alone."""
    model, settings = context.without_weights(subject), context.sample_settings()
    size = ClipSize(settings.frames, settings.height, settings.width, settings.steps)
    clip = f"{size}/{settings.steps}steps/batch1/{context.suite.profile.dtype}"
    graph = block_costs(model.denoiser, latent_size(model, size), with_traffic=False).graph
    counted = [
        ("params_m", "model", count_parameters(model.denoiser) / 1e6, "M"),
        ("denoiser_gflops", clip, graph.flops / 1e9, "GFLOP"),
    ]
    if model.vae is not None:
        counted.append(("decoder_gflops", clip, decode_flops(model, size) / 1e9, "GFLOP"))
    write_scores(
        folder,
        context,
        [
            Score(subject, metric, VERSION, protocol, value, unit, "lower", None, 1, 1, "ok")
            for metric, protocol, value, unit in counted
        ],
    )
