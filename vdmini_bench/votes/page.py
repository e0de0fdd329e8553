"""The page that voters judge clips on: one file that fetches nothing and sends nothing."""

from __future__ import annotations

from pathlib import Path

from vdmini_bench.errors import BenchError, NothingMeasuredError
from vdmini_bench.report.examples import Examples, read_examples
from vdmini_bench.report.page import frame
from vdmini_bench.report.player import embedded_examples
from vdmini_bench.report.rendering import render
from vdmini_bench.results.records import RUN_FILE, baseline_of, read_run
from vdmini_bench.system.files import write_atomically
from vdmini_bench.votes.ballot import KEY_FILE, Ballot, make_ballot, read_key

PAGE = "vote.html"


def write_vote_page(folder: Path, output: Path | None = None) -> Path:
    """Write the page of a run's examples into its folder or to `output`, and its key into the folder; returns its path.

    A page written again is the same one, as long as the run's examples are.

    Raises:
        NothingMeasuredError: the run kept no clips of two rows.
        BenchError: a file of the run cannot be read, or its clips are others than those of its page before.
    """
    examples = read_examples(folder)
    parts = [] if examples is None else [part for part in embedded_examples(examples) if len(part[1]) > 1]
    if examples is None or not parts:
        raise NothingMeasuredError(f"{folder} kept no clips of two rows to vote on; give a run of a suite that samples")
    baseline = baseline_of(read_run(folder) if (folder / RUN_FILE).is_file() else {})
    kept = folder / KEY_FILE
    before = read_key(kept) if kept.is_file() else None
    ballot = make_ballot(examples, parts, baseline, before.secret if before else "")
    if before and before.study != ballot.key.study:
        raise BenchError(f"{kept} is of a page of other clips, whose votes need it: move it elsewhere for a new page")
    path = output or folder / PAGE
    write_atomically(kept, ballot.key.model_dump_json(indent=1) + "\n")
    write_atomically(path, build_vote_page(ballot, examples))
    return path


def build_vote_page(ballot: Ballot, examples: Examples) -> str:
    """The page as an HTML document: it names no row, and every text of the run is escaped."""
    key = ballot.key
    asked = [key.clips[first].request for first, _ in key.pairs]
    pairs = [(*pair, text) for pair, text in zip(key.pairs, asked, strict=True)]
    sources = sorted(ballot.sources.items())
    page = render(
        "vote.html", title="Which clip is better?", study=key.study, pairs=pairs, sources=sources, examples=examples,
        **frame("vote.js"),
    )  # fmt: skip
    return f"{page}\n"
