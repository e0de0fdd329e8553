"""Every rule on every family: it makes a student that another process reloads and samples alike, or says why not."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from diffusers import DiffusionPipeline
from tiny_transformers import FULL, TINY, Tiny
from tiny_unets import animatediff_pipeline, animatediff_unet, videocrafter_pipeline

from vdmini.errors import PlanError
from vdmini.models.registry import FAMILIES, VideoModel, family_named, family_of, pipeline_denoiser, replace_denoiser
from vdmini.prune import apply_plan
from vdmini.requests import ClipRequest, SampleSettings
from vdmini.rules import RULES, make_plan

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"),
    # Mochi asks for autocast to float32, which CPUs have no use for.
    pytest.mark.filterwarnings("ignore:In CPU autocast, but the target dtype is not supported:UserWarning"),
    # Helios' scheduler hands torch's numbers to numpy.
    pytest.mark.filterwarnings("ignore:__array_wrap__ must accept context:DeprecationWarning"),
]

UNETS = ("svd", "videocrafter2", "animatediff")
TRANSFORMERS = tuple(name for name in FAMILIES if name not in UNETS)
# Shares that leave every family something to remove and something to keep.
OPTIONS = {
    "uniform": "uniform:flops=0.6",
    "random": "random:flops=0.6,seed=1",
    "deepest-first": "deepest-first:flops=0.6",
    "shallowest-first": "shallowest-first:flops=0.6",
    "every-nth": "every-nth:n=2",
    "keep": "keep:Block=3",
}
KEPT = {
    "hunyuanvideo": "keep:Dual=2,Single=3",
    "framepack": "keep:Dual=2,Single=3",
    "hunyuanvideo-1.5": "keep:Dual=3",
    "motif-video": "keep:Dual=2,Single=3,Decoder=2",
    "kandinsky5": "keep:Visual=3",
    "wan-animate": "keep:Block=2",
    "latte": "keep:Spatial=3,Temporal=3",
    "kandinsky6": "keep:Visual=3",
}
NOT_OFFERED = r"rule '{}' removes D\.0\.1\+U\.3\.1.*, which this model does not offer.*use a rule of another kind"
NOT_A_TRANSFORMER = "rule '{}' is for transformers, this model is a UNet: use 'vdmini' or 'uniform'"
# Every pair that must be refused, and what it must say; all others must work.
REFUSED = {
    **{
        (family, rule): NOT_OFFERED.format(rule)
        for family in TRANSFORMERS
        for rule in ("vdmini", "second-pairs", "bk-base", "bk-small", "bk-tiny")
    },
    **{(family, rule): NOT_A_TRANSFORMER.format(rule) for family in UNETS for rule in ("every-nth", "keep")},
}

PICTURES = np.random.default_rng(0).integers(0, 256, (2, 32, 64, 3), dtype=np.uint8)
PROMPTS = {"a": (3, "a cat"), "b": (4, "a dog")}
REQUESTS = [
    ClipRequest(name, seed, picture, prompt)
    for (name, (seed, prompt)), picture in zip(PROMPTS.items(), PICTURES, strict=True)
]

# Weights mapped from a file lie at any address, and the last bit of a matrix product may depend on the address: copies
# lie where those of a student in memory do.
READER = """
import copy, json, sys, traceback
sys.path.append(sys.argv[2])
import numpy as np, torch
import vdmini
from cosmos_parts import loaded_with
from diffusers import DiffusionPipeline
from vdmini.models.registry import family_of, pipeline_denoiser
from vdmini.sample import ClipRequest, SampleSettings

pictures = np.load(sys.argv[1])
for line in sys.stdin:
    family, folder, settings, requests = json.loads(line)
    try:
        if family == "videocrafter2":
            # diffusers looks for a pipeline's class among its own, where naming ours puts it.
            vdmini.VideoCrafterPipeline
        native = DiffusionPipeline.load_config(folder)["_class_name"]
        pipeline = DiffusionPipeline.from_pretrained(folder, **loaded_with(native))
        for name, part in pipeline.components.items():
            if isinstance(part, torch.nn.Module):
                setattr(pipeline, name, copy.deepcopy(part))
        pipeline.set_progress_bar_config(disable=True)
        takes = family_of(pipeline_denoiser(pipeline)).images_for(pipeline) == "always"
        cut = pictures[:, : settings["height"], : settings["width"]]
        clips = [ClipRequest(name, seed, picture if takes else None, prompt)
                 for (name, seed, prompt), picture in zip(requests, cut)]
        sampled = family_of(pipeline_denoiser(pipeline)).sample(pipeline, clips, SampleSettings(**settings))
        np.save(folder + "/clips.npy", sampled)
        print("sampled", flush=True)
    except Exception:
        print(json.dumps(traceback.format_exc()), flush=True)
"""


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[subprocess.Popen[str]]:
    """Another process, which reloads each folder that it is told and samples the same requests from it."""
    pictures = tmp_path_factory.mktemp("pictures") / "pictures.npy"
    np.save(pictures, PICTURES)
    command = [sys.executable, "-c", READER, str(pictures), str(Path(__file__).parent)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.stdin.close()


def tiny_of(family: str) -> Tiny:
    """The first tiny pipeline of a transformer family."""
    return next(each for each in TINY.values() if each.family == family)


def build_pipeline(family: str, request: pytest.FixtureRequest) -> tuple[DiffusionPipeline, SampleSettings]:
    """A family's tiny pipeline and the smallest clip that it makes, in a step or two."""
    if family == "svd":
        return request.getfixturevalue("tiny_pipeline"), SampleSettings(steps=1, frames=2, height=32, width=32)
    if family == "animatediff":
        return animatediff_pipeline(animatediff_unet()), SampleSettings(steps=1, frames=2, height=32, width=32)
    if family == "videocrafter2":
        return videocrafter_pipeline("ddim"), SampleSettings(steps=1, frames=2, height=16, width=16)
    tiny = tiny_of(family)
    return tiny.build_pipeline(tiny.build_denoiser()), tiny.settings


def requests_for(pipeline: DiffusionPipeline, settings: SampleSettings) -> list[ClipRequest]:
    """The requests, with images of the clips' size where a pipeline cannot do without one."""
    if family_of(pipeline_denoiser(pipeline)).images_for(pipeline) != "always":
        return [dataclasses.replace(each, image=None) for each in REQUESTS]
    return [dataclasses.replace(each, image=each.image[: settings.height, : settings.width]) for each in REQUESTS]


def test_the_table_covers_every_family_and_rule() -> None:
    assert {*UNETS, *TRANSFORMERS} == {*FAMILIES}
    assert {rule for _, rule in REFUSED} < {*RULES}
    assert {*OPTIONS} == {name for name, rule in RULES.items() if rule.options or rule.by_stage}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_rule_that_fits_makes_a_student_that_reloads_and_samples_alike(
    family: str, request: pytest.FixtureRequest, reader: subprocess.Popen[str], tmp_path: Path
) -> None:
    pipeline, settings = build_pipeline(family, request)
    pipeline.set_progress_bar_config(disable=True)
    teacher = pipeline_denoiser(pipeline)
    # Rules share one count of what the blocks cost.
    model = VideoModel("tiny", family, teacher, vae=None, pipeline=pipeline)
    requests = requests_for(pipeline, settings)
    samples = family in UNETS or tiny_of(family).samples
    whole = family_named(family).sample(pipeline, requests, settings) if samples else None
    allowed = [rule for rule in RULES if (family, rule) not in REFUSED]
    # All are planned and applied; in `nox -s families` all sample too, else one of each family's and the next one's.
    sampled = allowed if FULL else [allowed[[*FAMILIES].index(family) % len(allowed)]]
    for rule in RULES:
        text = OPTIONS.get(rule, rule)
        if rule == "keep":
            text = KEPT.get(family, text)
        if family == "motif-video":
            # Whose decoder blocks are a few that cost as much as all others.
            text = text.replace("flops=0.6", "flops=0.85")
        if (family, rule) in REFUSED:
            with pytest.raises(PlanError, match=REFUSED[family, rule]):
                make_plan(model, text)
            continue
        plan = make_plan(model, text)
        assert bool(plan.removed) == (rule != "none"), rule
        replace_denoiser(pipeline, apply_plan(teacher, plan))
        if whole is None or rule not in sampled:
            continue
        clips = family_named(family).sample(pipeline, requests, settings)
        assert np.array_equal(clips, whole) == (rule == "none"), rule
        there = reload_and_sample(reader, family, pipeline, tmp_path / rule, settings)
        assert there.shape == clips.shape == (2, settings.frames, settings.height, settings.width, 3)
        assert np.abs(there - clips).max() == 0, rule


def reload_and_sample(
    reader: subprocess.Popen[str], family: str, pipeline: DiffusionPipeline, folder: Path, settings: SampleSettings
) -> np.ndarray:
    """What the other process samples from the pipeline's folder."""
    pipeline.save_pretrained(folder)
    requests = [(name, seed, prompt) for name, (seed, prompt) in PROMPTS.items()]
    reader.stdin.write(json.dumps([family, str(folder), vars(settings), requests]) + "\n")
    reader.stdin.flush()
    answer = reader.stdout.readline()
    assert answer == "sampled\n", json.loads(answer or '"the other process ended"')
    return np.load(folder / "clips.npy")
