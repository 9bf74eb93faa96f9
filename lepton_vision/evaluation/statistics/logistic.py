"""Univariable logistic regression under many sample weightings at once."""

from __future__ import annotations

import numpy as np
from scipy.special import expit

from lepton_vision.evaluation.statistics.ranking import BoolArray, ratio
from lepton_vision.types import FloatArray

_STEPS = 60
_FLAT = 1e-10  # length of a step below which the maximum is reached
_LARGEST = 200.0  # a steeper line separates the classes: the maximum lies at infinity


def fit_lines(x: FloatArray, weight: FloatArray, positive: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Maximise the likelihood of logit P(y = 1) = a + b x by Newton's method, for R weightings.

    Args:
        x: (G,) float64.
        weight: (R, G) float64 at least 0, total weight of the samples at each x.
        positive: (R, G) float64, weight of the positive ones among them (fractions are allowed: soft labels).

    Returns:
        a and b, (R,) each; NaN where a weighting has one class, one value of x, or classes that x separates.
    """
    total, hits = weight.sum(axis=1), positive.sum(axis=1)
    moving = (hits > 0) & (hits < total)
    failed = ~moving
    share = np.where(moving, ratio(hits, total), 0.5)
    a, b = np.log(share / (1.0 - share)), np.zeros(len(weight))  # level: no curve is too flat there to leave
    for _ in range(_STEPS):
        k = np.flatnonzero(moving)
        if not k.size:
            break
        da, db, is_singular = _newton_step(x, weight[k], positive[k], a=a[k], b=b[k])
        a[k], b[k] = a[k] + da, b[k] + db
        bad = np.logical_or(is_singular, ~np.isfinite(a[k]) | (np.abs(b[k]) > _LARGEST))
        failed[k[bad]] = True
        moving[k] = ~bad & (np.maximum(np.abs(da), np.abs(db)) > _FLAT)
    failed |= moving
    return np.where(failed, np.nan, a), np.where(failed, np.nan, b)


def fit_offsets(x: FloatArray, weight: FloatArray, positive: FloatArray) -> FloatArray:
    """Maximise the likelihood of logit P(y = 1) = a + x over a; arguments and NaN as for ``fit_lines``; (R,)."""
    total, hits = weight.sum(axis=1), positive.sum(axis=1)
    is_defined = (hits > 0) & (hits < total)
    # The sum of sigmoid(a + x) rises with a: halve a bracket that holds the root, then four steps of Newton's.
    low, high = np.full(len(weight), -40.0), np.full(len(weight), 40.0)
    for _ in range(10):
        middle = (low + high) / 2
        is_above = (weight * expit(middle[:, None] + x)).sum(axis=1) > hits
        low, high = np.where(is_above, low, middle), np.where(is_above, middle, high)
    a = (low + high) / 2
    for _ in range(4):
        chance = expit(a[:, None] + x)
        a += np.nan_to_num(ratio(hits - (weight * chance).sum(axis=1), (weight * chance * (1 - chance)).sum(axis=1)))
    return np.where(is_defined, a, np.nan)


def _log_likelihood(
    x: FloatArray, weight: FloatArray, positive: FloatArray, *, a: FloatArray, b: FloatArray
) -> FloatArray:
    """(R,) log likelihood of lines, constants left out."""
    line = a[:, None] + b[:, None] * x
    nats: FloatArray = (positive * line - weight * np.logaddexp(0.0, line)).sum(axis=1)
    return nats


def _newton_step(
    x: FloatArray, weight: FloatArray, positive: FloatArray, *, a: FloatArray, b: FloatArray
) -> tuple[FloatArray, FloatArray, BoolArray]:
    chance = expit(a[:, None] + b[:, None] * x)
    rest, curve = positive - weight * chance, weight * chance * (1.0 - chance)
    gradient = rest.sum(axis=1), rest @ x
    h0, h1, h2 = curve.sum(axis=1), curve @ x, curve @ (x * x)
    determinant = h0 * h2 - h1 * h1
    is_singular = ~(determinant > 1e-12 * h0 * h2)
    da = ratio(h2 * gradient[0] - h1 * gradient[1], determinant)
    db = ratio(h0 * gradient[1] - h1 * gradient[0], determinant)
    da, db = np.where(is_singular, 0.0, da), np.where(is_singular, 0.0, db)
    return *_shorten(x, weight, positive, a=a, b=b, da=da, db=db), is_singular


def _shorten(
    x: FloatArray,
    weight: FloatArray,
    positive: FloatArray,
    *,
    a: FloatArray,
    b: FloatArray,
    da: FloatArray,
    db: FloatArray,
) -> tuple[FloatArray, FloatArray]:
    """Halve steps that go too far, until the likelihood does not fall."""
    before = _log_likelihood(x, weight, positive, a=a, b=b)
    for _ in range(30):
        after = _log_likelihood(x, weight, positive, a=a + da, b=b + db)
        is_far = after < before - 1e-9 * np.abs(before)
        if not is_far.any():
            break
        da, db = np.where(is_far, da / 2, da), np.where(is_far, db / 2, db)
    return da, db
