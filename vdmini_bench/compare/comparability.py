"""What two numbers must share to be compared, where that depends on the metric."""

from __future__ import annotations

from vdmini_bench.config.vbench_dimensions import DIMENSIONS, FILTERED

# What is counted rather than measured is the same on every machine.
COUNTED = ("params_m", "denoiser_gflops")
# Of these the official protocol scores some of the videos only, of one model others than of another.
LEAVES_OUT = {f"vbench_{name}" for name, dimension in DIMENSIONS.items() if dimension.may_skip or name == FILTERED}


def what_must_agree(metric: str) -> dict[str, str]:
    """What two measurements must share to be compared, in words, with its column; of machines see below.

    Of samples that is the number scored, or, where a protocol leaves some out, of those given.
    """
    count = "n_expected" if metric in LEAVES_OUT else "n"
    return {
        "protocol": "protocol", "metric version": "metric_version", "number of samples": count, "machine": "machine_id",
    }  # fmt: skip


def is_of_a_machine(metric: str) -> bool:
    """Whether another machine may give another number."""
    return metric not in COUNTED
