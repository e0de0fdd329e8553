"""Time teacher and student as `vdmini-bench time` does: one denoiser pass, the VAE decode and a whole clip."""

from __future__ import annotations

from pathlib import Path

from vdmini.models.registry import family_named
from vdmini_bench.config.timing import SCOPES, SpeedRequest
from vdmini_bench.results.score import Score
from vdmini_bench.speed.benchmark import SpeedReport, time_models
from vdmini_bench.suites.context import SuiteContext, write_scores

MODELS = ("teacher", "student")
COUNTED_VERSION = "1"


def run_stage(context: SuiteContext, subject: str, folder: Path) -> None:
    """Write every timed run, and per model its parameters, FLOPs, latencies, peak memory and speed-up."""
    models = {name: context.load(name) for name in MODELS}
    report = time_models(_request(context, models["teacher"].family), context.device, models=models)
    report.write_record(folder)
    timed = [score for row in report.rows if row.timing.scope in SCOPES for score in row.scores(report.protocol)]
    write_scores(folder, context, [*_counted(report), *timed])


def _request(context: SuiteContext, family: str) -> SpeedRequest:
    """A clip as the profile samples it."""
    settings, profile = context.sample_settings, context.suite.profile
    guidance = settings.guidance
    if family_named(family).from_image:
        guidance = None if settings.max_guidance == 1 else settings.max_guidance
    return SpeedRequest(
        profile.teacher,
        size=(settings.height, settings.width),
        frames=settings.frames,
        steps=settings.steps,
        dtype=profile.dtype,
        guidance=guidance,
        runs=profile.timing.runs,
        warmup=profile.timing.warmup,
        attributed=False,
    )


def _counted(report: SpeedReport) -> list[Score]:
    clip = f"{report.size}/{report.size.steps}steps/batch1/{report.request.dtype}"
    scores = []
    for name, sizes in report.models.items():
        params = ("params_m", COUNTED_VERSION, "model", sizes["params"] / 1e6, "M")
        flops = ("denoiser_gflops", COUNTED_VERSION, clip, sizes["flops"] / 1e9, "GFLOP")
        scores += [Score(name, *counted, "lower", None, 1, 1, "ok") for counted in (params, flops)]
    return scores
