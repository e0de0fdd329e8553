"""The house stays a house: no circle of imports, nothing imports upward, few files lie in the root."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("vdmini", "vdmini_bench")
# The rooms of `vdmini_bench`, from the ground up: a room imports from itself and from those before it.
LAYERS = (
    "errors", "system", "assets", "data", "results", "models", "config", "metrics", "vbench", "speed", "distill",
    "compare", "suites", "report", "votes", "runs", "studies", "embedded", "commands", "cli", "gpu", "__main__",
)  # fmt: skip
LONGEST = 350
MOST_IN_ROOT = 6


@cache
def modules() -> dict[str, Path]:
    """All modules of both packages by their dotted names."""
    found = {}
    for path in sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(name: str) -> Iterator[str]:
    """The modules of ours that a module imports: inside functions and under TYPE_CHECKING too."""
    for node in ast.walk(ast.parse(modules()[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            asked = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: a relative import"
            whole = [f"{node.module}.{alias.name}" for alias in node.names]
            asked = [each if each in modules() else str(node.module) for each in whole]
        else:
            continue
        yield from (each for each in asked if each in modules() and each != name)


def room(name: str) -> str:
    return ([*name.split("."), ""])[1]


def test_no_modules_import_each_other_in_a_circle() -> None:
    try:
        TopologicalSorter({name: set(imports(name)) for name in modules()}).prepare()
    except CycleError as error:
        pytest.fail(f"a circle of imports: {' -> '.join(error.args[1])}")


def test_the_library_knows_nothing_of_the_harness() -> None:
    library = [name for name in modules() if name.split(".")[0] == "vdmini"]
    assert library
    assert {each for name in library for each in imports(name) if each.startswith("vdmini_bench")} == set()


def test_every_room_is_listed_and_imports_from_itself_and_below_alone() -> None:
    harness = [name for name in modules() if name.startswith("vdmini_bench.")]
    assert {room(name) for name in harness} == {*LAYERS}
    upward = [
        f"{name} -> {each}"
        for name in harness
        for each in imports(name)
        if each.startswith("vdmini_bench.") and LAYERS.index(room(each)) > LAYERS.index(room(name))
    ]
    assert upward == []


def test_few_files_lie_in_the_root_and_none_is_long() -> None:
    assert len([*(ROOT / "vdmini_bench").glob("*.py")]) <= MOST_IN_ROOT
    lengths = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in modules().items()}
    assert {name: length for name, length in lengths.items() if length > LONGEST} == {}


def test_nothing_in_the_wheel_imports_what_it_leaves_out() -> None:
    build = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"]
    excluded = [{*ROOT.glob(pattern)} for pattern in build["targets"]["wheel"]["exclude"]]
    assert all(excluded)
    left_out = {name for name, path in modules().items() if path in set.union(*excluded)}
    needed = {(name, each) for name in modules().keys() - left_out for each in imports(name) if each in left_out}
    assert needed == set()
