"""A training loop that runs for a number of minutes, checkpoints as it goes and continues where it stopped."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from vdmini.files import replacing

CHECKPOINT_SECONDS = 120.0
REPORT_EVERY = 50
EMA_DECAY = 0.998


def train_for_minutes(
    module: nn.Module,
    loss_of_step: Callable[[int], Tensor],
    *,
    minutes: float,
    learning_rate: float,
    checkpoint: Path,
    average: nn.Module | None = None,
    after_step: Callable[[int], None] = lambda step: None,
) -> int:
    """Minimise `loss_of_step(step)` over `module` until `minutes` are spent, resumed ones included; returns the steps.

    The learning rate warms up over 1 % of the budget and falls as a cosine of the time spent: any budget ends at zero.
    `average` becomes the exponential moving average of the module and is saved and restored with it, before each
    `after_step(steps_done)`.
    """
    optimizer = torch.optim.AdamW(module.parameters(), lr=learning_rate, betas=(0.9, 0.99), weight_decay=1e-2)
    step, spent = 0, 0.0
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True, map_location=next(module.parameters()).device)
        module.load_state_dict(saved["module"])
        optimizer.load_state_dict(saved["optimizer"])
        if average is not None:
            average.load_state_dict(saved["extra"])
        step, spent = saved["step"], saved["spent"]
    budget = minutes * 60
    last_save = spent
    running: float | None = None
    while spent < budget:
        started = time.monotonic()
        progress = spent / budget
        rate = learning_rate * min(1.0, 0.02 + progress / 0.01) * 0.5 * (1 + math.cos(math.pi * progress))
        for group in optimizer.param_groups:
            group["lr"] = rate
        # A seed per step: a resumed run draws what the unbroken one would have drawn.
        torch.manual_seed(step)
        loss = loss_of_step(step)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        step += 1
        if average is not None:
            update_average(average, module, step)
        after_step(step)
        # A stopped or suspended process must not lose its budget to one long step.
        spent += min(time.monotonic() - started, 30.0)
        running = loss.item() if running is None else 0.98 * running + 0.02 * loss.item()
        if step % REPORT_EVERY == 0:
            print(f"step {step}  {spent / 60:.1f} of {minutes:g} min  loss {running:.5f}", flush=True)
        if spent - last_save > CHECKPOINT_SECONDS or spent >= budget:
            state = {"module": module.state_dict(), "optimizer": optimizer.state_dict(), "step": step, "spent": spent}
            if average is not None:
                state["extra"] = average.state_dict()
            with replacing(checkpoint) as partial:
                torch.save(state, partial)
            last_save = spent
    return step


@torch.no_grad()
def update_average(average: nn.Module, module: nn.Module, steps: int) -> None:
    """Move an exponential moving average of a module's parameters on; early ones are soon forgotten."""
    decay = min(EMA_DECAY, (1 + steps) / (10 + steps))
    for averaged, current in zip(average.parameters(), module.parameters(), strict=True):
        averaged.lerp_(current, 1 - decay)
