"""What an importance study says of a plan: scores by unit, and the plan that keeps the most."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from vdmini.importance import marginal_scores
from vdmini.models.registry import VideoModel
from vdmini.plan import PruningPlan
from vdmini.planner import Target, plan_for_target
from vdmini_bench.errors import SuiteError
from vdmini_bench.models.inspect import inspect_model
from vdmini_bench.models.source import source_sha256
from vdmini_bench.studies.importance import RECORD, Importance, read_importance
from vdmini_bench.system.progress import say


def unit_scores(rows: Sequence[Importance], model: VideoModel, measure: str) -> dict[str, float]:
    """Scores for the planner: what each unit adds to the loss of what it requires, by one of the measures.

    Raises:
        SuiteError: a unit was not measured yet.
    """
    values = {row.name: getattr(row, measure) for row in rows if row.kind == "unit"}
    missing = [unit.name for unit in model.blocks.units if values.get(unit.name) is None]
    if missing:
        raise SuiteError(
            f"importance of {', '.join(missing)} is not measured: run `vdmini-bench importance` to its end"
        )
    return marginal_scores(model.blocks, values)


def plan_from_importance(
    source: str, folder: Path, measure: str, flops: float | None, params: float | None, time: float | None
) -> PruningPlan:
    """The plan that meets the shares given and loses the least of a measure.

    Raises:
        ModelLoadError, SuiteError: the model or the importance cannot be read.
        PlanError: no plan meets the target.
    """
    model = inspect_model(source, None).model
    rows = read_importance(folder)
    _warn_of_others(source, folder)
    seconds = {row.name: row.seconds for row in rows if row.kind == "block"}
    by_unit = {unit.name: sum(seconds.get(name, 0.0) for name in unit.blocks) for unit in model.blocks.units}
    scores = unit_scores(rows, model, measure)
    # Blocks that cannot go take time too, but only what can go was watched: their share is of the prunable blocks.
    return plan_for_target(model, Target(flops, params, time), scores, by_unit, sum(seconds.values()))


def _warn_of_others(source: str, folder: Path) -> None:
    """Say so where the importance is of other weights than `source` holds; of a published name nothing is known."""
    try:
        measured = json.loads((folder / RECORD).read_text(encoding="utf-8"))["checkpoint_sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return
    if source_sha256(source) not in (source, measured):
        say(f"warning: the importance in {folder} was measured on other weights than {source} holds now")
