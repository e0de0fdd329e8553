"""A task's own loss on encoded clips as a function of the network: by what importance to a loss is measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from vdmini.conditioning import conditioning_of
from vdmini.distill.batch import TrainingClips, draw_share
from vdmini.distill.settings import DistillSettings
from vdmini.tasks.base import Task, Teaching

CLIPS = 16


def task_loss(denoiser: nn.Module, clips: TrainingClips, task: Task) -> Callable[[nn.Module], Tensor]:
    """The task's loss on 16 clips, drawn with their noise from a fixed seed, of a network fed as `denoiser` is.

    The network is on one device and in float32. Clips go through it one by one, and the gradients of all but the last,
    which is what is returned, are added as they come: no more than one clip's activations are in memory.
    """
    conditioning, settings = conditioning_of(denoiser), DistillSettings(steps=1, batch_size=CLIPS, micro_batch_size=1)

    def loss(network: nn.Module) -> Tensor:
        device = next(network.parameters()).device

        def predict(conditions: Mapping[str, Tensor], network_input: Tensor, timesteps: Tensor) -> Tensor:
            inputs: dict[str, Any] = conditioning.denoiser_inputs(network, network_input, timesteps, conditions)
            return conditioning.prediction(network(**inputs), network_input)

        last = torch.zeros((), device=device)
        for batch in draw_share(clips, task, settings, 0, 0, 1):
            sample = type(batch.sample)(*(each.to(device) for each in batch.sample))
            conditions = {name: value.to(device) for name, value in batch.conditions.items()}
            given = task.network_input(task.noisy(*sample), sample.levels)
            prediction = predict(conditions, *given)
            teaching = Teaching(prediction.detach(), conditions.get("guidance"), partial(predict, conditions), None)
            if last.requires_grad:
                last.backward()
            last = task.loss(sample, prediction, teaching) / CLIPS
        return last

    return loss
