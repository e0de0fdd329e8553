"""A distillation's own configuration: what it takes, what is wrong with it and where."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vdmini_bench.config.distillation import (
    DistillConfig,
    FolderData,
    GeneratedData,
    WebDatasetData,
    load_distillation,
)
from vdmini_bench.config.suite import Suite
from vdmini_bench.errors import SuiteError

ROOT = Path(__file__).parents[2]
TEXT = """\
kind: distillation
name: small
version: 1
teacher: embedded/svd
clip: {frames: 10, frames_per_second: 7, height: 32, width: 32}
data:
  kind: folder
  path: videos
distill:
  steps: 2
  batch_size: 2
  learning_rate: 1e-4
"""
FOLDER = "  kind: folder\n  path: videos\n"
GENERATED = "  kind: generated\n  prompts: prompts.txt\n  steps: 2\n"
PREVIEW = "preview:\n  images: pictures\n  steps: 2\n"


def write(folder: Path, text: str) -> Path:
    path = folder / "distillation.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def load(folder: Path, text: str, *overrides: str) -> DistillConfig:
    loaded = load_distillation(write(folder, text), None, overrides)
    assert isinstance(loaded, DistillConfig)
    return loaded


def error_of(folder: Path, text: str, *overrides: str) -> str:
    path = write(folder, text)
    with pytest.raises(SuiteError) as caught:
        load_distillation(path, None, overrides)
    assert caught.value.exit_code == 2
    return str(caught.value).replace(str(path), "FILE")


def place(text: str, fragment: str) -> str:
    """line:column of a fragment of the text, counted from 1."""
    before = text[: text.index(fragment)]
    return f"{before.count(chr(10)) + 1}:{len(before) - before.rfind(chr(10))}"


def test_the_documented_example_loads_and_says_what_it_is_said_to(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "distillation.md").read_text(encoding="utf-8")
    (example,) = [part.partition("```")[0] for part in text.split("```yaml\n")[1:]]
    loaded = load(tmp_path, example)
    assert isinstance(loaded.data, FolderData)
    assert loaded.preview is not None
    assert set(DistillConfig.model_fields) - {"channels"} <= loaded.model_fields_set, "the example shows every section"


def test_paths_are_the_configurations_own(tmp_path: Path) -> None:
    (tmp_path / "teacher").mkdir()
    text = TEXT.replace("embedded/svd", "teacher").replace("path: videos", "path: videos\n  captions: list.csv")
    loaded = load(tmp_path, text + PREVIEW, "plan=plan.json", "distill.preview_every=1")
    assert isinstance(loaded.data, FolderData)
    assert (loaded.teacher, loaded.plan) == (str(tmp_path / "teacher"), str(tmp_path / "plan.json"))
    assert (loaded.data.path, loaded.data.captions) == (str(tmp_path / "videos"), str(tmp_path / "list.csv"))
    assert loaded.preview is not None
    assert loaded.preview.images == str(tmp_path / "pictures")
    assert load(tmp_path, TEXT.replace("videos", "/data/videos")).data.path == "/data/videos"  # type: ignore[union-attr]
    for name in ("embedded/svd", "owner/model-on-the-hub"):
        assert load(tmp_path, TEXT, f"teacher={name}").teacher == name
    shards = load(tmp_path, TEXT.replace(FOLDER, "  kind: webdataset\n  shards: a-{000..012}.tar\n")).data
    assert isinstance(shards, WebDatasetData)
    assert shards.shards == str(tmp_path / "a-{000..012}.tar")
    elsewhere = load(tmp_path, TEXT.replace(FOLDER, "  kind: webdataset\n  shards: s3://b/a-{0..1}.tar\n")).data
    assert isinstance(elsewhere, WebDatasetData)
    assert elsewhere.shards == "s3://b/a-{0..1}.tar"
    drawn = load(tmp_path, TEXT.replace(FOLDER, GENERATED)).data
    assert isinstance(drawn, GeneratedData)
    assert (drawn.prompts, drawn.images) == (str(tmp_path / "prompts.txt"), None)


def test_a_suite_is_told_from_a_configuration(tmp_path: Path) -> None:
    assert isinstance(load_distillation(ROOT / "suites" / "ucf101.yaml", "smoke", ("distill.steps=3",)), Suite)
    assert "neither a suite" in error_of(tmp_path, TEXT.replace("kind: distillation\n", ""))
    path = write(tmp_path, TEXT)
    with pytest.raises(SuiteError, match="--profile smoke"):
        load_distillation(path, "smoke")
    with pytest.raises(SuiteError, match="cannot be read"):
        load_distillation(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("learning_rate", "learning_rte", "unknown key 'distill.learning_rte'; did you mean 'learning_rate'?"),
        ("path: videos", "pth: videos", "unknown key 'data.pth'; did you mean 'path'?"),
        ("kind: folder", "kind: foldr", "data.kind: Input should be 'folder', 'webdataset', 'generated' (got 'foldr')"),
        ("frames: 10", "frames: ten", "clip.frames: Input should be a valid integer (got 'ten')"),
        ("path: videos", "path: 3", "data.path: Input should be a valid string (got 3)"),
        ("kind: distillation", "kind: distilation", "kind: Input should be 'distillation' (got 'distilation')"),
        ("teacher: ", "techer: ", "unknown key 'techer'; did you mean 'teacher'?"),
    ],
)
def test_a_mistake_is_placed_and_the_nearest_key_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = TEXT.replace(old, new, 1)
    assert error_of(tmp_path, text) == f"FILE:{place(text, new)}: {message}"


def test_what_is_missing_is_placed_at_its_section(tmp_path: Path) -> None:
    text = TEXT.replace("  kind: folder\n", "")
    assert error_of(tmp_path, text) == f"FILE:{place(text, 'data:')}: missing key 'data.kind'"
    text = TEXT.replace("  path: videos\n", "")
    assert error_of(tmp_path, text) == f"FILE:{place(text, 'data:')}: missing key 'data.path'"


@pytest.mark.parametrize(
    ("more", "at", "said"),
    [
        ("  images: pictures\n", "images", "give one"),
        ("  seeds: 3-1\n", "seeds", "a range must not run backwards"),
        ("  seeds: [1, 2]\n", "seeds", "Input should be a valid"),
    ],
)
def test_what_clips_are_drawn_from_is_checked(tmp_path: Path, more: str, at: str, said: str) -> None:
    text = TEXT.replace(FOLDER, GENERATED + more)
    message = error_of(tmp_path, text)
    assert message.startswith(f"FILE:{place(text, at)}: data.{at}")
    assert said in message
    assert load(tmp_path, TEXT.replace(FOLDER, GENERATED + "  seeds: 0-3\n")).data.seeds == "0-3"  # type: ignore[union-attr]


def test_neither_prompts_nor_images_is_refused(tmp_path: Path) -> None:
    text = TEXT.replace(FOLDER, GENERATED.replace("  prompts: prompts.txt\n", ""))
    assert error_of(tmp_path, text).startswith(f"FILE:{place(text, 'data:')}: data.images: ")


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("distill.task=edmm",), "--set distill.task=edmm: "),
        (("distill.task=edm", "distill.task_options={sigma_men: 1}"), "sigma_men"),
        (("distill.task_options={sigma_mean: 1}",), "set distill.task"),
        (("channels=magnitude",), "set distill.lambda_icd: 0"),
        (("distill.preview_every=5",), "previews need both"),
        (("distll.steps=1",), "did you mean 'distill'?"),
        (("data.kind=generated",), "unknown key 'data.path'; valid: preset, steps"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(tmp_path: Path, overrides: tuple[str, ...], said: str) -> None:
    assert said in error_of(tmp_path, TEXT, *overrides)


def test_a_bare_no_is_a_word(tmp_path: Path) -> None:
    """YAML reads it as false."""
    precision = load(tmp_path, TEXT, "distill.mixed_precision=no").distill.mixed_precision
    written = load(tmp_path, TEXT + "  mixed_precision: no\n").distill.mixed_precision
    assert (precision, written) == ("no", "no")


def test_previews_need_a_section_and_a_rhythm(tmp_path: Path) -> None:
    assert "previews need both" in error_of(tmp_path, TEXT + PREVIEW)
    assert load(tmp_path, TEXT + PREVIEW, "distill.preview_every=2").preview is not None


TOKENS = st.sampled_from([
    "kind: generated", "kind: [a]", "data: folder", "preview: ~", "preview: {}", "<<: *a", "~", ".nan", "[", "{", "]",
    "}", ": ", "- ", "&a ", "*a", "? ", "'", '"', "|", "#", "!x ", "!!int ", "2001-99-99", "1e-4", "é", "\t", "\n",
    "\x07", "\x00", "prompts: a", "images: b",
])  # fmt: skip
WHOLE = TEXT.replace(FOLDER, GENERATED) + PREVIEW


@given(
    st.sampled_from([TEXT, WHOLE]),
    st.lists(
        st.tuples(st.integers(0, len(WHOLE)), st.integers(0, 30), st.one_of(TOKENS, st.text(max_size=5))),
        min_size=1,
        max_size=4,
    ),
    st.lists(st.text(max_size=12) | TOKENS.map(lambda token: f"data.kind={token}"), max_size=2),
)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_only_suite_errors_escape(
    tmp_path: Path, text: str, edits: list[tuple[int, int, str]], overrides: list[str]
) -> None:
    for start, removed, inserted in edits:
        text = text[:start] + inserted + text[start + removed :]
    path = tmp_path / "fuzzed.yaml"
    path.write_bytes(text.encode("utf-8", errors="replace"))
    try:
        loaded: Any = load_distillation(path, None, tuple(overrides))
    except SuiteError:
        return
    assert isinstance(loaded, DistillConfig)
