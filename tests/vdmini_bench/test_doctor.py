"""The doctor names what is missing and what to do, and calls only that a fault which stops the default suite."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from vdmini.models.registry import EMBEDDED
from vdmini_bench.cli import main
from vdmini_bench.commands import doctor
from vdmini_bench.errors import AssetError, UnreadableVideoError
from vdmini_bench.metrics.agreement import Agreement


def by_name(findings: list[doctor.Finding]) -> dict[str, doctor.Finding]:
    return {finding.what: finding for finding in findings}


def test_this_machine_can_run_the_default_suite(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VDMINI_CACHE", str(tmp_path))
    found = by_name(doctor.examine())
    assert all(finding.fine for finding in found.values())
    for what in ("teacher embedded/svd", "teacher embedded/t2v", "classifier of drawn clips"):
        assert found[what].state == "here"
    assert found["codec mpeg4"].state == "writes and reads"
    missing = found["asset ucf101"]
    assert missing.state.startswith("missing; for")
    assert missing.next == "vdmini-bench assets import ucf101 PATH"


def test_a_missing_package_a_broken_codec_and_a_missing_teacher_are_faults(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(path: Path, count: int) -> None:
        raise UnreadableVideoError(path, "no decoder")

    monkeypatch.setattr(doctor, "read_frames", refuse)
    monkeypatch.setattr(doctor, "package_versions", lambda: {"torch": "2.13.0", "av": "missing"})
    monkeypatch.setitem(EMBEDDED, "embedded/svd", tmp_path)
    faults = {name: finding for name, finding in by_name(doctor.examine()).items() if not finding.fine}
    assert {*faults} == {"av", "codec mpeg4", "codec libx264", "codec ffv1", "teacher embedded/svd"}
    assert faults["av"].next == "pip install av"
    assert "no decoder" in faults["codec ffv1"].state


def test_the_doctor_answers_in_one_screen_and_in_full_where_it_is_asked_to(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("VDMINI_CACHE", "VBENCH_CACHE_DIR", "VDMINI_VBENCH_ENV"):
        monkeypatch.setenv(name, str(tmp_path / name))
    screen, full, plain = (CliRunner().invoke(main, ["doctor", *option]) for option in ([], ["--all"], ["--json"]))
    assert {screen.exit_code, full.exit_code, plain.exit_code} == {0}
    assert len(screen.output.splitlines()) < 24
    assert max(map(len, screen.output.splitlines())) < 80
    for said in ("torch ", "device: ", "GiB free", "ucf101 (for", "vbench score: 0 of", "vdmini-bench assets vbench"):
        assert said in " ".join(screen.output.split())
    for finding in json.loads(plain.output):
        assert finding["what"] in full.output


def test_a_fault_is_in_the_overview_with_what_to_do() -> None:
    lines = doctor.overview([doctor.Finding("codec ffv1", "no decoder", "reinstall av", False)])
    assert "NOT FINE: codec ffv1: no decoder; reinstall av" in lines
    assert not any("ready for the embedded models" in line for line in lines)


def test_the_two_i3d_files_are_compared_where_both_are_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "asset_path", lambda name: Path(name))
    monkeypatch.setattr("vdmini_bench.metrics.agreement.imported_agreement", lambda: Agreement(0.5, 0.7))
    (found,) = doctor._i3d_agreement()
    assert found.fine
    assert "logits differ by up to 0.5 on the same input (beyond rounding" in found.state

    def refuse() -> None:
        raise AssetError("i3d-torchscript", "it is another network", "vdmini-bench assets import i3d-torchscript PATH")

    monkeypatch.setattr("vdmini_bench.metrics.agreement.imported_agreement", refuse)
    (found,) = doctor._i3d_agreement()
    assert (found.state, found.fine) == ("it is another network", True)
    monkeypatch.setattr(doctor, "asset_path", lambda name: Path(name) if name == "i3d-torchscript" else None)
    assert doctor._i3d_agreement() == []


def test_what_is_unusual_around_us_is_named_and_no_fault(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VDMINI_CACHE", str(tmp_path))
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="utf-8"))
    assert doctor._surroundings() == []
    monkeypatch.setattr(doctor, "has_locks", lambda folder: False)
    monkeypatch.setattr(doctor, "cache_folder", lambda: Path(os.devnull, "no home directory", ".cache", "vdmini"))
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="latin-1"))
    found = doctor._surroundings()
    assert all(finding.fine for finding in found)
    told = by_name(found)
    assert "VDMINI_CACHE" in told["home directory"].next
    assert "no file locks" in told[f"disk of {Path.cwd()}"].state
    assert "latin-1" in told["console"].state
