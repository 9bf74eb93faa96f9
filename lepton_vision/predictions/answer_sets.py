"""Prediction-set rules: thresholds that turn probabilities into sets of classes, stored in the bundle."""

from __future__ import annotations

from dataclasses import dataclass

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


def answer_sets(prob: FloatArray, rule: SetRule) -> npt.NDArray[np.bool_]:
    """Mark the answers in each sample's set, (N, K) bool, from (N, K) float64 probabilities of the answers."""
    reached: npt.NDArray[np.bool_] = prob >= np.asarray(rule.thresholds)
    return reached
