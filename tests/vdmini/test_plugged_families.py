"""Families of other packages, found by their entry points."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import WanTransformer3DModel

from vdmini import load_model, make_plan
from vdmini.errors import ModelLoadError
from vdmini.models import registry
from vdmini.models.registry import family_named, family_of, plugged_families
from vdmini.models.wan import Wan


class TheirTransformer(WanTransformer3DModel):
    """A class that no family of ours has."""


class TheirFamily(Wan):
    name = "theirs"
    denoiser_class = TheirTransformer


class Impostor(TheirFamily):
    name = "wan"


THEIRS, IMPOSTOR = TheirFamily(), Impostor()


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[EntryPoint]]:
    points: list[EntryPoint] = []
    monkeypatch.setattr(registry, "entry_points", lambda group: points if group == "vdmini.families" else [])
    plugged_families.cache_clear()
    yield points
    plugged_families.cache_clear()


def transformer(native: Any) -> Any:
    return native(
        num_attention_heads=2, attention_head_dim=12, text_dim=16, freq_dim=16, ffn_dim=32, num_layers=4,
        rope_max_seq_len=64,
    )  # fmt: skip


def test_a_plugged_family_loads_and_plans_its_models(tmp_path: Path, installed: list[EntryPoint]) -> None:
    installed.append(EntryPoint("theirs", f"{__name__}:THEIRS", registry.PLUGINS))
    torch.manual_seed(0)
    transformer(TheirTransformer).save_pretrained(tmp_path / "theirs")
    model = load_model(str(tmp_path / "theirs"))
    assert model.family == "theirs"
    assert make_plan(model, "every-nth:n=2").removed == ("Block.1", "Block.3")
    assert family_named("theirs") is THEIRS
    assert family_of(transformer(WanTransformer3DModel)).name == "wan"


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("wan", f"{__name__}:IMPOSTOR", "no Family of its own named 'wan'"),
        ("other", f"{__name__}:THEIRS", "no Family of its own named 'other'"),
        ("broken", "no_such_package:FAMILY", "cannot be loaded"),
    ],
)
def test_what_is_no_family_of_its_own_is_named(installed: list[EntryPoint], name: str, value: str, said: str) -> None:
    installed.append(EntryPoint(name, value, registry.PLUGINS))
    with pytest.raises(ModelLoadError, match=said):
        plugged_families()
