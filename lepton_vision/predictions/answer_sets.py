"""Rules for answers of stated coverage, stored in the bundle: sets of classes, and intervals of numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from lepton_vision.errors import EvaluationError
from lepton_vision.types.geometry import FloatArray
from lepton_vision.types.result import Plain


@dataclass(frozen=True, slots=True)
class SetRule(Plain):
    """An answer is in the set where its probability reaches its threshold.

    Attributes:
        classes: K answers. Of a binary target (negative, positive), of a class of a multilabel target
            ("absent", "present").
        stated: share of the samples of each class whose set is to hold it, in (0, 1).
        thresholds: K probabilities in [0, 1]; 0 where validation has too few patients of the class: it is always in.
        n_patients: K patients of each class on validation.

    Example:
        >>> rule = SetRule(("no", "yes"), 0.9, (0.4, 0.2), (50, 40))
        >>> answer_sets(np.array([[0.9, 0.1], [0.5, 0.5]]), rule).tolist()
        [[True, False], [True, True]]
    """

    classes: tuple[str, ...]
    stated: float
    thresholds: tuple[float, ...]
    n_patients: tuple[int, ...]
    _json = ("classes", "thresholds", "n_patients", "stated")

    def __post_init__(self) -> None:
        k, values = len(self.classes), np.asarray(self.thresholds, dtype=np.float64)
        is_valid = values.shape == (k,) and len(self.n_patients) == k and bool(((values >= 0) & (values <= 1)).all())
        if not (is_valid and 0.0 < self.stated < 1.0):
            raise EvaluationError(
                f"Expected a coverage between 0 and 1 and {k} thresholds in [0, 1]. Received: {self.stated} and "
                f"{list(self.thresholds)}.",
                key="conformal",
            )


@dataclass(frozen=True, slots=True)
class IntervalRule(Plain):
    """The interval of a number reaches as far below its prediction as above it.

    Attributes:
        stated: share of the samples whose interval is to hold their true value, in (0, 1).
        half_width: how far it reaches, in the unit of the target; NaN where validation has too few patients for the
            coverage: no interval that ends holds it.
        n_patients: patients with a known value on validation.

    Example:
        >>> rule = IntervalRule(0.9, 2.5, 60)
        >>> [end.tolist() for end in value_interval(np.array([40.0, 71.0]), rule)]
        [[37.5, 68.5], [42.5, 73.5]]
    """

    stated: float
    half_width: float
    n_patients: int
    classes: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        if not (0.0 < self.stated < 1.0 and (np.isnan(self.half_width) or 0.0 <= self.half_width < np.inf)):
            raise EvaluationError(
                "Expected a coverage between 0 and 1, and a half width of at least 0 (NaN: none). Received: "
                f"{self.stated} and {self.half_width}.",
                key="conformal",
            )


Rule = SetRule | IntervalRule
"""What a bundle keeps for a target: one rule, or one for each class of a multilabel target."""


def rule_from(values: Mapping[str, Any]) -> Rule:
    """Rebuild the rule that ``to_dict`` wrote."""
    return SetRule.from_dict(values) if "classes" in values else IntervalRule.from_dict(values)


def answer_sets(prob: FloatArray, rule: SetRule) -> npt.NDArray[np.bool_]:
    """Mark the answers in each sample's set, (N, K) bool, from (N, K) float64 probabilities of the answers."""
    reached: npt.NDArray[np.bool_] = prob >= np.asarray(rule.thresholds)
    return reached


def value_interval(values: FloatArray, rule: IntervalRule) -> tuple[FloatArray, FloatArray]:
    """Return the ends (N,), (N,) float64 of the interval of each predicted value (N,); NaN where there is none."""
    wide = np.asarray(values, dtype=np.float64)
    return wide - rule.half_width, wide + rule.half_width
