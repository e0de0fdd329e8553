from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from contexts import context_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vdmini.cost import count_parameters
from vdmini.models.loading import load_model
from vdmini.rules import make_plan
from vdmini_bench.config.suite import load_suite
from vdmini_bench.errors import SuiteError
from vdmini_bench.models.pruning import Pruning
from vdmini_bench.models.source import model_folder
from vdmini_bench.results.store import STUDENT
from vdmini_bench.runs.stages.prune import run_stage
from vdmini_bench.suites.clip_selection import ChosenClips

SUITE = Path(__file__).parents[2] / "suites" / "ucf101.yaml"
TEXT = """\
name: small
version: 1
default_profile: base

profiles:
  base:
    teacher: embedded/svd
    dataset: {kind: drawn, train_clips: 8}
    protocol:
      name: p
      frames: 10
      frames_per_second: 7
      clips_per_block: 2
      blocks: 2
      reference: shipped
      reference_clips: 20
      inception: i3d-kinetics400
    sample:
      steps: 4
      height: 32
      width: 32
      batch_size: 2
    distill:
      steps: 10
      batch_size: 2
      learning_rate: 1e-4
    timing:
      runs: 3
    models:
      teacher: {}
      pruned: {plan: vdmini}
      student: {plan: vdmini, distill: {}}

  child:
    extends: base
    distill:
      steps: 5
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "suite.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def place(text: str, fragment: str) -> str:
    """line:column of a fragment of the text, counted from 1."""
    before = text[: text.index(fragment)]
    return f"{before.count(chr(10)) + 1}:{len(before) - before.rfind(chr(10))}"


def error_of(folder: Path, text: str, profile: str | None = None, overrides: tuple[str, ...] = ()) -> str:
    path = write(folder, text)
    with pytest.raises(SuiteError) as caught:
        load_suite(path, profile, overrides)
    assert caught.value.exit_code == 2
    return str(caught.value).replace(str(path), "FILE")


def test_every_profile_of_the_shipped_suite_loads() -> None:
    names = list(yaml.safe_load(SUITE.read_text(encoding="utf-8"))["profiles"])
    assert {"embedded", "quick", "smoke", "paper", "sf-v", "text"} == set(names)
    suites = [load_suite(SUITE, name) for name in names]
    assert len({suite.sha for suite in suites}) == len(names)
    assert load_suite(SUITE).profile_name == "quick"
    for suite in suites:
        # Only the real data set makes numbers that may go unlabelled.
        assert (suite.profile.stand_in is None) == (suite.profile.dataset.kind == "ucf101")


def test_a_profile_keeps_what_it_does_not_override(tmp_path: Path) -> None:
    path = write(tmp_path, TEXT)
    base, child = load_suite(path).profile, load_suite(path, "child").profile
    assert (child.distill.steps, base.distill.steps) == (5, 10)
    assert child.distill.learning_rate == base.distill.learning_rate
    assert child.protocol == base.protocol


@pytest.mark.parametrize(("text", "value"), [("1e-4", 1e-4), ("1.0e-4", 1e-4), ("2E3", 2000.0), (".5e1", 5.0)])
def test_exponents_are_floats(tmp_path: Path, text: str, value: float) -> None:
    path = write(tmp_path, TEXT.replace("1e-4", text))
    rate = load_suite(path).profile.distill.learning_rate
    assert isinstance(rate, float)
    assert rate == pytest.approx(value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("7.0", 7), ("'7'", 7), ("14/2", 7), ("23.976", 23.976), ("'23.976'", 23.976), ("30000/1001", 30000 / 1001),
        ("12.5", 12.5), ("25/2", 12.5),
    ],
)  # fmt: skip
def test_a_rate_is_a_whole_number_a_decimal_or_a_fraction(tmp_path: Path, text: str, value: float) -> None:
    path = write(tmp_path, TEXT.replace("frames_per_second: 7", f"frames_per_second: {text}"))
    for profile in (load_suite(path).profile, load_suite(path, None, ("protocol.frames=11",)).profile):
        assert profile.frames_per_second == profile.rate == value
        # A whole number is one in every identity, however it is written.
        assert isinstance(profile.protocol.frames_per_second, int) == (value == 7)
    assert (load_suite(path).sha == load_suite(write(tmp_path, TEXT)).sha) == (value == 7)


def test_the_sha_is_of_the_settings_not_of_the_file(tmp_path: Path) -> None:
    sha = load_suite(write(tmp_path, TEXT)).sha
    assert load_suite(write(tmp_path, "# a remark\n" + TEXT.replace("1e-4", "0.0001"))).sha == sha
    assert load_suite(write(tmp_path, TEXT.replace("steps: 4", "steps: 6"))).sha != sha


def test_an_unknown_key_is_placed_and_the_nearest_named(tmp_path: Path) -> None:
    text = TEXT.replace("learning_rate", "learning_rte")
    assert error_of(tmp_path, text) == (
        f"FILE:{place(text, 'learning_rte')}: unknown key 'distill.learning_rte'; did you mean 'learning_rate'?"
    )
    assert error_of(tmp_path, "nam: x\n" + TEXT).startswith("FILE:1:1: unknown key 'nam'; did you mean 'name'?")


def test_a_key_given_twice_is_placed(tmp_path: Path) -> None:
    text = TEXT.replace("runs: 3", "runs: 3\n      runs: 4")
    first, second = place(text, "runs: 3").split(":")[0], place(text, "runs: 4")
    assert error_of(tmp_path, text) == f"FILE:{second}: key 'runs' is given twice (first on line {first})"


def test_a_mistake_in_an_extended_profile_is_placed_there(tmp_path: Path) -> None:
    for wrong in ("learning_rte: 1e-4", "learning_rate: fast"):
        text = TEXT.replace("learning_rate: 1e-4", wrong)
        assert error_of(tmp_path, text, "child").startswith(f"FILE:{place(text, wrong)}: ")


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("frames: 10", "frames: ten", "protocol.frames: .*valid integer.*'ten'"),
        ("frames: 10", "frames: 10.5", "protocol.frames: .*valid integer"),
        ("frames: 10", "frames: true", "protocol.frames: .*valid integer"),
        ("frames: 10", "frames: 8", "protocol.frames: .*greater than or equal to 9"),
        (
            "frames_per_second: 7",
            "frames_per_second: 0",
            "protocol.frames_per_second: .*from 0.001 to 1000",
        ),
        ("frames_per_second: 7", "frames_per_second: -7", "whole number, a decimal such as 23.976 or a fraction"),
        ("frames_per_second: 7", "frames_per_second: 1e400", r"\(got inf\)"),
        ("frames_per_second: 7", "frames_per_second: .nan", r"\(got nan\)"),
        ("frames_per_second: 7", "frames_per_second: 1001", r"\(got 1001\)"),
        ("frames_per_second: 7", "frames_per_second: 30/0", r"\(got '30/0'\)"),
        ("frames_per_second: 7", "frames_per_second: 1/2/3", r"\(got '1/2/3'\)"),
        ("frames_per_second: 7", 'frames_per_second: "30\\n"', "protocol.frames_per_second"),
        ("frames_per_second: 7", "frames_per_second: ntsc", r"\(got 'ntsc'\)"),
        ("frames_per_second: 7", "frames_per_second: true", r"\(got True\)"),
        ("frames_per_second: 7", "frames_per_second: [30, 1001]", "protocol.frames_per_second"),
        ("runs: 3", "runs: 2", "timing.runs: .*greater than or equal to 3"),
        ("learning_rate: 1e-4", "learning_rate: .nan", "distill.learning_rate"),
        ("learning_rate: 1e-4", "learning_rate: .inf", "distill.learning_rate: .*finite"),
        ("reference: shipped", "reference: shiped", "protocol.reference: .*'shipped' or 'computed'"),
    ],
)
def test_a_wrong_value_is_placed_and_quoted(tmp_path: Path, old: str, new: str, reason: str) -> None:
    text = TEXT.replace(old, new)
    message = error_of(tmp_path, text)
    assert message.startswith(f"FILE:{place(text, new)}: ")
    assert re.search(reason, message)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("distill.task=edn", "did you mean 'edm'"),
        ("distill.task_options={sigma_mean: 0.0}", "set distill.task"),
        ("distill.preview_every=5", "leave this out"),
    ],
)
def test_a_distillation_that_cannot_be_is_refused(tmp_path: Path, override: str, said: str) -> None:
    message = error_of(tmp_path, TEXT, None, (override,))
    assert message.startswith(f"--set {override}: distill")
    assert said in message


def test_channels_need_distillation_without_features(tmp_path: Path) -> None:
    """The conflict is placed at `channels`, wherever that comes from, and gone where no features are compared."""
    rule, key = "channels: depgraph-l2:ratio=0.3", "models.student.channels"
    text = TEXT.replace("student: {plan: vdmini", f"student: {{plan: vdmini, {rule}")
    message = error_of(tmp_path, text)
    assert message.startswith(f"FILE:{place(text, rule)}: {key}: ")
    assert "set distill.lambda_icd: 0" in message
    assert error_of(tmp_path, text, "child") == message
    assert error_of(tmp_path, TEXT, None, (f"{key}=magnitude",)).startswith(f"--set {key}=magnitude: {key}: ")
    without = load_suite(tmp_path / "suite.yaml", None, (f"{key}=magnitude", "distill.lambda_icd=0")).profile
    assert without.models["student"].channels == "magnitude"
    icd = "models.student.distill.lambda_icd=0.0"
    assert load_suite(write(tmp_path, text), None, (icd,)).profile.models["student"].channels == rule[10:]
    assert load_suite(write(tmp_path, TEXT)).profile.models["student"].channels is None
    assert "valid string" in error_of(tmp_path, TEXT, None, (f"{key}=3",))


def test_channels_decide_what_the_pruned_student_is(tmp_path: Path) -> None:
    plan_file = tmp_path / "plan.json"
    plan_file.write_text(make_plan("svd").to_json())
    plan = plan_file.read_text()
    for rule_or_file, text in (("vdmini", "vdmini"), (str(plan_file), plan)):
        assert str(Pruning.read(rule_or_file)) == text
        both = Pruning.read(rule_or_file, "magnitude:ratio=3e-1")
        assert both == Pruning.read(rule_or_file, "magnitude:pair_gates=0,ratio=0.3")
        assert both == Pruning(text, "magnitude:ratio=0.3")
        assert str(both) == f"{text}\n\nchannels magnitude:ratio=0.3"
    for rule, said in (
        ("depgraph-taylor", "name it in a suite's models"),
        ("magnitud", "did you mean 'magnitude'"),
    ):
        with pytest.raises(SuiteError, match=said):
            Pruning.read("vdmini", rule)


def test_the_prune_stage_narrows_what_the_plan_leaves(tmp_path: Path) -> None:
    suite = load_suite(SUITE, "smoke", ("models.pruned.channels=depgraph-l2:ratio=0.5,pair_gates=1",))
    context, teacher = context_of(suite, tmp_path, ChosenClips()), str(model_folder(suite.profile.teacher))
    run_stage(context, "pruned", tmp_path / "pruned")
    student = load_model(tmp_path / "pruned" / STUDENT, device="meta").denoiser
    blocks_alone = load_model(teacher, device="meta").blocks.without(make_plan("svd").removed)
    assert count_parameters(student) < 0.35 * blocks_alone.params
    provenance = json.loads((tmp_path / "pruned" / STUDENT / "provenance.json").read_text())
    rule = "depgraph-l2:ratio=0.5,pair_gates=1"
    whole = load_model(teacher, device="meta").blocks.params
    origin = {"teacher": suite.profile.teacher, "teacher_sha256": "digest", "teacher_parameters": whole}
    assert provenance == {**origin, "channels": rule, "lora": None}
    assert "**A stand-in**" in (tmp_path / "pruned" / STUDENT / "README.md").read_text()


def test_a_missing_key_is_named_where_it_belongs(tmp_path: Path) -> None:
    text = TEXT.replace("      learning_rate: 1e-4\n", "")
    assert error_of(tmp_path, text) == f"FILE:{place(text, 'distill:')}: missing key 'distill.learning_rate'"


@pytest.mark.parametrize(
    ("parent", "reason"),
    [
        ("child", "extends itself"),
        ("bse", "no profile 'bse'; did you mean 'base'?"),
        ("[base]", "no profile ['base']"),
        ("{a: b}", "no profile {'a': 'b'}"),
    ],
)
def test_a_bad_parent_is_placed(tmp_path: Path, parent: str, reason: str) -> None:
    text = TEXT.replace("extends: base", f"extends: {parent}")
    assert error_of(tmp_path, text, "child").startswith(f"FILE:{place(text, 'extends')}: {reason}")


def test_a_long_circle_of_parents_ends(tmp_path: Path) -> None:
    text = TEXT + "  a: {extends: b}\n  b: {extends: c}\n  c: {extends: a}\n"
    assert "extends itself" in error_of(tmp_path, text, "a")


def test_unknown_profile(tmp_path: Path) -> None:
    assert "no profile 'chld'; did you mean 'child'?" in error_of(tmp_path, TEXT, "chld")
    assert "no profile 'bas'" in error_of(tmp_path, TEXT.replace("default_profile: base", "default_profile: bas"))


def test_overrides_replace_single_keys(tmp_path: Path) -> None:
    path = write(tmp_path, TEXT)
    changed = load_suite(path, "child", ("distill.steps=7", "teacher=/a=b", "distill.learning_rate=1e-5")).profile
    assert (changed.distill.steps, changed.teacher, changed.distill.learning_rate) == (7, "/a=b", 1e-5)
    assert changed.distill.batch_size == 2
    assert load_suite(path, None, ("distill.steps=1", "distill.steps=2")).profile.distill.steps == 2
    # An override of a profile leaves the profiles that extend it, or that it extends, as they were.
    assert load_suite(path).profile.distill.steps == 10


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("distill.stesp=3", "did you mean 'steps'?"),
        ("distll.steps=3", "no section 'distll'; did you mean 'distill'?"),
        ("distill.steps=abc", "valid integer"),
        ("distill.steps=", "valid integer"),
        ("distill=3", "valid dictionary"),
        ("distill.steps", "write key.path=value"),
        ("=3", "write key.path=value"),
        ("distill.steps=[", "not valid YAML"),
        ("distill.steps=2001-99-99", "not valid YAML"),
        ("distill.steps=!!bool maybe", "not valid YAML"),
        ("distill.steps=" + "9" * 5000, "not valid YAML"),
        ("distill.steps=" + "[" * 5000, "not valid YAML"),
    ],
)
def test_a_bad_override_is_named(tmp_path: Path, override: str, reason: str) -> None:
    message = error_of(tmp_path, TEXT, None, (override,))
    assert message.startswith(f"--set {override}")
    assert reason in message


@pytest.mark.parametrize(
    "value",
    [
        '!!int ""',
        "!!int x",
        "!!bool x",
        "!!timestamp x",
        "2001-99-99",
        "0x" + "f" * 6000,
        "9" * 5000,
        "!!python/name:os",
    ],
)
def test_a_value_unlike_its_type_is_placed(tmp_path: Path, value: str) -> None:
    text = TEXT.replace("frames: 10", f"frames: {value}")
    assert error_of(tmp_path, text).startswith(f"FILE:{place(text, value)}: not valid YAML")


@pytest.mark.parametrize(
    "text", ["", "- a", "word", "[" * 20_000, "a: &a {b: *a}", "a:\n\tb: 1", "a: \x01", "a: 1\n---\n"]
)
def test_what_is_no_suite_is_refused(tmp_path: Path, text: str) -> None:
    assert error_of(tmp_path, text).startswith("FILE:")


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "none.yaml", tmp_path, binary):
        with pytest.raises(SuiteError, match="cannot be read") as caught:
            load_suite(path)
        assert str(path) in str(caught.value)


TOKENS = st.sampled_from([
    "extends: base", "extends: [a]", "extends: child", "<<: *a", "~", ".nan", "[", "{", "]", "}", ": ", "- ", "&a ",
    "*a", "? ", "'", '"', "|", "#", "%", "@", "!x ", "!!int ", "!!bool ", "2001-99-99", "0x", "1e-4", "é",
    "\t", "\n", "\x07",
])  # fmt: skip


@given(
    st.lists(
        st.tuples(st.integers(0, len(TEXT)), st.integers(0, 30), st.one_of(TOKENS, st.text(max_size=5))),
        min_size=1,
        max_size=4,
    ),
    st.lists(st.text(max_size=12) | TOKENS.map(lambda token: f"distill.steps={token}"), max_size=2),
)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_only_suite_errors_escape(tmp_path: Path, edits: list[tuple[int, int, str]], overrides: list[str]) -> None:
    text = TEXT
    for start, removed, inserted in edits:
        text = text[:start] + inserted + text[start + removed :]
    path = write(tmp_path, text)
    for profile in (None, "child"):
        try:
            suite = load_suite(path, profile, tuple(overrides))
        except SuiteError:
            continue
        assert len(suite.sha) == 16
