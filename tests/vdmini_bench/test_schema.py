from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import yaml
from click.testing import CliRunner
from pydantic import Field

from vdmini_bench.cli import main
from vdmini_bench.config.fields import Specification
from vdmini_bench.config.json_schema import schema_of, suite_schema
from vdmini_bench.config.suite import Profile, load_suite
from vdmini_bench.config.thresholds import DEFAULT, load_thresholds
from vdmini_bench.config.vbench import load_any_suite
from vdmini_bench.errors import SuiteError

ROOT = Path(__file__).parents[2]
# Without its task, whose options are checked by code that imports torch.
SUITE = (ROOT / "suites" / "ucf101.yaml").read_text()
TEXT = "".join(line for line in SUITE.splitlines(keepends=True) if "task" not in line)
TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,), "integer": (int,), "number": (int, float), "boolean": (bool,), "null": (type(None),),
    "object": (dict,), "array": (list,),
}  # fmt: skip
NOTES = {"$schema", "$defs", "title", "description", "default", "discriminator"}


def accepts(value: Any, schema: dict[str, Any], root: dict[str, Any]) -> bool:
    """Whether a value is valid; an independent reading of the keywords that our schemas use, and of no others."""
    if "$ref" in schema:
        return accepts(value, root["$defs"][schema["$ref"].removeprefix("#/$defs/")], root)
    results = []
    for keyword, asked in schema.items():
        match keyword:
            case "type":
                results.append(isinstance(value, TYPES[asked]) and (asked == "boolean") >= isinstance(value, bool))
            case "const":
                results.append(value == asked)
            case "pattern":
                results.append(not isinstance(value, str) or re.search(asked, value) is not None)
            case "enum":
                results.append(value in asked)
            case "oneOf":
                results.append(sum(accepts(value, each, root) for each in asked) == 1)
            case "allOf":
                results += [accepts(value, each, root) for each in asked]
            case "anyOf":
                results.append(any(accepts(value, each, root) for each in asked))
            case "if":
                branch = "then" if accepts(value, asked, root) else "else"
                results.append(accepts(value, schema[branch], root))
            case "required":
                results.append(not isinstance(value, dict) or {*asked} <= {*value})
            case "properties":
                known = {name: value[name] for name in asked if isinstance(value, dict) and name in value}
                results += [accepts(each, asked[name], root) for name, each in known.items()]
            case "additionalProperties":
                others = {*value} - {*schema.get("properties", ())} if isinstance(value, dict) else set()
                results += [asked if isinstance(asked, bool) else accepts(value[name], asked, root) for name in others]
            case "items":
                results += [accepts(each, asked, root) for each in value] if isinstance(value, list) else []
            case "minItems":
                results.append(not isinstance(value, list) or len(value) >= asked)
            case "minProperties":
                results.append(not isinstance(value, dict) or len(value) >= asked)
            case "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum":
                number = isinstance(value, int | float) and not isinstance(value, bool)
                compare = {
                    "minimum": float.__ge__, "maximum": float.__le__,
                    "exclusiveMinimum": float.__gt__, "exclusiveMaximum": float.__lt__,
                }  # fmt: skip
                results.append(not number or compare[keyword](float(value), float(asked)))
            case _:
                assert keyword in NOTES | {"then", "else"}, f"a keyword that this test does not know: {keyword}"
    return all(results)


def changed(text: str, old: str, new: str) -> str:
    assert old in text
    return text.replace(old, new, 1)


def loads(path: Path, load: Any) -> bool:
    try:
        load(path)
    except SuiteError:
        return False
    return True


def read(text: str) -> Any:
    return yaml.safe_load(text)


@pytest.mark.parametrize(
    ("old", "new", "valid"),
    [
        ("name: ucf101", "name: ucf101", True),
        ("learning_rate:", "learning_rte:", False),
        ("frames: 10", "frames: ten", False),
        ("frames: 10", "frames: 8", False),
        ("frames: 10", "frames: 9", True),
        ("frames_per_second: 7", "frames_per_second: 7.0", True),
        ("frames_per_second: 7", "frames_per_second: 23.976", True),
        ("frames_per_second: 7", "frames_per_second: 30000/1001", True),
        ("frames_per_second: 7", "frames_per_second: 30000:1001", False),
        ("frames_per_second: 7", "frames_per_second: 0", False),
        ("frames_per_second: 7", "frames_per_second: true", False),
        ("kind: drawn", "kind: painted", False),
        ("teacher: embedded/svd", "teacher: 7", False),
        ("      runs: 10", "      warmup: 3", False),
        ("ema_decay: 0.97", "ema_decay: 1.0", False),
        ("noise_strength: 0.0", "noise_strength: -0.1", False),
        ("pruned: {plan: vdmini}", "pruned: {plan: vdmini, channels: null}", True),
        ("pruned: {plan: vdmini}", "pruned: {from: student, sample: {steps: 2}}", True),
        ("pruned: {plan: vdmini}", "pruned: {from: student, sample: {stops: 2}}", False),
        ("pruned: {plan: vdmini}", "pruned: {plans: vdmini}", False),
        ("version: 1", "version: 0", False),
        ("default_profile: quick", "default_profile: [quick]", False),
        ("    stand_in:", "    standin:", False),
        ("    teacher: embedded/svd", "    teacher: embedded/svd\n    extends: 3", False),
    ],
)
def test_the_suite_schema_agrees_with_the_loader(tmp_path: Path, old: str, new: str, valid: bool) -> None:
    text = changed(TEXT, old, new)
    path = tmp_path / "suite.yaml"
    path.write_text(text)
    schema = schema_of("suite")
    assert loads(path, lambda path: load_suite(path, "embedded")) == valid
    assert accepts(read(text), schema, schema) == valid


@pytest.mark.parametrize("path", sorted((ROOT / "suites").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_shipped_suites_are_valid_and_nothing_misspelt_is(path: Path) -> None:
    schema = schema_of({"speed": "speed", "depth": "depth"}.get(path.stem, "suite"))
    suite = read(path.read_text())
    assert accepts(suite, schema, schema)
    for name, profile in suite["profiles"].items():
        wrong = {**suite["profiles"], name: {**profile, "reference_arm": "task"}}
        assert not accepts({**suite, "profiles": wrong}, schema, schema), name


def test_the_suites_of_each_kind_agree_with_the_loader(tmp_path: Path) -> None:
    schema = schema_of("suite")
    whole = (ROOT / "suites" / "vbench_t2v.yaml").read_text()
    for old, new, valid in (
        ("mode: t2v", "mode: t2v", True),
        ("mode: t2v", "mode: v2v", False),
        ("prompt_count: 48", "prompt_count: 1", False),
        ("prompt_count: 48", "prompt_count: 501", False),
        ("kind: drawn-captions", "kind: drawn", True),
        ("      guidance: 4.0", "      seed: 1", False),
        ("kind: vbench", "kind: distributions", False),
    ):
        text = changed(whole, old, new)
        if (old, new) == ("kind: drawn-captions", "kind: drawn"):
            # Two sections that both stand alone: which of them a mode takes, only the command says.
            assert accepts(read(text), schema, schema) == valid
            continue
        path = tmp_path / "suite.yaml"
        path.write_text(text)
        assert loads(path, load_any_suite) == accepts(read(text), schema, schema) == valid, new


def test_a_distillations_configuration_has_a_schema() -> None:
    schema = schema_of("distillation")
    clip = {"frames": 8, "frames_per_second": 8, "height": 64, "width": 64}
    rates = {"steps": 1, "batch_size": 1, "learning_rate": 1e-4}
    data = {"kind": "generated", "prompts": "prompts.txt", "steps": 4}
    whole = {"kind": "distillation", "name": "x", "teacher": "t", "clip": clip, "data": data, "distill": rates}
    assert accepts(whole, schema, schema)
    assert accepts({**whole, "preview": None}, schema, schema)
    for wrong in ({"kind": "suite"}, {"distill": {}}, {"data": {**data, "kind": "x"}}, {"clip": {**clip, "fps": 8}}):
        assert not accepts({**whole, **wrong}, schema, schema)


def test_a_profile_is_complete_unless_it_extends_another(tmp_path: Path) -> None:
    schema = schema_of("suite")
    text = changed(TEXT, "    extends: embedded\n", "")
    path = tmp_path / "suite.yaml"
    path.write_text(text)
    assert not loads(path, load_suite)
    assert not accepts(read(text), schema, schema)
    # A preset brings what a protocol must have.
    text = changed(TEXT, "      preset: sf-v\n", "")
    assert not accepts(read(text), schema, schema)


class Drawn(Specification):
    kind: Literal["drawn"]
    clips: int


class Folder(Specification):
    kind: Literal["folder"]
    path: str
    clips: int


class OtherProfile(Specification):
    """As a second kind of suite might have it."""

    dataset: Annotated[Drawn | Folder, Field(discriminator="kind")]


def test_a_suites_kind_decides_what_its_profiles_are() -> None:
    schema = suite_schema({"distributions": Profile, "other": OtherProfile})
    suite = read(TEXT)
    assert accepts(suite, schema, schema)
    assert accepts({**suite, "kind": "distributions"}, schema, schema)
    assert not accepts({**suite, "kind": "other"}, schema, schema)
    assert not accepts({**suite, "kind": "third"}, schema, schema)
    # One kind alone is not named in a file.
    alone = suite_schema({"distributions": Profile})
    assert not accepts({**suite, "kind": "distributions"}, alone, alone)
    profiles = {"a": {"dataset": {"kind": "drawn", "clips": 3}}, "b": {"extends": "a", "dataset": {"clips": 4}}}
    other = {"name": "o", "version": 1, "default_profile": "a", "kind": "other", "profiles": profiles}
    assert accepts(other, schema, schema)
    for wrong in ({"kind": "drawn"}, {"kind": "drawn", "clips": 1, "path": "x"}, {"clips": 4}, {"kind": "x"}):
        assert not accepts({**other, "profiles": {"a": {"dataset": wrong}}}, schema, schema)
    wrong_part = {**profiles, "b": {"extends": "a", "dataset": {"clips": "four"}}}
    assert not accepts({**other, "profiles": wrong_part}, schema, schema)


@pytest.mark.parametrize(
    ("old", "new", "valid"),
    [
        ("version: 1", "version: 1", True),
        ("fvd: {relative: 0.05, standard_errors: 2}", "fvd: {}", False),
        ("fvd: {relative: 0.05, ", "fvd: {relatve: 0.05, ", False),
        ("fvd: {relative: 0.05, ", "fvd: {relative: -1, ", False),
        ("machines: same", "machines: some", False),
        ("machines: same", "machines: any", True),
        ("models: [student, scored]", "models: []", False),
        ("version: 1", "version: 2", False),
    ],
)
def test_the_thresholds_schema_agrees_with_the_loader(tmp_path: Path, old: str, new: str, valid: bool) -> None:
    text = changed(DEFAULT.read_text(), old, new)
    path = tmp_path / "thresholds.yaml"
    path.write_text(text)
    schema = schema_of("thresholds")
    assert loads(path, load_thresholds) == valid
    assert accepts(read(text), schema, schema) == valid


def test_the_command_prints_them() -> None:
    titles = {kind: f"VDMini {kind}" for kind in ("suite", "thresholds", "distillation", "speed")}
    for arguments, title in (([], titles["suite"]), *(([kind], title) for kind, title in titles.items())):
        result = CliRunner().invoke(main, ["schema", *arguments])
        assert result.exit_code == 0, result.output
        schema = json.loads(result.stdout)
        assert (schema["title"], schema["$schema"]) == (title, "https://json-schema.org/draft/2020-12/schema")
    assert CliRunner().invoke(main, ["schema", "nothing"]).exit_code == 2
