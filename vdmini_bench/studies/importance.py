"""Measure importance: take out each block and unit of a model in turn, and write what its clips lost."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from torch import Tensor, nn

from vdmini.finite import NotFiniteError, check_rows
from vdmini.importance import (
    Candidate,
    CannotBypassError,
    Clips,
    block_seconds,
    bypassed,
    candidates,
    content_distance,
    motion_distance,
)
from vdmini.models.registry import VideoModel, pipeline_denoiser, replace_denoiser
from vdmini.prune import apply_plan
from vdmini.requests import ClipRequest, SampleSettings
from vdmini.rules import plan_removing
from vdmini.sample import batches, sample_clips
from vdmini_bench.errors import BenchError, SuiteError
from vdmini_bench.metrics.flow import flow_fields
from vdmini_bench.metrics.frechet import frechet_distance
from vdmini_bench.metrics.fvd import FVD_VERSION, clips_to_features, load_i3d
from vdmini_bench.metrics.motion_statistics import FEWEST_FRAMES, fields_to_statistics
from vdmini_bench.models.devices import dtype_name
from vdmini_bench.models.source import source_sha256
from vdmini_bench.results.stats import RankCorrelation, rank_correlation
from vdmini_bench.speed.scopes import denoiser_inputs
from vdmini_bench.studies.clip_pairs import ClipView, pair_values, view_clip
from vdmini_bench.system.files import write_atomically
from vdmini_bench.system.progress import progress
from vdmini_bench.system.tables import csv_lines

RECORD, TABLE = "importance.json", "importance.csv"
VERSION = 2
RATIO = "motion over content"
MEASURES = ("content", "motion", "flow", "fvd", "flow_magnitude", "frechet_motion")


@dataclass(frozen=True)
class Importance:
    """What one candidate costs and what clips lose without it; the losses are None where nothing could stand for it.

    `content` and `motion` are relative distances, `flow` and `flow_magnitude` are in pixels per frame, `fvd` and
    `frechet_motion` (None of clips too short for it) are between the changed clips and those of the whole model.
    `speed`, `dynamic_degree` and `flicker` have a sign: those of the changed clips less those of the whole model's.
    `params`, `flops` and `seconds` are what leaves with it.
    """

    kind: str
    name: str
    depth: float
    params: int
    flops: int
    seconds: float
    content: float | None
    motion: float | None
    flow: float | None
    fvd: float | None
    flow_magnitude: float | None
    frechet_motion: float | None
    speed: float | None
    dynamic_degree: float | None
    flicker: float | None


@dataclass(frozen=True, eq=False)
class Whole:
    """The whole model's clips B T H W C uint8, how each is seen, and the I3D's logits of all."""

    clips: Clips
    views: Sequence[ClipView]
    logits: Tensor


@dataclass(frozen=True)
class Study:
    """The whole of an importance measurement: the same model, requests and settings for all of its candidates."""

    model: VideoModel
    requests: Sequence[ClipRequest]
    settings: SampleSettings
    batch_size: int

    @property
    def pipeline(self) -> DiffusionPipeline:
        """The pipeline that samples; raises BenchError where the source holds a denoiser alone."""
        if self.model.pipeline is None:
            raise BenchError(f"{self.model.source} holds no pipeline to sample with: give a pipeline folder")
        return self.model.pipeline

    def identity(self) -> dict[str, object]:
        """Everything that decides a number; a folder that was begun under another one is refused."""
        digest = hashlib.sha256()
        for request in self.requests:
            digest.update(f"{request.name}\0{request.seed}\0{request.prompt}\0".encode(errors="surrogatepass"))
            digest.update(b"" if request.image is None else request.image.tobytes())
        return {
            "version": VERSION,
            "checkpoint_sha256": source_sha256(self.model.source),
            "dtype": dtype_name(self.model.denoiser),
            "requests_sha256": digest.hexdigest(),
            "clips": len(self.requests),
            "settings": self.settings.to_json(),
            "network": FVD_VERSION,
            "batch_size": self.batch_size,
            "torch": torch.__version__,
        }


def measure_importance(study: Study, folder: Path, shard: tuple[int, int] = (1, 1)) -> list[Importance]:
    """Measure every candidate of a shard (`number`, `of`), each written to `folder` when done and never measured twice.

    Returns all that the folder has by then, other shards' included, in the order of the candidates.

    Raises:
        SuiteError: the folder holds another study.
        NotFiniteError: clips of the whole model, or their features, are not finite; nothing was measured.
        BenchError: the same of clips without some candidates, which are named; all others are measured.
    """
    open_folder(folder, study.identity())
    chosen = candidates(study.model.blocks)
    number, of = shard
    waiting = [each for each in chosen[number - 1 :: of] if not _row_path(folder, each).exists()]
    if waiting:
        network = load_i3d().to(next(study.model.denoiser.parameters()).device)
        broken = []
        denoiser = study.model.denoiser
        inputs = denoiser_inputs(denoiser, study.model.blocks.input, next(denoiser.parameters()).device)
        seconds = block_seconds(denoiser, inputs)
        with progress("importance", len(waiting) + 1) as advance:
            clips = sample_study(study, study.model.denoiser)
            whole = Whole(clips, _views(clips), clip_logits(study, clips, network))
            advance()
            for candidate in waiting:
                try:
                    row = _measure(study, candidate, whole, network, seconds)
                except NotFiniteError as error:
                    broken.append(f"  without {candidate.kind} {candidate.name}: {error}")
                else:
                    write_atomically(_row_path(folder, candidate), json.dumps(asdict(row), allow_nan=False) + "\n")
                advance()
        if broken:
            listing = "\n".join(broken)
            raise BenchError(f"{len(broken)} of {len(waiting)} have no importance, the others are measured:\n{listing}")
    paths = [_row_path(folder, candidate) for candidate in chosen]
    return [Importance(**json.loads(path.read_text())) for path in paths if path.exists()]


def write_importance(folder: Path, rows: Sequence[Importance]) -> dict[str, dict[str, RankCorrelation]]:
    """Write `importance.csv` and return, by kind and measure, the rank correlation with depth, where it has one."""
    lines = [{**asdict(row), "seconds": f"{row.seconds:.6g}"}.values() for row in rows]
    write_atomically(folder / TABLE, csv_lines([asdict(rows[0]), *lines]))
    found: dict[str, dict[str, RankCorrelation]] = {}
    for kind in ("block", "unit"):
        measured = [row for row in rows if row.kind == kind and row.content and row.motion is not None]
        if len(measured) >= 4 and len({row.depth for row in measured}) > 1:
            depths = [row.depth for row in measured]
            found[kind] = {
                name: rank_correlation(depths, [getattr(row, name) for row in measured])
                for name in MEASURES
                if all(getattr(row, name) is not None for row in measured)
            }
            # Where all losses fall with depth, this still says whether deep blocks carry motion rather than content.
            ratios = [(row.motion or 0.0) / row.content for row in measured if row.content]
            found[kind][RATIO] = rank_correlation(depths, ratios)
    return found


def read_importance(folder: Path) -> list[Importance]:
    """The rows that a folder holds.

    Raises:
        SuiteError: it holds none.
    """
    try:
        rows = [Importance(**json.loads(path.read_text())) for path in sorted((folder / "rows").glob("*.json"))]
    except (OSError, ValueError, TypeError) as error:
        raise SuiteError(f"{folder} holds no importance that can be read ({error}): measure it again") from error
    if not rows:
        raise SuiteError(f"{folder} holds no importance: run `vdmini-bench importance MODEL -o {folder}` first")
    return rows


def parse_shard(text: str) -> tuple[int, int]:
    """`2/4` as (2, 4).

    Raises:
        SuiteError: it is written in another way, or there is no such part.
    """
    number, _, of = text.partition("/")
    if not (number.isdecimal() and of.isdecimal()) or not 1 <= int(number) <= int(of):
        raise SuiteError(f"--shard {text!r}: write it as 2/4, the second of four parts")
    return int(number), int(of)


def _measure(
    study: Study, candidate: Candidate, whole: Whole, network: nn.Module, seconds: dict[str, float]
) -> Importance:
    graph = study.model.blocks
    gone = [block for block in graph.blocks if block.name in candidate.blocks]
    describe = partial(
        Importance, candidate.kind, candidate.name, candidate.depth, sum(block.params for block in gone),
        sum(block.flops for block in gone), sum(seconds[block.name] for block in gone),
    )  # fmt: skip
    denoiser = study.model.denoiser
    try:
        if candidate.kind == "block":
            with bypassed(denoiser, candidate.name):
                changed = sample_study(study, denoiser)
        else:
            plan = plan_removing(study.model, {*candidate.blocks}, f"without:{candidate.name}")
            changed = sample_study(study, apply_plan(denoiser, plan))
    except CannotBypassError:
        return describe(*[None] * 9)
    views = _views(changed)
    pairs = [pair_values(view, other) for view, other in zip(whole.views, views, strict=True)]
    means = {name: float(np.mean([values[name] for values in pairs])) for name in pairs[0]}
    return describe(
        content_distance(whole.clips, changed),
        motion_distance(whole.clips, changed),
        means["flow_field"],
        frechet_distance(whole.logits.numpy(), clip_logits(study, changed, network).numpy()),
        means["flow_magnitude"],
        _frechet_motion(whole.views, views),
        *(means[name] for name in ("speed", "dynamic_degree", "flicker")),
    )


def _views(clips: Clips) -> list[ClipView]:
    return [view_clip(clip, flow_fields(clip), None) for clip in clips]


def _frechet_motion(whole: Sequence[ClipView], changed: Sequence[ClipView]) -> float | None:
    if len(whole[0].frames) < FEWEST_FRAMES:
        return None
    before, after = (np.stack([fields_to_statistics(view.flow) for view in views]) for views in (whole, changed))
    return frechet_distance(before, after)


def sample_study(study: Study, denoiser: nn.Module) -> Clips:
    """All clips B T H W C uint8 of the study's pipeline with `denoiser` in it.

    Raises:
        BenchError: the pipeline cannot use the requests or the settings.
    """
    pipeline = study.pipeline
    original = pipeline_denoiser(pipeline)
    replace_denoiser(pipeline, denoiser)
    try:
        groups = batches(study.requests, study.batch_size)
        return np.concatenate([sample_clips(pipeline, group, study.settings) for group in groups])
    except CannotBypassError:
        # Of a candidate, not of the settings: the caller passes over it.
        raise
    except ValueError as error:
        raise BenchError(f"{study.model.source} cannot sample: {error}") from error
    finally:
        replace_denoiser(pipeline, original)


def clip_logits(study: Study, clips: Clips, network: nn.Module) -> Tensor:
    """I3D logits N x 400 float32 of a study's clips N T H W C uint8; raises NotFiniteError, naming a clip."""
    logits = clips_to_features(torch.from_numpy(clips).permute(0, 1, 4, 2, 3).split(4), network)
    check_rows(logits.numpy(), [request.name for request in study.requests], "I3D's logits")
    return logits


def _row_path(folder: Path, candidate: Candidate) -> Path:
    return folder / "rows" / f"{candidate.kind}-{candidate.name}.json"


def open_folder(folder: Path, identity: dict[str, object]) -> None:
    """Make a folder for the rows of one identity; raises SuiteError where it holds those of another."""
    (folder / "rows").mkdir(parents=True, exist_ok=True)
    text = json.dumps(identity, indent=1, sort_keys=True) + "\n"
    record = folder / RECORD
    if record.exists() and record.read_text() != text:
        raise SuiteError(
            f"{folder} holds the importance of another model, of other clips or settings: give another folder with -o"
        )
    write_atomically(record, text)
