"""The card of a student: front matter that the hub reads, and text in which nothing takes effect."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import yaml
from diffusers import StableVideoDiffusionPipeline

from vdmini.cost import count_parameters
from vdmini.model_card import model_card
from vdmini.models.hub import is_hub_id, source_name
from vdmini.models.registry import EMBEDDED
from vdmini.plan import PruningPlan
from vdmini.prune import apply_plan

TEACHER = "stabilityai/stable-video-diffusion-img2vid"


@pytest.fixture
def student(tiny_pipeline: StableVideoDiffusionPipeline, tiny_plan: PruningPlan) -> StableVideoDiffusionPipeline:
    return StableVideoDiffusionPipeline(
        **tiny_pipeline.components | {"unet": apply_plan(tiny_pipeline.unet, tiny_plan)}
    )


def parts(card: str) -> tuple[dict[str, Any], str]:
    empty, front, text = card.split("---\n", 2)
    assert empty == ""
    return yaml.safe_load(front), text


def test_the_front_matter_and_the_sizes(student: StableVideoDiffusionPipeline, tiny_plan: PruningPlan) -> None:
    after = count_parameters(student.unet)
    provenance = {"teacher": TEACHER, "teacher_parameters": 2 * after, "distill": {"steps": 200}, "clips": 64}
    front, text = parts(model_card(student, tiny_plan, provenance))
    assert front == {
        "base_model": TEACHER,
        "library_name": "diffusers",
        "pipeline_tag": "image-to-video",
        "tags": ["vdmini", "svd", "pruned", "distilled"],
    }
    assert f"| {2 * after:,} | {after:,} | 50.0% |" in text
    assert f"{len(tiny_plan.kept)} of its {len(tiny_plan.kept) + len(tiny_plan.removed)} prunable blocks" in text
    assert all(block in text for block in tiny_plan.removed)
    assert "Then 200 steps of distillation from the teacher on 64 clips." in text
    assert "DiffusionPipeline.from_pretrained" in text
    assert "stand-in" not in text


def test_a_denoiser_alone_and_a_provenance_that_says_nothing(
    student: StableVideoDiffusionPipeline, tiny_plan: PruningPlan
) -> None:
    front, text = parts(model_card(student.unet, tiny_plan, {}))
    assert "base_model" not in front
    assert front["pipeline_tag"] == "image-to-video"
    assert 'load_model("FOLDER").denoiser' in text
    assert f"{count_parameters(student.unet):,}" in text


def test_odd_texts_stay_texts(student: StableVideoDiffusionPipeline, tiny_plan: PruningPlan) -> None:
    odd = "<script>alert(1)</script>\n---\nlicense: mit\n# [click](http://x) `code` @somebody | é"
    plan = replace(tiny_plan, rule=odd)
    front, text = parts(model_card(student, plan, {"teacher": f"/home/somebody/{odd}", "channels": odd}))
    assert front.keys() == {"library_name", "pipeline_tag", "tags"}
    for taken in ("<script", "[click]", "`code`", "@somebody", "\n# [", "\nlicense", "/home/somebody"):
        assert taken not in text, taken


def test_a_source_is_called_what_others_call_it() -> None:
    name, folder = next(iter(EMBEDDED.items()))
    assert source_name(folder) == name
    assert source_name(f"/cache/models--{TEACHER.replace('/', '--')}/snapshots/abc") == TEACHER
    assert source_name("/models/my-svd") == "/models/my-svd"
    assert [is_hub_id(each) for each in (TEACHER, name, "svd", "/models/my-svd", "../a")] == [True, *[False] * 4]
