from __future__ import annotations

from pathlib import Path

import pytest

from vdmini_bench.config.thresholds import load_thresholds
from vdmini_bench.errors import SuiteError

TEXT = """\
version: 1
models: [student]
metrics:
  fvd: {relative: 0.05, standard_errors: 2}
  latency_denoiser:
    absolute: 5
    machines: any
    models: [teacher, student]
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "thresholds.yaml"
    path.write_text(text)
    return path


def test_metrics_take_what_the_file_says_for_all(tmp_path: Path) -> None:
    found = load_thresholds(write(tmp_path, TEXT)).metrics
    assert list(found) == ["fvd", "latency_denoiser"]
    fvd, latency = found.values()
    assert (fvd.absolute, fvd.relative, fvd.standard_errors, fvd.models, fvd.machines) == (
        None, 0.05, 2, ["student"], "same",
    )  # fmt: skip
    assert (latency.absolute, latency.models, latency.machines) == (5, ["teacher", "student"], "any")


def test_the_package_has_thresholds_of_its_own() -> None:
    thresholds = load_thresholds()
    assert {"fvd", "flow_distance", "speedup_end_to_end", "params_m"} <= {*thresholds.metrics}
    # Other metrics than those a run has are no mistake there.
    thresholds.check_names(set(), set())


@pytest.mark.parametrize(
    ("old", "new", "place", "reason"),
    [
        ("relative", "relatve", "4:9", "unknown key 'relatve'; did you mean 'relative'?"),
        ("0.05", "5%", "4:9", "relative: .*valid number.*'5%'"),
        ("0.05", "-0.05", "4:9", "relative: .*greater than or equal to 0"),
        ("0.05", ".inf", "4:9", "relative: .*finite"),
        ("absolute: 5\n    machines: any", "machines: any", "5:3", "metrics.latency_denoiser: give absolute, relative"),
        ("any", "some", "7:5", "machines: Input should be 'same' or 'any'"),
        ("metrics:", "metric:", "3:1", "unknown key 'metric'; did you mean 'metrics'?"),
        ("version: 1", "version: 2", "1:1", "version: Input should be 1"),
        ("latency_denoiser", "fvd", "5:3", r"key 'fvd' is given twice .first on line 4."),
        ("{relative: 0.05, standard_errors: 2}", "0.05", "4:3", "metrics.fvd: Input should be a valid dictionary"),
        ("[student]", "[]", "2:1", "models: List should have at least 1 item"),
        ("{relative", "{relative: 1, {", "4:", "not valid YAML"),
    ],
)
def test_mistakes_are_placed(tmp_path: Path, old: str, new: str, place: str, reason: str) -> None:
    assert old in TEXT
    path = write(tmp_path, TEXT.replace(old, new, 1))
    with pytest.raises(SuiteError, match=rf"^{path}:{place}.*{reason}") as caught:
        load_thresholds(path)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("text", ["", "[]", "1", "version: 1\nmetrics: {}\n"])
def test_a_file_that_gates_nothing_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(SuiteError, match=r"thresholds\.yaml:\d:1: "):
        load_thresholds(write(tmp_path, text))
    with pytest.raises(SuiteError, match="cannot be read"):
        load_thresholds(tmp_path / "none.yaml")


def test_names_that_nobody_has_are_placed(tmp_path: Path) -> None:
    thresholds = load_thresholds(write(tmp_path, TEXT))
    thresholds.check_names({"fvd", "latency_denoiser"}, {"student", "teacher"})
    with pytest.raises(
        SuiteError, match=r":4:3: neither the run nor the baseline has a metric 'fvd'; did you mean 'fd'"
    ):
        thresholds.check_names({"fd", "latency_denoiser"}, {"student", "teacher"})
    with pytest.raises(SuiteError, match=r":2:1: .* model or role 'student'; did you mean 'studnt'"):
        thresholds.check_names({"fvd", "latency_denoiser"}, {"studnt", "teacher"})
    with pytest.raises(SuiteError, match=r":8:5: .* model or role 'teacher'"):
        thresholds.check_names({"fvd", "latency_denoiser"}, {"student"})
