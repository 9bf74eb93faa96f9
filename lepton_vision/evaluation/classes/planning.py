"""Sample size planning: number of cases for an interval of a wanted width."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from scipy.special import ndtr, ndtri, stdtrit
from scipy.stats import binom

from lepton_vision.errors import EvaluationError, nearest
from lepton_vision.evaluation.statistics.delong import auroc_interval
from lepton_vision.evaluation.statistics.intervals import wilson
from lepton_vision.evaluation.statistics.ranking import ratio
from lepton_vision.types import FloatArray, Result, Table

PlannedFigure = Literal["auroc", "sensitivity", "specificity", "accuracy"]
VarianceModel = Literal["hanley_mcneil", "obuchowski"]
_LARGEST = 1_000_000_000
_COUNTED = 2000  # samples up to which the width is averaged over what a study may count


@dataclass(frozen=True, slots=True)
class SamplePlan(Result):
    """Result of ``plan_sample``.

    Attributes:
        figure: what is planned for.
        expected: its expected value.
        low: lower end of the interval to be expected.
        high: upper end.
        n_images: images needed.
        n_patients: patients needed.
        n_positive: positive images among ``n_images`` at the prevalence; None where it does not matter.
        n_independent: images that would do if each were of a patient of its own.
        design_effect: ``n_images`` over ``n_independent`` before rounding.
        method: of the interval.
    """

    figure: PlannedFigure
    expected: float
    low: float
    high: float
    n_images: int
    n_patients: int
    n_positive: int | None
    n_independent: int
    design_effect: float
    method: str

    def _tables(self) -> tuple[Table, ...]:
        return (Table("Sample size", self.to_dict().items()),)


def plan_sample(
    figure: PlannedFigure,
    *,
    expected: float,
    width: float,
    prevalence: float | None = None,
    confidence: float = 0.95,
    images_per_patient: float = 1.0,
    icc: float = 0.0,
    model: VarianceModel = "hanley_mcneil",
) -> SamplePlan:
    """Find the smallest study whose interval is expected to be no wider than ``width`` on average.

    The interval is that of ``evaluate``: BCa, with the t quantiles that it takes where few samples carry a figure
    (``scripts/bench/plan.py`` compares both). The variance of an AUROC is that of Hanley and McNeil (Radiology 143:29,
    1982), of exponential scores, or the binormal one of Obuchowski (Stat Methods Med Res 7:371, 1998; for grades). Both
    are larger than that of fine normal scores. Images of one patient count less by the design effect
    1 + (images_per_patient - 1) * icc (Kish 1965).

    Args:
        figure: "auroc", "sensitivity", "specificity" or "accuracy".
        expected: value that the figure is expected to have, in (0, 1); an AUROC above 0.5.
        width: upper less lower end, in (0, 1).
        prevalence: share of positive images, in (0, 1); needed for all but the accuracy.
        confidence: e.g. 0.95.
        images_per_patient: mean number, at least 1.
        icc: correlation between images of one patient, in [0, 1].
        model: of the variance of an AUROC.

    Raises:
        EvaluationError: a value outside its range, or no prevalence where one is needed.

    Example:
        >>> plan_sample("sensitivity", expected=0.9, width=0.1, prevalence=0.2).n_images
        728
    """
    _check(figure, model, expected=expected, width=width, prevalence=prevalence, confidence=confidence)
    if not (np.isfinite(images_per_patient) and images_per_patient >= 1.0 and 0.0 <= icc <= 1.0):
        raise EvaluationError(
            "A plan needs at least 1 image per patient and an icc from 0 to 1. Received: "
            f"{images_per_patient:g} and {icc:g}.",
            key="icc",
        )
    share = 1.0 if prevalence is None else prevalence
    if figure == "auroc":
        interval = _auroc_ends(expected, share, model=model, confidence=confidence)
        method = f"bca, variance of {model}"
    else:
        of_all = {"sensitivity": share, "specificity": 1.0 - share, "accuracy": 1.0}[figure]
        interval = _proportion_ends(expected, of_all, confidence=confidence)
        method = "bca"
    independent = _smallest(lambda n: np.diff(interval(n))[0] <= width)
    effect = 1.0 + (images_per_patient - 1.0) * icc
    images = math.ceil(independent * effect - 1e-9)
    low, high = interval(independent)
    return SamplePlan(
        figure=figure,
        expected=expected,
        low=low,
        high=high,
        n_images=images,
        n_patients=math.ceil(images / images_per_patient - 1e-9),
        n_positive=None if prevalence is None else math.ceil(images * prevalence - 1e-9),
        n_independent=independent,
        design_effect=effect,
        method=method,
    )


def auroc_variance(auroc: float, *, positives: float, negatives: float, model: VarianceModel) -> float:
    """Variance that an AUROC is expected to have.

    Args:
        auroc: expected value, in (0.5, 1).
        positives: number of positive samples.
        negatives: number of negative samples.
        model: "hanley_mcneil" (exponential scores) or "obuchowski" (normal scores of equal variance).

    Example:
        >>> round(auroc_variance(0.893, positives=51, negatives=58, model="hanley_mcneil") ** 0.5, 4)
        0.0325
    """
    if model == "hanley_mcneil":
        q1, q2 = auroc / (2 - auroc), 2 * auroc**2 / (1 + auroc)
        total = auroc * (1 - auroc) + (positives - 1) * (q1 - auroc**2) + (negatives - 1) * (q2 - auroc**2)
        return total / (positives * negatives)
    a = float(ndtri(auroc)) * 1.414
    return 0.0099 * math.exp(-(a**2) / 2) * (5 * a**2 + 8 + (a**2 + 8) * positives / negatives) / positives


def _auroc_ends(
    expected: float, share: float, *, model: VarianceModel, confidence: float
) -> Callable[[int], tuple[float, float]]:
    second, fourth = _placement_moments(expected, model=model)
    rest = 1.0 - share
    square = second[0] / share + second[1] / rest
    kurtosis = (fourth[0] / share**3 + fourth[1] / rest**3) / square**2

    def ends(n: int) -> tuple[float, float]:
        positives, negatives = share * n, rest * n
        if min(positives, negatives) < 1.0:
            return 0.0, 1.0
        variance = auroc_variance(expected, positives=positives, negatives=negatives, model=model)
        width = min(float(_width(np.array(variance), np.array(kurtosis), n=n, confidence=confidence)), 1.0)
        return _placed(width, expected, auroc_interval(expected, variance, confidence=confidence))

    return ends


def _proportion_ends(expected: float, share: float, *, confidence: float) -> Callable[[int], tuple[float, float]]:
    def ends(n: int) -> tuple[float, float]:
        size = max(round(share * n), 1)
        hits = np.arange(size + 1.0) if size <= _COUNTED else np.array([expected * size])
        chance = binom.pmf(hits, size, expected) if size <= _COUNTED else np.ones(1)
        low, high = wilson(hits, size, confidence=confidence)
        variance = hits / size * (1.0 - hits / size)
        kurtosis = ratio(1.0 - 3.0 * variance, variance * size / n)
        is_mixed = variance > 0.0  # where all or none are hit, the interval is Wilson's
        widths = np.where(is_mixed, _width(variance / size, kurtosis, n=n, confidence=confidence), high - low)
        return _placed(min(float(chance @ widths), 1.0), expected, wilson(expected * size, size, confidence=confidence))

    return ends


def _width(variance: FloatArray, kurtosis: FloatArray, *, n: int, confidence: float) -> FloatArray:
    """Width of the interval that ``evaluate`` makes of n samples, of influences with this kurtosis on the figure.

    See ``intervals.expanded_confidence`` and ``spread_freedom``: Student's t with the degrees of freedom of the spread.
    """
    freedom = (2.0 * n / np.nan_to_num(kurtosis - 1.0, nan=1.0).clip(1e-9)).clip(1.0, n - 1.0)
    found: FloatArray = 2.0 * stdtrit(freedom, 0.5 + confidence / 2) * np.sqrt(variance * n / (n - 1.0))
    return found


def _placed(width: float, value: float, shape: tuple[Any, Any]) -> tuple[float, float]:
    """Ends of an interval of this width, around the value as those of ``shape`` are."""
    low, high = float(shape[0]), float(shape[1])
    start = max(value - width * (value - low) / (high - low), 0.0)
    end = min(start + width, 1.0)
    return end - width, end


def _placement_moments(auroc: float, *, model: VarianceModel) -> tuple[tuple[float, float], tuple[float, float]]:
    """Second, then fourth central moments of how positives are placed among negatives, and negatives among positives.

    Exponential scores for Hanley and McNeil's variance, normal ones for Obuchowski's.
    """
    if model == "hanley_mcneil":
        scale, power = auroc / (1.0 - auroc), np.arange(1, 5)
        raw = np.array([1.0 / (1.0 + scale * power), 1.0 / (1.0 + power / scale)])
    else:
        z, weight = np.polynomial.hermite_e.hermegauss(80)
        place = ndtr(np.sqrt(2.0) * ndtri(auroc) + z)
        raw = np.array([[float(weight @ place**k) / weight.sum() for k in range(1, 5)]] * 2)
    a, b, c, d = raw.T
    second, fourth = b - a**2, d - 4 * a * c + 6 * a**2 * b - 3 * a**4
    return (float(second[0]), float(second[1])), (float(fourth[0]), float(fourth[1]))


def _smallest(is_enough: Callable[[int], bool]) -> int:
    """Smallest n, by bisection: intervals shrink as n grows."""
    high = 2
    while not is_enough(high):
        high *= 2
        if high > _LARGEST:
            raise EvaluationError(
                f"No study of up to {_LARGEST:,} images reaches this width. Ask for a wider interval."
            )
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return high


def _check(
    figure: str, model: str, *, expected: float, width: float, prevalence: float | None, confidence: float
) -> None:
    for name, value, valid in (("figure", figure, PlannedFigure), ("model", model, VarianceModel)):
        if value not in get_args(valid):
            raise EvaluationError(f"No {name} {value!r} to plan for. {nearest(value, list(get_args(valid)))}", key=name)
    least = 0.5 if figure == "auroc" else 0.0
    bounds = {"expected": (expected, least), "width": (width, 0.0), "confidence": (confidence, 0.5)}
    if prevalence is not None:
        bounds["prevalence"] = (prevalence, 0.0)
    for name, (number, low) in bounds.items():
        if not low < number < 1.0:
            raise EvaluationError(f"{name}: expected a number between {low:g} and 1. Received: {number:g}.", key=name)
    if prevalence is None and figure != "accuracy":
        raise EvaluationError(
            f"A plan for {figure} needs the prevalence: the share of positive images.", key="prevalence"
        )
