"""However a program ends, it is with an exit code of ours and one line; 1 is for the gate alone."""

from __future__ import annotations

import importlib
import subprocess
import sys
import tempfile
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from vdmini_bench.errors import ExitCode, NotComparableError
from vdmini_bench.system.program import Program

TALKER = """
import click
from vdmini_bench.system.program import Program

@click.group(cls=Program)
def main(): pass

@main.command()
def talk():
    for _ in range(100_000):
        click.echo("many words")

main()
"""


def end_with(problem: BaseException) -> Result:
    @click.group(cls=Program)
    def main() -> None: ...

    @main.command()
    def fails() -> None:
        raise problem

    return CliRunner().invoke(main, ["fails"])


@pytest.mark.parametrize(
    ("problem", "code", "said"),
    [
        (click.Abort(), 130, "interrupted; the same command continues where it stopped"),
        (KeyboardInterrupt(), 130, "interrupted; the same command continues where it stopped"),
        (EOFError(), 130, "interrupted; the same command continues where it stopped"),
        (click.UsageError("wrong option"), 2, "wrong option"),
        (click.ClickException("wrong file"), 2, "wrong file"),
        (NotComparableError("unlike"), 5, "error: unlike"),
        (SystemExit(ExitCode.REGRESSION), 1, ""),
        (SystemExit(ExitCode.INCOMPLETE), 3, ""),
        (SystemExit(), 0, ""),
        (SystemExit(1), 4, ""),
        (SystemExit("said by a library"), 4, "said by a library"),
    ],
)
def test_an_end_has_its_exit_code(problem: BaseException, code: int, said: str) -> None:
    result = end_with(problem)
    assert result.exit_code == code
    assert said in result.stderr


@pytest.mark.parametrize("problem", [KeyError("x"), RuntimeError("a\nb"), FileNotFoundError("gone"), MemoryError()])
def test_an_unexpected_error_is_one_line_and_its_traceback_is_kept(
    problem: Exception, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    result = end_with(problem)
    assert result.exit_code == 4
    assert result.stderr.count("\n") == 1
    assert type(problem).__name__ in result.stderr
    (log,) = tmp_path.iterdir()
    assert str(log) in result.stderr
    kept = log.read_text()
    assert kept.startswith("Traceback")
    assert "in fails" in kept


def test_a_traceback_that_cannot_be_kept_is_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    result = end_with(KeyError("x"))
    assert result.exit_code == 4
    assert "in fails" in result.stderr


def test_an_output_that_is_closed_early_is_no_regression() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", TALKER, "talk"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "many words\n"
        process.stdout.close()
        said = process.stderr.read()
    assert process.returncode == 4
    assert said == "error: what reads the output ended before all of it was written\n"


@pytest.mark.parametrize("module", ["vdmini_bench.cli", "vdmini_bench.gpu", "vdmini_bench.embedded.__main__"])
def test_every_program_ends_so(module: str) -> None:
    assert isinstance(importlib.import_module(module).main, Program)
