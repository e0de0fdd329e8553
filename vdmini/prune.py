"""Pruning: a teacher and a plan become a student that inherits the kept weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from vdmini.blocks import prunable_names
from vdmini.errors import ModelLoadError, PlanError
from vdmini.models.family import Family
from vdmini.models.registry import family_of, pipeline_denoiser, replace_denoiser
from vdmini.plan import PruningPlan, architecture_sha256

if TYPE_CHECKING:
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline

# What diffusers calls the denoiser of the later steps, where a pipeline has one for these.
SECOND_EXPERT = "transformer_2"
# Modules of a student, each with the teacher's that fills it.
Pairs = list[tuple[nn.Module, nn.Module]]


def apply_plan(teacher: nn.Module, plan: PruningPlan) -> nn.Module:
    """The student of a teacher's denoiser: a native network with copies of the kept weights, in their dtype and device.

    The teacher is not changed, and both may be on the meta device. A transformer's student is proved on a small clip to
    be its teacher with the removed blocks bypassed. Raises PlanError when that fails and, before any weight is copied,
    when the plan belongs to another family or architecture, names unknown blocks, or keeps blocks that do not fit
    together.
    """
    family = _checked_family(teacher, plan)
    student, pairs = _empty_student(family, teacher, plan)
    for student_module, teacher_module in pairs:
        weights = {name: tensor.clone() for name, tensor in teacher_module.state_dict().items()}
        student_module.load_state_dict(weights, assign=True)
    student.train(teacher.training)
    family.prove(teacher, student, plan.removed)
    return student


def names_in_student(teacher: nn.Module, plan: PruningPlan) -> tuple[dict[str, str], dict[str, str]]:
    """What every module of a teacher's denoiser is called in its student, and the block of each that the plan removes.

    The teacher may be on the meta device. Raises PlanError as `apply_plan` does.
    """
    family = _checked_family(teacher, plan)
    student, pairs = _empty_student(family, teacher, plan)
    # By the module itself: blocks may also hold views of modules, which have no name.
    old, new = ({module: name for name, module in each.named_modules()} for each in (teacher, student))
    kept = {
        old[before]: new[after]
        for student_module, teacher_module in pairs
        for before, after in zip(teacher_module.modules(), student_module.modules(), strict=True)
        if before in old
    }
    blocks = family.block_modules(teacher)
    parts = [(name, part) for name in plan.removed for module in blocks[name] for part in module.modules()]
    return kept, {old[part]: name for name, part in parts if part in old}


def prune_pipeline(pipeline: DiffusionPipeline, plan: PruningPlan) -> nn.Module:
    """Put the student of a pipeline's denoiser in its place and return it.

    Where the pipeline has a second expert, as Wan 2.2's has for the steps of low noise, the same plan prunes that too.
    Raises PlanError as `apply_plan` does, for either of them, and then leaves the pipeline as it was.
    """
    student = apply_plan(pipeline_denoiser(pipeline), plan)
    second: nn.Module | None = getattr(pipeline, SECOND_EXPERT, None)
    if second is not None:
        setattr(pipeline, SECOND_EXPERT, apply_plan(second, plan))
    replace_denoiser(pipeline, student)
    return student


def _checked_family(teacher: nn.Module, plan: PruningPlan) -> Family:
    try:
        family = family_of(teacher)
    except ModelLoadError as error:
        raise PlanError(f"the plan cannot be applied: {error}") from error
    if plan.family != family.name:
        raise PlanError(
            f"the plan is for family {plan.family!r}, the teacher is of family {family.name!r}: make a new plan"
        )
    identity = architecture_sha256(family.architecture(teacher))
    if plan.teacher != identity:
        raise PlanError(
            f"the plan is for a teacher with configuration {plan.teacher[:12]}, this one has {identity[:12]}:"
            " make a plan for this teacher with make_plan(teacher)"
        )
    stages = family.stage_modules(teacher)
    blocks = prunable_names(family.block_modules(teacher), stages)
    for name in (*plan.kept, *plan.removed):
        if name not in blocks:
            raise PlanError(f"the plan names {name!r}, a block the teacher lacks: its blocks are {', '.join(blocks)}")
    for names, label in ((plan.kept, "kept"), (plan.removed, "removed")):
        other = plan.removed if label == "kept" else plan.kept
        if [*names] != [name for name in blocks if name not in other]:
            raise PlanError(f"{label!r} must list every block that is not in the other list, in the order they run")
    if {*plan.skips} != {*family.skip_wiring(plan.kept)} or len(plan.skips) != len({*plan.skips}):
        raise PlanError(
            f"the plan's skips are not those of its kept blocks: they must be {dict(family.skip_wiring(plan.kept))}"
        )
    return family


def _empty_student(family: Family, teacher: nn.Module, plan: PruningPlan) -> tuple[nn.Module, Pairs]:
    """The student on the meta device, and the pairs that hold every weight of it."""
    with torch.device("meta"):
        student = family.build_student(teacher, plan.kept, plan.removed)
    # Some layers make their tensors on the CPU whatever the default device is.
    student = student.to("meta")
    return student, _paired_modules(family, teacher, student, plan)


def _paired_modules(family: Family, teacher: nn.Module, student: nn.Module, plan: PruningPlan) -> Pairs:
    """(student module, teacher module) with weights of the same shapes, for every weight of the student."""
    renamed = family.student_names(plan.kept, plan.removed)
    student_blocks = family.block_modules(student)
    pairs = []
    for name, teacher_modules in family.block_modules(teacher).items():
        if name in plan.removed:
            continue
        student_modules = student_blocks.pop(renamed.get(name, name))
        for student_module, teacher_module in zip(student_modules, teacher_modules, strict=True):
            if _shapes(student_module) != _shapes(teacher_module):
                raise PlanError(
                    f"block {name} of the teacher does not fit where the student needs it: their weights have other"
                    " shapes, so another block of that stage must be removed"
                )
            pairs.append((student_module, teacher_module))
    if student_blocks:
        raise PlanError(f"nothing of the teacher fills the student's {', '.join(student_blocks)}: keep more blocks")
    return pairs


def _shapes(module: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in module.state_dict().items()}
