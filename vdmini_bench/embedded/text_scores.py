"""How well a text-to-video model draws what captions of the drawn world say."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

import numpy as np
from diffusers.pipelines.pipeline_utils import DiffusionPipeline

from vdmini.requests import ClipRequest, SampleSettings
from vdmini.sample import batches, sample_clips
from vdmini_bench.data.captions import Scene, Split, choose_scenes
from vdmini_bench.metrics.scene_classifier import ShippedClassifier, read_clips
from vdmini_bench.metrics.semantic import SemanticScore, semantic_scores
from vdmini_bench.system.progress import progress

# Beyond the scenes that training and its validation draw.
FIRST_SCENE = 3_000_000
CLIPS_PER_BATCH = 16


def score_captions(
    pipeline: DiffusionPipeline, classifier: ShippedClassifier, scenes: Sequence[Scene], settings: SampleSettings
) -> list[SemanticScore]:
    """Sample each scene's caption with its place as seed, read the clips and score them in every dimension."""
    requests = [ClipRequest(f"{seed:05d}", seed, prompt=scene.caption) for seed, scene in enumerate(scenes)]
    clips = []
    with progress("sample captions", len(requests)) as advance:
        for batch in batches(requests, CLIPS_PER_BATCH):
            clips.append(sample_clips(pipeline, batch, settings))
            for _ in batch:
                advance()
    return semantic_scores(scenes, read_clips(classifier.network, np.concatenate(clips)), classifier.accuracy)


def scoring_scenes(count: int, *, held_out: bool) -> list[Scene]:
    """Scenes of one thing and of two in turn, of combinations that training drew or of those it never did."""
    split: Split = "held-out" if held_out else "train"
    singles = choose_scenes((count + 1) // 2, split, things=1, skip=FIRST_SCENE)
    pairs = choose_scenes(count // 2, split, things=2, skip=FIRST_SCENE)
    return [scene for both in zip_longest(singles, pairs) for scene in both if scene is not None]
