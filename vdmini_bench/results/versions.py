"""The versions of stages and packages that decide whether kept results are current."""

from __future__ import annotations

# The packages whose versions a job's key holds.
DECIDING = ("torch", "diffusers", "transformers", "av")


def deciding_versions(versions: dict[str, str]) -> dict[str, str]:
    """The versions that a job's key holds."""
    return {name: versions[name] for name in DECIDING}


# Raise a stage's number when its code changes what it writes: results of the older code are then made again.
STAGE_VERSIONS = {
    "encode": 3, "prune": 1, "distill": 2, "decoder": 1, "sample": 2, "reference": 3, "measure": 4, "fidelity": 1,
    "count": 1, "time": 4, "draw": 1, "judge": 1, "total": 1,
}  # fmt: skip
