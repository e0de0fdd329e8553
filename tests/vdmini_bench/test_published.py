"""Every profile that ships, and the numbers of others beside ours."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from results_of_runs import FVD, PARAMS, row

from vdmini_bench.compare.published import published_lines
from vdmini_bench.config.vbench import load_any_suite
from vdmini_bench.errors import SuiteError
from vdmini_bench.results.records import Record

OTHERS = ("speed", "depth")
SUITES = sorted(path for path in (Path(__file__).parents[2] / "suites").glob("*.yaml") if path.stem not in OTHERS)
PROFILES = [(path, name) for path in SUITES for name in yaml.safe_load(path.read_text(encoding="utf-8"))["profiles"]]


@pytest.mark.parametrize(("path", "name"), PROFILES, ids=[f"{path.stem}-{name}" for path, name in PROFILES])
def test_every_profile_that_ships_loads(path: Path, name: str) -> None:
    profile = load_any_suite(path, name).profile
    assert profile.baseline in profile.models
    # The paper's numbers stand in settings of full size alone.
    assert not (profile.stand_in and profile.published)


def test_numbers_of_others_stand_beside_ours_and_are_not_taken_for_them() -> None:
    records = [Record(each, row(each), "run-1", None) for each in (FVD, PARAMS)]
    published = [
        {"model": "student", "metric": "fvd", "value": 198.13, "said": "the paper"},
        {"model": "teacher", "metric": "fvd", "value": 166.26, "said": "the paper"},
        {"model": "student", "metric": "params_m", "value": 939.88, "said": "counted"},
    ]
    header, lines = published_lines(records, published)
    assert header == ["row", "metric", "ours", "theirs", "theirs is from"]
    assert lines == [
        ["student", "FVD", "393 ± 5.9", "198.1", "the paper"],
        ["teacher", "FVD", "-", "166.3", "the paper"],
        ["student", "params (M)", "6.85", "939.9", "counted"],
    ]
    assert published_lines(records, [])[1] == []


def test_a_number_of_a_row_that_is_not_there_is_refused() -> None:
    published = "published=[{model: studnt, metric: fvd, value: 1, said: me}]"
    with pytest.raises(SuiteError, match=r"published: no model of that name; did you mean 'student'"):
        load_any_suite(next(path for path in SUITES if path.stem == "ucf101"), None, (published,))
