"""How far an image lies from those that a model was trained on: what a bundle carries to say so.

The distance to the k-th nearest training image in the space of the pooled features, each scaled to length 1 (Sun, Ming,
Zhu and Li, Out-of-distribution detection with deep nearest neighbors, ICML 2022, arXiv:2204.06507). No distribution is
assumed, and no covariance is needed, for which most studies have too few images. What a distance means is told by the
images of validation, whose patients the training did not see.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lepton_vision.errors import EvaluationError
from lepton_vision.geometry import FloatArray

Features = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Novelty:
    """Training images as points, and how far those of validation are from them.

    Attributes:
        reference: (R, F) float32 features of training images, each of length 1.
        distances: (V,) float32 distances of validation images, rising.
        k: which neighbour counts.

    Example:
        >>> points = np.eye(3, dtype=np.float32)
        >>> novelty = Novelty(points, np.array([0.1, 0.2, 1.5], np.float32), k=1)
        >>> distance = novelty.distance(np.array([1, 0, 0], np.float32))
        >>> distance, novelty.percentile(distance)
        (0.0, 0.0)
    """

    reference: Features
    distances: Features
    k: int

    def __post_init__(self) -> None:
        shape = self.reference.shape
        is_valid = len(shape) == 2 and 1 <= self.k <= shape[0] and self.distances.ndim == 1 and self.distances.size > 0
        finite = bool(np.isfinite(self.reference).all() and np.isfinite(self.distances).all())
        if not (is_valid and finite and (np.diff(self.distances) >= 0).all()):
            raise EvaluationError(
                f"Expected finite features (R, F), rising distances and a neighbour from 1 to R. Received: {shape}, "
                f"{self.distances.size} distances and neighbour {self.k}.",
                key="novelty",
            )

    @property
    def arrays(self) -> dict[str, Features]:
        """What a file of tensors holds."""
        return {"reference": self.reference, "distances": self.distances}

    def distance(self, features: Features) -> float:
        """Distance of one image, 0 to 2, from its (F,) features; NaN where they are not finite or all 0.

        One image at a time and not by BLAS, whose sums differ in their last bits with the rows and the threads, and
        whose threads would wait for those of the network.
        """
        point = unit_length(features[None])[0]
        if not np.isfinite(point).all():
            return float("nan")
        squared = 2.0 - 2.0 * np.einsum("rf,f->r", self.reference, point)
        return float(np.sqrt(max(float(np.partition(squared, self.k - 1)[self.k - 1]), 0.0)))

    def percentile(self, distance: float) -> float:
        """Share of the validation images that lie nearer, in percent, 0 to 100."""
        if np.isnan(distance):
            return float("nan")
        return 100.0 * float(np.searchsorted(self.distances, np.float32(distance))) / self.distances.size

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; the arrays travel beside them."""
        return {"k": self.k}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], arrays: Mapping[str, Features]) -> Novelty:
        """Rebuild it."""
        return cls(arrays["reference"], arrays["distances"], int(values["k"]))


def fit_novelty(train: Features, val: Features, *, k: int) -> Novelty | None:
    """Take the training images as points, and measure those of validation.

    Args:
        train: (R, F) features.
        val: (V, F) features.
        k: which neighbour counts; fewer where there are not so many training images.

    Returns:
        None where one of them has no image with finite features.
    """
    train, val = (_finite(unit_length(part)) for part in (train, val))
    if not (len(train) and len(val)):
        return None
    points = Novelty(train, np.zeros(1, np.float32), min(k, len(train)))
    found = np.array([points.distance(one) for one in val], np.float32)
    return Novelty(train, np.sort(found), points.k)


def unit_length(features: Features | FloatArray) -> Features:
    """(N, F) float32 rows of length 1; NaN where a row is all 0 or not finite."""
    values = np.asarray(features, dtype=np.float64)
    length = np.sqrt((values**2).sum(axis=1, keepdims=True))
    with np.errstate(divide="ignore", invalid="ignore"):
        scaled: Features = (values / np.where(length > 0, length, np.nan)).astype(np.float32)
    return scaled


def _finite(features: Features) -> Features:
    kept: Features = features[np.isfinite(features).all(axis=1)]
    return kept
