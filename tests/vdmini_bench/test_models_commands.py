"""Each step of a run works alone: inspect, prune, sample, importance, plan."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from diffusers import UNetSpatioTemporalConditionModel, WanTransformer3DModel
from number_formats import FAST_BFLOAT16
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from vdmini.finite import NotFiniteError
from vdmini.models.loading import load_model
from vdmini.models.registry import EMBEDDED
from vdmini.rules import plan_removing
from vdmini.sample import sample_clips
from vdmini_bench.cli import main
from vdmini_bench.data.requests import (
    choose_requests,
    choose_settings,
    drawn_requests,
    image_requests,
    parse_seeds,
    prompt_requests,
)
from vdmini_bench.data.video import read_frames
from vdmini_bench.errors import SuiteError
from vdmini_bench.metrics.fvd import FVD_VERSION
from vdmini_bench.models.inspect import inspect_model
from vdmini_bench.models.pruning import prune_denoiser, read_channel_rule
from vdmini_bench.models.source import load_for_use
from vdmini_bench.studies.importance import parse_shard

# diffusers' schedulers meet numpy 2 that way.
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)
FAST = ("--steps", "1", "--frames", "9")
# Its normalisation groups hold two or three channels, so that about half of them can go and little else.
HALF = "depgraph-l2:ratio=0.5,pair_gates=1"

TWO_STAGES = {
    "sample_size": 8,
    "down_block_types": ("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
    "up_block_types": ("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
    "block_out_channels": (64, 64),
    "layers_per_block": 1,
    "num_attention_heads": (1, 2),
    "cross_attention_dim": 32,
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 24,
    "num_frames": 4,
}

# Weights mapped from a file lie at any address, and the last bit of a matrix product may depend on the address.
SAMPLER = """
import copy
import sys
import numpy
import torch
from vdmini.models.loading import load_model
from vdmini.sample import sample_clips
from vdmini_bench.data.requests import choose_settings, drawn_requests
pipeline = load_model(sys.argv[1], dtype=torch.float32).pipeline
pipeline.unet = copy.deepcopy(pipeline.unet)
settings = choose_settings("embedded/svd", {"steps": 2, "frames": 9})
numpy.save(sys.argv[2], sample_clips(pipeline, drawn_requests(1), settings))
"""


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)


def test_inspect_json_has_the_published_sizes() -> None:
    found = json.loads(invoke("inspect", "svd", "--plan", "vdmini", "--json").stdout)
    assert found["family"] == "svd"
    assert found["teacher"]["params"] == 1_524_623_082
    assert found["student"]["params"] == 939_884_186
    assert sum(block["params"] for block in found["blocks"]) == found["teacher"]["params"]
    assert sum(block["flops"] for block in found["blocks"] if block["kept"]) == found["student"]["flops"]


def test_inspect_predicts_a_pass_on_a_card_and_says_that_it_is_a_prediction() -> None:
    arguments = ("inspect", "embedded/wan", "--plan", "every-nth:n=3", "--card", "a100-80gb")
    found = json.loads(invoke(*arguments, "--json").stdout)
    blocks = [block for block in found["blocks"] if block["stage"] not in ("embeddings", "output")]
    # All blocks are alike, so a third of them less is what the plan saves but for what stands around them.
    assert len(blocks) == 12
    assert 1.3 < found["predicted"]["speedup"] < 1.5
    assert found["predicted"]["teacher_ms"] > 1000 * found["teacher"]["flops"] / 312e12
    assert "by its data sheet, not measured" in invoke(*arguments).stdout
    assert "choose one of h200" in invoke("inspect", "svd", "--card", "tpu").output


def test_inspect_draws_a_picture_of_an_embedded_model(tmp_path: Path) -> None:
    result = invoke("inspect", "embedded/svd", "--plan", "bk-small", "--picture", tmp_path / "blocks.png")
    assert result.exit_code == 0, result.output
    assert "removed" in result.output
    with Image.open(tmp_path / "blocks.png") as picture:
        assert min(picture.size) > 300
        assert len(np.unique(np.asarray(picture.convert("RGB")).reshape(-1, 3), axis=0)) > 20


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("inspect", "no/such/folder"), "no/such/folder"),
        (("inspect", "svd", "--plan", "vdmin"), "did you mean 'vdmini'"),
        (("inspect", "svd", "--plan", "absent.json"), "absent.json: cannot be read"),
        (("prune", "svd", "-o", "out"), "names a published model, not weights"),
        (("sample", "embedded/svd", "--seeds", "3-1", "-o", "out", "--images", "."), "a range must not run backwards"),
        (("sample", "embedded/svd", "--prompts", "p", "--images", ".", "-o", "out"), "holds no images"),
        (("sample", "elsewhere", "--images", ".", "-o", "out"), "holds no images"),
        (("sample", "embedded/svd", "--size", "32", "-o", "out"), "--size"),
        (("importance", "embedded/svd", "--shard", "5/4", "-o", "out"), "--shard"),
        (("importance", "embedded/svd", "--frames", "8", "-o", "out"), "needs clips of 9 or more"),
        (("plan", "embedded/svd", "--importance", ".", "--flops", "0.7", "-o", "out.json"), "no importance"),
        (("prune", "embedded/svd", "--channels", "depgraph-l3", "-o", "out"), "did you mean 'depgraph-l2'"),
        (("prune", "embedded/svd", "--channels", "depgraph-taylor", "-o", "out"), "name it in a suite"),
        (("prune", "embedded/svd", "--channels", "depgraph-l2:ratio=0.2", "-o", "out"), "asked to remove 0.200"),
        (("inspect", "ltx", "--channels", "magnitude"), "this model is of family 'ltx'"),
    ],
)
def test_wrong_arguments_end_with_code_2_and_say_what_to_do(
    arguments: tuple[str, ...], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = invoke(*arguments)
    assert result.exit_code == 2, result.output
    assert said in result.output
    assert not list(tmp_path.iterdir())


def test_prune_then_sample_and_sample_again(tmp_path: Path) -> None:
    student = tmp_path / "student"
    result = invoke("prune", "embedded/svd", "-o", student)
    assert result.exit_code == 0, result.output
    assert "FLOPs x0.6" in result.output
    assert invoke("prune", "embedded/svd", "-o", student).exit_code == 2, "an existing folder is never written over"
    model = load_model(student)
    assert json.loads((student / "provenance.json").read_text())["teacher"] == "embedded/svd"
    assert model.blocks.params < load_model("embedded/svd", device="meta").blocks.params

    images, clips = tmp_path / "images", tmp_path / "clips"
    images.mkdir()
    for name, request in zip(("a", "b"), drawn_requests(2), strict=True):
        request.picture().save(images / f"{name}.png")
    sampling = ("sample", student, "--images", images, "--seeds", "0,4", *FAST, "--size", "32x32", "-o", clips)
    result = invoke(*sampling)
    assert result.exit_code == 0, result.output
    files = sorted(path.name for path in clips.glob("*.mp4"))
    assert files == ["a-0.mp4", "a-4.mp4", "b-0.mp4", "b-4.mp4"]
    assert read_frames(clips / "a-0.mp4", 9).shape == (9, 32, 32, 3)
    record = json.loads((clips / "samples.json").read_text())
    assert [(clip["name"], clip["seed"]) for clip in record["clips"]][1] == ("a-4", 4)

    before = {name: (clips / name).stat().st_mtime_ns for name in files}
    (clips / "b-4.mp4").unlink()
    assert invoke(*sampling, "--batch-size", "8").exit_code == 0
    assert sorted(path.name for path in clips.glob("*.mp4")) == files
    assert {name: (clips / name).stat().st_mtime_ns for name in files} != before, (
        "the batch with the gap is whole again"
    )
    changes = [(("--guidance", "2"), "settings"), (("--dtype", "bfloat16"), "dtype")]
    for change, name in changes if FAST_BFLOAT16 else changes[:1]:
        other = invoke(*sampling[:-1], clips, *change)
        assert other.exit_code == 0
        assert f"holds clips of another {name}" in other.output
        assert "4 of them made now" in other.output


def test_channels_go_after_blocks_and_the_student_samples_in_another_process(tmp_path: Path) -> None:
    folder = tmp_path / "student"
    result = invoke("prune", "embedded/svd", "--channels", HALF, "-o", folder)
    assert result.exit_code == 0, result.output
    inspection = inspect_model("embedded/svd", "vdmini")
    assert inspection.plan is not None
    teacher = load_model("embedded/svd", dtype=torch.float32)
    assert teacher.pipeline is not None
    teacher.pipeline.unet = prune_denoiser(teacher.denoiser, inspection.plan, read_channel_rule(HALF, "svd"))
    expected = sample_clips(
        teacher.pipeline, drawn_requests(1), choose_settings("embedded/svd", {"steps": 2, "frames": 9})
    )
    done = subprocess.run(
        [sys.executable, "-c", SAMPLER, folder, tmp_path / "clips.npy"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert np.array_equal(np.load(tmp_path / "clips.npy"), expected)

    seen = json.loads(invoke("inspect", folder, "--json").stdout)
    before = inspection.teacher
    assert f"{before.params / 1e6:,.3f} M to {seen['teacher']['params'] / 1e6:,.3f} M weights" in result.output
    assert f"FLOPs x{seen['teacher']['flops'] / before.flops:.3f} at" in result.output
    assert seen["teacher"]["params"] < 0.35 * inspection.teacher.without(inspection.plan.removed).params
    assert json.loads((folder / "provenance.json").read_text())["channels"] == HALF
    assert json.loads((folder / "pruning_plan.json").read_text())["rule"] == "vdmini"
    refused = invoke("inspect", folder, "--plan", "bk-base")
    assert refused.exit_code == 2
    images = tmp_path / "images"
    images.mkdir()
    drawn_requests(1)[0].picture().save(images / "a.png")
    clips = tmp_path / "clips"
    result = invoke("sample", folder, "--images", images, *FAST, "--size", "32x32", "-o", clips)
    assert result.exit_code == 0, result.output
    assert read_frames(clips / "a-0.mp4", 9).shape == (9, 32, 32, 3)


def test_the_text_teacher_loses_channels_too_and_samples(tmp_path: Path) -> None:
    folder, rule = tmp_path / "student", "depgraph-l2:ratio=0.3,tolerance=0.1"
    result = invoke("prune", "embedded/t2v", "--channels", rule, "-o", folder)
    assert result.exit_code == 0, result.output
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a red square moves right\n")
    options = ("--steps", "2", "--frames", "3", "--size", "32x32", "--dtype", "float32", "-o", tmp_path / "clips")
    result = invoke("sample", folder, "--prompts", prompts, *options)
    assert result.exit_code == 0, result.output
    (clip,) = (tmp_path / "clips").glob("*.mp4")
    assert read_frames(clip, 3).shape == (3, 32, 32, 3)


def test_channels_alone_are_inspected_without_weights_and_pruned(tmp_path: Path) -> None:
    """Without weights the last channels go: as many of each layer as with them, where gates go with their values."""
    teacher, student = tmp_path / "teacher", tmp_path / "student"
    UNetSpatioTemporalConditionModel(**TWO_STAGES).save_pretrained(teacher)
    found = json.loads(invoke("inspect", teacher, "--channels", HALF, "--json").stdout)
    assert found["channels"] == HALF
    assert found["student"] == found["teacher"]
    assert all(block["kept"] for block in found["blocks"])
    result = invoke("prune", teacher, "--plan", "none", "--channels", HALF, "-o", student)
    assert result.exit_code == 0, result.output
    weightless = load_model(student, device="meta").blocks
    assert found["narrowed"] == {"params": weightless.params, "flops": weightless.flops}
    table = invoke("inspect", teacher, "--channels", HALF).stdout
    (narrowed,) = [line.split() for line in table.splitlines() if "narrowed" in line]
    assert f"{weightless.params / 1e6:.3f}" in narrowed
    assert "pair_gates=1" in table
    refused = invoke("inspect", student, "--plan", str(plan_without_middle(student, tmp_path)))
    assert refused.exit_code == 2
    assert "prune blocks first, then channels" in refused.output


def test_channels_without_torch_pruning_say_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    result = invoke("prune", "embedded/svd", "--channels", HALF, "-o", tmp_path / "student")
    assert result.exit_code == 2
    assert "pip install 'vdmini[channels]'" in result.output
    assert not list(tmp_path.iterdir())


def plan_without_middle(model: Path, folder: Path) -> Path:
    """A plan file that takes the middle block of a saved model."""
    plan = plan_removing(load_model(model, device="meta"), {"Mid"}, "by hand")
    (folder / "plan.json").write_text(plan.to_json())
    return folder / "plan.json"


@pytest.mark.usefixtures("small_network")
def test_importance_resumes_shards_and_gives_a_plan(tmp_path: Path) -> None:
    folder = tmp_path / "importance"
    command = ("importance", "embedded/svd", "--clips", 2, *FAST, "-o", folder)
    first = invoke(*command, "--shard", "1/16")
    assert first.exit_code == 0, first.output
    rows = folder / "rows"
    part = {path.name: path.stat().st_mtime_ns for path in rows.iterdir()}
    whole = invoke(*command)
    assert whole.exit_code == 0, whole.output
    assert {name: (rows / name).stat().st_mtime_ns for name in part} == part, "nothing is measured twice"
    assert "units, motion against depth: rank correlation" in whole.output
    printed = json.loads(invoke(*command, "--json").stdout)
    motion = printed["correlations_with_depth"]["unit"]["motion"]
    assert f"units, motion against depth: rank correlation {motion['value']:+.2f}" in whole.output
    assert printed["rows"] == len(list(rows.iterdir()))
    with (folder / "importance.csv").open() as file:
        table = list(csv.DictReader(file))
    graph = load_model("embedded/svd", device="meta").blocks
    assert [row["name"] for row in table] == [*graph.prunable, *(unit.name for unit in graph.units)]
    measured = [row for row in table if row["content"]]
    assert all(float(row["content"]) > 0 for row in measured)
    assert all(float(row["flow_magnitude"]) <= float(row["flow"]) + 1e-9 for row in measured)
    # Without one of the deepest blocks a single pixel changes, and no flow.
    moved = [row for row in measured if float(row["content"]) > 2e-5]
    assert len(moved) >= len(measured) - 1
    assert all(float(row["flow_magnitude"]) > 0 and float(row["frechet_motion"]) > 0 for row in moved)
    # Without its first blocks the small teacher gives noise, which changes more from frame to frame than clips do.
    assert max(float(row["flicker"]) for row in measured) > 0
    assert {row["dynamic_degree"] for row in table if not row["content"]} == {""}
    assert (folder / "importance.png").stat().st_size > 10_000
    assert json.loads((folder / "importance.json").read_text())["network"] == FVD_VERSION
    other = invoke(*command, "--steps", "2")
    assert other.exit_code == 2
    assert "another folder" in other.output

    plan = tmp_path / "plan.json"
    result = invoke("plan", "embedded/svd", "--importance", folder, "--by", "motion", "--flops", "0.8", "-o", plan)
    assert result.exit_code == 0, result.output
    inspected = json.loads(invoke("inspect", "embedded/svd", "--plan", plan, "--json").stdout)
    again = ("plan", "embedded/svd", "--importance", folder, "--by", "motion", "--flops", "0.8", "-o", plan, "--json")
    removed = [block["name"] for block in inspected["blocks"] if not block["kept"]]
    assert json.loads(invoke(*again).stdout) == {"removed": removed, "output": str(plan)}
    assert inspected["student"]["flops"] <= 0.8 * inspected["teacher"]["flops"]
    hopeless = invoke("plan", "embedded/svd", "--importance", folder, "--flops", "0.01", "-o", plan)
    assert hopeless.exit_code == 2
    assert "cannot be met" in hopeless.output


@pytest.mark.usefixtures("small_network")
def test_importance_goes_on_where_one_candidate_gives_no_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, calls = tmp_path / "importance", list[int]()

    def sample(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise NotFiniteError("clip '00000': its latents are not finite from denoising step 1 of 1 on")
        return sample_clips(*arguments)

    command = ("importance", "embedded/svd", "--clips", 2, *FAST, "--shard", "1/16", "-o", folder)
    with monkeypatch.context() as patched:
        patched.setattr("vdmini_bench.studies.importance.sample_clips", sample)
        failed = invoke(*command)
    assert failed.exit_code == 4
    first = load_model("embedded/svd", device="meta").blocks.prunable[0]
    assert f"without block {first}: clip '00000': its latents are not finite" in failed.output
    assert len(calls) - 2 == len(list((folder / "rows").iterdir()))
    assert not (folder / "rows" / f"block-{first}.json").exists()
    assert invoke(*command).exit_code == 0
    assert (folder / "rows" / f"block-{first}.json").exists()


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded teacher with one weight of its decoder that is no number."""
    folder = tmp_path_factory.mktemp("broken") / "model"
    shutil.copytree(EMBEDDED["embedded/svd"], folder)
    (file,) = (folder / "vae").glob("*.safetensors")
    weights = load_file(file)
    weights["decoder.conv_in.bias"][0] = float("nan")
    save_file(weights, file, metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize("command", ["sample", "prune", "importance", "time"])
def test_a_weight_that_is_no_number_fails_by_its_name(command: str, broken: Path, tmp_path: Path) -> None:
    drawn_requests(1)[0].picture().save(tmp_path / "a.png")
    sampled = ("--images", tmp_path, "--seeds", "0-5", *FAST, "--size", "32x32")
    options = {"prune": (), "time": ("--plan", "vdmini")}
    done = invoke(command, broken, *options.get(command, sampled), "-o", tmp_path / "out")
    assert done.exit_code == 4, done.output
    assert "vae.decoder.conv_in.bias: 1 of " in done.output
    assert not [path for path in tmp_path.rglob("out/**/*") if path.is_file() and path.name != "importance.json"]


def test_an_image_whose_clip_could_have_no_name_is_refused_first(tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    drawn_requests(1)[0].picture().save(images / f"{'x' * 249}.png")
    assert [len(each.name) for each in image_requests(images, [5])] == [251]
    refused = invoke("sample", "embedded/svd", "--images", images, "--seeds", "10", *FAST, "-o", tmp_path / "clips")
    assert refused.exit_code == 2
    assert "at most 255 bytes" in refused.output
    assert not (tmp_path / "clips").exists()


def test_requests_come_in_a_fixed_order(tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("a red disc\n\na blue ring\n")
    requests = prompt_requests(tmp_path / "prompts.txt", [3, 1])
    assert [(each.name, each.seed, each.prompt) for each in requests] == [
        ("0000-3", 3, "a red disc"),
        ("0000-1", 1, "a red disc"),
        ("0001-3", 3, "a blue ring"),
        ("0001-1", 1, "a blue ring"),
    ]
    assert parse_seeds("0-2,9") == [0, 1, 2, 9]
    assert parse_shard("2/4") == (2, 4)
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(SuiteError, match=r"broken\.png is no image"):
        image_requests(tmp_path, [0])
    many = drawn_requests(75)
    assert len({request.picture().tobytes() for request in many}) == 75


@pytest.fixture
def half_folder(tmp_path: Path) -> Path:
    """The embedded teacher, whose weights are float16, as the variant fp16 alone."""
    folder = tmp_path / "half"
    shutil.copytree(EMBEDDED["embedded/svd"], folder)
    for file in folder.rglob("*.safetensors"):
        file.rename(file.with_name(f"{file.stem}.fp16.safetensors"))
    return folder


def formats_in(folder: Path) -> set[str]:
    """The formats of all weights in a folder, from the headers of its files."""
    found = set()
    for path in folder.rglob("*.safetensors"):
        with safe_open(path, "np") as file:
            found |= {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118 - not a mapping
    return found


def test_prune_keeps_the_number_format_of_the_files_unless_told_another(half_folder: Path, tmp_path: Path) -> None:
    done = invoke("prune", half_folder, "-o", tmp_path / "kept")
    assert done.exit_code == 0, done.output
    assert "its denoiser in float16" in done.stdout
    assert formats_in(tmp_path / "kept") == {"F16"}
    assert invoke("prune", half_folder, "--dtype", "bfloat16", "-o", tmp_path / "other").exit_code == 0
    assert formats_in(tmp_path / "other") == {"BF16"}


def test_what_computes_on_a_cpu_takes_float32_for_float16(half_folder: Path) -> None:
    assert str(load_for_use(str(half_folder), device="cpu").denoiser.dtype) == "torch.float32"
    assert str(load_for_use(str(half_folder), "bfloat16", "cpu").denoiser.dtype) == "torch.bfloat16"
    for file in half_folder.rglob("*.safetensors"):
        save_file({name: value.bfloat16() for name, value in load_file(file).items()}, file, {"format": "pt"})
    assert str(load_for_use(str(half_folder), device="cpu").denoiser.dtype) == "torch.bfloat16"


@pytest.mark.parametrize("command", ["prune", "sample", "importance", "time"])
@pytest.mark.parametrize(("device", "code"), [("cuda:99", 6), ("gpu", 2), ("meta", 2)])
def test_a_device_that_is_not_there_is_refused(command: str, device: str, code: int, tmp_path: Path) -> None:
    done = invoke(command, "embedded/svd", "--device", device, "-o", tmp_path / "out")
    assert done.exit_code == code, done.output
    assert done.stderr.startswith(f"error: --device {device}: ")
    assert "Traceback" not in done.output


@pytest.mark.parametrize(
    "command",
    [
        ("inspect",),
        ("prune", "-o", "out"),
        ("sample", "--prompts", "prompts.txt", "--steps", "1", "--frames", "5", "--size", "32x32", "-o", "out"),
        ("importance", "--prompts", "prompts.txt", "--steps", "1", "--frames", "9", "--size", "32x32", "-o", "out"),
        ("time",),
    ],
)
def test_nothing_is_fetched_unless_download_says_so(
    command: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("socket.getaddrinfo", refuse)
    Path("prompts.txt").write_text("a\nb\n")
    name, *options = command
    done = invoke(name, "owner/model", *options)
    assert done.exit_code == 2, done.output
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error")]
    assert "'owner/model' is neither a folder nor in the local hub cache" in line
    assert "--download" in line

    def listed(self: object, repository: str) -> list[str]:
        raise OSError(f"{repository} was asked for")

    monkeypatch.setattr("huggingface_hub.HfApi.list_repo_files", listed)
    done = invoke(name, "owner/model", *options, "--download")
    assert done.exit_code == 2, done.output
    assert "owner/model was asked for" in done.stderr
    # What needs no network is not looked for there.
    assert invoke("inspect", "embedded/svd", "--download").exit_code == 0


@pytest.fixture
def wan(tmp_path: Path) -> tuple[Path, Path, Path]:
    """The configurations of a tiny Wan, what says how its student was pruned, and a LoRA of two of its blocks."""
    teacher, student, file = tmp_path / "teacher", tmp_path / "student", tmp_path / "lora.safetensors"
    denoiser = WanTransformer3DModel(num_attention_heads=2, attention_head_dim=12, ffn_dim=32, num_layers=4, text_dim=8)
    denoiser.save_config(teacher / "transformer")
    (teacher / "model_index.json").write_text('{"_class_name": "WanPipeline"}')
    student.mkdir()
    (student / "pruning_plan.json").write_text(plan_removing(denoiser, ["Block.1"], "mine").to_json())
    (student / "provenance.json").write_text(json.dumps({"teacher": str(teacher)}))
    halves = {"lora_down": torch.ones(4, 24), "lora_up": torch.ones(24, 4), "diff_b": torch.ones(24)}
    names = {half: half if half == "diff_b" else f"{half}.weight" for half in halves}
    content = {
        f"diffusion_model.blocks.{block}.self_attn.q.{names[half]}": each.clone() * block
        for block in (1, 3)
        for half, each in halves.items()
    }
    save_file(content | {"diffusion_model.blocks.1.norm3.diff": torch.zeros(24)}, file)
    return teacher, student, file


def test_lora_map_writes_the_students_and_says_what_is_left_out(wan: tuple[Path, Path, Path], tmp_path: Path) -> None:
    teacher, student, file = wan
    result = invoke("lora", "map", file, "--plan", student, "-o", tmp_path / "out" / "mapped.safetensors", "--json")
    layer, kinds = "transformer.blocks.{}.attn1.to_q.{}", ("lora_A.weight", "lora_B.bias", "lora_B.weight")
    found = json.loads(result.stdout)
    assert {block: sorted(keys) for block, keys in found["removed"].items()} == {
        "Block.1": [layer.format(1, kind) for kind in kinds]
    }
    assert (found["mapped"], found["unread"]) == (3, ["diffusion_model.blocks.1.norm3.diff"])
    mapped = load_file(tmp_path / "out" / "mapped.safetensors")
    # The fourth block is the student's third.
    assert sorted(mapped) == [layer.format(2, kind) for kind in kinds]
    assert all((weight == 3).all() for weight in mapped.values())
    plan, other = student / "pruning_plan.json", tmp_path / "other.safetensors"
    lines = invoke("lora", "map", file, "--plan", plan, "--teacher", teacher, "-o", other).output.splitlines()
    assert lines[:2] == ["3 keys mapped", "3 left out with Block.1"]
    assert lines[2].startswith("1 left out that diffusers does not read: diffusion_model.blocks.1.norm3.diff")
    assert load_file(other).keys() == mapped.keys()


def test_lora_map_refuses_what_it_cannot_map(wan: tuple[Path, Path, Path], tmp_path: Path) -> None:
    _, student, file = wan
    out = ("-o", tmp_path / "mapped.safetensors")
    result = invoke("lora", "map", file, "--plan", student / "pruning_plan.json", *out)
    assert result.exit_code == 2
    assert "--teacher" in result.output
    assert (
        "no loader of LoRA" in invoke("lora", "map", file, "--plan", "none", "--teacher", "embedded/svd", *out).output
    )
    save_file({"transformer.blocks.9.attn1.to_q.lora_A.weight": torch.ones(4, 24)}, file)
    result = invoke("lora", "map", file, "--plan", student, *out)
    assert result.exit_code == 2
    assert "fit no layer of this WanTransformer3DModel" in result.output
    assert not (tmp_path / "mapped.safetensors").exists()


def test_images_go_with_one_prompt_for_all_or_one_for_each(tmp_path: Path) -> None:
    for name in ("b", "a"):
        Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(tmp_path / f"{name}.png")
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a cat\na dog\n")
    found = choose_requests("wan", prompts, tmp_path, "0,5", 1)
    asked = [("a-0", "a cat"), ("a-5", "a cat"), ("b-0", "a dog"), ("b-5", "a dog")]
    assert [(each.name, each.prompt) for each in found] == asked
    assert all(each.image is not None for each in found)
    prompts.write_text("a bird\n")
    assert {each.prompt for each in choose_requests("wan", prompts, tmp_path, "0", 1)} == {"a bird"}
    prompts.write_text("one\ntwo\nthree\n")
    with pytest.raises(SuiteError, match="3 prompts for 2 images: give one for all, or one for each"):
        choose_requests("wan", prompts, tmp_path, "0", 1)
