"""The doctor names what is missing and what to do, and calls only that a fault which stops the default suite."""

from __future__ import annotations

from pathlib import Path

import pytest

from vdmini.models import EMBEDDED
from vdmini_bench import doctor
from vdmini_bench.datasets.video import UnreadableVideoError


def by_name(findings: list[doctor.Finding]) -> dict[str, doctor.Finding]:
    return {finding.what: finding for finding in findings}


def test_this_machine_can_run_the_default_suite(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VDMINI_CACHE", str(tmp_path))
    found = by_name(doctor.examine())
    assert all(finding.fine for finding in found.values())
    assert found["embedded teacher"].state == "here"
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
    assert {*faults} == {"av", "codec mpeg4", "codec libx264", "codec ffv1", "embedded teacher"}
    assert faults["av"].next == "pip install av"
    assert "no decoder" in faults["codec ffv1"].state
