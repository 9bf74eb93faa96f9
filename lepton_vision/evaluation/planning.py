"""How many cases a study needs for an interval of a wanted width."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from html import escape
from typing import Any, Literal, get_args

import numpy as np
from scipy.special import ndtri

from lepton_vision.config import nearest
from lepton_vision.errors import EvaluationError
from lepton_vision.evaluation.delong import auroc_interval
from lepton_vision.evaluation.intervals import wilson
from lepton_vision.types import short_repr

PlannedFigure = Literal["auroc", "sensitivity", "specificity", "accuracy"]
VarianceModel = Literal["hanley_mcneil", "obuchowski"]
_LARGEST = 1_000_000_000


@dataclass(frozen=True, slots=True)
class SamplePlan:
    """What ``plan_sample`` found.

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

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    __repr__ = short_repr

    def _repr_html_(self) -> str:
        rows = "".join(f"<tr><th>{escape(k)}</th><td>{escape(str(v))}</td></tr>" for k, v in self.to_dict().items())
        return f"<table><caption>Sample size</caption>{rows}</table>"


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
    """Find the smallest study whose interval is expected to be no wider than ``width``.

    A proportion gets Wilson's interval. The variance of an AUROC is that of Hanley and McNeil (Radiology 143:29, 1982)
    or the binormal one of Obuchowski (Stat Methods Med Res 7:371, 1998; for grades, larger than that of fine scores);
    its interval is that of ``evaluate``, on the logit scale. Images of one patient count less by the design effect
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
        710
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
        method = f"logit interval, variance of {model}"
    else:
        of_all = {"sensitivity": share, "specificity": 1.0 - share, "accuracy": 1.0}[figure]
        interval = _proportion_ends(expected, of_all, confidence=confidence)
        method = "wilson"
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
    def ends(n: int) -> tuple[float, float]:
        positives, negatives = share * n, (1.0 - share) * n
        if min(positives, negatives) < 1.0:
            return 0.0, 1.0
        variance = auroc_variance(expected, positives=positives, negatives=negatives, model=model)
        return auroc_interval(expected, variance, confidence=confidence)

    return ends


def _proportion_ends(expected: float, share: float, *, confidence: float) -> Callable[[int], tuple[float, float]]:
    def ends(n: int) -> tuple[float, float]:
        low, high = wilson(expected * share * n, share * n, confidence=confidence)
        return float(low), float(high)

    return ends


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
            raise EvaluationError(f"Expected {name} between {low:g} and 1. Received: {number:g}.", key=name)
    if prevalence is None and figure != "accuracy":
        raise EvaluationError(
            f"A plan for {figure} needs the prevalence: the share of positive images.", key="prevalence"
        )
