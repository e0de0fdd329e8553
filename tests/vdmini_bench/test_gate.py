from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from results_of_runs import FVD, PARAMS, SPEEDUP, USUAL, row, scaled, write_results

from vdmini_bench.cli import main
from vdmini_bench.compare.gate import Verdict, exit_code, judge
from vdmini_bench.config.thresholds import Thresholds, load_thresholds
from vdmini_bench.results.leaderboard import add_rows, read_leaderboard
from vdmini_bench.results.score import Row, Score


def limits(tmp_path: Path, metrics: str, models: str = "[student]") -> Thresholds:
    path = tmp_path / "thresholds.yaml"
    path.write_text(f"version: 1\nmodels: {models}\nmetrics: {metrics}\n")
    return load_thresholds(path)


def only(rows: list[Row], baseline: list[Row], thresholds: Thresholds, allow_unlike: bool = False) -> Verdict:
    (verdict,) = judge(rows, baseline, thresholds, allow_unlike)
    return verdict


def test_a_row_that_is_made_otherwise_is_another_one(tmp_path: Path) -> None:
    thresholds = limits(tmp_path, "{fvd: {absolute: 39}}", models="['6 steps, <b>']")
    before, now = (row(replace(FVD, model="6 steps, <b>"), recipe=f"sample: steps={steps}") for steps in (6, 5))
    found = only([now], [before], thresholds)
    assert (found.verdict, found.reason) == ("unlike", "the recipe changed from sample: steps=6 to sample: steps=5")
    assert only([now], [before], thresholds, allow_unlike=True).verdict == "ok"
    assert only([before], [now, before], thresholds).verdict == "ok"


@pytest.mark.parametrize(
    ("threshold", "factor", "verdict", "allowed"),
    [
        ("{absolute: 39}", 1.1, "regression", 39),
        ("{absolute: 40}", 1.1, "ok", 40),
        ("{relative: 0.09}", 1.1, "regression", 0.09 * 393),
        ("{relative: 0.11}", 1.1, "ok", 0.11 * 393),
        ("{standard_errors: 4}", 1.1, "regression", 4 * 5.9 * 2**0.5),
        ("{standard_errors: 5}", 1.1, "ok", 5 * 5.9 * 2**0.5),
        # Worse by more than each of them, or it is none.
        ("{relative: 0.05, standard_errors: 5}", 1.1, "ok", 5 * 5.9 * 2**0.5),
        ("{relative: 0.05, standard_errors: 3}", 1.1, "regression", 3 * 5.9 * 2**0.5),
        ("{relative: 0.05}", 0.9, "improved", 0.05 * 393),
        ("{absolute: 0}", 1.0, "ok", 0),
    ],
)
def test_a_regression_is_worse_by_more_than_every_threshold(
    tmp_path: Path, threshold: str, factor: float, verdict: str, allowed: float
) -> None:
    found = only([row(scaled(FVD, factor), run_id="2")], [row(FVD)], limits(tmp_path, f"{{fvd: {threshold}}}"))
    assert (found.verdict, found.baseline, found.threshold) == (verdict, 393, pytest.approx(allowed, rel=1e-4))


def test_the_direction_is_the_metrics_own(tmp_path: Path) -> None:
    thresholds = limits(tmp_path, "{speedup_denoiser: {relative: 0.05}}")
    slower, faster = (row(scaled(SPEEDUP, factor), run_id="2") for factor in (0.9, 1.1))
    assert only([slower], [row(SPEEDUP)], thresholds).verdict == "regression"
    assert only([faster], [row(SPEEDUP)], thresholds).verdict == "improved"
    either = replace(SPEEDUP, better="neither")
    for factor in (0.9, 1.1):
        assert only([row(scaled(either, factor))], [row(either, run_id="0")], thresholds).verdict == "regression"


def test_no_standard_error_means_no_verdict_by_standard_errors(tmp_path: Path) -> None:
    grown = row(scaled(PARAMS, 1.5))
    found = only([grown], [row(PARAMS)], limits(tmp_path, "{params_m: {standard_errors: 3}}"))
    assert (found.verdict, found.threshold) == ("incomplete", None)
    assert "give absolute or relative" in found.reason
    found = only([grown], [row(PARAMS)], limits(tmp_path, "{params_m: {standard_errors: 3, relative: 0.1}}"))
    assert found.verdict == "regression"


def test_several_runs_of_a_baseline_tell_the_noise(tmp_path: Path) -> None:
    thresholds = limits(tmp_path, "{fvd: {standard_errors: 3}}")
    certain = replace(FVD, standard_error=0.1)
    values = (380.0, 390.0, 400.0)
    runs = [row(replace(certain, value=value), run_id=str(value)) for value in values]
    # A prediction from three runs: their spread of 10, and the mean of three is itself uncertain.
    allowed = 3 * 10 * (1 + 1 / 3) ** 0.5
    for value, verdict in ((390 + allowed - 0.1, "ok"), (390 + allowed + 0.1, "regression")):
        found = only([row(replace(certain, value=value), run_id="new")], runs, thresholds)
        assert (found.baseline, found.verdict) == (390, verdict)
        assert found.threshold == pytest.approx(allowed)
        assert "between 3 runs" in found.reason


def test_a_leaderboard_that_holds_the_run_does_not_vouch_for_it(tmp_path: Path) -> None:
    new = row(scaled(FVD, 1.1), run_id="run-2", date="2026-01-02T00:00:00Z")
    thresholds = limits(tmp_path, "{fvd: {relative: 0.05}}")
    found = only([new], [row(FVD), new], thresholds)
    assert (found.verdict, found.baseline) == ("regression", 393)
    assert only([new], [new], thresholds).reason == "as in the baseline"


def test_only_named_models_are_gated_and_a_role_where_no_model_has_the_name(tmp_path: Path) -> None:
    pruned, teacher = replace(FVD, model="pruned"), replace(FVD, model="teacher")
    rows = [row(FVD), row(pruned), row(teacher, role="teacher"), row(replace(FVD, model="real"), role="reference")]

    def gated(models: str, chosen: list[Row]) -> list[str]:
        path = tmp_path / "t.yaml"
        path.write_text(f"version: 1\n{models}\nmetrics: {{fvd: {{relative: 0.1}}}}\n")
        return [verdict.model for verdict in judge(chosen, chosen, load_thresholds(path))]

    assert gated("models: [student]", rows) == ["student"]
    assert gated("models: [student]", rows[1:]) == ["pruned"]
    assert gated("models: [teacher, real]", rows) == ["teacher", "real"]
    # References are no models.
    assert gated("", rows) == ["student", "pruned", "teacher"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"protocol": "p@2"}, "the protocol changed from p@1 to p@2"),
        ({"metric_version": "2"}, "the metric version changed from 1 to 2"),
        ({"n": 90}, "the number of samples changed from 180 to 90"),
    ],
)
def test_unlike_measurements_are_not_judged(tmp_path: Path, change: dict[str, object], reason: str) -> None:
    thresholds = limits(tmp_path, "{fvd: {relative: 0.05}}")
    changed = row(scaled(replace(FVD, **change), 1.1), run_id="2")  # type: ignore[arg-type]
    found = only([changed], [row(FVD)], thresholds)
    assert (found.verdict, found.unlike, found.threshold) == ("unlike", (reason,), None)
    assert exit_code([found]) == 5
    allowed = only([changed], [row(FVD)], thresholds, allow_unlike=True)
    assert (allowed.verdict, allowed.unlike) == ("regression", (reason,))


def test_what_a_protocol_leaves_out_is_no_other_number_of_samples(tmp_path: Path) -> None:
    """VBench's `color` is scored on those videos that it finds the object in; `scene` on all."""
    color = replace(FVD, metric="vbench_color", better="higher", n=80)
    thresholds = limits(tmp_path, "{vbench_color: {relative: 0.05}, vbench_scene: {relative: 0.05}}")
    old = [row(color), row(replace(color, metric="vbench_scene"))]
    new = [row(replace(color, n=70)), row(replace(color, metric="vbench_scene", n=70))]
    assert [verdict.verdict for verdict in judge(new, old, thresholds)] == ["ok", "unlike"]


def test_a_size_is_gated_on_every_machine(tmp_path: Path) -> None:
    thresholds = limits(tmp_path, "{params_m: {absolute: 0}}")
    grown = row(scaled(PARAMS, 1.1), machine_id="machine-2")
    assert only([grown], [row(PARAMS)], thresholds).verdict == "regression"


def test_each_machine_has_its_own_baseline(tmp_path: Path) -> None:
    thresholds = limits(tmp_path, "{fvd: {relative: 0.05}}")
    other = row(scaled(FVD, 1.2), machine_id="machine-2")
    here, there = row(FVD), row(scaled(FVD, 1.1), machine_id="machine-2", run_id="2")
    assert only([there], [here, other], thresholds).baseline == pytest.approx(393 * 1.2, rel=1e-5)
    found = only([there], [here], thresholds)
    assert found.verdict == "unlike"
    assert "the machine changed from machine-1 (GPU none) to machine-2 (GPU none): --update adds" in found.reason
    anywhere = limits(tmp_path, "{fvd: {relative: 0.05, machines: any}}")
    assert only([there], [here], anywhere).verdict == "regression"


def test_a_shown_regression_outweighs_what_could_not_be_judged() -> None:
    def codes(*outcomes: str) -> int:
        return exit_code(Verdict("m", "x", None, None, None, outcome, "") for outcome in outcomes)  # type: ignore[arg-type]

    assert codes("ok", "improved") == codes() == 0
    assert codes("incomplete", "unlike", "regression") == 1
    assert codes("incomplete", "unlike", "ok") == 5
    assert codes("incomplete", "ok") == 3


def test_noise_alone_seldom_alarms_and_a_tenth_more_fvd_does() -> None:
    """The default thresholds on reruns whose blocks vary as those of the embedded run do."""
    random = np.random.default_rng(0)
    thresholds = load_thresholds()
    metrics = {"fvd": ("lower", 393.0, 10.2), "flow_distance": ("lower", 0.48, 0.052)}
    metrics["inception_score_i3d"] = ("higher", 2.36, 0.31)

    def rerun(number: int, factor: float = 1.0) -> list[Row]:
        rows = []
        for metric, (better, mean, spread) in metrics.items():
            blocks = random.normal(mean, spread, 3) * (factor if metric == "fvd" else 1.0)
            error = float(blocks.std(ddof=1) / 3**0.5)
            score = replace(FVD, metric=metric, better=better, value=float(blocks.mean()), standard_error=error)  # type: ignore[arg-type]
            rows.append(row(score, run_id=str(number)))
        return rows

    alarms = [exit_code(judge(rerun(1), rerun(0), thresholds)) == 1 for _ in range(300)]
    # At most 2 of 30.
    assert sum(alarms) <= 20
    found = [exit_code(judge(rerun(1, 1.1), rerun(0), thresholds)) == 1 for _ in range(100)]
    assert sum(found) >= 80
    # Runs that were added to the baseline make false alarms rarer still.
    added = [each for number in range(5) for each in rerun(number)]
    assert sum(exit_code(judge(rerun(9), added, thresholds)) == 1 for _ in range(300)) < sum(alarms)


# The command


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["gate", *map(str, arguments)])


@pytest.fixture
def baseline(tmp_path: Path) -> Path:
    path = tmp_path / "baselines" / "ucf101.csv"
    add_rows(path, [row(score) for score in USUAL])
    return path


def run_of(tmp_path: Path, *scores: Score, name: str = "run-2", status: str = "complete", **origin: str) -> Path:
    return write_results(tmp_path / "results" / "runs" / name, scores, status, run_id=name, **origin)


def test_the_same_numbers_pass_and_a_tenth_more_fvd_is_a_regression(tmp_path: Path, baseline: Path) -> None:
    same = invoke(run_of(tmp_path, *USUAL), "--baseline", baseline)
    assert same.exit_code == 0, same.output
    assert "gate: passed" in same.stdout
    worse = run_of(tmp_path, scaled(FVD, 1.1), SPEEDUP, PARAMS, name="run-3")
    for name in (worse, "run-3", "latest"):
        found = invoke(name, "--baseline", baseline, "--results", tmp_path / "results")
        assert found.exit_code == 1, found.output
        assert "regression: student fvd: worse by 39.3; 19.65 allowed: 0.05 of the baseline" in found.stdout
    output = json.loads(invoke(worse, "--baseline", baseline, "--json").stdout)
    assert (output["exit_code"], output["status"]) == (1, "regression")
    assert [(each["metric"], each["verdict"]) for each in output["verdicts"]] == [
        ("fvd", "regression"), ("speedup_denoiser", "ok"), ("params_m", "ok"),
    ]  # fmt: skip
    assert output["verdicts"][0]["value"] == 432.3


def test_a_first_run_has_its_own_message_and_is_taken_with_update(tmp_path: Path) -> None:
    run, baseline = run_of(tmp_path, *USUAL), tmp_path / "new" / "baseline.csv"
    first = invoke(run, "--baseline", baseline)
    assert first.exit_code == 0
    assert f"gate: no baseline yet: {baseline} is not there, so nothing was gated" in first.stdout
    assert json.loads(invoke(run, "--baseline", baseline, "--json").stdout)["status"] == "no baseline"
    assert invoke(run, "--baseline", baseline, "--require-baseline").exit_code == 2
    assert not baseline.exists()
    updated = invoke(run, "--baseline", baseline, "--update", "--json")
    assert (updated.exit_code, json.loads(updated.stdout)["verdicts"]) == (0, [])
    assert {each.metric for each in read_leaderboard(baseline)} == {score.metric for score in USUAL}
    assert invoke(run, "--baseline", baseline, "--require-baseline").exit_code == 0
    other = run_of(tmp_path, *USUAL, name="other", suite="other")
    assert "holds nothing of suite other" in invoke(other, "--baseline", baseline).stdout


@pytest.mark.parametrize("missing", ["run", "baseline"])
def test_a_metric_missing_on_a_side_is_incomplete_and_no_regression(
    tmp_path: Path, baseline: Path, missing: str
) -> None:
    kvd = replace(FVD, metric="kvd")
    if missing == "run":
        run, expected = run_of(tmp_path, SPEEDUP, PARAMS), "fvd: the run has not measured it; the baseline has"
    else:
        run, expected = run_of(tmp_path, *USUAL, kvd), "kvd: the baseline does not have it; take it up with --update"
    found = invoke(run, "--baseline", baseline)
    assert found.exit_code == 3, found.output
    assert f"incomplete: student {expected}" in found.stdout
    assert json.loads(invoke(run, "--baseline", baseline, "--json").stdout)["status"] == "incomplete"


def test_an_incomplete_run_is_no_regression_and_no_baseline(tmp_path: Path, baseline: Path) -> None:
    half = replace(FVD, value=None, standard_error=None, n=120, status="incomplete", blocks=())
    run = run_of(tmp_path, half, SPEEDUP, PARAMS, status="incomplete")
    found = invoke(run, "--baseline", baseline)
    assert found.exit_code == 3
    assert "it is incomplete (120 of 180)" in found.stdout
    before = baseline.read_bytes()
    refused = invoke(run, "--baseline", baseline, "--update")
    assert refused.exit_code == 3
    assert "was not written: student fvd is incomplete" in refused.stderr
    assert baseline.read_bytes() == before


def test_a_run_that_measured_nothing_or_was_killed_exits_3(tmp_path: Path, baseline: Path) -> None:
    nothing = invoke(run_of(tmp_path, name="a"), "--baseline", baseline)
    assert (nothing.exit_code, "has measured nothing" in nothing.stderr) == (3, True)
    killed = invoke(run_of(tmp_path, *USUAL, name="b", status="running"), "--baseline", baseline)
    assert (killed.exit_code, "did not come to its end" in killed.stderr) == (3, True)
    nowhere = invoke(tmp_path / "nowhere", "--baseline", baseline)
    assert (nowhere.exit_code, "no such run" in nowhere.stderr) == (2, True)


def test_a_changed_machine_exits_5_until_it_has_a_baseline_of_its_own(tmp_path: Path, baseline: Path) -> None:
    run = run_of(tmp_path, *USUAL, machine_id="machine-2", gpu="H200")
    found = invoke(run, "--baseline", baseline)
    assert found.exit_code == 5, found.output
    assert "the machine changed from machine-1 (GPU none) to machine-2 (GPU H200)" in found.stdout
    assert json.loads(invoke(run, "--baseline", baseline, "--json").stdout)["status"] == "not comparable"
    marked = invoke(run, "--baseline", baseline, "--allow-unlike")
    assert marked.exit_code == 0
    assert "ok (unlike)" in marked.stdout
    assert invoke(run, "--baseline", baseline, "--update").exit_code == 0
    assert {each.machine_id for each in read_leaderboard(baseline)} == {"machine-1", "machine-2"}
    assert invoke(run, "--baseline", baseline).exit_code == 0
    assert invoke(run_of(tmp_path, *USUAL, name="old"), "--baseline", baseline).exit_code == 0


def test_update_replaces_what_add_keeps(tmp_path: Path, baseline: Path) -> None:
    run = run_of(tmp_path, scaled(FVD, 1.1), SPEEDUP, PARAMS)
    assert invoke(run, "--baseline", baseline, "--add").exit_code == 0
    values = [each.value for each in read_leaderboard(baseline) if each.metric == "fvd"]
    assert sorted(values) == ["393", "432.3"]
    assert invoke(run, "--baseline", baseline, "--update").exit_code == 0
    assert [each.value for each in read_leaderboard(baseline) if each.metric == "fvd"] == ["432.3"]


def test_damaged_files_are_named(tmp_path: Path, baseline: Path) -> None:
    run = run_of(tmp_path, *USUAL)
    text = baseline.read_text()
    baseline.write_text(text.replace(",393,", ",many,"))
    found = invoke(run, "--baseline", baseline)
    assert (found.exit_code, f"{baseline}:2: 'many' is no number that was measured" in found.stderr) == (2, True)
    baseline.write_text(text + "x\n")
    found = invoke(run, "--baseline", baseline)
    assert (found.exit_code, "ucf101.csv:5: 1 cells" in found.stderr) == (2, True)
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("version: 1\nmetrics:\n  fdv: {relative: 0.1}\n")
    baseline.write_text(text)
    found = invoke(run, "--baseline", baseline, "--thresholds", wrong)
    assert (found.exit_code, f"{wrong}:3:3: neither" in found.stderr) == (2, True)


def test_markdown_is_fit_for_a_comment(tmp_path: Path, baseline: Path) -> None:
    run = run_of(tmp_path, scaled(FVD, 1.1), SPEEDUP, PARAMS, note="<script>alert(1)</script> @everyone")
    text = invoke(run, "--baseline", baseline, "--markdown").stdout
    assert text.startswith("### vdmini-bench gate: regression\n\n| model | metric | baseline | value |")
    assert "| student | fvd | 393 | 432.3 | 39.3 | 19.65 | regression |" in text
    assert "- regression: student fvd: worse by 39.3" in text
    assert "<script>" not in text
    assert "@everyone" not in text
