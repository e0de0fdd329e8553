"""What L_task means for each kind of teacher: noise levels, what the network is fed, and what it should answer.

A task holds options and no state. All its draws come from the CPU generator it is given and nothing else, for a whole
batch at once, so that every process can draw the batch and take its share.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from vdmini.errors import nearest
from vdmini.tasks.base import Task
from vdmini.tasks.consistency import ConsistencyTask
from vdmini.tasks.edm import EdmTask
from vdmini.tasks.epsilon import EpsilonTask
from vdmini.tasks.flow import FlowTask
from vdmini.tasks.sfv import SfvTask

TASKS: dict[str, type[Task]] = {
    "edm": EdmTask,
    "sfv": SfvTask,
    "consistency": ConsistencyTask,
    "flow": FlowTask,
    "epsilon": EpsilonTask,
}


def make_task(name: str, options: Mapping[str, float | str | None]) -> Task:
    """Make a task by its name, with its published defaults where `options` does not say otherwise.

    Raises:
        ValueError: an unknown task or option, or a value that the option does not take.
    """
    if name not in TASKS:
        raise ValueError(f"unknown task {name!r}{nearest(name, TASKS)}: choose one of {', '.join(TASKS)}")
    kind: Any = TASKS[name]
    defaults = {field.name: field.default for field in fields(kind)}
    for option in options:
        if option not in defaults:
            hint = nearest(option, defaults)
            raise ValueError(f"task {name!r} has no option {option!r}{hint}: its options are {', '.join(defaults)}")
    task: Task = kind(**{option: _value(option, value, defaults[option]) for option, value in options.items()})
    return task


def _value(option: str, value: float | str | None, default: object) -> float | str | None:
    """`value` in the type of the option's default, so that 200.0 is a number of steps; ValueError where it is none."""
    number = value if isinstance(value, int | float) and not isinstance(value, bool) else None
    match default:
        case bool():
            kind = "true or false"
            if value in (0, 1):
                return bool(value)
        case int():
            kind = "a whole number"
            if number is not None and float(number).is_integer():
                return int(number)
        case str():
            kind = "a name"
            if isinstance(value, str):
                return value
        case _:
            kind = "a number" if default is not None else "a number or nothing"
            if number is not None:
                return float(number)
            if value is default:
                return None
    raise ValueError(f"option {option!r} takes {kind}, not {value!r}")
