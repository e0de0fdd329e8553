"""The tables of a sensitivity study: each measure's answer to each severity, and which severities it puts in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from vdmini_bench.studies.corruptions import CORRUPTIONS
from vdmini_bench.studies.sensitivity import Numbers, Ordering, mean_with_error, ordering
from vdmini_bench.system.files import write_atomically
from vdmini_bench.system.tables import csv_lines, markdown_table

TITLES = {
    "fvd": "FVD",
    "frechet_motion": "Frechet motion",
    "content": "content (features)",
    "spectrum": "spectrum",
    "flow_field": "flow field (px)",
    "flow_magnitude": "flow magnitude (px)",
    "speed": "speed (px)",
    "dynamic_degree": "dynamic degree",
    "flicker": "flicker",
}


def orderings(numbers: Mapping[str, Numbers]) -> list[Ordering]:
    """Every corruption by every measure."""
    return [ordering(corruption, measure, numbers[measure]) for corruption in CORRUPTIONS for measure in numbers]


def answer_lines(numbers: Mapping[str, Numbers]) -> tuple[list[str], list[list[str]]]:
    """The header, and one line a severity: every measure's mean ± its standard error."""
    units = {corruption.name: corruption.unit for corruption in CORRUPTIONS}
    lines = []
    for corruption, severity in next(iter(numbers.values())):
        name = "as they are" if corruption == "none" else f"{corruption} {severity:g} {units[corruption]}"
        cells = [mean_with_error(numbers[measure][corruption, severity]) for measure in numbers]
        lines.append([name, *(f"{_digits(mean, 3)} ± {_digits(error, 1)}" for mean, error in cells)])
    return ["clips", *(TITLES[measure] for measure in numbers)], lines


def _digits(value: float, count: int) -> str:
    """A number with so many digits that count, but never fewer than those before the point."""
    return f"{value:.0f}" if abs(value) >= 10**count else f"{value:.{count}g}"


def ordering_lines(found: Sequence[Ordering]) -> tuple[list[str], list[list[str]]]:
    """The header, and one line a corruption: whether each measure puts its severities in order."""
    measures = list(dict.fromkeys(each.measure for each in found))
    by_name = {(each.corruption.name, each.measure): each for each in found}
    lines = [
        [
            corruption.name,
            corruption.affects,
            *("yes" if by_name[corruption.name, measure].ordered else "no" for measure in measures),
        ]
        for corruption in CORRUPTIONS
    ]
    return ["corruption", "affects", *(TITLES[measure] for measure in measures)], lines


def write_sensitivity(folder: Path, numbers: Mapping[str, Numbers]) -> None:
    """Write `sensitivity.md`, both tables, and `sensitivity.csv`, a row a severity and measure."""
    tables = [markdown_table(*answer_lines(numbers)), markdown_table(*ordering_lines(orderings(numbers)))]
    write_atomically(folder / "sensitivity.md", "\n\n".join(tables) + "\n")
    lines = [
        (corruption, f"{severity:g}", measure, *"{:.6g} {:.3g}".format(*mean_with_error(values)).split(), len(values))
        for measure, by_severity in numbers.items()
        for (corruption, severity), values in by_severity.items()
    ]
    header = ("kind", "strength", "measure", "value", "se", "n")
    write_atomically(folder / "sensitivity.csv", csv_lines([header, *lines]))
