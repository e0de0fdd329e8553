"""An ablation changes what each arm says and nothing else, and its table says what was seen over training seeds."""

from __future__ import annotations

import csv
import json
import statistics
from pathlib import Path

import pytest
from click.testing import CliRunner

from vdmini_bench.cli import main
from vdmini_bench.config.ablation import load_ablation
from vdmini_bench.errors import SuiteError
from vdmini_bench.results.stats import paired_interval
from vdmini_bench.studies.ablation import ArmScore, pruning_label, summarise, summary_lines

pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)
SUITES = Path(__file__).parents[2] / "suites"


def scores_of(arm: str, fvds: list[float], steps: int = 5, plan: str = "vdmini") -> list[ArmScore]:
    """The scores of an arm's trainings; the flow distance is a hundredth of the FVD."""
    return [
        ArmScore(arm, seed, plan, 6.85, 0.617, steps, metric, fvd * scale, (fvd * scale,))
        for seed, fvd in enumerate(fvds)
        for metric, scale in (("fvd", 1.0), ("flow_distance", 0.01))
    ]


def test_every_shipped_arm_is_a_suite_that_differs_only_where_it_says() -> None:
    ablation = load_ablation(SUITES / "ablation.yaml", None)
    reference = ablation.suite_of(ablation.profile.reference, 0).profile
    assert "stand-in" in (ablation.stand_in or "")
    for arm, changes in ablation.profile.arms.items():
        profile = ablation.suite_of(arm, 0).profile
        changed = {
            name if name != "distill" else f"distill.{key}"
            for name in type(profile).model_fields
            for key in (type(profile.distill).model_fields if name == "distill" else [name])
            if (
                getattr(profile.distill, key) != getattr(reference.distill, key)
                if name == "distill"
                else getattr(profile, name) != getattr(reference, name)
            )
        }
        assert changed == {*changes}, arm
        assert ablation.suite_of(arm, 2).profile.distill.seed == 2


def test_an_arm_says_all_that_it_prunes_on_one_line() -> None:
    ablation = load_ablation(SUITES / "ablation.yaml", None)
    labels = [pruning_label(ablation.suite_of(arm, 0).profile) for arm in ablation.profile.arms]
    assert {"vdmini", "none, depgraph-l2:ratio=0.2,tolerance=0.1"} < {*labels}
    assert not any("\n" in label for label in labels)


@pytest.mark.parametrize(
    ("arms", "reference", "message"),
    [
        ("a: {}, b: {distill.lambda_idc: 0}", "a", "arm 'b': --set distill.lambda_idc=0: unknown key"),
        ("a: {}, b: {plan: [1]}", "a", r"ablation.yaml:8:\d+: arms.b.plan"),
        ("a: {}, b: {}", "c", "reference 'c' is no arm: it has a, b"),
        ("a: {}", "a", r"ablation.yaml:8:\d+: arms: .*at least 2"),
    ],
)
def test_a_wrong_arm_is_named(tmp_path: Path, arms: str, reference: str, message: str) -> None:
    path = tmp_path / "ablation.yaml"
    path.write_text(
        f"name: ablation\nversion: 1\nsuite: {SUITES / 'ucf101.yaml'}\ndefault_profile: one\nprofiles:\n"
        f"  one:\n    {{profile: smoke, training_seeds: 1, reference: {reference},\n    arms: {{{arms}}}}}\n"
    )
    with pytest.raises(SuiteError, match=message):
        load_ablation(path, None)


def test_arms_are_summarised_over_training_seeds() -> None:
    scores = [
        *scores_of("teacher", [300.0], steps=0, plan=""),
        *scores_of("pruned", [800.0], steps=0),
        *scores_of("best", [350.0, 360.0, 340.0]),
        *scores_of("other", [410.0, 430.0, 420.0]),
        *scores_of("elsewhere", [900.0, 905.0, 910.0], plan="uniform"),
    ]
    by_arm = {each.arm: each for each in summarise(scores, "best")}
    assert [*by_arm] == ["teacher", "pruned", "best", "other", "elsewhere"]
    best, other = by_arm["best"], by_arm["other"]
    assert best.means["fvd"] == 350.0
    assert best.errors["fvd"] == pytest.approx(statistics.stdev([350.0, 360.0, 340.0]) / 3**0.5)
    assert best.recovered == pytest.approx((800 - 350) / (800 - 300))
    assert best.differences == {"fvd": None, "flow_distance": None}
    assert other.differences["fvd"] == pytest.approx(paired_interval([350.0, 360.0, 340.0], [410.0, 430.0, 420.0]))
    assert by_arm["elsewhere"].recovered is None
    assert by_arm["pruned"].trainings == 0
    assert by_arm["pruned"].differences["fvd"] is None


def test_an_unfinished_ablation_has_a_table() -> None:
    scores = [*scores_of("best", [350.0, 360.0]), *scores_of("other", [410.0])]
    header, lines = summary_lines(summarise(scores, "best"), "best")
    assert all(len(line) == len(header) for line in lines)
    assert lines[0][:3] == ["best", "vdmini", "2"]
    assert lines[1][6] == "-"


@pytest.mark.usefixtures("small_network")
def test_an_ablation_trains_every_arm_once(tmp_path: Path) -> None:
    command = ["ablate", str(SUITES / "ablation.yaml"), "--profile", "smoke", "--results", str(tmp_path), "--json"]
    first = CliRunner().invoke(main, command)
    assert first.exit_code == 0, first.output
    arms = {each["arm"]: each for each in json.loads(first.stdout.strip().splitlines()[-1])}
    assert [*arms] == ["task+ICD", "real", "static", "teacher", "pruned", "task"]
    assert {each["trainings"] for name, each in arms.items() if name.startswith("task")} == {2}
    assert arms["task"]["flops_ratio"] == pytest.approx(0.617, abs=5e-4)
    assert arms["task"]["means"]["fvd"] != arms["task+ICD"]["means"]["fvd"]
    folder = tmp_path / "ablation" / "smoke"
    assert "stand-in" in (folder / "table.md").read_text()
    assert (folder / "ablation.png").stat().st_size > 10_000
    with (folder / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * (2 * 2 + 4)
    made = {path: path.stat().st_mtime_ns for path in tmp_path.glob("work/*/done.json")}
    again = CliRunner().invoke(main, command)
    assert again.stdout == first.stdout
    assert made == {path: path.stat().st_mtime_ns for path in tmp_path.glob("work/*/done.json")}
