"""What a distillation is said to need is what it takes."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from tiny_clips import svd_unet
from tiny_transformers import TINY, mochi
from torch import Tensor, nn
from torch.distributed._tools.mem_tracker import MemTracker
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from vdmini.cost import on_meta
from vdmini.distill import DistillSettings
from vdmini.distill.batch import draw_share
from vdmini.distill.estimate import Estimate, PeakMemory, estimate_step
from vdmini.distill.processes import Processes
from vdmini.distill.training import Training
from vdmini.models.registry import family_of
from vdmini.models.videocrafter import VideoCrafterUNet
from vdmini.plan import PruningPlan
from vdmini.prune import apply_plan
from vdmini.rules import make_plan, plan_removing
from vdmini.tasks.schedule import cumulative_alphas

# Mochi asks for autocast to float32, which CPUs have no use for.
pytestmark = pytest.mark.filterwarnings("ignore:In CPU autocast, but the target dtype is not supported:UserWarning")
SETTINGS = DistillSettings(steps=3, batch_size=2)


@dataclasses.dataclass(frozen=True)
class RandomClips:
    """Clips of noise under conditions of noise, with an empty condition for texts."""

    shapes: Mapping[str, tuple[int, ...]]

    @property
    def unconditional(self) -> Mapping[str, Tensor] | None:
        return {name: torch.zeros(self.shapes[name]) for name in ("context",) if name in self.shapes} or None

    def __len__(self) -> int:
        return 5

    def batch(self, indices: Tensor) -> dict[str, Tensor]:
        batch = {name: torch.rand(len(indices), *shape) for name, shape in self.shapes.items()}
        return {name: torch.ones_like(value) if "mask" in name else value for name, value in batch.items()}


def hunyuanvideo() -> nn.Module:
    whole = TINY["hunyuanvideo"].build_denoiser()
    return type(whole).from_config({**whole.config, "num_layers": 2, "num_single_layers": 2}).eval()


def turbo() -> nn.Module:
    return VideoCrafterUNet(
        down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"),
        up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"),
        block_out_channels=(32, 64),
        layers_per_block=1,
        cross_attention_dim=32,
        attention_head_dim=16,
        time_cond_dim=256,
        motion_cond_dim=256,
        mid_block_type=None,
    ).eval()


LATENTS = {"latents": (2, 4, 8, 8)}
PROMPT = {"prompt_embeds": (20, 32), "prompt_mask": (20,), "pooled_prompt": (32,)}
MODELS: dict[str, tuple[Callable[[], nn.Module], RandomClips]] = {
    "svd": (
        svd_unet,
        RandomClips({**LATENTS, "condition": (4, 8, 8), "embeddings": (1, 32), "time_ids": (3,)}),
    ),
    "hunyuanvideo": (hunyuanvideo, RandomClips({**LATENTS, **PROMPT})),
    "t2v-turbo-v2": (turbo, RandomClips({**LATENTS, "context": (6, 32), "fps": ()})),
    "mochi": (lambda: mochi(layers=3), RandomClips({"latents": (2, 12, 4, 4), **PROMPT})),
}


def held_bytes(training: Training) -> int:
    """What stays between steps: the networks, the average, the heads and what the optimisers note of each weight."""
    networks = (training.teacher, training.bare_student, training.adversary.heads)
    kept = [each for network in networks for each in (*network.parameters(), *network.buffers())]
    kept += training.average.weights.values()
    for optimizer in (training.optimizer, training.adversary.optimizer):
        kept += [value for state in optimizer.state.values() for value in state.values()]
    return sum(each.untyped_storage().nbytes() for each in kept)


@dataclasses.dataclass(frozen=True)
class Case:
    """A tiny model about to be distilled."""

    teacher: nn.Module
    plan: PruningPlan
    clips: RandomClips

    def estimate(self, settings: DistillSettings, **options: Any) -> Estimate:
        """What its distillation is said to need."""
        task = family_of(self.teacher).default_task(self.teacher)
        return estimate_step(on_meta(self.teacher), self.plan, self.clips.shapes, task, settings, **options)

    def training(self, settings: DistillSettings) -> Training:
        """Its distillation."""
        task = family_of(self.teacher).default_task(self.teacher)
        teacher, student = copy.deepcopy(self.teacher), apply_plan(self.teacher, self.plan)
        return Training(Processes(torch.device("cpu")), teacher, student, self.plan, self.clips, task, settings)

    def flops(self, settings: DistillSettings) -> int:
        """What a step computes."""
        counted = 0
        with self.training(settings) as training:
            training.step = settings.discriminator_warmup
            for batch in draw_share(self.clips, training.task, settings, 0, 0, 1):
                with FlopCounterMode(display=False) as counter:
                    training.backward(batch, 1.0)
                counted += counter.get_total_flops()
        return counted

    def memory(self, settings: DistillSettings) -> tuple[int, int]:
        """Bytes that stay between steps, and bytes at the worst moment of a step, as the allocator saw it."""
        with self.training(settings) as training:
            training.train_step()
            with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
                training.train_step()
            held = held_bytes(training)
        now = peak = 0
        for event in sorted(profiler.profiler.kineto_results.events(), key=lambda event: event.start_ns()):
            if event.name() == "[memory]":
                now += event.nbytes()
                peak = max(peak, now)
        assert peak > 0
        return held, held + peak


@pytest.fixture
def case(name: str) -> Case:
    """The model's case."""
    build, clips = MODELS[name]
    torch.manual_seed(0)
    teacher = build()
    removed = {"Mid"} if name == "svd" else set()
    plan = (
        plan_removing(teacher, removed, "by hand") if "v2" in name or removed else make_plan(teacher, "every-nth:n=2")
    )
    return Case(teacher, plan, clips)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"micro_batch_size": 1},
        {"lambda_mca": 0.0},
        {"gradient_checkpointing": True},
        {"mixed_precision": "bf16"},
    ],
    ids=["plain", "micro batches", "no adversary", "checkpointing", "bf16"],
)
@pytest.mark.parametrize("name", ["svd", "hunyuanvideo"])
def test_a_step_takes_what_was_estimated(case: Case, changes: dict[str, Any]) -> None:
    settings = dataclasses.replace(SETTINGS, **changes)
    estimate = case.estimate(settings)
    held, peak = case.memory(settings)
    # What the features' taps hold of the last forward pass comes on top.
    assert estimate.held_bytes == pytest.approx(held, rel=0.05)
    assert estimate.peak_bytes == pytest.approx(peak, rel=0.15)
    assert estimate.step_flops == case.flops(settings)


@pytest.mark.parametrize("name", ["t2v-turbo-v2", "mochi"])
def test_every_family_can_be_estimated_before_it_is_trained(case: Case) -> None:
    # A schedule that the estimate is the first to ask for is one of values all the same.
    cumulative_alphas.cache_clear()
    estimate = case.estimate(SETTINGS)
    assert estimate.step_flops == case.flops(SETTINGS)
    assert estimate.peak_bytes == pytest.approx(case.memory(SETTINGS)[1], rel=0.15)


@pytest.mark.parametrize("name", ["hunyuanvideo"])
def test_an_estimate_is_of_a_processes_share(case: Case) -> None:
    settings = dataclasses.replace(SETTINGS, batch_size=4, lambda_mca=0.0)
    alone, shared = case.estimate(settings), case.estimate(settings, processes=2)
    smaller = case.estimate(dataclasses.replace(settings, batch_size=2))
    for name in ("held_bytes", "peak_bytes", "step_flops"):
        assert getattr(shared, name) == pytest.approx(getattr(smaller, name), rel=1e-3)
    assert shared.peak_in_shards(2) == pytest.approx(smaller.peak_in_shards(2), rel=1e-3)
    assert alone.held_bytes == pytest.approx(shared.held_bytes, rel=0.05)
    assert alone.peak_bytes > shared.peak_bytes
    assert alone.step_flops == 2 * shared.step_flops
    weights = sum(weight.numel() for weight in case.teacher.parameters())
    halved = case.estimate(settings, processes=2, teacher_dtype=torch.bfloat16)
    assert shared.held_bytes - halved.held_bytes == pytest.approx(2 * weights, rel=0.05)
    with pytest.raises(ValueError, match="4 does not divide by 3 processes"):
        case.estimate(settings, processes=3)


@pytest.mark.parametrize("name", ["svd", "hunyuanvideo"])
def test_torchs_own_tracker_finds_the_same_peak(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    build, clips = MODELS[name]
    teacher = on_meta(build())
    tracker = MemTracker()
    # What it would say of each module; its hooks cannot be set on weights that have no gradient.
    for hook in ("_pre_fw_hook", "_post_fw_hook", "_pre_bw_hook", "_post_bw_hook"):
        monkeypatch.setattr(tracker, hook, lambda *_: None)
    monkeypatch.setattr(
        PeakMemory, "__enter__", lambda self: tracker.__enter__() and super(PeakMemory, self).__enter__()
    )

    def leave(self: PeakMemory, *error: Any) -> None:
        super(PeakMemory, self).__exit__(*error)
        tracker.__exit__(*error)

    monkeypatch.setattr(PeakMemory, "__exit__", leave)
    plan = make_plan(teacher, "uniform:flops=0.6" if name == "svd" else "every-nth:n=2")
    found = estimate_step(teacher, plan, clips.shapes, family_of(teacher).default_task(teacher), SETTINGS)
    peak = tracker.get_tracker_snapshot("peak")[torch.device("cpu")]["Total"]
    assert found.peak_bytes == pytest.approx(peak, rel=0.01)
