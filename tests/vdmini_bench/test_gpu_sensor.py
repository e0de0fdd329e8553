"""What NVML says, told by a stand-in: no GPU is needed to see that it is asked and understood rightly."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
import torch

from vdmini_bench.speed.gpu_sensor import GpuSensor, SensorWatch, open_sensor
from vdmini_bench.speed.timing import Timing


class NVMLError(Exception):
    pass


class Card:
    """A card that heats up: each reading finds it slower, and 3 J spent."""

    NVMLError = NVMLError
    NVML_CLOCK_SM = 1

    def __init__(self, reasons: int = 0, tells_energy: bool = True) -> None:
        self.reasons, self.tells_energy = reasons, tells_energy
        self.readings = 0

    def nvmlInit(self) -> None:  # noqa: N802
        pass

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:  # noqa: N802
        if uuid != "GPU-abc":
            raise NVMLError("no such card")
        return uuid

    def nvmlDeviceGetCurrentClocksEventReasons(self, _: object) -> int:  # noqa: N802
        return self.reasons

    def nvmlDeviceGetClockInfo(self, _: object, which: int) -> int:  # noqa: N802
        assert which == self.NVML_CLOCK_SM
        self.readings += 1
        return 1980 - 5 * self.readings

    def nvmlDeviceGetTotalEnergyConsumption(self, _: object) -> int:  # noqa: N802
        if not self.tells_energy:
            raise NVMLError("not supported")
        return 1_000_000 + 3000 * self.readings


def watched(card: Card, runs: int = 2) -> SensorWatch:
    watch = SensorWatch(GpuSensor(card, "handle"))
    for _ in range(runs):
        with watch.around("teacher"):
            pass
    return watch


def test_clocks_of_every_run_and_the_energy_between_its_ends() -> None:
    found = watched(Card()).summary(Timing("teacher", "denoiser", (500.0,), 0))
    assert found["clock_mhz_before"] == [1975, 1965]
    assert found["clock_mhz_after"] == [1970, 1960]
    assert found["energy_j"] == pytest.approx(3.0)
    assert found["throttled_by"] == []


def test_what_holds_a_card_back_is_named_and_idling_is_not_throttling() -> None:
    # Idle (1), application clocks (2), power cap (4) and hardware thermal slowdown (64).
    assert watched(Card(0b1000111)).summary(Timing("teacher", "denoiser", (500.0,), 0))["throttled_by"] == [
        "hardware thermal slowdown",
        "power cap",
    ]


def test_energy_is_not_told_for_short_runs_or_by_a_card_that_does_not_count_it() -> None:
    assert watched(Card()).summary(Timing("teacher", "denoiser", (20.0,), 0))["energy_j"] is None
    silent = watched(Card(tells_energy=False)).summary(Timing("teacher", "denoiser", (500.0,), 0))
    assert silent["energy_j"] is None
    assert silent["clock_mhz_after"] == [1970, 1960]


def test_a_part_of_the_runs_has_their_clocks_and_no_energy_of_its_own() -> None:
    found = watched(Card(0b100)).summary(Timing("teacher", "steps", (500.0,), None))
    assert found["energy_j"] is None
    assert found["clock_mhz_before"] == [1975, 1965]
    assert found["throttled_by"] == ["power cap"]


def test_old_bindings_that_lack_a_question_leave_its_answer_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(Card, "nvmlDeviceGetCurrentClocksEventReasons")
    found = watched(Card()).summary(Timing("teacher", "denoiser", (500.0,), 0))
    assert found["throttled_by"] is None
    assert found["clock_mhz_before"] == [1975, 1965]


def test_without_a_sensor_everything_is_unknown_rather_than_fine() -> None:
    watch = SensorWatch(None)
    with watch.around("teacher"):
        pass
    assert {*watch.summary(Timing("teacher", "denoiser", (500.0,), 0)).values()} == {None}


@pytest.mark.parametrize(("uuid", "known"), [("abc", True), ("GPU-abc", True), ("other", False)])
def test_the_sensor_is_found_by_the_cards_identity(uuid: str, known: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", Card())
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda _: SimpleNamespace(uuid=uuid))
    assert (open_sensor(torch.device("cuda:1")) is not None) == known
    assert open_sensor(torch.device("cpu")) is None


def test_nvml_is_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert open_sensor(torch.device("cuda")) is None
