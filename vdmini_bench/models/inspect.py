"""What a model is made of and what a plan takes from it: blocks, weights and FLOPs, read without weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vdmini.blocks import BlockGraph
from vdmini.channels import ChannelRule
from vdmini.checkpoint import PLAN_FILE, read_plan
from vdmini.models.loading import load_model
from vdmini.models.registry import VideoModel, block_graph, is_published
from vdmini.plan import PruningPlan
from vdmini.rules import make_plan
from vdmini_bench.models.pruning import prune_denoiser, read_channel_rule
from vdmini_bench.system.text_files import read_text


@dataclass(frozen=True)
class Inspection:
    """A denoiser's blocks, and the plan and the channel rule they were looked at under, if any.

    `narrowed` are the blocks of the student that lost both, under its own names; None without a channel rule.
    """

    model: VideoModel
    plan: PruningPlan | None
    channels: ChannelRule | None = None
    narrowed: BlockGraph | None = None

    @property
    def teacher(self) -> BlockGraph:
        """The blocks of the model as it is."""
        return self.model.blocks

    @property
    def student(self) -> BlockGraph | None:
        """The blocks that the plan leaves, under the teacher's names; None without a plan."""
        return None if self.plan is None else self.teacher.without(self.plan.removed)

    def kept(self, block: str) -> bool:
        """Whether the plan keeps a block."""
        return self.plan is None or block not in self.plan.removed

    def to_json(self) -> dict[str, object]:
        """The inspection as plain values; parameters and FLOPs are integers, 1 MAC = 2 FLOP."""
        return {
            "family": self.teacher.family,
            "input": str(self.teacher.input),
            "channels": None if self.channels is None else str(self.channels),
            **{
                name: None if graph is None else {"params": graph.params, "flops": graph.flops}
                for name, graph in (("teacher", self.teacher), ("student", self.student), ("narrowed", self.narrowed))
            },
            "blocks": [
                {
                    "name": block.name,
                    "stage": block.stage,
                    "depth": block.depth,
                    "params": block.params,
                    "flops": block.flops,
                    "kept": self.kept(block.name),
                }
                for block in self.teacher.blocks
            ],
        }


def inspect_model(source: str, rule_or_file: str | None, channels: str | None = None) -> Inspection:
    """Look at a published model by its name, an embedded one or a local folder, under a rule or a plan file.

    A channel rule alone means the plan `none`; what it leaves is found by pruning on the meta device.

    Raises:
        ModelLoadError: the source cannot be read.
        PlanError, SuiteError: the plan or the channel rule does not fit it.
    """
    model = load_model(source, random_weights=is_published(source) and not Path(source).exists(), device="meta")
    if rule_or_file is None and channels is None:
        return Inspection(model, None)
    rule = None if channels is None else read_channel_rule(channels, model.family)
    plan = read_or_make_plan(rule_or_file or "none", model)
    # Without memory a plan costs nothing, and it finds what its own checks cannot: weights that do not fit.
    student = prune_denoiser(model.denoiser, plan, rule)
    return Inspection(model, plan, rule, None if rule is None else block_graph(student, model.blocks.input))


def read_or_make_plan(rule_or_file: str, model: VideoModel) -> PruningPlan:
    """The plan in a `.json` file or of a student's folder, or the one that a rule makes for the model.

    Raises:
        SuiteError: the file cannot be read.
        PlanError: it holds no plan, or the rule does not fit.
    """
    if (Path(rule_or_file) / PLAN_FILE).is_file():
        return read_plan(rule_or_file)
    if not rule_or_file.endswith(".json"):
        return make_plan(model, rule_or_file)
    return PruningPlan.from_json(read_text(Path(rule_or_file)))


def block_lines(inspection: Inspection) -> tuple[list[str], list[list[str]]]:
    """The header and one line a block, then the sums of teacher and student, and of the student with fewer channels."""
    graph, student = inspection.teacher, inspection.student
    header = ["block", "stage", "depth", "params (M)", "GFLOP", "share of FLOPs", *(["plan"] if student else [])]
    lines = [
        [
            block.name,
            block.stage,
            str(block.depth),
            f"{block.params / 1e6:.3f}",
            f"{block.flops / 1e9:.3f}",
            f"{block.flops / graph.flops:.1%}",
            *([("kept" if inspection.kept(block.name) else "removed")] if student else []),
        ]
        for block in graph.blocks
    ]
    for name, whole in (("teacher", graph), ("student", student), ("narrowed", inspection.narrowed)):
        if whole is not None:
            share = f"{whole.flops / graph.flops:.1%}"
            costs = [f"{whole.params / 1e6:.3f}", f"{whole.flops / 1e9:.3f}", share]
            lines.append([name, "", "", *costs, *([f"x{whole.params / graph.params:.3f} params"] if student else [])])
    return header, lines
