"""True and predicted values of the samples of a number, for drawings."""

from __future__ import annotations

from dataclasses import dataclass

from lepton_vision.predictions.predictions import Predictions
from lepton_vision.types import Displayed, FloatArray, Target


@dataclass(frozen=True, eq=False)
class ValuePoints(Displayed):
    """Samples with a known value.

    Attributes:
        truth: (N,) float64, in the unit of the target.
        said: (N,) float64, the predictions.
    """

    truth: FloatArray
    said: FloatArray


def value_points(predictions: Predictions, target: Target) -> ValuePoints:
    """Return the labelled samples of a number."""
    known = predictions.labelled(target)
    return ValuePoints(predictions.y_true[target.name][known], predictions.y_prob[target.name][known])
