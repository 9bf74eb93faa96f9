"""Intervals of figures composed of several proportions, where a proportion of 0 or 1 defeats the bootstrap."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from lepton_vision.evaluation.statistics.intervals import BOOTSTRAPS
from lepton_vision.types import Figure, Interval


class Share(NamedTuple):
    """A proportion with its interval."""

    value: float
    low: float
    high: float

    @property
    def rest(self) -> Share:
        """One less it."""
        return Share(1.0 - self.value, 1.0 - self.high, 1.0 - self.low)


def square_and_add(function: Callable[..., float], shares: Sequence[Share]) -> Interval:
    """Interval of a smooth function of independent proportions from their own intervals (MOVER).

    Each proportion in turn goes to both its ends, and the squares of what that moves the function by are added (Zou
    and Donner, Stat Med 27:1693, 2008; of a difference it is Newcombe's hybrid score, Stat Med 17:873, 1998).

    Example:
        >>> found = square_and_add(lambda a, b: a - b, [Share(56 / 70, 0.692, 0.877), Share(48 / 80, 0.490, 0.700)])
        >>> round(found.low, 3), round(found.high, 3)  # Newcombe 1998, table II, example a
        (0.053, 0.334)
    """
    values = [one.value for one in shares]
    center, fall, rise = function(*values), 0.0, 0.0
    for k, one in enumerate(shares):
        moved = [function(*values[:k], end, *values[k + 1 :]) - center for end in (one.low, one.high)]
        fall, rise = fall + min(*moved, 0.0) ** 2, rise + max(*moved, 0.0) ** 2
    return Interval("mover", center - fall**0.5, center + rise**0.5)


def ratio_interval(above: Share, below: Share) -> Interval:
    """Interval of the ratio of two independent proportions from their own intervals.

    It holds the ratios r for which the MOVER interval of above - r * below holds 0 (Donner and Zou, Stat Methods Med
    Res 21:347, 2012).

    Example:
        >>> found = ratio_interval(Share(0.0, 0.0, 0.28), Share(0.9, 0.79, 0.96))
        >>> round(found.low, 3), round(found.high, 3)
        (0.0, 0.313)
    """
    product = above.value * below.value

    def end(own: float, other: float, sign: float) -> float:
        bottom = other * (2.0 * below.value - other)
        root = max(product**2 - own * (2.0 * above.value - own) * bottom, 0.0) ** 0.5
        return (product + sign * root) / bottom if bottom else float("inf")

    return Interval("mover", max(end(above.low, below.high, -1.0), 0.0), end(above.high, below.low, 1.0))


def at_edge(sensitivity: Share, specificity: Share, prevalence: Share, *, stated: float | None) -> dict[str, Interval]:
    """Intervals of the figures of a binary decision from those of three proportions; none of what is undefined."""
    balanced = square_and_add(lambda a, b: (a + b) / 2.0, [sensitivity, specificity])
    found = {"balanced_accuracy": balanced, "mcc": square_and_add(_matthews, [sensitivity, specificity, prevalence])}
    if specificity.value < 1.0:
        found["lr_positive"] = ratio_interval(sensitivity, specificity.rest)
    if specificity.value > 0.0:
        found["lr_negative"] = ratio_interval(sensitivity.rest, specificity)
    if stated is None:
        return found
    odds = (1.0 - stated) / stated
    if sensitivity.value > 0.0:
        false = ratio_interval(specificity.rest, sensitivity)  # 1 / LR+
        found["ppv_at_prevalence"] = Interval("mover", *(1.0 / (1.0 + odds * end) for end in (false.high, false.low)))
    if specificity.value > 0.0:
        missed = found["lr_negative"]
        found["npv_at_prevalence"] = Interval("mover", *(1.0 / (1.0 + end / odds) for end in (missed.high, missed.low)))
    return found


def _matthews(sensitivity: float, specificity: float, prevalence: float) -> float:
    """Matthews' correlation; 0 where every sample is called alike."""
    called = prevalence * sensitivity + (1.0 - prevalence) * (1.0 - specificity)
    spread = called * (1.0 - called)
    return (sensitivity + specificity - 1.0) * (prevalence * (1.0 - prevalence) / spread) ** 0.5 if spread > 0 else 0.0


def f1_interval(overlap: Interval) -> Interval:
    """Interval of F1 from that of the overlap TP / (TP + FP + FN), a proportion: F1 = 2 J / (1 + J)."""
    return Interval(overlap.method, *(2.0 * end / (1.0 + end) for end in (overlap.low, overlap.high)))


def with_edges(
    figures: Mapping[str, Figure], *, edges: Mapping[str, Interval], means: Mapping[str, Mapping[str, float]]
) -> dict[str, Figure]:
    """Give the figures that rest on proportions of 0 or 1, which no replicate moves, the intervals that know of it.

    Args:
        figures: by name, as the bootstrap gave them.
        edges: intervals by name (``at_edge``).
        means: by name of a figure that is a mean of others, their weights.
    """
    found = dict(figures)
    for name, (method, low, high) in edges.items():
        if not np.isnan(found[name].value):
            found[name] = replace(found[name], low=low, high=high, method=method, reason="")
    for name, weights in means.items():
        parts = {part: found[part] for part in weights}
        if not np.isnan(found[name].value) and any(one.method not in BOOTSTRAPS for one in parts.values()):
            found[name] = widen_mean(found[name], parts, weights=list(weights.values()))
    return found


def widen_mean(mean: Figure, parts: Mapping[str, Figure], *, weights: Sequence[float]) -> Figure:
    """Widen the interval of a mean of which a part does not move to that of its parts, squared and added.

    There is none where a part has none.
    """
    for name, one in parts.items():
        if not one.low < one.high:
            return replace(mean, low=np.nan, high=np.nan, method="", reason=f"no interval: {name} has none")
    shares = [Share(one.value, one.low, one.high) for one in parts.values()]
    found = square_and_add(lambda *values: float(np.dot(weights, values)), shares)
    low, high = float(np.fmin(mean.low, found.low)), float(np.fmax(mean.high, found.high))
    return replace(mean, low=low, high=high, method="mover", reason="")
