"""A suite as a graph of jobs: what makes each model, samples it, scores it and times it, and what each job reads."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from vdmini_bench.config.distillation import DistillConfig
from vdmini_bench.config.models import WITHOUT_EFFECT, DistillSpec, ModelSpec
from vdmini_bench.config.protocol import ProtocolSpec
from vdmini_bench.config.suite import CommonProfile, Profile
from vdmini_bench.metrics.packaged import packaged_metrics
from vdmini_bench.metrics.plugged import plugged_versions
from vdmini_bench.suites.job_graph import JobGraph, Model

ENCODED_WITH = {"height", "width", "motion_bucket", "noise_strength"}
# Of `sample`, what chooses the noise, which the digest of what is asked for says, and the name of settings all there.
NO_SETTING = {"seed", "latents", "preset"}


@dataclass(frozen=True)
class TrainingInputs:
    """Digests of everything a distillation reads: the teacher's checkpoint, the training clips, the software.

    `plans` are the rules of pruning as they were read, by row: what a plan's file says, not its name. `sources` are
    the folders and digests of models in the teacher's place, and of LoRA files, by how they were named. `perceptual` is
    the network that decoders are fine-tuned by, empty where none is.
    """

    teacher: str
    plans: dict[str, str]
    sources: dict[str, tuple[str, str]]
    train_clips: str
    versions: dict[str, str]
    perceptual: str = field(default="", kw_only=True)


@dataclass(frozen=True)
class RunInputs(TrainingInputs):
    """Those and what else any run reads: the machine that it times models on."""

    machine_id: str


@dataclass(frozen=True)
class Inputs(RunInputs):
    """Digests of everything a run reads that is scored on distributions: also the chosen clips and the I3D weights."""

    condition_clips: str
    real_clips: str
    reference: str
    i3d: str


def plan_training(profile: CommonProfile, inputs: TrainingInputs, teacher: str) -> JobGraph:
    """The jobs that make the models of a profile; `teacher` is the folder of its own."""
    graph = JobGraph(inputs.versions)
    encoded = {**_clip(profile), "sample": profile.sample.model_dump(include=ENCODED_WITH)}

    def plan(row: str) -> None:
        spec = profile.models[row]
        if spec.teacher is not None and not graph.of_row(spec.teacher):
            plan(spec.teacher)
        parents = [] if spec.teacher is None else [*graph.of_row(spec.teacher)]
        source = inputs.sources[spec.source] if spec.source is not None else (teacher, inputs.teacher)
        for index in range(profile.seeds.training if spec.is_trained or len(parents) > 1 else 1):
            name = row if index == 0 else f"{row} (training {index + 1})"
            parent = parents[min(index, len(parents) - 1)] if parents else None
            model = Model(row, spec.training(index), source, parent)
            graph.models[name] = _plan_model(graph, name, model, profile, inputs, encoded)

    for row in profile.models:
        if not graph.of_row(row):
            plan(row)
    # A row's teacher may stand below it.
    graph.models = {name: model for row in profile.models for name, model in graph.of_row(row).items()}
    return graph


def _plan_model(
    graph: JobGraph, name: str, model: Model, profile: CommonProfile, inputs: TrainingInputs, encoded: dict[str, Any]
) -> Model:
    spec, (_, digest) = model.spec, model.teacher
    made: dict[str, str | None] = {"encode": None, "prune": None, "distill": None, "decoder": None}
    ranked = (spec.channels or "").startswith("depgraph-taylor")
    if spec.distill is not None or ranked:
        subject, count = "" if spec.source is None else name, profile.train_clips
        clips = {"clips": inputs.train_clips, "clip": encoded}
        made["encode"] = graph.add("encode", subject, (), 0.07 * count, teacher=digest, **clips)
    if spec.is_pruned:
        lora = None if spec.lora is None else inputs.sources[spec.lora][1]
        before = () if model.parent is None else graph.models[model.parent].weights[:1]
        needs = (made["encode"], *before) if ranked and made["encode"] else before
        ranking = None if not ranked or spec.distill is None else (spec.distill.task, spec.distill.task_options)
        made["prune"] = graph.add(
            "prune", name, needs, 3, teacher=digest, plan=inputs.plans[model.row], lora=lora, task=ranking,
            dtype=profile.dtype,
        )  # fmt: skip
    if spec.distill is not None:
        assert made["encode"] is not None
        assert made["prune"] is not None
        made["distill"] = _add_distillation(graph, name, (made["encode"], made["prune"]), spec.distill)
    if spec.decoder is not None:
        settings = spec.decoder.model_dump(exclude={"finetune": WITHOUT_EFFECT})
        read = {"clips": inputs.train_clips, "clip": encoded, "perceptual": inputs.perceptual}
        read = {} if spec.decoder.finetune is None else read
        # Whatever is done to the denoiser, the decoder is the same.
        made["decoder"] = graph.add(
            "decoder", name, (), 400, teacher=digest, decoder=settings, dtype=profile.dtype, **read
        )
    return Model(model.row, spec, model.teacher, model.parent, **made)


def _add_distillation(graph: JobGraph, name: str, needs: tuple[str, str], distill: DistillSpec) -> str:
    settings = distill.model_dump(exclude=WITHOUT_EFFECT)
    return graph.add("distill", name, needs, distill.steps * distill.batch_size * 0.2, distill=settings)


def plan_configured(configuration: DistillConfig, dtype: str, inputs: TrainingInputs, count: int) -> JobGraph:
    """The jobs of a distillation's own configuration, in that number format and on `count` clips."""
    graph, teacher = JobGraph(inputs.versions), inputs.teacher
    clip = configuration.clip.model_dump() | {"dtype": dtype, "clips_per_shard": configuration.data.clips_per_shard}
    encode = graph.add("encode", "", (), 0.07 * count, teacher=teacher, clips=inputs.train_clips, clip=clip)
    prune = graph.add("prune", "", (), 3, teacher=teacher, plan=inputs.plans[""], lora=None, task=None, dtype=dtype)
    _add_distillation(graph, "", (encode, prune), configuration.distill)
    return graph


def plan_scoring(
    protocol: ProtocolSpec, subject: str, clips: str, reference: str, networks: str, versions: dict[str, str]
) -> JobGraph:
    """The two jobs that score videos made elsewhere: `reference`, as a run has it, and `measure`.

    `clips` and `reference` are digests of the videos and of how they are read.
    """
    graph = JobGraph(versions)
    needs = (add_reference(graph, protocol, reference, networks),)
    graph.add("measure", subject, needs, protocol.clips * 0.4, clips=clips, **_scored(protocol, networks))
    return graph


def _scored(protocol: ProtocolSpec, networks: str) -> dict[str, Any]:
    """What decides a row's scores beside its clips; metrics of other packages where there are any."""
    plugged = plugged_versions()
    # What could not be had is measured once it can.
    for each in packaged_metrics(protocol):
        plugged[each.name] = each.version if each.metric is not None else "unavailable"
    return {"protocol": protocol.model_dump(), "i3d": networks, **({"plugged": plugged} if plugged else {})}


def add_reference(graph: JobGraph, protocol: ProtocolSpec, clips: str, networks: str) -> str:
    """The real statistics: kept by content, so that runs and scores of any videos share them."""
    estimate = 2 if protocol.reference == "shipped" else 0.4 * protocol.reference_clips
    return graph.add("reference", "", (), estimate, protocol=protocol.model_dump(), clips=clips, i3d=networks)


def plan_jobs(profile: Profile, inputs: Inputs, teacher: str) -> JobGraph:
    """All jobs of a profile that is scored on distributions, in an order in which each comes after what it needs."""
    graph = plan_training(profile, inputs, teacher)
    count = profile.protocol.clips
    reference = add_reference(graph, profile.protocol, inputs.reference, inputs.i3d)
    # The rate at which first frames are taken of the files.
    asked = {"conditions": inputs.condition_clips, "seed": profile.sample.seed, "rate": profile.rate, "count": count}
    asked["condition"] = profile.protocol.condition
    add_samples(graph, profile, inputs, count, asked)
    scored = _scored(profile.protocol, inputs.i3d)
    for row, clips in {"real": inputs.real_clips, "static": inputs.condition_clips}.items():
        frozen = row == "static"
        graph.note(row, graph.add("measure", row, (reference,), count * 0.2, clips=clips, frozen=frozen, **scored))
    for row in profile.models:
        jobs = (
            graph.add("measure", name, (reference, graph.sampled[name]), count * 0.2, **scored)
            for name in graph.of_row(row)
        )
        graph.note(row, *jobs)
    add_comparison(graph, profile, count)
    add_costs(graph, profile, inputs)
    return graph


@dataclass(frozen=True)
class PromptedInputs(RunInputs):
    """Digests of all that a run in VBench's dimensions reads.

    `asked` is that of what models are asked for, `judges` has those of what scores each dimension, and `reasons` says
    of the others why nothing does.
    """

    asked: str
    judges: dict[str, str]
    reasons: dict[str, str]


def plan_judging(
    profile: CommonProfile, inputs: PromptedInputs, teacher: str, protocol: str, count: int, *, drawn: bool,
    floor: float | None = None,
) -> JobGraph:  # fmt: skip
    """All jobs of a profile that is scored in VBench's dimensions, on `count` videos a model.

    One judges each model in each dimension, so that a run that was stopped goes on with the next. `protocol` is its
    name in the scores. `drawn`: the prompts are the drawn world's, of which there is no total, and what the videos
    should show is drawn too, as the `real` row. `floor` is what the mean of the dimensions is held against.
    """
    graph, clip = plan_training(profile, inputs, teacher), _clip(profile)
    # Guidance by text runs the denoiser twice a step.
    add_samples(graph, profile, inputs, count, {"asked": inputs.asked})
    videos = {model: (graph.sampled[model],) for model in graph.models}
    rows = {row: tuple(graph.of_row(row)) for row in profile.models}
    if drawn:
        videos["real"] = (graph.add("draw", "real", (), 0.02 * count, asked=inputs.asked, clip=clip),)
        rows = {"real": ("real",), **rows}
    settings = {"asked": inputs.asked, "protocol": protocol}
    held = {} if floor is None else {"floor": floor}
    for row, models in rows.items():
        judged: dict[str, list[str]] = {model: [] for model in models}
        for judge, digest in inputs.judges.items():
            for model, jobs in judged.items():
                subject = f"{model} {judge}"
                jobs.append(
                    graph.add("judge", subject, videos[model], 2 + 0.02 * count, judge=[judge, digest], **settings)
                )
            graph.note(row, *(jobs[-1] for jobs in judged.values()))
        totals = (
            graph.add(
                "total",
                model,
                videos[model] if drawn and not held else tuple(jobs),
                0.1,
                reasons=inputs.reasons,
                **held,
                **settings,
            )
            for model, jobs in judged.items()
        )
        graph.note(row, *totals)
    add_comparison(graph, profile, count)
    add_costs(graph, profile, inputs)
    return graph


def add_samples(graph: JobGraph, profile: CommonProfile, inputs: RunInputs, count: int, asked: dict[str, Any]) -> None:
    """The jobs that sample every model's clips."""
    clip = _clip(profile)
    graph.sampled = {
        name: graph.add(
            "sample", name, model.weights, count * model.spec.sample.steps * 0.04, teacher=model.teacher[1],
            clip={**clip, "sample": _sampler(model.spec)}, accelerate=_applied(model.spec, inputs), **asked,
        )
        for name, model in graph.models.items()
    }  # fmt: skip


def add_comparison(graph: JobGraph, profile: CommonProfile, count: int) -> None:
    """How far each row's clips are from the baseline's of the same seeds."""
    for row in profile.models:
        if row != profile.baseline:
            pairs = ((name, baseline_of(graph, profile, name)) for name in graph.of_row(row))
            jobs = (
                graph.add("fidelity", name, (graph.sampled[other], graph.sampled[name]), 0.05 * count)
                for name, other in pairs
            )
            graph.note(row, *jobs)


def baseline_of(graph: JobGraph, profile: CommonProfile, name: str) -> str:
    """The model that another is compared with: the baseline's training of the same seed where it is trained too."""
    place = [*graph.of_row(graph.models[name].row)].index(name)
    trainings = [*graph.of_row(profile.baseline)]
    return trainings[place] if place < len(trainings) else trainings[0]


def add_costs(graph: JobGraph, profile: CommonProfile, inputs: RunInputs) -> None:
    """What each row's model costs: counted, and timed beside the baseline where the profile times at all.

    Weights cost the same whatever training made of them, but for caches, which look at what they compute.
    """
    clip = _clip(profile)
    costs = {name: _costing(model) for name, model in graph.models.items() if name == model.row}
    for row, needs in costs.items():
        graph.note(row, graph.add("count", row, needs, 1, teacher=graph.models[row].teacher[1], clip=clip))
    if profile.timing is None:
        return
    runs = profile.timing.runs + profile.timing.warmup + 1
    for row, needs in costs.items():
        both = [graph.models[name].spec for name in dict.fromkeys((profile.baseline, row))]
        settings = {
            "teachers": [graph.models[name].teacher[1] for name in (profile.baseline, row)],
            "timing": profile.timing.model_dump(),
            "clip": clip,
            "sampled": [_sampler(spec) for spec in both],
            "accelerate": [_applied(spec, inputs) for spec in both],
        }
        needed = tuple(dict.fromkeys((*costs[profile.baseline], *needs)))
        graph.note(row, graph.add("time", row, needed, runs * 3.0 * len(both), machine=inputs.machine_id, **settings))


def _costing(model: Model) -> tuple[str, ...]:
    jobs = (model.distill or model.prune if model.spec.is_cached else model.prune, model.decoder)
    return tuple(job for job in jobs if job is not None)


def _applied(spec: ModelSpec, inputs: RunInputs) -> list[object]:
    """A model's measures, with the bytes of files that they read."""
    files = {name: digest for name, (_, digest) in inputs.sources.items() if name in spec.files}
    return [*map(str, spec.acceleration), *([files] if files else [])]


def _sampler(spec: ModelSpec) -> dict[str, Any]:
    """How a model samples, without the seed: other seeds are timed no differently."""
    return spec.sample.model_dump(exclude=NO_SETTING)


def _clip(profile: CommonProfile) -> dict[str, Any]:
    return {
        "frames": profile.frames,
        "frames_per_second": profile.frames_per_second,
        "sample": profile.sample.model_dump(exclude=NO_SETTING),
        "dtype": profile.dtype,
    }
