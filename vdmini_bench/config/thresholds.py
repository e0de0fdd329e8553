"""The thresholds file of `gate`: by how much each metric may get worse, in YAML; every error says where it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from vdmini_bench.config.fields import Specification
from vdmini_bench.config.yaml_file import Document, nearest_key
from vdmini_bench.errors import SuiteError

Machines = Literal["same", "any"]
Amount = Annotated[float, Field(ge=0)]
Names = Annotated[list[str], Field(min_length=1)]
DEFAULT = Path(__file__).with_name("default_thresholds.yaml")


class Threshold(Specification):
    """How much worse a metric may be than its baseline; a regression is worse by more than each amount that is given.

    `absolute` is in the metric's unit, `relative` a share of the baseline's size, `standard_errors` a multiple of the
    standard error of the difference. `models` and `machines` are those of the file where not given.
    """

    model_config = ConfigDict(
        json_schema_extra={"anyOf": [{"required": [name]} for name in ("absolute", "relative", "standard_errors")]}
    )

    absolute: Amount | None = None
    relative: Amount | None = None
    standard_errors: Amount | None = None
    models: Names | None = None
    machines: Machines | None = None

    @model_validator(mode="after")
    def _something_is_allowed(self) -> Threshold:
        if self.absolute is None and self.relative is None and self.standard_errors is None:
            raise ValueError("give absolute, relative or standard_errors, or several of them")
        return self


class ThresholdsFile(Specification):
    """A thresholds file as it is written; `models` are names or roles of the rows to gate, all generated when None."""

    version: Literal[1]
    models: Names | None = None
    machines: Machines = "same"
    metrics: dict[str, Threshold]


class _Header(ThresholdsFile):
    metrics: dict[str, dict[str, Any]]  # type: ignore[assignment]


@dataclass(frozen=True)
class Thresholds:
    """The threshold of each metric, complete: with its own `models` and `machines` or the file's."""

    path: Path
    metrics: Mapping[str, Threshold]
    document: Document

    @property
    def is_default(self) -> bool:
        """Whether they are those that come with the package, which name metrics that a run need not have."""
        return self.path == DEFAULT

    def check_names(self, metrics: set[str], models: set[str]) -> None:
        """Refuse metrics and models that neither a run nor its baseline has: a misspelt one would never be gated.

        Raises:
            SuiteError: with file:line:column and the nearest name.
        """
        if self.is_default:
            return
        for metric, threshold in self.metrics.items():
            place = ("metrics", metric)
            if metric not in metrics:
                where, hint = self.document.where(place), nearest_key(metric, sorted(metrics))
                raise SuiteError(f"{where}: neither the run nor the baseline has a metric {metric!r}; {hint}")
            for model in threshold.models or ():
                if model not in models:
                    own = "models" in self.document.data["metrics"][metric]
                    where = self.document.where((*place, "models") if own else ("models",))
                    hint = nearest_key(model, sorted(models))
                    raise SuiteError(f"{where}: neither the run nor the baseline has a model or role {model!r}; {hint}")


def load_thresholds(path: Path | None = None) -> Thresholds:
    """Read a thresholds file, the package's own when None.

    Raises:
        SuiteError: with file:line:column, what is wrong and the nearest valid key.
    """
    path = path or DEFAULT
    document = Document.read(path, "a thresholds file, which is a mapping with version and metrics,")
    header = document.validate(_Header, document.data, ())
    if not header.metrics:
        raise SuiteError(f"{document.where(('metrics',))}: no metric is named, so nothing would be gated")
    found = {}
    for name, data in header.metrics.items():
        threshold = document.validate(Threshold, data, ("metrics", name))
        found[name] = threshold.model_copy(
            update={
                "models": header.models if threshold.models is None else threshold.models,
                "machines": threshold.machines or header.machines,
            }
        )
    return Thresholds(path, found, document)
