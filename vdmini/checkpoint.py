"""Checkpoints: a student's safetensors folder with the plan it was pruned by and where it came from."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from vdmini.files import short_name
from vdmini.plan import PruningPlan

if TYPE_CHECKING:
    from diffusers.models.modeling_utils import ModelMixin
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline

PLAN_FILE = "pruning_plan.json"
PROVENANCE_FILE = "provenance.json"
CARD_FILE = "README.md"


def save_student(
    folder: str | Path, model: DiffusionPipeline | ModelMixin, plan: PruningPlan, provenance: Mapping[str, object]
) -> Path:
    """Save a student's pipeline, or its denoiser alone, where `load_model` and diffusers read it from, with its card.

    Returns the folder, which appears whole or not at all. Raises FileExistsError when it exists, TypeError or
    ValueError when the provenance is no JSON object, NotFiniteError when a weight is not finite.
    """
    from vdmini.finite import check_weights
    from vdmini.model_card import model_card

    folder = Path(folder)
    if folder.exists():
        raise FileExistsError(f"{folder} exists already: remove it or save under another name")
    check_weights(model)
    provenance_json = json.dumps(dict(provenance), indent=2, sort_keys=True, allow_nan=False) + "\n"
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(f".{short_name(folder.name)}.{uuid.uuid4().hex}.partial")
    try:
        model.save_pretrained(partial, safe_serialization=True)
        (partial / PLAN_FILE).write_text(plan.to_json(), encoding="utf-8", newline="\n")
        (partial / PROVENANCE_FILE).write_text(provenance_json, encoding="utf-8", newline="\n")
        (partial / CARD_FILE).write_text(model_card(model, plan, provenance), encoding="utf-8", newline="\n")
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def read_plan(folder: str | Path) -> PruningPlan:
    """The plan that a saved student was pruned by; raises FileNotFoundError or PlanError."""
    return PruningPlan.from_json((Path(folder) / PLAN_FILE).read_text(encoding="utf-8"))


def checkpoint_sha256(folder: str | Path) -> str:
    """Identity of a checkpoint: SHA-256 over the names and contents of its weights, configurations and vocabularies.

    Plan and provenance are left out, and so is anything else that loading does not read, such as where it was loaded
    from before. Raises FileNotFoundError when the folder holds no weights.
    """
    folder = Path(folder)
    files = {
        path.relative_to(folder).as_posix(): path
        for path in folder.rglob("*")
        if path.suffix in (".safetensors", ".bin", ".json", ".txt", ".model")
        and path.is_file()
        and path.name not in (PLAN_FILE, PROVENANCE_FILE)
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    }
    if not any(name.endswith((".safetensors", ".bin")) for name in files):
        raise FileNotFoundError(f"{folder} holds no weights: give a folder that save_student wrote")
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(f"{name}\0{_content_sha256(files[name])}\n".encode())
    return digest.hexdigest()


def _content_sha256(path: Path) -> str:
    if path.name in ("config.json", "model_index.json"):
        with contextlib.suppress(ValueError, AttributeError):
            settings = json.loads(path.read_text(encoding="utf-8"))
            # diffusers notes where a part was loaded from: the same checkpoint in another place is the same.
            kept = {name: value for name, value in settings.items() if name != "_name_or_path"}
            return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
