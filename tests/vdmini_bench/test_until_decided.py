"""A run on one part of its prompts after the other stops where it is decided, and its folder says how."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from results_of_runs import ORIGIN

from vdmini_bench.cli import main
from vdmini_bench.config.vbench import VBenchSuite
from vdmini_bench.results.records import read_records
from vdmini_bench.results.score import Score, result_line, row_of
from vdmini_bench.results.store import Store
from vdmini_bench.runs import until_decided
from vdmini_bench.runs.run import RunResult
from vdmini_bench.suites.kind import kind_of
from vdmini_bench.suites.vbench import VBenchContext, ask_for_videos
from vdmini_bench.suites.vbench_videos import prompts_of_part

PROMPTS = 160


@given(st.sets(st.text(min_size=1), min_size=1, max_size=40), st.integers(1, 9))
def test_parts_share_all_prompts_out_evenly_whatever_their_order(prompts: set[str], parts: int) -> None:
    shares = [prompts_of_part(sorted(prompts), f"{number}/{parts}") for number in range(1, parts + 1)]
    assert frozenset().union(*shares) == prompts
    assert sum(map(len, shares)) == len(prompts)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert shares[0] == prompts_of_part(sorted(prompts, reverse=True), f"1/{parts}")


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], list[str]]:
    """Makes runs that score a student that is worse by so much, on the prompts of their part; returns the parts."""

    def make(loss: float) -> list[str]:
        parts: list[str] = []

        def run_suite(suite: VBenchSuite, results: Path, workers: int, place: None, *, listed: bool) -> RunResult:
            assert not listed
            parts.append(suite.profile.vbench.part or "")
            store = Store(results)
            context = kind_of(suite).open(store)
            assert isinstance(context, VBenchContext)
            folder = store.open_run(suite.name, suite.sha)
            record = {"status": "complete", "suite": suite.model_dump(), "baseline": "teacher"}
            (folder / "run.json").write_text(json.dumps(record))
            protocol = context.protocol_name
            scores = [
                Score(each, "params_m", "1", "model", 5.0, "M", "lower", None, 1, 1, "ok") for each in ("teacher",)
            ]
            for model, worse in (("teacher", 0.0), ("student", loss)):
                marks = [
                    0.8 - worse + np.random.default_rng([video.seed, len(model) + (model == "student")]).normal(0, 0.02)
                    for video in context.clips.videos
                ]
                for metric in ("embedded-color", "embedded-scene"):
                    mean, count = float(np.mean(marks)), len(marks)
                    scores.append(
                        Score(model, metric, "1", protocol, mean, "", "higher", 0.1, count, count, "ok", tuple(marks))
                    )
            scores.append(Score.unavailable("student", "vbench_color", "1", protocol, "higher", 10))
            rows = [row_of(score, ORIGIN | {"run_id": folder.name}) for score in scores]
            (folder / "results.jsonl").write_text("".join(map(result_line, scores, rows)))
            return RunResult(folder.name, folder, until_decided.ExitCode.OK, "smoke", (), 1.0, 1, 0, ())

        monkeypatch.setattr(until_decided, "run_suite", run_suite)
        return parts

    return make


def run(results: Path, *more: str) -> tuple[int, list[dict[str, object]]]:
    settings = (f"vbench.prompt_count={PROMPTS}", "vbench.samples_per_prompt=1", "dataset.train_clips=4")
    asked = ["run", "suites/vbench_t2v.yaml", "--profile", "smoke", "--json", "--results", str(results), *more]
    for setting in settings:
        asked += ["--set", setting]
    found = CliRunner().invoke(main, asked)
    return found.exit_code, [json.loads(line) for line in found.stdout.splitlines()]


@pytest.mark.parametrize(("loss", "verdict"), [(0.0, "no worse"), (0.1, "worse")])
def test_sampling_stops_where_the_total_is_decided(
    loss: float, verdict: str, scored: Callable[[float], list[str]], tmp_path: Path
) -> None:
    parts = scored(loss)
    code, steps = run(tmp_path, "--until", "decided", "--margin", "0.05")
    assert code == 0
    assert parts == [f"{number}/16" for number in range(1, len(parts) + 1)]
    assert len(parts) == len(steps) <= 5
    (total,) = [each for each in steps[-1]["decided"] if each["metric"] == "total"]  # type: ignore[attr-defined]
    assert (total["verdict"], steps[-1]["prompts"]) == (verdict, 10 * len(parts))
    assert not (tmp_path / "leaderboard.csv").exists()


def test_the_folder_pools_all_parts_and_its_report_shows_the_path(
    scored: Callable[[float], list[str]], tmp_path: Path
) -> None:
    parts = scored(0.1)
    _, steps = run(tmp_path, "--until", "decided", "--margin", "0.05")
    folder = Path(str(steps[-1]["run_dir"]))
    records = {(each.score.model, each.score.metric): each.score for each in read_records(folder)}
    pooled = records["student", "embedded-color"]
    singles = [
        each.score
        for other in (tmp_path / "runs").iterdir()
        if other != folder
        for each in read_records(other)
        if (each.score.model, each.score.metric) == ("student", "embedded-color")
    ]
    assert (len(singles), pooled.n) == (len(parts), 10 * len(parts))
    assert pooled.value == pytest.approx(np.mean([each.value for each in singles]))
    assert sorted(pooled.blocks) == sorted(value for each in singles for value in each.blocks)
    # Nobody's score of all prompts is taken for one of these.
    assert pooled.protocol.endswith(f"/until{len(parts)}/16")
    assert records["teacher", "params_m"].protocol == "model"
    assert records["student", "vbench_color"].status == "unavailable"
    page = (folder / "report.html").read_text()
    assert "Until decided" in page
    assert f"{steps[0]['prompts']} of {PROMPTS}" in page


def test_a_dry_run_says_in_which_parts_and_runs_none(scored: Callable[[float], list[str]], tmp_path: Path) -> None:
    ran = scored(0.0)
    asked = ("--until", "decided", "--margin", "0.05", "--dry-run")
    code, (plan,) = run(tmp_path, *asked)
    assert (code, ran, [*tmp_path.iterdir()]) == (0, [], [])
    assert plan["until"] == {"prompts": PROMPTS, "parts": 16, "margin": 0.05}
    found = CliRunner().invoke(main, ["run", "vbench_t2v", *asked, "--results", str(tmp_path)])
    assert (
        "that is of all prompts; they are run in up to 6 parts of 8 prompts, until it is decided by 0.05"
        in found.output
    )
    missing = CliRunner().invoke(main, ["run", "vbench_t2v", "--profile", "paper", *asked, "--results", str(tmp_path)])
    assert missing.exit_code == 0
    assert "known once nothing is missing" in missing.output


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--until", "decided", "--dry-run"), "--margin go together"),
        (("--until", "decided", "--margin", "0.1", "--set", "vbench.part=1/4", "--dry-run"), "a whole suite of kind"),
        (("--until", "decided"), "--margin go together"),
        (("--margin", "0.1"), "--margin go together"),
        (("--until", "decided", "--margin", "0.1", "--set", "vbench.part=1/4"), "a whole suite of kind vbench"),
    ],
)
def test_what_no_run_can_decide_is_refused(more: tuple[str, ...], said: str, tmp_path: Path) -> None:
    asked = ["run", "suites/vbench_t2v.yaml", "--profile", "smoke", "--results", str(tmp_path), *more]
    found = CliRunner().invoke(main, asked)
    assert found.exit_code == 2
    assert said in found.output


def test_prompts_of_a_part_keep_their_seeds(tmp_path: Path) -> None:
    from vdmini_bench.config.vbench import load_any_suite

    def videos(*more: str) -> dict[str, int]:
        suite = load_any_suite(Path("suites/vbench_i2v.yaml"), "smoke", ("vbench.prompt_count=12", *more))
        assert isinstance(suite, VBenchSuite)
        return {video.name: video.seed for video in ask_for_videos(suite.profile.vbench, Store(tmp_path))[1]}

    part = videos("vbench.part=2/3")
    assert len(part) == 4 * len(videos()) // 12
    assert part.items() <= videos().items()
