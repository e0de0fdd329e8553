"""What a study of depth asks for and how it reads clips: drawn scenes by the classifier, names by CLIP and ViCLIP."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.append(str(Path(__file__).parent / "vbench"))

from small_networks import write_small_cache
from small_suite import write_words

from vdmini_bench.data.captions import draw_scenes
from vdmini_bench.errors import MissingAssetsError
from vdmini_bench.studies.named_world import Named, NamedWorld
from vdmini_bench.studies.worlds import FACTORS, DrawnWorld
from vdmini_bench.vbench.native.catalogue import WORDS
from vdmini_bench.vbench.native.frames import Clip, embed_frames
from vdmini_bench.vbench.native.scorers import for_clip, read_text, see_video

THINGS, ACTIONS = ["a dog", "a cat", "a car"], ["is running", "is sleeping"]


def test_scenes_to_patch_differ_in_one_factor_alone() -> None:
    world = DrawnWorld()
    for factor in FACTORS:
        for first, second in world.pairs(40, factor):
            (one,), (other,) = first.things, second.things
            assert first.background == second.background
            assert one.size == other.size
            assert (first.motion == second.motion) == (factor == "content")
            assert (one.shape == other.shape, one.colour == other.colour) == ((factor == "motion"),) * 2
            assert not first.held_out
            assert not second.held_out
    assert world.pairs(5, "motion") == world.pairs(5, "motion")
    removed = {scene.caption for scene in world.scenes(40)}
    assert len(removed) > 30


def test_a_clip_shows_content_where_shape_and_colour_are_right() -> None:
    world = DrawnWorld()
    scenes = world.scenes(24)
    clips = draw_scenes(scenes, 0)
    assert world.shows("content", scenes, clips).mean() > 0.9
    assert world.shows("motion", scenes, clips).mean() > 0.9
    (thing,) = scenes[0].things
    for colour, shape in (
        ("blue" if thing.colour != "blue" else "red", thing.shape),
        (thing.colour, "disc" if thing.shape != "disc" else "ring"),
    ):
        other = replace(scenes[0], things=(replace(thing, colour=colour, shape=shape),))
        assert world.shows("content", [other], clips[:1]).tolist() == [False]
        assert (
            world.shows("motion", [other], clips[:1]).tolist() == world.shows("motion", scenes[:1], clips[:1]).tolist()
        )


@pytest.fixture
def named(tmp_path: Path, golden: Path, monkeypatch: pytest.MonkeyPatch) -> NamedWorld:
    """A world of names, read by small networks in the published formats."""
    made = json.loads((golden / "vbench_native.json").read_text(encoding="utf-8"))
    monkeypatch.setenv("VBENCH_CACHE_DIR", str(tmp_path))
    with pytest.raises(MissingAssetsError, match=r"ViT-B-32.pt.*vbench check"):
        NamedWorld(THINGS, ACTIONS, torch.device("cpu"))
    write_small_cache(tmp_path, made["shapes"])
    write_words(tmp_path / WORDS, made["merges"])
    return NamedWorld(THINGS, ACTIONS, torch.device("cpu"))


def test_names_are_read_by_the_text_most_like_what_is_seen(named: NamedWorld) -> None:
    """Against cosines taken one by one; things whose text is the clip's own feature win."""
    clips = np.random.default_rng(0).integers(0, 256, (4, 9, 32, 32, 3), dtype=np.uint8)
    networks = named.networks
    with torch.inference_mode():
        for place, frames in enumerate(clips):
            clip = Clip(frames, 1.0)
            seen = embed_frames(clip, networks.device, for_clip, networks.clip_b)
            texts = [read_text(f"a photo of {thing}", networks.clip_b_texts[0], networks, cut=True) for thing in THINGS]
            likeness = [float(torch.cosine_similarity(seen, text).mean()) for text in texts]
            best = THINGS[int(np.argmax(likeness))]
            shown = [named.shows("content", [Named(thing, ACTIONS[0])], clips[place : place + 1]) for thing in THINGS]
            assert [bool(each) for each in shown] == [thing == best for thing in THINGS]
            video, read = see_video(clip, networks), networks.viclip.text_encoder
            by_action = [
                max(
                    float(torch.cosine_similarity(video, read_text(f"{thing} {action}", read, networks, cut=True)))
                    for thing in THINGS
                )
                for action in ACTIONS
            ]
            wanted = ACTIONS[int(np.argmax(by_action))]
            shown = [named.shows("motion", [Named(THINGS[0], action)], clips[place : place + 1]) for action in ACTIONS]
            assert [bool(each) for each in shown] == [action == wanted for action in ACTIONS]


def test_captions_of_names_are_every_thing_in_every_action(named: NamedWorld) -> None:
    every = {scene.caption for scene in named.scenes(6)}
    assert every == {f"{thing} {action}" for thing in THINGS for action in ACTIONS}
    assert named.scenes(4, skip=2) == named.scenes(6)[2:]
    for factor in FACTORS:
        for first, second in named.pairs(10, factor):
            assert (first.action == second.action, first.thing == second.thing) == (
                factor == "content", factor == "motion",
            )  # fmt: skip
    assert named.chance == {"content": 1 / 3, "motion": 1 / 2}
