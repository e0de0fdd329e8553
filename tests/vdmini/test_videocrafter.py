"""VideoCrafter2's and T2V-Turbo-v2's network: it computes what the originals compute, whole and pruned."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from vdmini.conditioning.videocrafter import CONDITIONING
from vdmini.cost import count_parameters
from vdmini.errors import ModelLoadError
from vdmini.features import FeatureTap, feature_pairs
from vdmini.models.loading import load_model
from vdmini.models.registry import block_graph
from vdmini.models.videocrafter import FAMILY, VideoCrafterUNet
from vdmini.models.videocrafter_unet import load_original
from vdmini.plan import PruningPlan, architecture_sha256
from vdmini.prune import apply_plan
from vdmini.rules import make_plan, plan_removing

GOLDEN = Path(__file__).parents[1] / "golden"
NAMES = ("videocrafter2", "t2v_turbo_v2")
KEPT_INPUTS, KEPT_OUTPUTS = (0, 1, 3, 4, 6, 7, 8), (3, 4, 5, 6, 8, 9, 11)
Original = tuple[dict[str, Tensor], dict[str, Any], dict[str, Tensor], Tensor]


def filled(shapes: dict[str, list[int]]) -> dict[str, Tensor]:
    """Weights that follow from their names alone, as the golden outputs were made with."""
    weights = {}
    for key, shape in shapes.items():
        seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "little")
        value = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
        value = value / np.sqrt(np.prod(shape[1:])) if len(shape) > 1 else 0.1 * value + key.endswith("weight")
        weights[key] = torch.from_numpy(value.astype(np.float32))
    return weights


def original(name: str) -> Original:
    """State dict, config, inputs and output of an original network, the inputs under this network's names."""
    with np.load(GOLDEN / f"{name}_unet_small.npz") as golden:
        arrays = {key: golden[key] for key in golden.files}
    weights, config = filled(json.loads(str(arrays.pop("keys")))), json.loads(str(arrays.pop("config")))
    tensors = {key: torch.from_numpy(array) for key, array in arrays.items()}
    tensors["encoder_hidden_states"] = tensors.pop("context")
    return weights, config, tensors, tensors.pop("output")


@pytest.fixture(scope="module")
def turbo() -> Original:
    """The small T2V-Turbo-v2; tests do not change its weights."""
    return original("t2v_turbo_v2")


@pytest.fixture(scope="module")
def plan(turbo: Original) -> PruningPlan:
    """What the rule "vdmini" keeps of the small T2V-Turbo-v2."""
    return make_plan(VideoCrafterUNet.from_original(turbo[0], turbo[1]))


def small(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The golden inputs, cut to 3 frames of 8x8 latents."""
    return {**inputs, "sample": inputs["sample"][:, :, :3, :8, :8]}


def pruned(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """What VDMini's rule leaves of an original state dict, under the names it had."""
    kept = {f"input_blocks.{number}." for number in KEPT_INPUTS} | {f"output_blocks.{n}." for n in KEPT_OUTPUTS}
    return {
        key: tensor
        for key, tensor in weights.items()
        if not key.startswith(("input_blocks", "output_blocks", "middle_block"))
        or any(key.startswith(block) for block in kept)
    }


def same_weights(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Whether two state dicts have the same names, shapes and bits."""
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@torch.no_grad()
@pytest.mark.parametrize("name", NAMES)
def test_the_original_is_reproduced_and_its_names_come_back(name: str) -> None:
    weights, config, inputs, output = original(name)
    network = VideoCrafterUNet.from_original(weights, config).eval()
    assert (network(**inputs).sample - output).abs().max() < 1e-4
    assert same_weights(network.to_original(), weights)
    for ignored in inputs.keys() & {"fps", "timestep_cond", "motion_cond"}:
        changed = {**inputs, ignored: inputs[ignored].flip(0) + 1}
        assert (network(**changed).sample - output).abs().max() > 1e-3


def edited_teacher(teacher: VideoCrafterUNet, inputs: dict[str, Tensor]) -> Tensor:
    """VDMini's forward pass written out by hand over the teacher's own layers."""
    frames = inputs["sample"].shape[2]
    guidance = [teacher.time_cond_proj(inputs["timestep_cond"]), teacher.motion_cond_proj(inputs["motion_cond"])]
    time = teacher.time_proj(inputs["timestep"]) + teacher.combine_proj(torch.cat(guidance, dim=1))
    embedding = teacher.time_embedding(time) + teacher.fps_embedding(teacher.time_proj(inputs["fps"]))
    embedding = embedding.repeat_interleave(frames, 0)
    context = inputs["encoder_hidden_states"].repeat_interleave(frames, 0)
    down, up = teacher.down_blocks, teacher.up_blocks

    def pair(stage: torch.nn.Module, index: int, hidden: Tensor) -> Tensor:
        hidden = stage.temp_convs[index](stage.resnets[index](hidden, embedding), num_frames=frames)
        hidden = stage.attentions[index](hidden, encoder_hidden_states=context, return_dict=False)[0]
        return stage.temp_attentions[index](hidden, num_frames=frames, return_dict=False)[0]

    def joined(hidden: Tensor, skip: Tensor) -> Tensor:
        return torch.cat([hidden, skip], dim=1)

    first = teacher.conv_in(inputs["sample"].transpose(1, 2).flatten(0, 1))
    first = teacher.transformer_in(first, num_frames=frames, return_dict=False)[0]
    d00 = pair(down[0], 0, first)
    d0_down = down[0].downsamplers[0](d00)
    d10 = pair(down[1], 0, d0_down)
    d1_down = down[1].downsamplers[0](d10)
    d20 = pair(down[2], 0, d1_down)
    d21 = pair(down[2], 1, d20)
    hidden = pair(up[1], 0, joined(d21, d21))
    hidden = pair(up[1], 1, joined(hidden, d20))
    hidden = up[1].upsamplers[0](pair(up[1], 2, joined(hidden, d1_down)))
    hidden = pair(up[2], 0, joined(hidden, d10))
    hidden = up[2].upsamplers[0](pair(up[2], 2, joined(hidden, d0_down)))
    hidden = pair(up[3], 0, joined(hidden, d00))
    hidden = pair(up[3], 2, joined(hidden, first))
    hidden = teacher.conv_out(teacher.conv_act(teacher.conv_norm_out(hidden)))
    return hidden.unflatten(0, (-1, frames)).transpose(1, 2)


@torch.no_grad()
def test_pruning_the_teacher_equals_pruning_its_checkpoint_and_editing_it_by_hand(
    turbo: Original, plan: PruningPlan
) -> None:
    weights, config, inputs, _ = turbo
    inputs = small(inputs)
    teacher = VideoCrafterUNet.from_original(weights, config).eval()
    student = apply_plan(teacher, plan)
    loaded = VideoCrafterUNet.from_original(pruned(weights), config).eval()
    assert same_weights(student.state_dict(), loaded.state_dict())
    assert same_weights(student.to_original(), pruned(weights))
    assert same_weights(loaded.to_original(), pruned(weights))
    output = student(**inputs).sample
    assert torch.equal(output, loaded(**inputs).sample)
    assert torch.equal(output, edited_teacher(teacher, inputs))
    assert not torch.equal(output, teacher(**inputs).sample)


def test_a_student_of_a_student_still_knows_the_original_numbers(turbo: Original) -> None:
    weights, config, _, _ = turbo
    loaded = VideoCrafterUNet.from_original(pruned(weights), config)
    smaller = apply_plan(loaded, plan_removing(loaded, {"D.2.1", "U.0.1"}, "by hand"))
    gone = ("input_blocks.8.", "output_blocks.4.")
    left = {key: tensor for key, tensor in pruned(weights).items() if not key.startswith(gone)}
    assert same_weights(smaller.to_original(), left)


@torch.no_grad()
@pytest.mark.parametrize(("layers", "mid"), [((1, 3, 2), False), (1, True), ((2, 1), False)])
@pytest.mark.parametrize("height", [8, 9])
def test_stages_have_as_many_pairs_as_asked_for(layers: int | tuple[int, ...], mid: bool, height: int) -> None:
    stages = 2 if layers == (2, 1) else 3
    network = VideoCrafterUNet(
        down_block_types=("CrossAttnDownBlock3D",) * stages,
        up_block_types=("CrossAttnUpBlock3D",) * stages,
        block_out_channels=(32, 64, 64)[:stages],
        layers_per_block=layers,
        cross_attention_dim=24,
        attention_head_dim=16,
        mid_block_type="UNetMidBlock3DCrossAttn" if mid else None,
    ).eval()
    counts = (layers,) * stages if isinstance(layers, int) else layers
    assert tuple(len(stage.attentions) for stage in network.down_blocks) == counts
    assert tuple(len(stage.resnets) - 1 for stage in reversed(network.up_blocks)) == counts
    inputs = (torch.randn(2, 4, 3, height, 10), torch.tensor([7, 900]), torch.randn(2, 5, 24))
    output = network(*inputs).sample
    assert output.shape == inputs[0].shape
    again = VideoCrafterUNet.from_original(network.to_original(), {}).eval()
    assert torch.equal(again(*inputs).sample, output)


def test_impossible_configurations_and_inputs_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown mid_block_type 'other'"):
        VideoCrafterUNet(mid_block_type="other")
    with pytest.raises(ValueError, match="motion_cond_dim needs time_cond_dim"):
        VideoCrafterUNet(motion_cond_dim=8)
    with pytest.raises(ValueError, match="one pair or more"):
        VideoCrafterUNet(layers_per_block=(1, 2, 0, 1))
    with torch.device("meta"):
        network = VideoCrafterUNet()
        inputs = (torch.ones(1, 4, 2, 8, 8), 3, torch.ones(1, 5, 1024))
        guidance = torch.ones(1, 256)
    with pytest.raises(ValueError, match="needs a network with time_cond_dim"):
        network(*inputs, timestep_cond=guidance)
    with pytest.raises(ValueError, match="given without timestep_cond"):
        network(*inputs, motion_cond=guidance)


@pytest.mark.parametrize(
    ("name", "millions", "pruned_millions"),
    [("videocrafter2", "1413.284", "816.65"), ("t2v-turbo-v2", "1413.653", "817.02")],
)
def test_the_student_has_the_published_size(name: str, millions: str, pruned_millions: str) -> None:
    model = load_model(name, random_weights=True, device="meta")
    assert f"{model.blocks.params / 1e6:.3f}" == millions
    assert str(model.blocks.input) == "batch 1, 16 frames, 40x64 latents"
    plan = make_plan(model)
    student = block_graph(apply_plan(model.denoiser, plan))
    left = model.blocks.without(plan.removed)
    assert (student.params, student.flops) == (left.params, left.flops)
    assert f"{student.flops / model.blocks.flops:.3f}" == "0.712"
    assert f"{model.blocks.flops / 1e12:.2f}" == "12.58"
    assert f"{student.params / 1e6:.2f}" == pruned_millions
    assert model.vae is not None
    assert model.vae.config.scaling_factor == 0.18215
    assert count_parameters(model.vae) == 83_653_863


def test_a_plan_for_the_published_model_fits_its_checkpoint(turbo: Original) -> None:
    weights, config, _, _ = turbo
    loaded = VideoCrafterUNet.from_original(weights, config)
    with torch.device("meta"):
        built = VideoCrafterUNet(
            block_out_channels=(32, 64, 128, 128),
            cross_attention_dim=48,
            attention_head_dim=16,
            time_cond_dim=256,
            motion_cond_dim=256,
        )
    assert built.config.layers_per_block != loaded.config.layers_per_block
    assert architecture_sha256(FAMILY.architecture(built)) == architecture_sha256(FAMILY.architecture(loaded))
    assert architecture_sha256(FAMILY.architecture(VideoCrafterUNet.from_original(pruned(weights), config))) != (
        architecture_sha256(FAMILY.architecture(loaded))
    )


def test_gradient_checkpointing_keeps_the_gradients_and_saves_memory(turbo: Original) -> None:
    weights, config, inputs, _ = turbo
    gradients, kept = [], []
    for checkpointing in (False, True):
        student = VideoCrafterUNet.from_original(pruned(weights), config).requires_grad_(True).train()
        if checkpointing:
            student.enable_gradient_checkpointing()
        stored: list[int] = []
        torch.manual_seed(0)
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor, stored=stored: (stored.append(tensor.numel()), tensor)[1], lambda tensor: tensor
        ):
            loss = student(**small(inputs)).sample.square().mean()
        loss.backward()
        gradients.append({name: parameter.grad for name, parameter in student.named_parameters()})
        kept.append(sum(stored))
    assert all(gradient is not None for gradient in gradients[0].values())
    assert all(torch.equal(gradient, gradients[1][name]) for name, gradient in gradients[0].items())
    assert kept[1] < kept[0] / 5


@torch.no_grad()
def test_features_of_teacher_and_student_pair_up(turbo: Original, plan: PruningPlan) -> None:
    weights, config, inputs, _ = turbo
    teacher = VideoCrafterUNet.from_original(weights, config).eval()
    student = apply_plan(teacher, plan)
    pairs = feature_pairs(plan)
    assert pairs[2] == ("D.2", "D.2.1")
    with FeatureTap(student, [ours for ours, _ in pairs]) as ours, FeatureTap(teacher, [t for _, t in pairs]) as theirs:
        student(**small(inputs))
        teacher(**small(inputs))
    for one, other in zip(ours.features, theirs.features, strict=True):
        assert one.shape == other.shape
    assert torch.equal(ours.features[0], CONDITIONING.encoder_features(student, small(inputs))[0])
    assert torch.equal(ours.features[2], CONDITIONING.encoder_features(student, small(inputs))[2])


@torch.no_grad()
@pytest.mark.parametrize("format_", ["model.ckpt", "unet_mg.pt", "unet_mg.safetensors", "pruned.pt"])
def test_published_files_load(turbo: Original, tmp_path: Path, format_: str) -> None:
    weights, _, _, _ = turbo
    path = tmp_path / format_
    if format_ == "model.ckpt":
        rest = {"first_stage_model.decoder.conv_in.weight": torch.ones(1), "cond_stage_model.model.x": torch.ones(1)}
        unet = {f"model.diffusion_model.{key}": tensor for key, tensor in weights.items()}
        torch.save({"state_dict": {**rest, **unet, "scale_arr": torch.ones(1400)}, "global_step": 3}, path)
    elif path.suffix == ".safetensors":
        save_file(weights, path)
    else:
        weights = pruned(weights) if format_ == "pruned.pt" else weights
        torch.save(weights, path)
    network = load_original(path)
    assert same_weights(network.to_original(), weights)
    assert network.config.attention_head_dim == 16
    assert network.config.motion_cond_dim == 256


class Harmful:
    """Pickles as a call of a function."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("harmed"),))


def test_files_that_do_not_fit_say_why(turbo: Original, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights, config, _, _ = turbo
    monkeypatch.chdir(tmp_path)
    key = "output_blocks.11.1.proj_in.weight"
    contents = {
        "no weights called 'input_blocks": {"conv.weight": torch.ones(1)},
        "holds no weights": [torch.ones(1)],
        "cannot be read": {"state_dict": weights, "hook": Harmful()},
        r"1 missing \(up_blocks\.3\.attentions\.2\.proj_in": {k: v for k, v in weights.items() if k != key},
        "1 of another shape": weights | {key: torch.ones(32, 31)},
        r"1 unknown \(adapter\.weight\)": weights | {"adapter.weight": torch.ones(1)},
        "blocks are missing": {k: v for k, v in weights.items() if not k.startswith("output_blocks.4.")},
        r"lacks 'out\.2\.weight'": {k: v for k, v in weights.items() if k != "out.2.weight"},
    }
    for message, content in contents.items():
        torch.save(content, "file.ckpt")
        with pytest.raises(ModelLoadError, match=f"(?s)file.ckpt.*{message}|{message}.*file.ckpt"):
            load_original("file.ckpt")
    assert not Path("harmed").exists()
    for name, content in {"empty.ckpt": b"", "page.pt": b"<html>", "page.safetensors": b"<html>"}.items():
        Path(name).write_bytes(content)
        with pytest.raises(ModelLoadError, match=f"'{name}' is (empty|a web page)"):
            load_original(name)
    with pytest.raises(ModelLoadError, match=r"'absent\.ckpt' cannot be read"):
        load_original("absent.ckpt")
    for option in ({"num_head_channels": 64}, {"use_relative_position": True}, {"time_cond_proj_dim": None}):
        with pytest.raises(ModelLoadError, match=f"option {next(iter(option))} is"):
            VideoCrafterUNet.from_original(weights, config | option)
