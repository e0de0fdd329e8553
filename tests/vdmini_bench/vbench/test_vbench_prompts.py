"""What the protocol asks for: every video's name, seed and prompt, and what the official code is given of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from small_suite import ENTRIES, write_prompts

from vdmini_bench.errors import SuiteError
from vdmini_bench.vbench.prompts import (
    custom_entries,
    official_entries,
    prompt_of,
    read_prompts,
    request_videos,
    seed_of,
)


def test_a_prompt_has_five_videos_and_25_where_they_are_sorted_out(tmp_path: Path) -> None:
    prompts = read_prompts(write_prompts(tmp_path))
    everything = ["color", "human_action", "subject_consistency", "temporal_flickering", "overall_consistency"]
    names = [request.name for request in request_videos(prompts, everything)]
    assert len(names) == len({*names}) == 3 * 5 + 25
    assert names[:5] == [f"a red bicycle-{index}" for index in range(5)]
    assert "a still lake.-24" in names
    assert len(request_videos(prompts, everything, filtered=False)) == 4 * 5
    assert [request.prompt for request in request_videos(prompts, ["color"])] == ["a red bicycle"] * 5


def test_seeds_belong_to_videos_not_to_their_order(tmp_path: Path) -> None:
    prompts = read_prompts(write_prompts(tmp_path))
    seeds = {r.name: r.seed for r in request_videos(prompts, ["color", "human_action", "overall_consistency"])}
    assert len({*seeds.values()}) == len(seeds)
    assert {r.name: r.seed for r in request_videos(prompts[::-1], ["color"])}.items() <= seeds.items()
    # Kept for ever: videos of unlike seeds are unlike videos.
    assert seed_of("a red bicycle", 3) == seeds["a red bicycle-3"] == 3028016548
    assert seed_of("a red bicycle", 3, base_seed=1) != seeds["a red bicycle-3"]


def test_the_official_code_gets_each_entry_with_its_five_videos(tmp_path: Path) -> None:
    prompts = read_prompts(write_prompts(tmp_path))
    videos = {f"a red bicycle-{index}": tmp_path / f"a red bicycle-{index}.mp4" for index in range(25)}
    assert official_entries(prompts, "color", videos) == [
        {
            "prompt_en": "a red bicycle",
            "dimension": ["color"],
            "video_list": [str(tmp_path / f"a red bicycle-{index}.mp4") for index in range(5)],
            "auxiliary_info": {"color": {"color": "red"}},
        }
    ]
    assert [len(entry["video_list"]) for entry in official_entries(prompts, "overall_consistency", videos)] == [0]


def test_images_of_image_to_video_are_those_of_one_ratio(tmp_path: Path) -> None:
    entries = [
        {"prompt_en": "a beach", "dimension": ["i2v_background", "camera_motion"], "image_name": "a beach.jpg"},
        {"prompt_en": "a beach, camera pans left", "dimension": ["camera_motion"], "image_type": "scenery"},
    ]
    file = tmp_path / "i2v.json"
    file.write_text(json.dumps(entries), encoding="utf-8")
    prompts = read_prompts(file, tmp_path / "16-9")
    image = tmp_path / "16-9" / "a beach.jpg"
    assert {request.image for request in request_videos(prompts, ["i2v_background"])} == {image}
    (entry,) = official_entries(prompts, "i2v_background", {})
    assert entry["image_name"] == str(image)
    assert [prompt.image for prompt in read_prompts(file)] == [None, None]


@pytest.mark.parametrize(
    "content",
    ["not json", "{}x", json.dumps([{"prompt_en": "a"}]), json.dumps([{"prompt_en": 3, "dimension": []}]), '["a"]'],
)
def test_a_file_that_is_no_prompt_file_is_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "prompts.json"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(SuiteError, match="no official VBench prompt file"):
        read_prompts(file)


@pytest.mark.parametrize("prompt", ["a/b", "", "é" * 130])
def test_prompts_that_cannot_name_a_file_are_refused(tmp_path: Path, prompt: str) -> None:
    file = tmp_path / "prompts.json"
    file.write_text(json.dumps([*ENTRIES, {"prompt_en": prompt, "dimension": ["color"]}]), encoding="utf-8")
    with pytest.raises(SuiteError, match="cannot be a file's name"):
        read_prompts(file)


def test_custom_videos_say_their_prompt_by_their_name(tmp_path: Path) -> None:
    assert [prompt_of(name) for name in ("a cat-3", "a cat", "a 3-4", "take-2-11")] == [
        "a cat",
        "a cat",
        "a 3",
        "take-2",
    ]
    image = tmp_path / "a cat.png"
    (entry,) = custom_entries("i2v_subject", {"a cat-3": tmp_path / "a cat-3.mp4"}, {"a cat": image})
    assert (entry["prompt_en"], entry["image_name"]) == ("a cat", str(image))
    with pytest.raises(SuiteError, match=r"i2v_subject: no image a cat\.jpg"):
        custom_entries("i2v_subject", {"a cat-3": tmp_path / "a cat-3.mp4"})
