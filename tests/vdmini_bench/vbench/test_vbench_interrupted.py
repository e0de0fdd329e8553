"""What was broken off: an environment half made or half gone, a driver that was killed, a command that was stopped."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from small_suite import Bench, draw_video, expect, invoke, leave_the_users_folders, score_custom, score_official

from vdmini_bench.config.vbench_dimensions import VBENCH_VERSION
from vdmini_bench.errors import ExitCode
from vdmini_bench.vbench import environment
from vdmini_bench.vbench.environment import Environment
from vdmini_bench.vbench.results import kept_result


def test_an_environment_whose_making_was_interrupted_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(command: Sequence[str], log: Path, what: str) -> None:
        (tmp_path / "env" / "half").touch()
        raise KeyboardInterrupt

    leave_the_users_folders(tmp_path, monkeypatch)
    monkeypatch.setattr(environment, "PYTHON", sys.version_info[:2])
    monkeypatch.setattr(environment, "_run", interrupt)
    expect(invoke("assets", "vbench"), ExitCode.INTERRUPTED, "the same command continues")
    said = ("whose making was interrupted", "next: `vdmini-bench assets vbench`")
    draw_video(tmp_path / "videos" / "a-0.mp4", 0)
    arguments = ("vbench", "score", tmp_path / "videos", "--mode", "custom", "-o", tmp_path / "scores")
    expect(invoke(*arguments), ExitCode.USAGE, *said)
    expect(invoke("assets", "vbench", "--check"), ExitCode.USAGE, *said)

    def finish(command: Sequence[str], log: Path, what: str) -> None:
        assert not (tmp_path / "env" / "half").exists()

    monkeypatch.setattr(environment, "_run", finish)
    monkeypatch.setattr(environment, "check_environment", pretend_to_check)
    expect(invoke("assets", "vbench"), ExitCode.OK)
    assert {path.name for path in (tmp_path / "env").iterdir()} == {"bin", "constraints.txt", "vdmini-vbench.json"}


def pretend_to_check(made: Environment) -> None:
    record = {"vbench": VBENCH_VERSION, "versions": {"torch": "2.13.0"}, "device": "CPU", "problems": {}}
    made.python.parent.mkdir()
    made.python.touch()
    (made.folder / environment.MARKER).write_text(json.dumps(record), encoding="utf-8")


def test_an_environment_whose_python_was_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leave_the_users_folders(tmp_path, monkeypatch)
    made = Environment(tmp_path / "env")
    made.folder.mkdir()
    pretend_to_check(made)
    made.python.unlink()
    expect(
        invoke("assets", "vbench", "--check"),
        ExitCode.USAGE,
        f"has lost its Python, {made.python}",
        "next: `vdmini-bench assets vbench`",
    )


def test_a_python_that_does_not_start_fails_its_dimension_only(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = bench.root / "python"
    broken.write_text("no program", encoding="utf-8")
    monkeypatch.setattr(Environment, "command", property(lambda _: (str(broken),)))
    expect(score_official(bench), ExitCode.FAILED, "error: color: ", "cannot be run (Permission denied)")


def test_a_driver_that_the_kernel_killed_is_said_to_be(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import os; print('loading', flush=True); os.kill(os.getpid(), 9)"
    monkeypatch.setattr(Environment, "command", property(lambda _: (sys.executable, "-c", code)))
    expect(score_official(bench), ExitCode.FAILED, "error: color: ended by signal 9: loading")


def test_an_interrupt_keeps_what_is_done(bench: Bench) -> None:
    done = score_custom(bench, "subject_consistency")
    expect(done, ExitCode.OK)
    bench.plan(imaging_quality="sleeps")
    script = (
        "import sys; from pathlib import Path; from vdmini_bench.system.program import expected_failures\n"
        "from vdmini_bench.vbench.scoring import Scoring, score_videos\n"
        "videos, output, *command = sys.argv[1:]\n"
        "names = ('subject_consistency', 'imaging_quality')\n"
        "asked = Scoring(Path(videos), Path(output), 'custom', names, tuple(command), 'p', download=True)\n"
        "expected_failures(score_videos)(asked)\n"
    )
    command = [sys.executable, "-c", script, str(bench.videos), str(bench.output), *bench.command]
    bench.calls()
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 60
        while "imaging_quality" not in bench.peek() and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=60)[1]
    assert process.returncode == ExitCode.INTERRUPTED
    assert "the same command continues where it stopped" in said
    assert "Traceback" not in said
    assert kept_result(bench.output, "subject_consistency") is not None
    assert kept_result(bench.output, "imaging_quality") is None
