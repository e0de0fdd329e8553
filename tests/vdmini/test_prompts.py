"""Prompts that are cut: found, and rightly so, since the model makes one clip of two that differ in what is lost."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
from diffusers import DiffusionPipeline, StableVideoDiffusionPipeline
from numpy.typing import NDArray
from tiny_transformers import TINY, TRIED
from tiny_unets import animatediff_pipeline, animatediff_unet, videocrafter_pipeline
from tiny_wan import TINY_WAN

from vdmini.prompts import CutPrompt, cut_prompts
from vdmini.requests import ClipRequest, SampleSettings
from vdmini.sample import sample_video

pytestmark = [
    pytest.mark.filterwarnings("ignore:In CPU autocast, but the target dtype is not supported:UserWarning"),
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:__array_wrap__ must accept context:DeprecationWarning"),
]
# The tokens that each pipeline reads, as its model's papers and cards have them; no word takes two here.
LENGTHS = {
    "hunyuanvideo": 256, "wan": 512, "cogvideox-2b": 226, "cogvideox-5b": 226, "ltx": 128, "mochi": 256,
    "hunyuanvideo-i2v": 256, "hunyuanvideo-1.5-t2v": 1000, "motif-video-t2v": 512, "kandinsky5-t2v": 512,
    "ltx-0.9.5": 128, "ltx-0.9.7": 256, "ltx-2": 1024, "ltx-2.3": 1024, "cogvideox1.5-5b": 226,
    "cogvideox1.5-5b-i2v": 226, "cogvideox-5b-i2v": 226, "consisid": 226, "cosmos-1.0": 512, "cosmos-predict2": 512,
    # The instructions before the prompt are 14 words of these, with their stop.
    "cosmos-predict2.5": 512 - 14,
    # The instructions come on top, but for two tokens.
    "sana-video": 300 - 2, "sana-video-image": 300 - 2, "allegro": 512, "latte": 120, "easyanimate": 256,
} | dict.fromkeys(TINY_WAN, 512)  # fmt: skip
# The tokens of the instructions before a prompt, which those of the published tokenizers cut off.
INSTRUCTIONS = {"hunyuanvideo": 95, "hunyuanvideo-i2v": 103, "kandinsky5-t2v": 128}


def clip(
    pipeline: DiffusionPipeline, prompt: str, settings: SampleSettings, image: NDArray[np.uint8] | None = None
) -> bytes:
    return sample_video(pipeline, [ClipRequest("a", 0, image, prompt)], settings).tobytes()


@pytest.mark.parametrize("name", [name for name in LENGTHS if name in TRIED])
def test_a_transformers_prompt_is_cut_where_the_clip_no_longer_changes(name: str) -> None:
    tiny = TINY[name]
    pipeline = tiny.build_pipeline(tiny.build_denoiser())
    settings = tiny.settings
    room = LENGTHS[name]
    if name in INSTRUCTIONS:
        # This tokenizer takes the instructions before the prompt for another number of tokens than the published do.
        options = inspect.signature(type(pipeline).__call__).parameters
        around = options["prompt_template"].default["template"] if "prompt_template" in options else None
        before = (around or pipeline.prompt_template).partition("{}")[0]
        room += INSTRUCTIONS[name] - len(pipeline.tokenizer(before).input_ids)
    words = ["red", *["cat"] * (room - 1)]
    fits = " ".join(words)
    first = "text_encoder"
    assert [cut for cut in cut_prompts(pipeline, [fits, "a dog"]) if cut.encoder == first] == []
    found = [cut for cut in cut_prompts(pipeline, [f"{fits} a dog", f"{fits} a dog"]) if cut.encoder == first]
    assert [(cut.prompt, cut.lost) for cut in found] == [(f"{fits} a dog", "a dog")]
    if name not in INSTRUCTIONS and tiny.samples:
        # Their other encoders, of 77 tokens, read no more of these, and Kandinsky's pipeline cuts by letters.
        one, other, whole, changed = (
            clip(pipeline, text, settings, tiny.picture(0))
            for text in (f"{fits} a dog", f"{fits} runs", fits, " ".join([*words[:-1], "dog"]))
        )
        assert one == other
        assert whole != changed


def test_hunyuanvideos_second_encoder_is_looked_at_too() -> None:
    tiny = TINY["hunyuanvideo"]
    pipeline = tiny.build_pipeline(tiny.build_denoiser())
    positions = pipeline.text_encoder_2.config.max_position_embeddings
    prompt = " ".join(["cat"] * positions)
    assert cut_prompts(pipeline, [prompt]) == []
    assert cut_prompts(pipeline, [f"{prompt} red dog"]) == [
        CutPrompt(f"{prompt} red dog", "text_encoder_2", positions, "red dog")
    ]


@pytest.mark.parametrize("family", ["animatediff", "videocrafter2"])
def test_a_unets_prompt_is_cut_where_the_clip_no_longer_changes(family: str) -> None:
    unet = family == "animatediff"
    pipeline = animatediff_pipeline(animatediff_unet()) if unet else videocrafter_pipeline("ddim")
    pipeline.set_progress_bar_config(disable=True)
    settings = SampleSettings(steps=1, frames=2, height=16, width=16)
    # A token for each letter here, and two for the start and the end.
    room = min(pipeline.tokenizer.model_max_length, pipeline.text_encoder.config.max_position_embeddings) - 2
    fits = "a" * room
    assert cut_prompts(pipeline, [fits]) == []
    (found,) = cut_prompts(pipeline, [fits + "bc"])
    assert (found.encoder, found.tokens, found.lost) == ("text_encoder", room + 2, "bc")
    assert clip(pipeline, fits + "bc", settings) == clip(pipeline, fits + "d", settings)
    assert clip(pipeline, fits, settings) != clip(pipeline, fits[:-1] + "b", settings)


def test_a_model_without_prompts_cuts_none(tiny_pipeline: StableVideoDiffusionPipeline) -> None:
    assert cut_prompts(tiny_pipeline, ["a" * 1000]) == []
