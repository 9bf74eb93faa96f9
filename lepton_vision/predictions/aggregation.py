"""Aggregation of image probabilities to series, studies or patients, with parameters stored in the bundle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from lepton_vision.errors import EvaluationError
from lepton_vision.predictions.calibration import SMALLEST
from lepton_vision.types.geometry import FloatArray
from lepton_vision.types.result import Plain
from lepton_vision.types.target import Target

Unit = Literal["image", "series", "study", "patient"]
Method = Literal["max", "mean", "noisy_or", "learnt"]
IntArray = npt.NDArray[np.intp]
CASE_KEY = "unit_of_analysis"
"""Where the provenance of a bundle keeps how it joins images, and the operating point of the cases."""


@dataclass(frozen=True, slots=True)
class Aggregation(Plain):
    """Rule for the aggregation of the images of a unit, fitted on validation.

    Attributes:
        unit: "series", "study" or "patient".
        weights: by target name, (intercept, weight of the mean, weight of the maximum) of the logits: one row for
            binary, multiclass and ordinal, K for multilabel. The intercept of exclusive classes is 0.
        n: units that it was fitted on.
    """

    unit: Unit
    weights: Mapping[str, tuple[tuple[float, ...], ...]]
    n: int


def join_probabilities(
    prob: FloatArray,
    which: IntArray,
    target: Target,
    *,
    method: Method,
    weights: Mapping[str, tuple[tuple[float, ...], ...]],
) -> FloatArray:
    """Join the probabilities of the images of each unit, see ``evaluation.units.aggregate`` for the methods.

    A number is the mean of those of its images, whatever the method. Sums run in the order of the images: the same
    order gives the same bits.

    Args:
        prob: (N,) float64 for a binary target or a number, (N, K) otherwise.
        which: (N,) unit of each image, 0 … U - 1, none left out.
        target: what they are of.
        method: how they are joined.
        weights: of ``Aggregation``, for the method "learnt".

    Returns:
        (U,) or (U, K) float64.

    Raises:
        EvaluationError: "noisy_or" of exclusive classes, or "learnt" without weights for this target.
    """
    if target.is_value:
        return _mean(prob, which)
    if method == "learnt":
        return _apply(prob, which, target, weights=weights)
    if method == "noisy_or":
        if target.is_exclusive:
            raise EvaluationError(
                f"noisy_or is for binary and multilabel targets. Received: {target.name!r}, {target.kind}. Use mean or "
                "max.",
                key="aggregation",
            )
        with np.errstate(divide="ignore"):
            joined = -np.expm1(_sums(np.log1p(-prob), which))
        return np.asarray(np.clip(joined, 0.0, 1.0))
    if method == "mean":
        return np.asarray(_mean(prob, which).clip(0.0, 1.0))
    most = _most(prob, which)
    return most / most.sum(axis=1, keepdims=True) if target.is_exclusive else most


def _apply(
    prob: FloatArray, which: IntArray, target: Target, *, weights: Mapping[str, tuple[tuple[float, ...], ...]]
) -> FloatArray:
    if target.name not in weights:
        raise EvaluationError(
            f"The learnt aggregation lacks the target {target.name!r}. Fit it on predictions of the same targets.",
            key=target.name,
        )
    from scipy.special import expit, softmax  # a bundle is loaded without it

    mean, most = logit_features(prob, which, target)
    rows = np.asarray(weights[target.name])
    if target.is_exclusive:
        return np.asarray(softmax(rows[0, 1] * mean + rows[0, 2] * most, axis=1))
    joined = expit(rows[:, 0] + rows[:, 1] * mean + rows[:, 2] * most)
    return np.asarray(joined.reshape(target.output_shape(len(joined))))


def logit_features(prob: FloatArray, which: IntArray, target: Target) -> tuple[FloatArray, FloatArray]:
    """Return (U, K) mean and maximum of the logits, or of the log probabilities of exclusive classes."""
    from scipy.special import logit

    values = prob.reshape(len(prob), -1).clip(SMALLEST, 1.0 - SMALLEST)
    scores = np.log(values) if target.is_exclusive else logit(values)
    return _mean(scores, which), _most(scores, which)


def _sums(values: FloatArray, which: IntArray) -> FloatArray:
    total = np.zeros((int(which.max(initial=-1)) + 1, *values.shape[1:]))
    np.add.at(total, which, values)
    return total


def _mean(values: FloatArray, which: IntArray) -> FloatArray:
    n = np.bincount(which).astype(np.float64)
    return np.asarray(_sums(values, which) / (n if values.ndim == 1 else n[:, None]))


def _most(values: FloatArray, which: IntArray) -> FloatArray:
    most = np.full((int(which.max(initial=-1)) + 1, *values.shape[1:]), -np.inf)
    np.maximum.at(most, which, values)
    return most
