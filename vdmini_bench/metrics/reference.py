"""The real clips' statistics: computed once, or those that ship with the package."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vdmini_bench.data.clip_reader import ClipReader
from vdmini_bench.errors import SuiteError
from vdmini_bench.metrics.features import ClipFeatures, Measured, clip_features, load_embeddings
from vdmini_bench.metrics.frechet import Moments
from vdmini_bench.system.files import sha256_of

MOMENTS, FLOWS, FRAMES = "moments.npz", "flows.npy", "frames.npz"
SHIPPED = Path(__file__).parents[1] / "embedded" / "reference"


def shipped_digest() -> str:
    """The identity of the reference that ships with the package; raises SuiteError where it does not."""
    try:
        return "".join(sha256_of(SHIPPED / name) for name in (MOMENTS, FLOWS))
    except OSError as error:
        raise SuiteError(
            f"the shipped reference is not part of this installation ({error}); use --set protocol.reference=computed"
        ) from error


@dataclass(frozen=True)
class Reference:
    """The real side as scores need it: moments; P x 2 flows and N x D embeddings where computed here."""

    moments: Moments
    flows: NDArray[np.float64] | None
    embeddings: NDArray[np.float32] | None


def load_reference(folder: Path) -> Reference:
    """Read what the job left in its folder."""
    flows = np.load(folder / FLOWS, allow_pickle=False) if (folder / FLOWS).exists() else None
    return Reference(Moments.load(folder / MOMENTS), flows, load_embeddings(folder))


def copy_shipped(folder: Path) -> None:
    """Copy the reference of the drawn world, which ships with the package."""
    for name in (MOMENTS, FLOWS):
        shutil.copyfile(SHIPPED / name, folder / name)


def shipped_moments() -> Moments:
    """The moments of the drawn world's reference clips, which ship with the package."""
    return Moments.load(SHIPPED / MOMENTS)


def shipped_flows() -> NDArray[np.float64]:
    """The flow magnitudes P x 2 of the same clips."""
    flows: NDArray[np.float64] = np.load(SHIPPED / FLOWS, allow_pickle=False)
    return flows


def write_reference(folder: Path, reader: ClipReader, label: str, measured: Measured, ddof: int = 1) -> ClipFeatures:
    """Score every clip of `reader`, write their moments and flows, and return their features."""
    features = clip_features(reader, label, measured)
    # Once, over all features in the order of the clips: no sum depends on who computed which of them.
    Moments.of(features.embeddings, ddof).save(folder / MOMENTS)
    if features.flows is not None:
        np.save(folder / FLOWS, features.flows.reshape(-1, 2), allow_pickle=False)
    return features
