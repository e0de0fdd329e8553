"""A training loop of a number of steps that checkpoints as it goes and continues exactly where it stopped."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from vdmini.files import replacing

CHECKPOINT_SECONDS = 120.0
REPORT_EVERY = 50
EMA_DECAY = 0.998
WARM_UP = 0.01


def train_steps(
    module: nn.Module,
    loss_of_step: Callable[[int], Tensor],
    *,
    steps: int,
    learning_rate: float,
    checkpoint: Path,
    average: nn.Module | None = None,
    after_step: Callable[[int], None] = lambda step: None,
) -> None:
    """Minimise `loss_of_step(step)` over `module` for `steps`, those before the checkpoint included.

    The learning rate warms up over 1 % of the steps and falls as a cosine to zero. `average` becomes the exponential
    moving average of the module and is saved and restored with it, before each `after_step(steps_done)`.
    """
    optimizer = torch.optim.AdamW(
        module.parameters(), lr=learning_rate, betas=(0.9, 0.99), weight_decay=1e-2, fused=True
    )
    done = 0
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True, map_location=next(module.parameters()).device)
        module.load_state_dict(saved["module"])
        optimizer.load_state_dict(saved["optimizer"])
        if average is not None:
            average.load_state_dict(saved["extra"])
        done = saved["step"]
    last_save = time.monotonic()
    running: float | None = None
    for step in range(done, steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * rate_at(step / steps)
        # A seed per step: a resumed run draws what the unbroken one would have drawn.
        torch.manual_seed(step)
        loss = loss_of_step(step)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        done = step + 1
        if average is not None:
            update_average(average, module, done)
        after_step(done)
        running = loss.item() if running is None else 0.98 * running + 0.02 * loss.item()
        if done % REPORT_EVERY == 0:
            print(f"step {done} of {steps}  loss {running:.5f}", flush=True)
        if time.monotonic() - last_save > CHECKPOINT_SECONDS or done == steps:
            state = {"module": module.state_dict(), "optimizer": optimizer.state_dict(), "step": done}
            if average is not None:
                state["extra"] = average.state_dict()
            with replacing(checkpoint) as partial:
                torch.save(state, partial)
            last_save = time.monotonic()


@contextmanager
def half_where_fast(device: torch.device) -> Iterator[None]:
    """Autocast to bfloat16 where the processor computes with it; others only imitate it."""
    fast = device.type != "cpu" or torch.cpu._is_avx512_bf16_supported()
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=fast), warnings.catch_warnings():
        # Autocast leaves the weights of this normalisation in float32.
        warnings.filterwarnings("ignore", "Mismatch dtype between input and weight")
        yield


def rate_at(progress: float) -> float:
    """The share of the learning rate at a share of the steps: up, then down as a cosine."""
    return min(1.0, 0.02 + progress / WARM_UP) * 0.5 * (1 + math.cos(math.pi * progress))


@torch.no_grad()
def update_average(average: nn.Module, module: nn.Module, steps: int) -> None:
    """Move an exponential moving average of a module's parameters on; early ones are soon forgotten."""
    decay = min(EMA_DECAY, (1 + steps) / (10 + steps))
    for averaged, current in zip(average.parameters(), module.parameters(), strict=True):
        averaged.lerp_(current, 1 - decay)
