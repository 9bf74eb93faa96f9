"""Novelty score: distance of an image from the training images in feature space.

The distance to the k-th nearest training image (Ramaswamy, Rastogi and Shim, SIGMOD 2000) in the space of the pooled
features (Sun, Ming, Zhu and Li, Out-of-distribution detection with deep nearest neighbors, ICML 2022,
arXiv:2204.06507). No distribution is assumed, and no covariance is needed, for which most studies have too few images.
Features are standardised, where Sun et al. scale each image to length 1: small networks that were trained from random
weights give noise the direction of a strong finding, and only the length tells them apart. What a distance means is
told by the images of validation, whose patients the training did not see.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from lepton_vision.errors import EvaluationError

Features = npt.NDArray[np.float32]

_AT_ONCE = 32  # images whose distances to all points are held
_PAIRS_AT_ONCE = 4096  # of an image and a point that are compared; each takes the memory of one image's features


@dataclass(frozen=True, slots=True, eq=False)
class Novelty:
    """Training images as points, and how far those of validation are from them.

    Attributes:
        reference: (R, F) float32 standardised features of training images.
        distances: (V,) float32 distances of validation images, rising.
        center: (F,) float32 mean of the features of training images.
        scale: (F,) float32 their standard deviation, above 0.
        k: which neighbour counts.

    Example:
        >>> points = np.eye(3, dtype=np.float32)
        >>> novelty = Novelty(points, np.array([0.1, 2.5], np.float32), np.zeros(3), np.ones(3), k=1)
        >>> (distance,) = novelty.distances_of(np.array([[3, 0, 0]], np.float32))
        >>> distance, novelty.percentile(distance)
        (2.0, 50.0)
    """

    reference: Features
    distances: Features
    center: Features
    scale: Features
    k: int
    _squares: npt.NDArray[np.float64] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        shape, width = self.reference.shape, self.reference.shape[-1:]
        is_valid = len(shape) == 2 and 1 <= self.k <= shape[0] and self.distances.ndim == 1 and self.distances.size > 0
        is_valid = is_valid and self.center.shape == self.scale.shape == width and bool((self.scale > 0).all())
        finite = all(bool(np.isfinite(array).all()) for array in self.arrays.values())
        if not (is_valid and finite and (np.diff(self.distances) >= 0).all()):
            raise EvaluationError(
                f"Expected finite features (R, F), rising distances and a neighbour from 1 to R. Received: {shape}, "
                f"{self.distances.size} distances and neighbour {self.k}.",
                key="novelty",
            )
        object.__setattr__(self, "_squares", _squares(self.reference))

    @property
    def arrays(self) -> dict[str, Features]:
        """Arrays to store in a file of tensors."""
        return {name: getattr(self, name) for name in ("reference", "distances", "center", "scale")}

    def distances_of(self, features: Features) -> list[float]:
        """Distance of each image from its (B, F) features; NaN where they are not finite.

        Not by BLAS, whose sums differ in their last bits with the rows and the threads, and whose threads would wait
        for those of the network. Products tell within an error of rounding how far all points are; only those that may
        be among the nearest are then compared one by one, so that the result is that of comparing all, to the bit.
        """
        points = _standard(features, self.center, self.scale)
        found = np.full(len(points), np.nan, np.float32)
        finite = np.flatnonzero(np.isfinite(points).all(axis=1))
        near = self._near(points[finite])
        step = len(finite) if near.sum() <= _PAIRS_AT_ONCE else 1
        for start in range(0, len(finite), step or 1):
            part, is_near = finite[start : start + step], near[start : start + step]
            image, row = np.nonzero(is_near)
            apart = self.reference[row] - points[part[image]]
            squared = np.full(is_near.shape, np.inf, np.float32)
            squared[is_near] = np.einsum("nf,nf->n", apart, apart)
            found[part] = np.sqrt(np.partition(squared, self.k - 1, axis=1)[:, self.k - 1])
        return [float(one) for one in found]

    def _near(self, points: Features) -> npt.NDArray[np.bool_]:
        """Mark (B, R) the reference points that may be among the k nearest of each point.

        |r - p|^2 = r^2 + p^2 - 2 rp. A float32 sum of F products errs by at most (F + 2) 2^-24 of the sum of their
        sizes (Higham, Accuracy and Stability of Numerical Algorithms, 3.1), which (|r| + |p|)^2 bounds for this
        expression as for the sum of squares that it stands for; twice that covers both.
        """
        of_points = _squares(points)[:, None]
        with np.errstate(over="ignore", invalid="ignore"):
            products = np.einsum("bf,rf->br", points, self.reference).astype(np.float64)
        about = self._squares + of_points - 2.0 * products
        error = 2.0 * (points.shape[1] + 2) * 2.0**-24 * (np.sqrt(self._squares) + np.sqrt(of_points)) ** 2 + 1e-30
        if not (about < 1e30).all():  # near the end of float32, or beyond it: compare all
            return np.ones(about.shape, np.bool_)
        farthest = np.partition(about + error, self.k - 1, axis=1)[:, self.k - 1]
        is_near: npt.NDArray[np.bool_] = about - error <= farthest[:, None]
        return is_near

    def percentile(self, distance: float) -> float:
        """Share of the validation images that lie nearer, in percent, 0 to 100."""
        if np.isnan(distance):
            return float("nan")
        nearer = bisect_left(self.distances, np.float32(distance))  # numpy would let go of the interpreter, and wait
        return 100.0 * nearer / self.distances.size

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; the arrays travel beside them."""
        return {"k": self.k}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], arrays: Mapping[str, Features]) -> Novelty:
        """Rebuild it."""
        return cls(**arrays, k=int(values["k"]))


def fit_novelty(train: Features, val: Features, *, k: int) -> Novelty | None:
    """Take the training images as points, and measure those of validation.

    Args:
        train: (R, F) features.
        val: (V, F) features.
        k: which neighbour counts; fewer where there are not so many training images.

    Returns:
        None where one of them has no image with finite features.
    """
    train, val = _finite(train), _finite(val)
    if not (len(train) and len(val)):
        return None
    center, spread = train.mean(axis=0), train.std(axis=0)
    scale = spread + np.float32(1e-3) * train.std() + np.float32(1e-6)  # a feature that never changed
    points = Novelty(_standard(train, center, scale), np.zeros(1, np.float32), center, scale, min(k, len(train)))
    steps = (val[start : start + _AT_ONCE] for start in range(0, len(val), _AT_ONCE))
    found = np.array([one for step in steps for one in points.distances_of(step)], np.float32)
    return replace(points, distances=np.sort(found))


def _standard(features: Features, center: Features, scale: Features) -> Features:
    """Features, (F,) or (N, F), as deviations from the training images."""
    standard: Features = ((features - center) / scale).astype(np.float32)
    return standard


def _squares(points: Features) -> npt.NDArray[np.float64]:
    """Squared length of each point, (N,) float64."""
    wide = points.astype(np.float64)
    squares: npt.NDArray[np.float64] = np.einsum("nf,nf->n", wide, wide)
    return squares


def _finite(features: Features) -> Features:
    kept: Features = np.asarray(features, np.float32)[np.isfinite(features).all(axis=1)]
    return kept
