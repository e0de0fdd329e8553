"""What NVML says of a GPU around a run: clocks, temperature, power, energy and why it is held back."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from vdmini_bench.speed.timing import Timing

Value = TypeVar("Value")

# Bits of nvmlDeviceGetCurrentClocksEventReasons (nvml.h) that mean "slower than this card could run".
THROTTLE_REASONS = {
    0x04: "power cap",
    0x08: "hardware slowdown",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "power brake",
}
# The counter of energy moves some ten times a second.
SHORTEST_ENERGY_MS = 200.0


@dataclass(frozen=True)
class GpuState:
    """One reading; None where the card does not tell. `energy_mj` counts since the driver was loaded."""

    clock_mhz: int | None
    energy_mj: int | None
    throttled_by: tuple[str, ...] | None


class GpuSensor:
    """One GPU through NVML."""

    def __init__(self, nvml: Any, handle: Any) -> None:
        self._nvml, self._handle = nvml, handle

    def read(self) -> GpuState:
        """The card's state now; takes about a millisecond and no GPU time."""
        nvml, handle = self._nvml, self._handle
        reasons = self._ask(lambda: nvml.nvmlDeviceGetCurrentClocksEventReasons(handle))
        return GpuState(
            clock_mhz=self._ask(lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM)),
            energy_mj=self._ask(lambda: nvml.nvmlDeviceGetTotalEnergyConsumption(handle)),
            throttled_by=None
            if reasons is None
            else tuple(name for bit, name in THROTTLE_REASONS.items() if reasons & bit),
        )

    def _ask(self, question: Callable[[], Value]) -> Value | None:
        try:
            return question()
        except (self._nvml.NVMLError, AttributeError):
            # Not every card and driver answers every question, and old bindings do not know them all.
            return None


def open_sensor(device: torch.device) -> GpuSensor | None:
    """The sensor of a CUDA device; None for others, without nvidia-ml-py, or where NVML does not know it."""
    if device.type != "cuda":
        return None
    try:
        nvml: Any = importlib.import_module("pynvml")
    except ImportError:
        return None
    try:
        nvml.nvmlInit()
        # CUDA_VISIBLE_DEVICES renumbers what torch sees, so only the identity will do.
        uuid = str(torch.cuda.get_device_properties(device).uuid).removeprefix("GPU-")
        return GpuSensor(nvml, nvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}"))
    except nvml.NVMLError:
        return None


class SensorWatch:
    """Reads a sensor around every timed run and keeps what each model's runs saw."""

    def __init__(self, sensor: GpuSensor | None) -> None:
        self._sensor = sensor
        self.states: dict[str, list[tuple[GpuState, GpuState]]] = {}

    @contextmanager
    def around(self, model: str) -> Iterator[None]:
        """Note the states before and after a run."""
        before = None if self._sensor is None else self._sensor.read()
        yield
        if self._sensor is not None and before is not None:
            self.states.setdefault(model, []).append((before, self._sensor.read()))

    def summary(self, timing: Timing) -> dict[str, Any]:
        """Clocks before and after each of a model's runs, what held the card back, and joules a run.

        All None without a sensor; energy also for runs shorter than 0.2 s, which its counter cannot tell apart, and for
        what is but a part of the runs.
        """
        pairs = self.states.get(timing.model, [])
        if not pairs:
            return {"clock_mhz_before": None, "clock_mhz_after": None, "throttled_by": None, "energy_j": None}
        told = [state.throttled_by for pair in pairs for state in pair if state.throttled_by is not None]
        spent = [
            (after.energy_mj - before.energy_mj) / 1000
            for before, after in pairs
            if after.energy_mj is not None and before.energy_mj is not None
        ]
        whole = timing.peak_bytes is not None
        measurable = whole and len(spent) == len(pairs) and timing.median_ms >= SHORTEST_ENERGY_MS
        return {
            "clock_mhz_before": [before.clock_mhz for before, _ in pairs],
            "clock_mhz_after": [after.clock_mhz for _, after in pairs],
            "throttled_by": sorted({reason for reasons in told for reason in reasons}) if told else None,
            "energy_j": sum(spent) / len(spent) if measurable else None,
        }
