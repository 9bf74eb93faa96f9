"""Score interval and non-inferiority of the difference of two paired proportions (Tango 1998), clusters allowed for."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri

from lepton_vision.evaluation.ranking import BoolArray, IntArray

_FEWEST = 5  # patients with a discordant sample, below which they tell nothing of how much patients differ
_EDGE = 1e-12


class Pairs(NamedTuple):
    """Two decisions on the same samples, as so many independent pairs as they are worth.

    Attributes:
        gained: pairs that only the second decides rightly.
        lost: pairs that only the first decides rightly.
        n: all pairs; a fraction where patients have several samples.
        patients: how many there are.
    """

    gained: float
    lost: float
    n: float
    patients: int

    @property
    def difference(self) -> float:
        """Proportion of the second less that of the first."""
        return (self.gained - self.lost) / self.n


def count_pairs(is_right_a: BoolArray, is_right_b: BoolArray, *, unit: IntArray) -> Pairs:
    """Count the pairs; where patients have several samples, divide by the design effect of the difference.

    The design effect is the variance of the difference between patients (Obuchowski, Stat Med 17:1495, 1998) over that
    of independent pairs, at least 1 (Rao and Scott, Biometrics 48:577, 1992). Where fewer than five patients have a
    discordant sample it cannot be estimated, and the samples of a patient count as copies of each other: n is then
    Kish's effective number, the square of the sum of their numbers over the sum of the squares.

    Args:
        is_right_a: (N,) bool.
        is_right_b: (N,) bool.
        unit: (N,) int, the patient of each sample.
    """
    gap = is_right_b.astype(np.float64) - is_right_a.astype(np.float64)
    _, which = np.unique(unit, return_inverse=True)
    sizes, sums = np.bincount(which).astype(np.float64), np.bincount(which, gap)
    n, units, gained, lost = float(gap.size), sizes.size, float((gap > 0).sum()), float((gap < 0).sum())
    if units == n:
        return Pairs(gained, lost, n, units)
    mean, effect = float(gap.mean()), float((sizes**2).sum()) / n
    independent = (gained + lost - n * mean**2) / (n * (n - 1.0))
    if np.unique(which[gap != 0]).size >= _FEWEST and independent > 0.0:
        variance = units / (units - 1) * float(((sums - mean * sizes) ** 2).sum()) / n**2
        effect = max(variance / independent, 1.0)
    return Pairs(gained / effect, lost / effect, n / effect, units)


def tango_interval(pairs: Pairs, *, confidence: float = 0.95) -> tuple[float, float]:
    """Score interval of the difference of paired proportions (Tango, Stat Med 17:891, 1998).

    It holds its level with few and with no discordant pairs, where it keeps a width: ± z² / (n + z²).

    Example:
        >>> [round(end, 3) for end in tango_interval(Pairs(1, 7, 21, 21))]
        [-0.517, -0.026]
    """
    quantile, found = float(ndtri(0.5 + confidence / 2)), pairs.difference
    low = -1.0 if found <= -1.0 + _EDGE else _root(lambda d: _score(pairs, d) - quantile, -1.0 + _EDGE, found)
    high = 1.0 if found >= 1.0 - _EDGE else _root(lambda d: _score(pairs, d) + quantile, found, 1.0 - _EDGE)
    return low, high


def tango_p(pairs: Pairs, *, margin: float) -> float:
    """One-sided P of the score test that the second proportion is lower by ``margin`` or more."""
    return float(1.0 - ndtr(_score(pairs, -margin)))


def _root(function: Callable[[float], float], low: float, high: float) -> float:
    """Where a score reaches the quantile; the end of the scale where it does not on this side."""
    if function(low) * function(high) > 0:
        return low if abs(function(low)) < abs(function(high)) else high
    return float(brentq(function, low, high, xtol=1e-12))


def _score(pairs: Pairs, difference: float) -> float:
    """Standardised distance of the observed difference from a supposed one, with its restricted maximum likelihood."""
    gained, lost, n = pairs.gained, pairs.lost, pairs.n
    b = -gained - lost + (2.0 * n - gained + lost) * difference
    c = -lost * difference * (1.0 - difference)
    share = (np.sqrt(max(b * b - 8.0 * n * c, 0.0)) - b) / (4.0 * n)
    variance = n * (2.0 * share + difference * (1.0 - difference))
    distance = gained - lost - n * difference
    return (
        float(np.sign(distance) * np.inf) if variance <= 0.0 and distance else distance / max(variance, 1e-300) ** 0.5
    )
