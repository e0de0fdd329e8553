"""An ablation as its file says it: a suite, and the keys that each arm changes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from vdmini_bench.config.fields import Positive, Specification
from vdmini_bench.config.suite import Suite, load_suite
from vdmini_bench.config.yaml_file import Document
from vdmini_bench.errors import SuiteError

Scalar = str | int | float | bool | None


class AblationProfile(Specification):
    """One setting of an ablation: the suite's profile, the keys that all arms change, and those that each does."""

    profile: str
    common: dict[str, Scalar] = Field(default_factory=dict)
    training_seeds: Positive
    reference: str
    arms: Annotated[dict[str, dict[str, Scalar]], Field(min_length=2)]


class _Header(Specification):
    name: str
    version: Positive
    suite: str
    default_profile: str
    profiles: dict[str, dict[str, object]]


@dataclass(frozen=True)
class Ablation:
    """An ablation with one profile chosen; `suite` is the file that every arm runs."""

    name: str
    suite: Path
    profile_name: str
    profile: AblationProfile

    @property
    def stand_in(self) -> str | None:
        """What the suite says of numbers that are not comparable with published ones."""
        return self.suite_of(self.profile.reference, 0).profile.stand_in

    def suite_of(self, arm: str, seed: int) -> Suite:
        """The suite that an arm runs with a training seed; raises SuiteError naming the arm."""
        changes = {**self.profile.common, **self.profile.arms[arm], "distill.seed": seed}
        overrides = tuple(f"{key}={json.dumps(value)}" for key, value in changes.items())
        try:
            return load_suite(self.suite, self.profile.profile, overrides)
        except SuiteError as error:
            raise SuiteError(f"arm {arm!r}: {error}") from error


def load_ablation(path: Path, profile: str | None) -> Ablation:
    """Read an ablation and choose its profile, the default one when None.

    Raises:
        SuiteError: with file:line:column, also for an arm that the suite does not take.
    """
    document = Document.read(path)
    header = document.validate(_Header, document.data, ())
    name = profile or header.default_profile
    if name not in header.profiles:
        raise SuiteError(f"{path}: no profile {name!r}: it has {', '.join(header.profiles)}")
    chosen = document.validate(AblationProfile, document.resolve_profile(name), ("profiles", name))
    if chosen.reference not in chosen.arms:
        raise SuiteError(f"{path}: reference {chosen.reference!r} is no arm: it has {', '.join(chosen.arms)}")
    ablation = Ablation(header.name, path.parent / header.suite, name, chosen)
    for arm in chosen.arms:
        ablation.suite_of(arm, 0)
    return ablation
