"""Smooth calibration curve and its error summaries: ICI, E50 and E90."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array
from scipy.special import chdtri, expit

from lepton_vision.types import Figure, FloatArray

NAMES = ("ici", "e50", "e90")
# A curve of so many knots needs that many samples of the rarer class; with fewer it is a straight line.
_KNOTS = ((100, (0.05, 0.35, 0.65, 0.95)), (50, (0.1, 0.5, 0.9)))
FEWEST = 5
"""Samples of the rarer class below which there is no curve."""

_STEPS, _FLAT, _LARGEST = 60, 1e-9, 200.0
_DRAWN = 500  # curves of the confidence region that the ends are taken from
_NAN = float("nan")


@dataclass(frozen=True, eq=False)
class Groups:
    """Samples gathered by their log odds.

    Attributes:
        x: (G,) float64 log odds.
        weight: (G,) float64 samples of each group.
        positive: (G,) float64 positive ones among them.
        by_patient: (U, 2 G) weight, then positive ones, of each patient; None where every patient has one sample.
    """

    x: FloatArray
    weight: FloatArray
    positive: FloatArray
    by_patient: csr_array | None = None


def curve_distances(groups: Groups, *, confidence: float, lacking: str = "") -> dict[str, Figure]:
    """Mean (ICI), median (E50) and 90th percentile (E90) of the distance between probability and calibration curve.

    Austin and Steyerberg, Stat Med 38:4051, 2019. The curve is a logistic regression on a restricted cubic spline of
    the log odds (Harrell 2015, 2.4.5, knots at his quantiles), which holds the perfect curve. A distance is never
    negative, so that a bootstrap of it is biased upwards as the figure is: the interval spans the figures of all
    curves in the confidence region of the coefficients (chi-square; between patients where they have several
    samples), and reaches 0 where the perfect curve lies in it.

    Args:
        groups: what the curve is fitted to.
        confidence: e.g. 0.95.
        lacking: why there is no curve; "" where there may be one.

    Returns:
        Figures by ``NAMES``.
    """
    n = int(groups.weight.sum())
    fewest = min(groups.positive.sum(), n - groups.positive.sum())
    if not lacking and fewest < FEWEST:
        lacking = f"fewer than {FEWEST} samples of one class: too few for a curve"
    design = None if lacking else spline(groups.x, groups.weight, knots=_knots(fewest))
    found = None if design is None else _fit(design, groups)
    if design is None or found is None:
        reason = lacking or "the probabilities are all equal, or separate the classes"
        return {name: Figure(_NAN, _NAN, _NAN, n, reason) for name in NAMES}
    center, covariance = found
    curves = _region(center, covariance, confidence=confidence)
    distance = np.abs(expit(curves @ design.T) - expit(groups.x))
    values = _summaries(distance, groups.weight / n)
    return {
        name: Figure(float(one[0]), float(one.min()), float(one.max()), n, "", "curve_region")
        for name, one in zip(NAMES, values, strict=True)
    }


def _knots(fewest: float) -> tuple[float, ...]:
    return next((quantiles for least, quantiles in _KNOTS if fewest >= least), ())


def spline(x: FloatArray, weight: FloatArray, *, knots: tuple[float, ...]) -> FloatArray | None:
    """(G, 1 + max(1, knots - 1)) restricted cubic spline: 1, x, and Harrell's terms; None where all x are equal.

    Where knots would coincide, it is the straight line.

    Args:
        x: (G,) float64, ascending.
        weight: (G,) float64 samples at each x.
        knots: quantiles.
    """
    if np.ptp(x) <= 0.0:
        return None
    columns = [np.ones(x.size), x]
    at = x[np.searchsorted(np.cumsum(weight) / weight.sum(), knots).clip(0, x.size - 1)]
    if at.size and (np.diff(at) > 0).all():
        last, span = at[-1] - at[-2], (at[-1] - at[0]) ** 2

        def cube(knot: float) -> FloatArray:
            return np.asarray(np.maximum(x - knot, 0.0) ** 3)

        columns += [
            (cube(t) - cube(at[-2]) * (at[-1] - t) / last + cube(at[-1]) * (at[-2] - t) / last) / span for t in at[:-2]
        ]
    return np.column_stack(columns)


def _fit(design: FloatArray, groups: Groups) -> tuple[FloatArray, FloatArray] | None:
    """Coefficients of the maximum of the likelihood by Newton's method, and their covariance; None without one."""
    share = groups.positive.sum() / groups.weight.sum()
    beta = np.zeros(design.shape[1])
    beta[0] = np.log(share / (1.0 - share))

    def likelihood(coefficients: FloatArray) -> float:
        line = design @ coefficients
        return float(groups.positive @ line - groups.weight @ np.logaddexp(0.0, line))

    for _ in range(_STEPS):
        chance = expit(design @ beta)
        curvature = (design * (groups.weight * chance * (1.0 - chance))[:, None]).T @ design
        if not np.linalg.cond(curvature) < 1e14 or np.abs(beta).max() > _LARGEST:
            return None
        step = np.linalg.solve(curvature, design.T @ (groups.positive - groups.weight * chance))
        if np.abs(step).max() < _FLAT:
            return beta, _covariance(design, curvature, chance, groups)
        before = likelihood(beta)
        while likelihood(beta + step) < before - 1e-9 * abs(before):
            step /= 2.0
        beta += step
    return None


def _covariance(design: FloatArray, curvature: FloatArray, chance: FloatArray, groups: Groups) -> FloatArray:
    """Inverse of the information or, where patients have several samples, the sandwich between patients."""
    inverse = np.asarray(np.linalg.inv(curvature), dtype=np.float64)
    if groups.by_patient is None:
        return inverse
    scores = groups.by_patient @ np.vstack([-chance[:, None] * design, design])
    patients = len(scores)
    between = scores.T @ scores * (patients / max(patients - 1, 1))
    return np.asarray(inverse @ between @ inverse)


def _region(center: FloatArray, covariance: FloatArray, *, confidence: float) -> FloatArray:
    """(1 + R, k) coefficients in the confidence ellipsoid: its middle, its surface, its inside, the way to perfect."""
    k, rng = center.size, np.random.default_rng(0)
    radius = float(np.sqrt(chdtri(k, 1.0 - confidence)))
    values, vectors = np.linalg.eigh(covariance)
    root = vectors * np.sqrt(values.clip(1e-300))
    offset = rng.normal(size=(_DRAWN, k))
    offset *= radius / np.linalg.norm(offset, axis=1, keepdims=True)
    offset[_DRAWN // 2 :] *= rng.random((_DRAWN - _DRAWN // 2, 1)) ** (1.0 / k)
    ideal = np.zeros(k)
    ideal[1] = 1.0
    away = np.linalg.solve(root, ideal - center)
    reach = min(1.0, radius / max(float(np.linalg.norm(away)), 1e-300))
    path = np.linspace(0.0, reach, 20)[:, None] * (ideal - center)
    return np.asarray(center + np.vstack([np.zeros(k), offset @ root.T, path]))


def _summaries(distance: FloatArray, share: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Mean, median and 90th percentile of (R, G) distances, of which each group is a ``share``; (R,) each."""
    order = np.argsort(distance, axis=1)
    ordered, below = np.take_along_axis(distance, order, axis=1), np.cumsum(share[order], axis=1)
    rows = np.arange(len(distance))
    median, most = (ordered[rows, (below >= level - 1e-12).argmax(axis=1)] for level in (0.5, 0.9))
    return distance @ share, median, most
