"""Prompts from files that people write, and the videos that a suite asks for with them."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from vdmini_bench.config.vbench import VBenchSpec
from vdmini_bench.data.prompts import read_prompt_file
from vdmini_bench.data.requests import prompt_requests
from vdmini_bench.errors import SuiteError
from vdmini_bench.suites.vbench_videos import listed_videos

PROMPTS = ["A red ball, rolling left", "鳥が飛ぶ", "a prompt of " + 60 * "many words "]


def write(folder: Path, suffix: str, prompts: list[str]) -> Path:
    file = folder / f"prompts{suffix}"
    if suffix == ".txt":
        file.write_text("\n\n".join(f"  {prompt}  " for prompt in prompts), encoding="utf-8")
    elif suffix == ".csv":
        file.write_text("id,prompt_en\n" + "".join(f'{place},"{each}"\n' for place, each in enumerate(prompts)))
    elif suffix == ".jsonl":
        file.write_text("".join(json.dumps({"id": 1, "text": prompt}) + "\n" for prompt in prompts))
    else:
        parquet.write_table(pyarrow.table({"caption": prompts}), file)
    return file


@pytest.mark.parametrize("suffix", [".txt", ".csv", ".jsonl", ".parquet"])
def test_every_kind_of_file_gives_the_same_prompts(tmp_path: Path, suffix: str) -> None:
    file = write(tmp_path, suffix, PROMPTS)
    assert read_prompt_file(file) == [prompt.strip() for prompt in PROMPTS]
    assert [request.name for request in prompt_requests(file, [0, 7])][:3] == ["0000-0", "0000-7", "0001-0"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", " \n\n", "holds no prompt"),
        ("a.csv", "prompt\n", "holds no prompt"),
        ("a.csv", "prompt,name\na ball,b\n,c\n", r"a.csv:3: no prompt"),
        ("a.csv", "name\na\n", r"a.csv:1: no column for the prompt .*'name'.*have one of prompt, prompt_en"),
        ("a.csv", "prompt,text\na,b\n", "columns prompt and text all say the prompt"),
        ("a.jsonl", '{"prompt": "a"}\n{"name": "b"}\n', r"a.jsonl:2: no column for the prompt"),
        ("a.jsonl", '{"prompt": 3}\n', r"a.jsonl:1: the prompt is 3: write a text"),
        ("a.jsonl", '["a"]\n', r'a.jsonl:1: no object: write {"prompt": ...}'),
        ("a.parquet", "no table", "no Parquet file"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(tmp_path: Path, name: str, content: str, message: str) -> None:
    file = tmp_path / name
    file.write_text(content, encoding="utf-8")
    with pytest.raises(SuiteError, match=message):
        read_prompt_file(file)
    with pytest.raises(SuiteError, match="cannot be read"):
        read_prompt_file(tmp_path / f"absent{file.suffix}")


def test_videos_have_names_that_files_can_have_and_seeds_of_their_prompts(tmp_path: Path) -> None:
    file = write(tmp_path, ".txt", PROMPTS)
    spec = VBenchSpec(mode="t2v", prompts=str(file), samples_per_prompt=2)
    videos = listed_videos(spec, file)
    assert [video.name for video in videos] == ["0000-0", "0000-1", "0001-0", "0001-1", "0002-0", "0002-1"]
    assert len({video.seed for video in videos}) == 6
    fewer = spec.model_copy(update={"prompt_count": 2, "samples_per_prompt": None})
    # A prompt's seed is the same wherever it stands and however many are asked for.
    assert listed_videos(fewer, file) == tuple(video for video in videos[:4] if video.index == 0)
    with pytest.raises(SuiteError, match=r"holds 3 prompts where vbench\.prompt_count is 4"):
        listed_videos(spec.model_copy(update={"prompt_count": 4}), file)
    assert spec.identity(6, "a" * 64) == "vbench-prompts-aaaaaaaaaaaa@1/p3x2/seed0"


@pytest.mark.parametrize(
    ("mode", "prompts", "message"),
    [("t2v", "offical", "write embedded, official, or the name of a file"), ("i2v", "a.txt", "has no images")],
)
def test_what_no_suite_can_mean_is_refused(mode: str, prompts: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VBenchSpec.model_validate({"mode": mode, "prompts": prompts})
