"""Prune a model's denoiser by a plan and a rule for channels."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from vdmini.channels import ChannelRule, RatioError, channel_class, parse_channel_rule, prune_channels
from vdmini.checkpoint import save_student
from vdmini.cost import count_parameters
from vdmini.errors import PlanError
from vdmini.models.registry import VideoModel, family_named, replace_denoiser
from vdmini.plan import PruningPlan
from vdmini.prune import apply_plan, prune_pipeline
from vdmini.rules import make_plan, parse_rule
from vdmini_bench.errors import SuiteError
from vdmini_bench.models.source import source_sha256
from vdmini_bench.system.fingerprint import package_versions
from vdmini_bench.system.text_files import read_text


@dataclass(frozen=True)
class Pruning:
    """All that decides what the pruned student is: a rule or the JSON of a plan, and a rule for channels if any."""

    plan: str
    channels: str | None = None

    @classmethod
    def read(
        cls, rule_or_file: str, channels: str | None = None, family: str = "svd", *, with_data: bool = False
    ) -> Pruning:
        """The pruning that a suite asks for: a rule or a plan's file, and a rule for channels of a family.

        `with_data` says that clips will be there for a rule that ranks channels by a loss.

        Raises:
            SuiteError: no rule has that name, the file is no plan, or the channel rule cannot be used in a run.
        """
        try:
            if rule_or_file.endswith(".json"):
                plan = PruningPlan.from_json(read_text(Path(rule_or_file))).to_json()
            else:
                parse_rule(rule_or_file)
                plan = rule_or_file
        except PlanError as error:
            raise SuiteError(f"plan: {rule_or_file}: {error}") from error
        return cls(plan, None if channels is None else str(read_channel_rule(channels, family, with_data)))

    def __str__(self) -> str:
        # What a job's key holds; neither a rule nor the JSON of a plan holds an empty line.
        return self.plan if self.channels is None else f"{self.plan}\n\nchannels {self.channels}"

    @property
    def needs_data(self) -> bool:
        """Whether channels are ranked by a loss on clips."""
        return self.channels is not None and parse_channel_rule(self.channels).importance == "depgraph-taylor"

    def plan_of(self, teacher: VideoModel) -> PruningPlan:
        """The teacher's plan; raises PlanError where it does not fit."""
        return PruningPlan.from_json(self.plan) if self.plan.startswith("{") else make_plan(teacher, self.plan)

    def apply(
        self, denoiser: nn.Module, plan: PruningPlan, loss: Callable[[nn.Module], Tensor] | None = None
    ) -> nn.Module:
        """The student's denoiser by the plan of its teacher's; `loss` ranks channels where the rule asks for data.

        Raises:
            SuiteError: the plan does not fit the teacher, or the channels cannot go in that share.
        """
        rule = None if self.channels is None else read_channel_rule(self.channels, plan.family, loss is not None)
        return prune_denoiser(denoiser, plan, rule, loss)


def denoiser_parameters(model: VideoModel) -> int:
    """The weights of a model's denoisers, of both where it has two."""
    return sum(count_parameters(expert.denoiser) for expert in model.experts)


def read_channel_rule(text: str, family: str, with_data: bool = False) -> ChannelRule:
    """The channel rule that a text names, for a model of a family; `with_data` where a loss on clips can be had.

    Raises:
        SuiteError: the rule is unknown or needs data, the family's channels cannot go, or Torch-Pruning is missing.
    """
    try:
        rule = parse_channel_rule(text)
    except PlanError as error:
        raise SuiteError(f"channels: {error}") from error
    try:
        channel_class(family_named(family))
    except TypeError as error:
        raise SuiteError(f"channels: {text}: {error}") from error
    if rule.importance == "depgraph-taylor" and not with_data:
        raise SuiteError(
            f"channels: {text}: 'depgraph-taylor' ranks channels by a loss on data, which cannot be given here: name"
            " it in a suite's models, whose training clips it takes, or use depgraph-l2 or magnitude"
        )
    if importlib.util.find_spec("torch_pruning") is None:
        raise SuiteError(f"channels: {text}: Torch-Pruning is not installed: pip install 'vdmini[channels]'")
    return rule


def prune_denoiser(
    denoiser: nn.Module,
    plan: PruningPlan,
    channels: ChannelRule | None,
    loss: Callable[[nn.Module], Tensor] | None = None,
) -> nn.Module:
    """The student that a plan leaves of a denoiser, then narrowed by a channel rule where there is one.

    Raises:
        SuiteError: the plan does not fit the denoiser, or the channels cannot go in that share.
    """
    try:
        return _narrowed(apply_plan(denoiser, plan), channels, loss)
    except (PlanError, RatioError) as error:
        raise SuiteError(str(error)) from error


def prune_into(model: VideoModel, plan: PruningPlan, folder: Path, channels: ChannelRule | None = None) -> nn.Module:
    """Write the pruned model, the whole pipeline where there is one, with its plan and where it came from.

    Returns the student's denoiser.

    Raises:
        SuiteError: the folder exists, the plan does not fit the model, or the channels cannot go in that share.
    """
    provenance = {
        "teacher": model.source,
        "teacher_sha256": source_sha256(model.source),
        "teacher_parameters": denoiser_parameters(model),
        "channels": None if channels is None else str(channels),
        "versions": package_versions(),
    }
    try:
        if model.pipeline is None:
            whole = student = prune_denoiser(model.denoiser, plan, channels)
        else:
            whole = model.pipeline
            student = _narrowed(prune_pipeline(whole, plan), channels)
            replace_denoiser(whole, student)
        save_student(folder, whole, plan, provenance)
    except (PlanError, RatioError, FileExistsError) as error:
        raise SuiteError(str(error)) from error
    return student


def _narrowed(
    student: nn.Module, channels: ChannelRule | None, loss: Callable[[nn.Module], Tensor] | None = None
) -> nn.Module:
    if channels is None:
        return student
    # Channels are ranked in float32, whatever the weights are kept in: rounding would choose among them.
    dtype = next(student.parameters()).dtype
    narrowed = prune_channels(
        student.float(),
        importance=channels.importance,
        ratio=channels.ratio,
        loss=loss,
        pair_gates=channels.pair_gates,
        tolerance=channels.tolerance,
    )
    return nn.Module.to(narrowed, dtype=dtype)
