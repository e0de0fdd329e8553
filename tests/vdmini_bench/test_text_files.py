"""Text files as editors and spreadsheets save them: read alike, or refused with their place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from vdmini.plan import PruningPlan
from vdmini_bench.config.suite import load_suite
from vdmini_bench.data.requests import prompt_requests
from vdmini_bench.errors import SuiteError
from vdmini_bench.models.inspect import read_or_make_plan
from vdmini_bench.system.text_files import read_csv, read_text

SUITE = (Path(__file__).parents[2] / "suites" / "ucf101.yaml").read_text(encoding="utf-8")
# What str.splitlines ends a line at, and an editor does not.
INSIDE = ["\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029", "\r"]


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def refusal(path: Path, content: bytes) -> str:
    with pytest.raises(SuiteError) as caught:
        read_text(write(path, content))
    return str(caught.value)


def test_marks_and_carriage_returns_are_stripped(tmp_path: Path) -> None:
    for content in (b"a\nb\n", b"a\r\nb\r\n", b"\xef\xbb\xbfa\nb\n", b"\xef\xbb\xbfa\r\n\xef\xbb\xbfb\r\n"):
        assert read_text(write(tmp_path / "t.txt", content)) == "a\nb\n"
    assert read_text(write(tmp_path / "t.txt", b"")) == ""


@pytest.mark.parametrize("sign", INSIDE)
def test_only_a_line_feed_ends_a_prompt(tmp_path: Path, sign: str) -> None:
    path = write(tmp_path / "p.txt", f"\ufeffa red{sign}disc\r\n\r\n  a blue ring  \n".encode())
    assert [request.prompt for request in prompt_requests(path, [3])] == [f"a red{sign}disc", "a blue ring"]
    assert [request.name for request in prompt_requests(path, [3])] == ["0000-3", "0001-3"]


def test_other_encodings_are_refused_with_their_place(tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    for encoding in ("utf-16-le", "utf-16-be"):
        assert refusal(path, "\ufeffa prompt\n".encode(encoding)) == (
            f"{path}: cannot be read (UTF-16, which some editors call Unicode): save it as UTF-8"
        )
    # Without a mark each second byte is null.
    assert refusal(path, "one\ntwo\n".encode("utf-16-le")).startswith(f"{path}:1: a null character")
    assert refusal(path, "one\ncaf\u00e9\n".encode("latin-1")).startswith(f"{path}:2: not UTF-8")
    for wrong in (tmp_path, tmp_path / "none"):
        with pytest.raises(SuiteError, match="cannot be read"):
            read_text(wrong)


def test_csv_of_spreadsheets_is_read_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    rows = [(1, ["a", "b"]), (2, ['x, "y"', "two\nlines"])]
    for content in (
        'a,b\n"x, ""y""","two\nlines"\n',
        '\ufeffa,b\r\n"x, ""y""","two\r\nlines"\r\n',
        'a,b\r"x, ""y""","two\nlines"\r,\r',
    ):
        assert read_csv(write(path, content.encode())) == rows
    assert read_csv(write(path, b"\n\na,b\n , \n1,2\n")) == [(3, ["a", "b"]), (5, ["1", "2"])]
    assert read_csv(write(path, b"")) == []
    # A single column may hold whatever it likes, but for its name.
    assert read_csv(write(path, b"a\n1;2\n")) == [(1, ["a"]), (2, ["1;2"])]
    for content, said in (
        (b"\na;b\r\n1;2\r\n", f"{path}:2: semicolons between the fields: save the file with commas"),
        (b"a\tb\n1\t2\n", f"{path}:1: tabs between the fields: save the file with commas"),
        (b'a,b\n"x"y,2\n', f"{path}:2: "),
    ):
        with pytest.raises(SuiteError) as caught:
            read_csv(write(path, content))
        assert str(caught.value).startswith(said)


def test_yaml_and_plans_are_read_as_editors_save_them(tmp_path: Path) -> None:
    plain = load_suite(write(tmp_path / "plain.yaml", SUITE.encode()), "smoke")
    saved = load_suite(write(tmp_path / "saved.yaml", b"\xef\xbb\xbf" + SUITE.replace("\n", "\r\n").encode()), "smoke")
    assert saved.sha == plain.sha
    assert yaml.safe_load(read_text(tmp_path / "saved.yaml")) == yaml.safe_load(SUITE)
    with pytest.raises(SuiteError, match=r"wide\.yaml: cannot be read \(UTF-16"):
        load_suite(write(tmp_path / "wide.yaml", SUITE.encode("utf-16")), "smoke")
    plan = PruningPlan("svd", "0" * 64, "vdmini", ("a", "b"), ("c",), (("a", "b"),))
    content = b"\xef\xbb\xbf" + json.dumps(json.loads(plan.to_json()), indent=2).replace("\n", "\r\n").encode()
    path = write(tmp_path / "plan.json", content)
    assert read_or_make_plan(str(path), None) == plan  # type: ignore[arg-type]
    assert PruningPlan.from_json(content.decode()) == plan
