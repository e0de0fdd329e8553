"""The model card of a student: what it was made from, what is left of it, and how it loads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vdmini.plan import PruningPlan

if TYPE_CHECKING:
    from diffusers.models.modeling_utils import ModelMixin
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline

PIPELINE_TAGS = {"never": "text-to-video", "optional": "text-to-video", "always": "image-to-video"}
STAND_IN = (
    "**A stand-in**: its teacher is one of the small models that ship with VDMini, trained on synthetic clips. Nothing"
    " measured of it compares with published models."
)


def model_card(model: DiffusionPipeline | ModelMixin, plan: PruningPlan, provenance: Mapping[str, object]) -> str:
    """A student's `README.md` in the hub's format: front matter in YAML, then the plan in words, sizes and loading.

    Of the provenance `teacher`, `teacher_parameters`, `channels`, `lora`, `distill` and `clips` are told, where given.
    """
    import yaml

    from vdmini.models.hub import is_hub_id
    from vdmini.models.registry import EMBEDDED, family_named

    teacher, family = str(provenance.get("teacher") or ""), family_named(plan.family)
    networks, whole = _denoisers(model)
    images = family.images_for(model) if whole else family.images(networks[0])
    distilled = isinstance(provenance.get("distill"), Mapping)
    front = {
        **({"base_model": teacher} if is_hub_id(teacher) else {}),
        "library_name": "diffusers",
        "pipeline_tag": PIPELINE_TAGS[images],
        "tags": ["vdmini", plan.family, "pruned", *(["distilled"] if distilled else [])],
    }
    # A folder of this machine is nobody else's business.
    told = teacher if is_hub_id(teacher) or teacher in EMBEDDED else Path(teacher).name
    parts = [
        f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---",
        f"# {markdown_text(f'A pruned student of {told}' if told else 'A pruned student')}",
        *([STAND_IN] if teacher in EMBEDDED else []),
        "Made with VDMini, an open implementation of *Individual Content and Motion Dynamics Preserved Pruning for"
        " Video Diffusion Models* ([arXiv 2411.18375](https://arxiv.org/abs/2411.18375)). The teacher's licence holds"
        " for its student.",
        f"## What was done\n\n{_in_words(plan, provenance)}",
        f"## Weights of the denoiser\n\n{_sizes(sum(map(_count, networks)), provenance)}",
        f"## How to load it\n\n{_loading(model, whole)}",
    ]
    return "\n\n".join(parts) + "\n"


def markdown_text(text: str) -> str:
    """A text that markdown shows as it is, on one line."""
    text = " ".join(text.split())
    for special in ("\\", "|", "`", "*", "[", "]", "@"):
        # A backslash does not keep GitHub from notifying the person that @name means.
        text = text.replace(special, f"\\{special}" if special != "@" else "@\u200b")
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _denoisers(model: Any) -> tuple[list[Any], bool]:
    """A pipeline's denoisers, or a model itself, and whether it is a pipeline."""
    from vdmini.models.registry import DENOISERS

    if not hasattr(model, "components"):
        return [model], False
    return [each for name in DENOISERS if (each := getattr(model, name, None)) is not None], True


def _count(network: Any) -> int:
    from vdmini.cost import count_parameters

    return count_parameters(network)


def _in_words(plan: PruningPlan, provenance: Mapping[str, object]) -> str:
    count, blocks = len(plan.kept) + len(plan.removed), ", ".join(plan.removed) or "none"
    lines = [
        *(["An adapter (LoRA) was merged into the teacher."] if provenance.get("lora") else []),
        f"{len(plan.kept)} of its {count} prunable blocks were kept, by the rule {plan.rule}. Removed: {blocks}.",
    ]
    if provenance.get("channels"):
        lines.append(f"Of what was left, channels were removed by the rule {provenance['channels']}.")
    distill = provenance.get("distill")
    if isinstance(distill, Mapping):
        clips = f" on {provenance['clips']} clips" if provenance.get("clips") else ""
        lines.append(f"Then {distill.get('steps')} steps of distillation from the teacher{clips}.")
    else:
        lines.append("It was not retrained: its weights are the teacher's.")
    return "\n".join(f"- {markdown_text(line)}" for line in lines)


def _sizes(after: int, provenance: Mapping[str, object]) -> str:
    before = provenance.get("teacher_parameters")
    if not isinstance(before, int) or before <= 0:
        return f"{after:,}"
    return f"| before | after | left |\n| ---: | ---: | ---: |\n| {before:,} | {after:,} | {after / before:.1%} |"


def _loading(model: Any, whole: bool) -> str:
    if not whole:
        return '```python\nfrom vdmini import load_model\n\ndenoiser = load_model("FOLDER").denoiser\n```'
    name = type(model).__name__
    ours = type(model).__module__.partition(".")[0] == "vdmini"
    first = f"from vdmini import {name}" if ours else "import vdmini  # its classes, which diffusers then finds"
    return (
        f"With the package `vdmini`, where FOLDER is this folder, or its name on the hub:\n\n```python\n{first}\n"
        'from diffusers import DiffusionPipeline\n\npipeline = DiffusionPipeline.from_pretrained("FOLDER")\n```'
    )
