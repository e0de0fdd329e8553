"""What a student in shards is said to need is what torch's own tracker finds that FSDP takes."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from accelerate.utils import FullyShardedDataParallelPlugin
from test_distill_estimate import MODELS, SETTINGS, RandomClips
from torch import Tensor, distributed, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker
from torch.distributed.device_mesh import init_device_mesh
from torch.testing._internal.distributed.fake_pg import FakeStore

from vdmini import load_model
from vdmini.blocks import ModelInput
from vdmini.conditioning import conditioning_of
from vdmini.cost import on_meta
from vdmini.distill import DistillSettings, estimate, processes
from vdmini.distill.estimate import estimate_step
from vdmini.distill.processes import Launched, Processes
from vdmini.distill.training import Training
from vdmini.models.registry import family_of
from vdmini.plan import PruningPlan
from vdmini.prune import apply_plan
from vdmini.rules import make_plan

# Nothing changes such a view in place: a real launch learns what one process does.
pytestmark = pytest.mark.filterwarnings("ignore:FSDP2-wrapped module .* returned a view tensor:UserWarning")
COUNT = 8
CPU = torch.device("cpu")


class Sharded(Launched):
    """The first of several processes of a launch with shards, of which the others are pretended."""

    def __init__(self) -> None:
        Processes.__init__(self, CPU, 0, COUNT)
        self._sharding = FullyShardedDataParallelPlugin(fsdp_version=2, reshard_after_forward=True)

    def mean(self, values: Tensor) -> Tensor:
        return values


@pytest.fixture
def others(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Processes that answer at once, with nothing."""
    distributed.init_process_group("fake", store=FakeStore(), rank=0, world_size=COUNT)
    # A mesh asks for values, which it has none of later.
    mesh = init_device_mesh("cpu", (COUNT,))
    monkeypatch.setattr(processes, "init_device_mesh", lambda *_: mesh)
    yield
    distributed.destroy_process_group()


def tracked_peak(teacher: nn.Module, plan: PruningPlan, clips: RandomClips, settings: DistillSettings) -> int:
    """Bytes at the worst moment of the second step, as the tracker counts them."""
    task, tracker = family_of(teacher).default_task(teacher), MemTracker()
    micro = settings.micro_batch_size or settings.share(COUNT)
    for hook in ("_pre_fw_hook", "_post_fw_hook", "_pre_bw_hook", "_post_bw_hook"):
        # What it would say of each module; they cannot be set on weights that have no gradient.
        setattr(tracker, hook, lambda *_: None)
    student, teacher = apply_plan(teacher, plan), copy.deepcopy(teacher)
    with FakeTensorMode(allow_non_fake_inputs=True), estimate._everything_in_place():
        student, teacher = student.to_empty(device="cpu"), teacher.to_empty(device="cpu")
        shapes: Any = estimate._Shapes(clips.shapes)
        training = Training(Sharded(), teacher, student, plan, shapes, task, settings)
        heads = training.adversary
        held = (teacher, student, heads.heads, training.optimizer, heads.optimizer, *training.average.weights.values())
        tracker.track_external(*held)
        with training, tracker:
            for _ in range(2):
                for _ in range(settings.share(COUNT) // micro):
                    training.backward(estimate._batch(clips.shapes, task, micro), 1.0)
                training.update_weights(training.gradient_norm())
    return int(tracker.get_tracker_snapshot("peak")[CPU]["Total"])


def assert_as_tracked(teacher: nn.Module, plan: PruningPlan, clips: RandomClips, settings: DistillSettings) -> None:
    task = family_of(teacher).default_task(teacher)
    found = estimate_step(teacher, plan, clips.shapes, task, settings, processes=COUNT)
    peak = found.peak_in_shards(COUNT)
    assert peak < found.peak_bytes
    assert peak == pytest.approx(tracked_peak(teacher, plan, clips, settings), rel=0.1)


@pytest.mark.usefixtures("others")
@pytest.mark.parametrize(
    ("name", "changes"),
    [("svd", {}), ("hunyuanvideo", {"micro_batch_size": 1}), ("hunyuanvideo", {"gradient_checkpointing": True})],
    ids=["plain", "micro batches", "checkpointing"],
)
def test_shards_take_what_torchs_own_tracker_finds(name: str, changes: dict[str, Any]) -> None:
    build, clips = MODELS[name]
    teacher = on_meta(build())
    plan = make_plan(teacher, "uniform:flops=0.6" if name == "svd" else "every-nth:n=2")
    assert_as_tracked(teacher, plan, clips, dataclasses.replace(SETTINGS, batch_size=2 * COUNT, **changes))


@pytest.mark.slow
@pytest.mark.usefixtures("others")
@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_published_teacher_in_shards_takes_what_torchs_own_tracker_finds(checkpointing: bool) -> None:
    teacher = load_model("svd", random_weights=True, device="meta").denoiser
    clips = RandomClips(conditioning_of(teacher).clip_shapes(teacher, ModelInput(1, 4, 32, 32)))
    settings = dataclasses.replace(SETTINGS, batch_size=COUNT, gradient_checkpointing=checkpointing)
    assert_as_tracked(teacher, make_plan(teacher, "vdmini"), clips, settings)
