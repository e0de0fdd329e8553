"""The suites that come with the package: found by name, wherever it is installed."""

from __future__ import annotations

from pathlib import Path

from vdmini_bench.errors import SuiteError

# In a wheel beside the code, in a checkout at its root.
PLACES = (Path(__file__).parents[1] / "shipped_suites", Path(__file__).parents[2] / "suites")


def shipped_suites() -> dict[str, Path]:
    """The files by their names."""
    place = next((place for place in PLACES if place.is_dir()), PLACES[0])
    return {path.stem: path for path in sorted(place.glob("*.yaml"))}


def find_suite(text: str) -> Path:
    """The file that a path or the name of a shipped suite means; a path wins.

    Raises:
        SuiteError: a bare name that no file and no shipped suite has.
    """
    path = Path(text)
    if path.exists() or path.suffix or len(path.parts) > 1:
        return path
    if text not in shipped_suites():
        from vdmini_bench.config.yaml_file import nearest_key

        raise SuiteError(f"no suite {text!r}; {nearest_key(text, shipped_suites())}")
    return shipped_suites()[text]
