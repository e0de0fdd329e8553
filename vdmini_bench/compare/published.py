"""Numbers that others report of a row's model, beside the ones measured here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from vdmini_bench.compare.pareto import measured_scores
from vdmini_bench.results.records import Record
from vdmini_bench.results.table import TITLES


def published_lines(
    records: Iterable[Record], published: Sequence[Mapping[str, Any]]
) -> tuple[list[str], list[list[str]]]:
    """The header, and a line for each number of others; `published` are `config.models.PublishedSpec` as plain data."""
    found, lines = measured_scores(records), []
    for each in published:
        score = found.get((each["model"], each["metric"]))
        error = None if score is None else score.standard_error
        ours = "-" if score is None else f"{score.value:.4g}" + ("" if error is None else f" ± {error:.2g}")
        title = TITLES.get(each["metric"], each["metric"])
        lines.append([each["model"], title, ours, f"{each['value']:.4g}", each["said"]])
    return ["row", "metric", "ours", "theirs", "theirs is from"], lines
