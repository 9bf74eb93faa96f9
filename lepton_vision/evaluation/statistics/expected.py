"""Prediction intervals of an operating point's figures on new data, from its counts on validation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from scipy.stats import betabinom

from lepton_vision.predictions.operating_point import OperatingPoint, PointFigures
from lepton_vision.types import Target


class Expected(NamedTuple):
    """Expected range of shares among as many new cases, lowest and highest each.

    Attributes:
        class_name: what is positive.
        positives: new positive cases that the sensitivity is of.
        negatives: new negative cases that the specificity is of.
        sensitivity: ends of its prediction interval.
        specificity: likewise.
    """

    class_name: str
    positives: int
    negatives: int
    sensitivity: tuple[float, float]
    specificity: tuple[float, float]


def predict_share(hits: int, n: int, *, new: int, confidence: float = 0.95) -> tuple[float, float]:
    """Ends of the share of ``new`` cases that are hits, after ``hits`` of ``n``.

    A beta-binomial with Jeffreys' prior, Beta(hits + 1/2, n - hits + 1/2). It holds too where the threshold was chosen
    for the share: then the share of all cases beyond the k-th of n scores is Beta(k, n + 1 - k) (Wilks, Ann Math Stat
    12:91, 1941), and a threshold halfway to the next score lies between two of these.

    Example:
        >>> low, high = predict_share(57, 60, new=60)
        >>> round(low, 3), round(high, 3)
        (0.85, 1.0)
    """
    tail = (1.0 - confidence) / 2
    found = betabinom(new, hits + 0.5, n - hits + 0.5)
    return float(found.ppf(tail)) / new, float(found.ppf(1.0 - tail)) / new


def expected_at(
    point: OperatingPoint,
    target: Target,
    *,
    new: Mapping[str, tuple[int, int]] | None = None,
    confidence: float = 0.95,
) -> tuple[Expected, ...]:
    """Prediction intervals of the classes of a target; () for a point without counts of validation.

    Args:
        point: chosen on validation; one of an older bundle, or stated by hand, has no counts.
        target: of which.
        new: by class name, new positive and negative cases; None takes as many as validation had.
        confidence: e.g. 0.95.

    Example:
        >>> figures = PointFigures(sensitivity=0.95, specificity=0.8, ppv=0.83, npv=0.94, n=120, positives=60)
        >>> point = OperatingPoint({"sick": (0.3,)}, "sensitivity >= 0.95", "val", 120, {"sick": (figures,)})
        >>> round(expected_at(point, Target("sick", "binary", ("no", "yes")))[0].sensitivity[0], 3)
        0.85
    """
    found = []
    for name, one in zip(target.answers, point.figures.get(target.name, ()), strict=False):
        positives, negatives = (one.positives, one.n - one.positives) if new is None else new.get(name, (0, 0))
        if math.isfinite(one.sensitivity) and min(positives, negatives, one.positives, one.n - one.positives) > 0:
            found.append(_of_class(name, one, (positives, negatives), confidence=confidence))
    return tuple(found)


def _of_class(name: str, one: PointFigures, new: tuple[int, int], *, confidence: float) -> Expected:
    held = one.positives, one.n - one.positives
    shares = zip((one.sensitivity, one.specificity), held, new, strict=True)
    ends = [predict_share(round(share * n), n, new=m, confidence=confidence) for share, n, m in shares]
    return Expected(name, *new, ends[0], ends[1])
