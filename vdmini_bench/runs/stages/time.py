"""Time a row's model beside the baseline, in turns: one denoiser pass, the VAE decode and a whole clip."""

from __future__ import annotations

from pathlib import Path

from vdmini.requests import SampleSettings
from vdmini_bench.config.timing import SCOPES, SpeedRequest
from vdmini_bench.speed.benchmark import time_models
from vdmini_bench.speed.models import TimedModel
from vdmini_bench.suites.context import SuiteContext, write_scores


def run_stage(context: SuiteContext, subject: str, folder: Path) -> None:
    """Write every timed run, and the row's latencies, peak memory and speed-up over the baseline."""
    names = dict.fromkeys((context.suite.profile.baseline, subject))
    models = {name: _timed(context, name) for name in names}
    report = time_models(_request(context), context.device, models=models)
    report.write_record(folder)
    rows = [row for row in report.rows if row.timing.model == subject and row.timing.scope in SCOPES]
    write_scores(folder, context, [score for row in rows for score in row.scores(report.protocol)])


def _timed(context: SuiteContext, name: str) -> TimedModel:
    """A model as it samples, loaded from the weights that the job waits for: training changes no time."""
    ready, settings = context.load(name, weights=context.costing_folder(name)), context.sample_settings(name)
    guidance = _guidance(settings, ready.model.family)
    return TimedModel(
        ready.model, settings.steps, guidance, context.without_weights(name), ready.acceleration.passes_vary
    )


def _guidance(settings: SampleSettings, family: str) -> float | None:
    if family != "svd":
        return settings.guidance
    return None if settings.max_guidance == 1 else settings.max_guidance


def _request(context: SuiteContext) -> SpeedRequest:
    """A clip as the profile samples it: what a row changes of that is its own, and no other protocol."""
    settings, profile = context.sample_settings(), context.suite.profile
    assert profile.timing is not None
    family = context.without_weights(profile.baseline).family
    return SpeedRequest(
        profile.teacher,
        size=(settings.height, settings.width),
        frames=settings.frames,
        steps=settings.steps,
        dtype=profile.dtype,
        guidance=_guidance(settings, family),
        runs=profile.timing.runs,
        warmup=profile.timing.warmup,
        attributed=False,
    )
