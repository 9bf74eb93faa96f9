"""DeLong variance and covariance of AUROCs, with Obuchowski's extension to several images of a patient."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.special import expit, logit, ndtri, stdtrit

from lepton_vision.errors import EvaluationError
from lepton_vision.evaluation.statistics.ranking import BoolArray, IntArray
from lepton_vision.types import Displayed, FloatArray, Interval


@dataclass(frozen=True, eq=False)
class AurocCovariance(Displayed):
    """AUROCs of K scores of the same samples.

    Attributes:
        auroc: (K,) float64.
        covariance: (K, K) float64 of their estimates; NaN where fewer than two units hold a class.
        units: how many units (patients) hold a positive sample, or a negative one: the smaller number.
    """

    auroc: FloatArray
    covariance: FloatArray
    units: int

    def interval(self, k: int = 0, *, confidence: float = 0.95) -> tuple[float, float]:
        """Interval of the k-th AUROC, see ``auroc_interval``."""
        return auroc_interval(
            float(self.auroc[k]), float(self.covariance[k, k]), confidence=confidence, units=self.units
        )

    def intervals(self, *, confidence: float, is_clustered: bool) -> tuple[Interval, ...]:
        """Both intervals of the first AUROC by name; none where it is 0 or 1, or one unit holds a class.

        ``delong_logit_t`` is ``interval``. ``delong`` is the paper's own, AUROC ± z × standard error, cut at 0 and 1,
        as other software gives it; it is too high, and covers too little, where the AUROC is high and cases are few.
        Where patients have several images both are named after Obuchowski, whose variance they then take.
        """
        low, high = self.interval(confidence=confidence)
        if not np.isfinite(low):
            return ()
        name, auroc = "obuchowski" if is_clustered else "delong", float(self.auroc[0])
        half = float(ndtri(0.5 + confidence / 2)) * float(self.covariance[0, 0]) ** 0.5
        plain = Interval(name, max(auroc - half, 0.0), min(auroc + half, 1.0))
        return Interval(f"{name}_logit_t", low, high), plain


def auroc_covariance(is_positive: BoolArray, scores: FloatArray, *, unit: IntArray | None = None) -> AurocCovariance:
    """Estimate the covariance of AUROCs from their structural components.

    Without units it is that of DeLong et al. (Biometrics 44:837, 1988), from midranks in O(N log N) (Sun and Xu, IEEE
    Signal Process Lett 21:1389, 2014). With units the components are summed by patient, and the covariance between
    the positives and the negatives of one patient is added (Obuchowski, Biometrics 53:567, 1997); with one sample for
    each unit both are the same.

    Args:
        is_positive: (N,) bool, with both classes.
        scores: (N, K) float64, larger where a sample is more likely positive.
        unit: (N,) int from 0, the patient of each sample; None takes the samples for independent.

    Raises:
        EvaluationError: one class only.

    Example:
        >>> found = auroc_covariance(np.array([False, False, True, True]), np.array([[0.1], [0.4], [0.35], [0.8]]))
        >>> float(found.auroc[0]), float(found.covariance[0, 0])
        (0.75, 0.125)
    """
    if unit is None:
        unit = np.arange(is_positive.size)
    auroc, first, second, has_first, has_second = _components(is_positive, scores, unit, units=int(unit.max()) + 1)
    cross = first.T @ second
    covariance = _spread(int(has_first.sum())) * (first.T @ first) + _spread(int(has_second.sum())) * second.T @ second
    if np.any(has_first & has_second):
        covariance = covariance + _spread(int((has_first | has_second).sum())) * (cross + cross.T)
    return AurocCovariance(auroc, covariance, min(int(has_first.sum()), int(has_second.sum())))


class AurocSamples(NamedTuple):
    """One class against the rest: (N,) bool truth, (N,) float64 scores, (N,) int patient of each sample."""

    is_positive: BoolArray
    score: FloatArray
    unit: IntArray


def mean_auroc(samples: Iterable[AurocSamples], *, units: int, count: int | None = None) -> AurocCovariance:
    """Estimate the variance of the plain mean of the AUROCs of several classes (macro, one against the rest).

    The structural components of DeLong's covariance are summed over the classes by patient before they are squared: a
    sample that is positive of one class and negative of the others moves all areas at once (the multi-class area of
    Hand and Till, Mach Learn 45:171, 2001, is a mean of such areas too). With one class it is ``auroc_covariance`` of
    independent samples.

    Args:
        samples: one for each class, each with both answers.
        units: number of patients; ``unit`` of all samples counts the same ones.
        count: number of samples, where they are made one at a time.

    Returns:
        One AUROC with its variance.

    Raises:
        EvaluationError: a question with one answer only.

    Example:
        >>> truth, score = np.array([False, False, True, True]), np.array([0.1, 0.4, 0.35, 0.8])
        >>> halves = [AurocSamples(truth, score, np.arange(4)), AurocSamples(~truth, 1 - score, np.arange(4))]
        >>> found = mean_auroc(halves, units=4)
        >>> float(found.auroc[0]), round(float(found.covariance[0, 0]), 6)
        (0.75, 0.125)
    """
    if count is None:
        samples = tuple(samples)
        count = len(samples)
    areas, least, moved = [], units, np.zeros((units, 1))
    for one in samples:
        auroc, *sides = _components(one.is_positive, one.score[:, None], one.unit, units=units)
        for component, has_side in zip(sides[:2], sides[2:], strict=True):
            moved += np.sqrt(_spread(int(has_side.sum()))) * component / count
            least = min(least, int(has_side.sum()))
        areas.append(float(auroc[0]))
    return AurocCovariance(np.array([np.mean(areas)]), moved.T @ moved, least)


def auroc_interval(
    auroc: float, variance: float, *, confidence: float = 0.95, units: int | None = None
) -> tuple[float, float]:
    """Interval of an AUROC on the logit scale, which stays inside [0, 1] (Pepe 2003, ch. 5.2); NaN at 0 and 1.

    Args:
        auroc: estimate.
        variance: of the estimate.
        confidence: e.g. 0.95.
        units: that the variance was estimated from: Student's t with one degree of freedom less; None is normal.
    """
    if not (0.0 < auroc < 1.0 and variance > 0.0):
        return float("nan"), float("nan")
    quantile = ndtri(0.5 + confidence / 2) if units is None else stdtrit(max(units - 1, 1), 0.5 + confidence / 2)
    half = float(quantile) * np.sqrt(variance) / (auroc * (1.0 - auroc))
    center = logit(auroc)
    return float(expit(center - half)), float(expit(center + half))


def _placements(is_positive: BoolArray, score: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Share of the negatives below each positive, and of the positives above each negative; equal scores count half."""
    ordered, negatives = np.sort(score[is_positive]), score[~is_positive]
    m, n = ordered.size, negatives.size
    below, upto = (np.searchsorted(ordered, negatives, side=side) for side in ("left", "right"))
    first = np.searchsorted(ordered, score[is_positive], side="left")  # no equal positive lies before it
    passed = np.cumsum(np.bincount(below, minlength=m + 1) + np.bincount(upto, minlength=m + 1))
    return passed[first] / (2.0 * n), 1.0 - (below + upto) / (2.0 * m)


def _components(
    is_positive: BoolArray, scores: FloatArray, unit: IntArray, *, units: int
) -> tuple[FloatArray, FloatArray, FloatArray, BoolArray, BoolArray]:
    """AUROCs (K,), what each unit's positives and its negatives move them by (U, K), and which units have any (U,)."""
    m, n = int(is_positive.sum()), int((~is_positive).sum())
    if not m or not n:
        raise EvaluationError(f"An AUROC needs both classes. Received: {m} positive and {n} negative samples.")
    places = [_placements(is_positive, scores[:, k]) for k in range(scores.shape[1])]
    of_positives, of_negatives = (np.column_stack([pair[side] for pair in places]) for side in (0, 1))
    auroc = of_positives.mean(axis=0)
    first = _by_unit(of_positives - auroc, unit[is_positive], units=units) / m
    second = _by_unit(of_negatives - auroc, unit[~is_positive], units=units) / n
    has_first, has_second = (np.bincount(unit[rows], minlength=units) > 0 for rows in (is_positive, ~is_positive))
    return auroc, first, second, has_first, has_second


def _by_unit(values: FloatArray, unit: IntArray, *, units: int) -> FloatArray:
    return np.column_stack([np.bincount(unit, values[:, k], minlength=units) for k in range(values.shape[1])])


def _spread(units: int) -> float:
    """Small-sample factor of a variance between units."""
    return units / (units - 1) if units > 1 else float("nan")
