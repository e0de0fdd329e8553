"""A saved student is read back bit for bit, by vdmini and by diffusers, in another process."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import forked
import pytest
import torch
from diffusers import StableVideoDiffusionPipeline
from torch import Tensor

from vdmini.checkpoint import checkpoint_sha256, read_plan, save_student
from vdmini.models.loading import load_model
from vdmini.plan import PruningPlan
from vdmini.prune import apply_plan

# Each reads a denoiser from the folder argv[1]; the lines after them compare its weights and its output with the saved.
READERS = {
    "from_pretrained": """
from vdmini import VDMiniUNetSpatioTemporal
denoiser, report = VDMiniUNetSpatioTemporal.from_pretrained(sys.argv[1] + "/unet", output_loading_info=True)
assert not any(report.values()), report
""",
    "DiffusionPipeline": """
import vdmini
from diffusers import DiffusionPipeline
denoiser = DiffusionPipeline.from_pretrained(sys.argv[1]).unet
""",
    "load_model": """
from vdmini import load_model
denoiser = load_model(sys.argv[1]).denoiser
""",
}
COMPARE = """
saved = torch.load(sys.argv[2], weights_only=True)
assert type(denoiser).__name__ == "VDMiniUNetSpatioTemporal", type(denoiser)
weights = denoiser.state_dict()
assert weights.keys() == saved["weights"].keys()
assert all(torch.equal(weights[name], tensor) for name, tensor in saved["weights"].items())
with torch.no_grad():
    assert torch.equal(denoiser(**saved["inputs"]).sample, saved["output"])
"""


@pytest.fixture
def student_pipeline(
    tiny_pipeline: StableVideoDiffusionPipeline, tiny_plan: PruningPlan
) -> tuple[StableVideoDiffusionPipeline, PruningPlan]:
    """The tiny pipeline with its pruned denoiser, and the plan."""
    student = apply_plan(tiny_pipeline.unet, tiny_plan)
    components = {**tiny_pipeline.components, "unet": student}
    return StableVideoDiffusionPipeline(**components), tiny_plan


Saved = tuple[StableVideoDiffusionPipeline, PruningPlan]


@torch.no_grad()
@pytest.mark.parametrize("reader", READERS)
def test_another_process_reads_the_same_student(
    student_pipeline: Saved, tiny_inputs: dict[str, Tensor], tmp_path: Path, reader: str
) -> None:
    pipeline, plan = student_pipeline
    folder = save_student(tmp_path / "student", pipeline, plan, {})
    expected = tmp_path / "expected.pt"
    torch.save(
        {
            "weights": pipeline.unet.state_dict(),
            "inputs": tiny_inputs,
            "output": pipeline.unet(**tiny_inputs).sample,
        },
        expected,
    )
    code = "import sys, torch" + READERS[reader] + COMPARE
    done = forked.run("-c", code, folder, expected)
    assert done.returncode == 0, done.stderr
    assert "newly initialized" not in done.stderr
    assert "Expected types" not in done.stderr


def test_the_folder_says_what_it_is(student_pipeline: Saved, tmp_path: Path) -> None:
    pipeline, plan = student_pipeline
    folder = save_student(tmp_path / "deep" / "student", pipeline, plan, {"steps": 10, "teacher": "tiny"})
    assert json.loads((folder / "model_index.json").read_text())["unet"] == ["vdmini", "VDMiniUNetSpatioTemporal"]
    assert json.loads((folder / "provenance.json").read_text()) == {"steps": 10, "teacher": "tiny"}
    assert read_plan(folder) == plan
    assert not list(folder.rglob("*.bin"))
    assert [path.name for path in folder.parent.iterdir()] == ["student"]


def test_a_bare_denoiser_saves_too(student_pipeline: Saved, tmp_path: Path) -> None:
    pipeline, plan = student_pipeline
    folder = save_student(tmp_path / "student", pipeline.unet, plan, {})
    model = load_model(folder)
    assert model.family == "svd"
    assert all(
        torch.equal(model.denoiser.state_dict()[name], each) for name, each in pipeline.unet.state_dict().items()
    )


def test_a_failed_save_leaves_nothing(student_pipeline: Saved, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline, plan = student_pipeline
    for unwritable in ({"rate": float("nan")}, {"module": object()}):
        with pytest.raises((TypeError, ValueError)):
            save_student(tmp_path / "student", pipeline, plan, unwritable)

    def full_disk(folder: Path, **options: object) -> None:
        folder.mkdir()
        raise OSError("no space left on device")

    monkeypatch.setattr(pipeline, "save_pretrained", full_disk)
    with pytest.raises(OSError, match="no space left"):
        save_student(tmp_path / "student", pipeline, plan, {})
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_not_overwritten(student_pipeline: Saved, tmp_path: Path) -> None:
    pipeline, plan = student_pipeline
    (tmp_path / "student").mkdir()
    with pytest.raises(FileExistsError, match="save under another name"):
        save_student(tmp_path / "student", pipeline, plan, {})


def test_the_hash_is_of_weights_and_configurations(student_pipeline: Saved, tmp_path: Path) -> None:
    pipeline, plan = student_pipeline
    first = save_student(tmp_path / "first", pipeline, plan, {"date": "today"})
    second = save_student(tmp_path / "second", pipeline, plan, {"date": "tomorrow"})
    assert checkpoint_sha256(first) == checkpoint_sha256(second)
    copied = tmp_path / "copied"
    for path in sorted((each for each in first.rglob("*") if each.is_file()), reverse=True):
        target = copied / path.relative_to(first)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    assert checkpoint_sha256(copied) == checkpoint_sha256(first)
    config = copied / "unet" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"_name_or_path": "/another/place"}))
    assert checkpoint_sha256(copied) == checkpoint_sha256(first)
    config.write_text(json.dumps(json.loads(config.read_text()) | {"num_frames": 3}))
    assert checkpoint_sha256(copied) != checkpoint_sha256(first)
    shutil.copy(first / "unet" / "config.json", config)
    (copied / "notes.md").write_text("not loaded")
    assert checkpoint_sha256(copied) == checkpoint_sha256(first)
    weights = copied / "unet" / "diffusion_pytorch_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert checkpoint_sha256(copied) != checkpoint_sha256(first)


def test_a_folder_without_weights_has_no_hash(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds no weights"):
        checkpoint_sha256(tmp_path)
