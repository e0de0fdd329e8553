"""Development sessions: `nox -s tests`, `nox -s lint`."""

from __future__ import annotations

import os

import nox

nox.options.sessions = ["lint", "tests"]
nox.options.reuse_existing_virtualenvs = True

PYPROJECT = nox.project.load_toml("pyproject.toml")
# Another build of torch: VDMINI_CONSTRAINTS=your-constraints.txt nox -s tests
CONSTRAINTS = os.environ.get("VDMINI_CONSTRAINTS", "constraints.txt")


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests; arguments after -- go to pytest."""
    session.install("-c", CONSTRAINTS, "-e", ".", *nox.project.dependency_groups(PYPROJECT, "test"))
    # Two workers of one thread each: torch processes that share cores with more threads slow each other manyfold.
    workers = ("-n", "2", "--dist", "loadfile")
    session.run("pytest", *workers, *session.posargs, env={"OMP_NUM_THREADS": "1"})


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and types."""
    session.install("-c", CONSTRAINTS, "-e", ".", *nox.project.dependency_groups(PYPROJECT, "lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy")
