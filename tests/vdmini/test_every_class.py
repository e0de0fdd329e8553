"""Every denoiser of a video pipeline of the installed diffusers is some family's, or is refused with a reason."""

from __future__ import annotations

import inspect
import json
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from diffusers import Cosmos3OmniTransformer, DiffusionPipeline, ModelMixin
from diffusers.modular_pipelines.modular_pipeline import ModularPipelineBlocks
from torch import nn

from vdmini.errors import ModelLoadError
from vdmini.models.loading import load_model
from vdmini.models.registry import FAMILIES, REFUSED, family_named, family_of
from vdmini.sample import FRAMES

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")
# Families that are still to come.


def classes_of(base: type[Any], ending: str) -> Iterator[type[Any]]:
    """The classes that diffusers offers, by what they derive from and how their names end."""
    for name in dir(diffusers):
        offered = getattr(diffusers, name) if name.endswith(ending) else None
        if isinstance(offered, type) and issubclass(offered, base):
            yield offered


def is_denoiser(native: object) -> bool:
    """Whether a part of a pipeline lies among diffusers' transformers and UNets."""
    if not (isinstance(native, type) and issubclass(native, ModelMixin)):
        return False
    return native.__module__.startswith(("diffusers.models.transformers.", "diffusers.models.unets."))


def denoisers() -> set[str]:
    """The denoisers of all pipelines, modular ones too, that take a number of frames."""
    parts: list[object] = []
    for native in classes_of(DiffusionPipeline, "Pipeline"):
        if {*FRAMES} & {*inspect.signature(native.__call__).parameters}:
            for hint in typing.get_type_hints(native.__init__).values():
                parts += typing.get_args(hint) or [hint]
    for native in classes_of(ModularPipelineBlocks, "Blocks"):
        blocks = native()
        if {*FRAMES} & {given.name for given in blocks.inputs}:
            parts += [part.type_hint for part in blocks.expected_components]
    return {part.__name__ for part in parts if is_denoiser(part)}


def test_every_class_is_covered_or_refused_with_a_reason() -> None:
    covered = {name for family in FAMILIES for name in family_named(family).denoiser_classes()}
    found = denoisers()
    assert {"WanTransformer3DModel", "LTX2VideoTransformer3DModel", "MiniMaxH3Transformer3DModel"} < found
    assert found - covered - {*REFUSED} == set()
    # And nothing is both, or is no class at all.
    assert covered & {*REFUSED} == set()
    assert all(hasattr(diffusers, name) or name.startswith("SanaWM") for name in REFUSED)
    assert all(len(reason) > 20 for reason in REFUSED.values())


def tiny_refused() -> nn.Module:
    with torch.device("meta"):
        return Cosmos3OmniTransformer()


def test_a_refused_class_is_refused_with_its_reason_wherever_it_comes_from(tmp_path: Path) -> None:
    said = r"a Cosmos3OmniTransformer is not supported: its layers are those of a language model"
    with pytest.raises(ModelLoadError, match=said):
        family_of(tiny_refused())
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": "Cosmos3OmniTransformer"}))
    for device in ("cpu", "meta"):
        with pytest.raises(ModelLoadError, match=said):
            load_model(tmp_path, device=device)
    (tmp_path / "model_index.json").write_text(
        json.dumps(
            {
                "_class_name": "Cosmos3OmniPipeline",
                "transformer": ["diffusers", "Cosmos3OmniTransformer"],
                "unet": None,
            }
        )
    )
    with pytest.raises(ModelLoadError, match=said):
        load_model(tmp_path)
