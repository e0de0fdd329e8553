from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray

from vdmini_bench.cli import main
from vdmini_bench.data.synthetic import ACTIONS
from vdmini_bench.errors import SuiteError
from vdmini_bench.studies import sensitivity
from vdmini_bench.studies.corruptions import CORRUPTIONS, Corruption
from vdmini_bench.studies.sensitivity import Study, mean_with_error, measure_study, ordering, series
from vdmini_bench.studies.sensitivity_table import answer_lines, ordering_lines, orderings

KIND = Corruption("blur", "content", "px", (1.0, 2.0))
STUDY = Study(clips_per_block=10, blocks=2, reference_clips=20)


def numbers(*steps: list[float]) -> sensitivity.Numbers:
    severities = [("none", 0.0), *(("blur", severity) for severity in KIND.severities)]
    return {severity: np.array(values) for severity, values in zip(severities, steps, strict=True)}


def test_grades_are_in_order_when_every_step_is_beyond_chance() -> None:
    rising = numbers([0.0, 0.1, 0.2], [1.0, 1.1, 1.3], [2.0, 2.2, 2.1])
    assert ordering(KIND, "content", rising).ordered
    # The last step is as likely chance.
    unsure = numbers([0.0, 0.1, 0.2], [1.0, 1.1, 1.3], [0.5, 2.2, 1.5])
    assert not ordering(KIND, "content", unsure).ordered
    back = numbers([0.0, 0.1, 0.2], [2.0, 2.2, 2.1], [1.0, 1.1, 1.3])
    assert ordering(KIND, "content", back).weakest < -1


def test_a_signed_measure_may_fall_and_a_distance_may_not() -> None:
    falling = numbers([0.0, 0.1, 0.2], [-1.0, -1.1, -1.3], [-2.0, -2.2, -2.1])
    assert ordering(KIND, "flicker", falling).ordered
    assert not ordering(KIND, "flow_field", falling).ordered


def test_what_never_changes_is_in_no_order() -> None:
    assert ordering(KIND, "dynamic_degree", numbers([0.0, 0.0], [0.0, 0.0], [0.0, 0.0])).weakest == 0
    steady = numbers([0.0, 0.0], [1.0, 1.0], [2.0, 2.0])
    assert ordering(KIND, "content", steady).ordered


def test_standard_errors_are_of_the_mean() -> None:
    assert mean_with_error(np.array([1.0, 3.0])) == (2, pytest.approx(1))


def test_blocks_hold_every_action_and_share_no_clip_with_the_reference() -> None:
    names = sensitivity.clip_names(range(1, 8), STUDY.clips)
    assert [action for action, _, _ in names[:10]] == [*ACTIONS]
    assert len({*names}) == len(names)
    many = sensitivity.clip_names(range(1, 8), 200)
    assert len({*many}) == 200
    first, reference = STUDY.footage()[0][18:55:4], STUDY.reference()
    assert first.shape == reference[0].shape
    assert not any((first == clip).all() for clip in reference)
    with pytest.raises(SuiteError, match="2 or more blocks"):
        Study(10, 1, 20)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sensitivity")


@pytest.fixture(scope="module")
def measured(folder: Path) -> dict[str, sensitivity.Numbers]:
    return series(measure_study(STUDY, None, folder), STUDY)


def test_paired_measures_put_every_kind_in_order(measured: dict[str, sensitivity.Numbers]) -> None:
    found = {(each.corruption.name, each.measure): each.ordered for each in orderings(measured)}
    for kind in CORRUPTIONS:
        assert found[kind.name, "spectrum"], kind.name
        if kind.name != "recolour":
            # Recolouring moves nothing.
            assert found[kind.name, "flow_field"], kind.name


def test_half_the_speed_is_far_from_the_speed(measured: dict[str, sensitivity.Numbers]) -> None:
    motion = measured["frechet_motion"]
    assert motion["slower", 0.5].mean() > 2 * motion["none", 0].mean()
    assert motion["faster", 2].mean() > 2 * motion["none", 0].mean()
    assert motion["recolour", 120].mean() < 1.2 * motion["none", 0].mean()


def test_what_was_measured_is_read_back(
    folder: Path, measured: dict[str, sensitivity.Numbers], monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*arguments: object) -> NDArray[np.uint8]:
        raise AssertionError("measured again")

    monkeypatch.setattr(sensitivity, "corrupt", never)
    again = series(measure_study(STUDY, None, folder), STUDY)
    for measure, by_severity in measured.items():
        for severity, values in by_severity.items():
            assert (again[measure][severity] == values).all()


def test_tables_have_a_line_a_grade_and_a_kind(measured: dict[str, sensitivity.Numbers]) -> None:
    header, lines = answer_lines(measured)
    assert len(lines) == 1 + sum(len(kind.severities) for kind in CORRUPTIONS)
    assert {len(header)} == {len(line) for line in lines}
    assert lines[0][0] == "as they are"
    header, lines = ordering_lines(orderings(measured))
    assert [line[0] for line in lines] == [kind.name for kind in CORRUPTIONS]
    assert "yes" in lines[0][header.index("spectrum")]


def test_the_command_writes_its_tables(tmp_path: Path) -> None:
    command = ["sensitivity", "--no-networks", "--clips-per-block", "2", "--blocks", "2", "-o", str(tmp_path), "--json"]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["clips"] == 4
    assert len(found["orderings"]) == len(CORRUPTIONS) * 7
    with (tmp_path / "sensitivity.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 25 * 7
    assert "| recolour 120 degrees |" in (tmp_path / "sensitivity.md").read_text()
