"""What a kind of suite must say, so that running, previewing and distilling need not know the kind."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from vdmini_bench.config.distillation import DistillConfig
from vdmini_bench.config.suite import Suite
from vdmini_bench.config.vbench import VBenchSuite
from vdmini_bench.errors import MissingAssetsError
from vdmini_bench.results.store import Store
from vdmini_bench.suites.context import RunContext
from vdmini_bench.suites.distillation import Distillation
from vdmini_bench.suites.distributions import Distributions
from vdmini_bench.suites.missing import Missing, missing_table
from vdmini_bench.suites.vbench import VBench
from vdmini_bench.system.files import check_writable


class SuiteKind(Protocol):
    """A kind of suite; `measured` False means to train alone, of which only the first three stages are."""

    def missing(self, *, measured: bool = True) -> list[Missing]:
        """Everything it needs that this program cannot fetch by itself."""

    def first(self, store: Store, *, measured: bool = True) -> list[str]:
        """What is fetched and drawn before the first job, in words; empty once `prepare` has done it."""

    def prepare(self, store: Store, *, measured: bool = True) -> None:
        """Fetch and draw what is first; nothing is missing. Raises BenchError."""

    def open(self, store: Store, *, measured: bool = True, remember: bool = True, machine: str = "") -> RunContext:
        """The surroundings and the jobs; what is not there yet has no digest, so that jobs that read it are not done.

        Without `remember` nothing is written, the hashes of files neither. `machine` names where models are timed, this
        one where it is empty.
        """


def kind_of(asked: Suite | VBenchSuite | DistillConfig) -> SuiteKind:
    """The kind of what a file asks for."""
    if isinstance(asked, DistillConfig):
        return Distillation(asked)
    return VBench(asked) if isinstance(asked, VBenchSuite) else Distributions(asked)


def prepare_suite(asked: Suite | VBenchSuite | DistillConfig, results: Path, *, measured: bool = True) -> SuiteKind:
    """Go on only where nothing is missing and results can be kept; then fetch and draw what comes first.

    Raises:
        MissingAssetsError: something has to be got by hand; nothing was run.
        BenchError: the results folder cannot be written, the disk is full, or a download failed.
    """
    kind = kind_of(asked)
    check_missing(asked, kind, measured=measured)
    check_writable(results)
    kind.prepare(Store(results), measured=measured)
    return kind


def check_missing(asked: Suite | VBenchSuite | DistillConfig, kind: SuiteKind, *, measured: bool = True) -> None:
    """Raise MissingAssetsError, with all of it and how to get it, where something has to be got by hand."""
    missing = kind.missing(measured=measured)
    if missing:
        # A configuration of its own has nothing that could be missing: what it names is found or is an error.
        assert not isinstance(asked, DistillConfig)
        raise MissingAssetsError(missing_table(asked, missing))
