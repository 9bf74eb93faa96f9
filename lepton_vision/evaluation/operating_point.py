"""Choose where probabilities become decisions: on validation, never on test."""

from __future__ import annotations

import math

import numpy as np

from lepton_vision.errors import EvaluationError
from lepton_vision.inference.predictions import Predictions
from lepton_vision.types import FloatArray, OperatingPoint


def choose_operating_point(predictions: Predictions, *, min_sensitivity: float = 0.95) -> OperatingPoint:
    """Choose for each class the highest threshold that still finds ``min_sensitivity`` of the positives.

    It is placed halfway between the lowest score that must be called positive and the next lower score (0 where there
    is none): the decisions on these samples are those of the highest such threshold, and a score that rounds
    differently on another device does not cross it. Where many scores are equal the sensitivity reached can be well
    above the one asked for. A multiclass target needs no threshold: its largest probability wins.

    Args:
        predictions: of the validation split, or of an unknown split (another tool's table).
        min_sensitivity: above 0, at most 1.

    Raises:
        EvaluationError: predictions of the test split, a sensitivity outside (0, 1], or a class without positive or
            without negative samples.

    Example:
        >>> from lepton_vision.types import Target
        >>> target, ids = Target("covid", "binary", ("no", "yes")), np.array(["a", "b", "c", "d"])
        >>> truth, prob = {"covid": np.array([0, 0, 1, 1])}, {"covid": np.array([0.1, 0.25, 0.75, 0.8])}
        >>> predictions = Predictions((target,), ids, ids, ids, truth, prob, split="val")
        >>> choose_operating_point(predictions).thresholds
        {'covid': (0.5,)}
    """
    refuse_test(predictions, what="An operating point")
    if not 0.0 < min_sensitivity <= 1.0:
        raise EvaluationError(
            f"Expected a sensitivity above 0 and at most 1. Received: {min_sensitivity:g}.", key="min_sensitivity"
        )
    thresholds: dict[str, tuple[float, ...]] = {}
    is_used = np.zeros(predictions.n, dtype=np.bool_)
    for target in predictions.targets:
        is_used |= predictions.labelled(target)
        if target.is_exclusive:
            thresholds[target.name] = ()
            continue
        truth = predictions.y_true[target.name].reshape(predictions.n, target.outputs)
        prob = predictions.y_prob[target.name].reshape(predictions.n, target.outputs)
        names = (target.name,) if target.kind == "binary" else tuple(f"{target.name}/{c}" for c in target.classes)
        thresholds[target.name] = tuple(
            _threshold(truth[:, k], prob[:, k], min_sensitivity=min_sensitivity, name=name)
            for k, name in enumerate(names)
        )
    return OperatingPoint(thresholds, f"sensitivity >= {min_sensitivity:g}", predictions.split, int(is_used.sum()))


def refuse_test(predictions: Predictions, *, what: str) -> None:
    """Raise EvaluationError where a choice would be made on the test split."""
    if predictions.split == "test":
        raise EvaluationError(
            f"{what} is chosen on validation, then frozen. Received: predictions of the test split. "
            'Predict manifest.subset("val") and choose there.',
            key="split",
        )


def _threshold(truth: FloatArray, prob: FloatArray, *, min_sensitivity: float, name: str) -> float:
    positives = np.sort(prob[truth == 1])[::-1]
    negatives = prob[truth == 0]
    if not positives.size or not negatives.size:
        raise EvaluationError(
            f"An operating point for {name!r} needs labelled samples of both classes. Received: {positives.size} "
            f"positive and {negatives.size} negative. Use more validation samples, or state the threshold.",
            key=name,
        )
    needed = max(1, math.ceil(min_sensitivity * positives.size))
    if (needed - 1) / positives.size >= min_sensitivity:  # 0.07 * 100 is 7.000000000000001
        needed -= 1
    lowest = float(positives[needed - 1])
    scores = np.concatenate([positives, negatives])
    below = float(scores[scores < lowest].max(initial=0.0))
    halfway = (lowest + below) / 2
    return halfway if halfway > below else lowest
