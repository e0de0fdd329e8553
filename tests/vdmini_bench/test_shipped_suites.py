"""Suites by name: in a checkout, from a wheel, and beside files of one's own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from vdmini_bench.cli import main
from vdmini_bench.config import shipped
from vdmini_bench.config.shipped import find_suite, shipped_suites
from vdmini_bench.errors import SuiteError

ROOT = Path(__file__).parents[2]


def test_a_path_wins_over_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_suite("ucf101") == ROOT / "suites" / "ucf101.yaml"
    assert find_suite("mine.yaml") == Path("mine.yaml")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ucf101").write_text("mine")
    assert find_suite("ucf101") == Path("ucf101")
    with pytest.raises(SuiteError, match="did you mean 'vbench_t2v'"):
        find_suite("vbench_t2")


def test_a_wheels_own_suites_come_before_a_checkouts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "only.yaml").write_text("")
    monkeypatch.setattr(shipped, "PLACES", (tmp_path, *shipped.PLACES[1:]))
    assert [*shipped_suites()] == ["only"]


def test_all_suites_are_listed_with_their_profiles() -> None:
    result = CliRunner().invoke(main, ["suites", "list", "--json"], catch_exceptions=False)
    found = json.loads(result.stdout)
    assert {*found} == {path.stem for path in (ROOT / "suites").glob("*.yaml")}
    assert found["ucf101"]["profiles"][0] == "quick"
    assert all(each["about"] for each in found.values())
    assert "ucf101" in CliRunner().invoke(main, ["suites", "list"], catch_exceptions=False).output


def test_a_suite_is_copied_and_never_over_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(main, ["suites", "copy", "plans"]).exit_code == 0
    assert (tmp_path / "plans.yaml").read_bytes() == (ROOT / "suites" / "plans.yaml").read_bytes()
    (tmp_path / "plans.yaml").write_text("mine")
    refused = CliRunner().invoke(main, ["suites", "copy", "plans"])
    assert (refused.exit_code, (tmp_path / "plans.yaml").read_text()) == (2, "mine")


def test_a_suite_runs_by_its_name_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    preview = CliRunner().invoke(main, ["run", "ucf101", "--profile", "smoke", "--dry-run"], catch_exceptions=False)
    assert preview.exit_code == 0, preview.output
    assert "suite ucf101, profile smoke" in preview.output
