"""The composite action: its scripts run here as a runner would run them, with `vdmini-bench` from this checkout."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from results_of_runs import FVD, PARAMS, SPEEDUP, USUAL, row, scaled, write_results

from vdmini_bench.config.thresholds import load_thresholds
from vdmini_bench.results.leaderboard import add_rows

ROOT = Path(__file__).parents[2]
ACTION = yaml.safe_load((ROOT / "action.yml").read_text())
STEPS = {step["name"]: step for step in ACTION["runs"]["steps"]}
EXAMPLE = ROOT / "docs" / "examples" / "regression-gate.yml"


def value_of(expression: str, values: dict[str, str]) -> str:
    return re.sub(r"\$\{\{ *([\w.-]+) *\}\}", lambda found: values[found[1]], str(expression))


class Runner:
    """Runs steps in a folder as GitHub does: bash with -e and pipefail, variables of the step, files for outputs."""

    def __init__(self, folder: Path, **inputs: str) -> None:
        self.folder, self.outputs = folder, {}
        self.values = {f"inputs.{name}": str(entry.get("default", "")) for name, entry in ACTION["inputs"].items()}
        self.values |= {f"inputs.{name.replace('_', '-')}": given for name, given in inputs.items()}
        self.values |= {"runner.temp": str(folder / "temp"), "github.action_path": str(ROOT)}
        self.values |= {"github.repository": "a/b", "github.event.pull_request.number": "7"}
        self.values |= {"steps.run.outputs.folder": "latest"}
        commands = folder / "bin"
        for made in (folder / "temp", commands):
            made.mkdir()
        command = commands / "vdmini-bench"
        # What `run` and `gh` are asked for is written down; all else is the real command.
        command.write_text(
            f'#!/bin/sh\nif [ "$1" = run ]; then printf "%s\\n" "$@" > {folder}/asked; '
            'printf "%s" "$SAID"; exit ${RUN_CODE:-0}; fi\n'
            f'exec "{sys.executable}" -m vdmini_bench "$@"\n'
        )
        (commands / "gh").write_text(
            f'#!/bin/sh\necho "$*" >> {folder}/gh\ncase "$*" in *--paginate*) printf "%s" "$COMMENTS";; esac\n'
            'exit "${GH_CODE:-0}"\n'
        )
        for path in commands.iterdir():
            path.chmod(0o755)

    def step(self, name: str, **environment: str) -> subprocess.CompletedProcess[str]:
        step = STEPS[name]
        variables = {key: value_of(entry, self.values) for key, entry in step.get("env", {}).items()}
        files = {
            key: str(self.folder / "temp" / key) for key in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY", "GITHUB_PATH")
        }
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", "-c", step["run"]],
            cwd=self.folder,
            env={
                **os.environ, "PYTHONPATH": str(ROOT), "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
                **files, **variables, **environment,
            },
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        output = Path(files["GITHUB_OUTPUT"])
        for line in output.read_text().splitlines() if "id" in step and output.exists() else ():
            key, _, value = line.partition("=")
            self.values[f"steps.{step['id']}.outputs.{key}"] = value
        return done


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    return Runner(tmp_path)


def judged(runner: Runner) -> tuple[int, str]:
    """The action's end and its table."""
    gate = runner.step("Gate")
    assert gate.returncode == 0, gate.stderr
    table = Path(runner.values["steps.gate.outputs.table"]).read_text()
    assert (runner.folder / "temp" / "GITHUB_STEP_SUMMARY").read_text().endswith(table)
    return runner.step("Verdict").returncode, table


def test_every_step_is_bash_and_takes_its_inputs_as_variables() -> None:
    for step in ACTION["runs"]["steps"]:
        assert step["shell"] == "bash"
        assert "${{" not in step["run"], "an input inside a script can start a command"
        for expression in re.findall(r"inputs\.([\w-]+)", str(step)):
            assert expression in ACTION["inputs"]


def test_the_suite_runs_with_its_settings_and_no_input_is_a_command(tmp_path: Path) -> None:
    hostile = 'sample.steps=4\n$(touch pwned)`touch pwned`"; touch pwned; "=1\n'
    runner = Runner(tmp_path, suite="my suite.yaml", profile="smoke", settings=hostile)
    run = write_results(tmp_path / "results" / "runs" / "20260101T000000_a", USUAL)
    (run / "table.md").write_text("the table\n")
    said = json.dumps({"run_dir": str(run)})
    ran = runner.step("Run the suite", SAID=said)
    assert (ran.returncode, ran.stdout) == (0, "the table\n")
    assert (tmp_path / "asked").read_text().splitlines() == [
        "run", "my suite.yaml", "--results", "results", "--json", "--profile", "smoke",
        "--set", "sample.steps=4", "--set", '$(touch pwned)`touch pwned`"; touch pwned; "=1',
    ]  # fmt: skip
    assert not (tmp_path / "pwned").exists()
    # What is incomplete is judged; a wrong suite is not.
    codes = [runner.step("Run the suite", SAID=said, RUN_CODE=code).returncode for code in ("3", "4", "2", "130")]
    assert codes == [0, 0, 2, 130]
    assert runner.values["steps.run.outputs.folder"] == str(run)
    # What could not begin left no folder, and an older run is not judged in its place.
    assert runner.step("Run the suite", RUN_CODE="4").returncode == 4


def test_the_run_that_was_made_is_judged_and_no_other_that_lies_there(runner: Runner) -> None:
    add_rows(runner.folder / "results" / "baselines" / "gate.csv", [row(score) for score in USUAL])
    run = write_results(runner.folder / "results" / "runs" / "20260101T000000_a", (scaled(FVD, 1.1), SPEEDUP, PARAMS))
    write_results(run.with_name("20260102T000000_b"), USUAL)
    (run / "table.md").write_text("the table\n")
    assert runner.step("Run the suite", SAID=json.dumps({"run_dir": str(run)})).returncode == 0
    assert judged(runner)[0] == 1


def test_the_actions_own_suite_stands_in_where_there_is_none_of_that_name(runner: Runner) -> None:
    runner.step("Run the suite")
    assert (runner.folder / "asked").read_text().splitlines()[1] == str(ROOT / "suites" / "ucf101.yaml")
    own = runner.folder / "suites" / "ucf101.yaml"
    own.parent.mkdir()
    own.touch()
    runner.step("Run the suite")
    assert (runner.folder / "asked").read_text().splitlines()[1] == "suites/ucf101.yaml"


def test_a_regression_fails_the_job_with_its_table(runner: Runner) -> None:
    add_rows(runner.folder / "results" / "baselines" / "gate.csv", [row(score) for score in USUAL])
    run = runner.folder / "results" / "runs" / "20260101T000000_a"
    write_results(run, USUAL)
    code, table = judged(runner)
    assert code == 0
    assert table.startswith("### vdmini-bench gate: passed")
    write_results(run.with_name("20260102T000000_b"), (scaled(FVD, 1.1), SPEEDUP, PARAMS), run_id="b")
    code, table = judged(runner)
    assert code == 1
    assert "| student | fvd | 393 | 432.3 |" in table


def test_the_table_is_commented_once_and_then_edited(runner: Runner) -> None:
    write_results(runner.folder / "results" / "runs" / "20260101T000000_a", USUAL)
    judged(runner)

    def asked(**environment: str) -> list[str]:
        (runner.folder / "gh").unlink(missing_ok=True)
        assert runner.step("Comment", **environment).returncode == 0
        return (runner.folder / "gh").read_text().splitlines()

    comment = runner.folder / "temp" / "vdmini-gate.md.comment"
    listing, posted = asked(COMMENTS="")
    assert listing.startswith("api --paginate repos/a/b/issues/7/comments --jq ")
    assert posted == f"pr comment 7 --body-file {comment}"
    assert comment.read_text().startswith("<!-- vdmini-gate -->\n### vdmini-bench gate: no baseline yet")
    assert asked(COMMENTS="11\n12\n")[1] == f"api -X PATCH repos/a/b/issues/comments/12 -F body=@{comment}"
    # The token of a fork may do neither: that is a warning, and the gate's own verdict stands.
    assert len(asked(COMMENTS="12\n", GH_CODE="1")) == 2


def test_a_first_run_passes_and_nothing_measured_says_so(runner: Runner) -> None:
    write_results(runner.folder / "results" / "runs" / "20260101T000000_a", USUAL)
    code, table = judged(runner)
    assert (code, "no baseline yet" in table) == (0, True)
    runner.values["inputs.require-baseline"] = "true"
    assert judged(runner)[0] == 2
    write_results(runner.folder / "results" / "runs" / "20260102T000000_b", ())
    code, table = judged(runner)
    assert (code, "has measured nothing" in table) == (3, True)


def test_the_example_workflow_uses_what_the_action_has() -> None:
    workflow: dict[Any, Any] = yaml.safe_load(EXAMPLE.read_text())
    (step,) = [step for step in workflow["jobs"]["gate"]["steps"] if "vdmini" in step.get("uses", "")]
    assert {*step["with"]} <= {*ACTION["inputs"]}
    assert workflow["permissions"]["pull-requests"] == "write"
    assert (ROOT / step["with"]["suite"]).is_file()
    assert load_thresholds(EXAMPLE.with_name("gate-thresholds.yaml")).metrics["fvd"].machines == "any"
