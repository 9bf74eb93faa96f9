"""Calibration maps of probabilities: parameters stored in the bundle, and the one function that applies them.

They come after the sigmoid or softmax. A temperature is none of them: it divides logits, see ``Bundle.temperatures``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from lepton_vision.errors import EvaluationError
from lepton_vision.types.geometry import FloatArray
from lepton_vision.types.kinds import TargetKind, kind_called
from lepton_vision.types.result import Plain

SMALLEST = 1e-7
"""float32 probabilities saturate: a logit beyond ±16 carries no information."""


@dataclass(frozen=True, slots=True)
class Platt(Plain):
    """sigmoid(intercept + slope * logit(p)) (Platt 1999, on logits).

    Attributes:
        slope: at least 0: the ranking is kept, or lost where it is 0, never turned round.
        intercept: any finite number.
    """

    slope: float
    intercept: float

    def __post_init__(self) -> None:
        if not (np.isfinite([self.slope, self.intercept]).all() and self.slope >= 0):
            raise EvaluationError(
                f"Expected a finite intercept and a slope of at least 0. Received: {self.intercept} and {self.slope}."
            )


@dataclass(frozen=True, slots=True)
class Isotonic(Plain):
    """A rising line through points, level beyond its ends (Zadrozny and Elkan, KDD 2002).

    Attributes:
        before: ascending probabilities that go in.
        after: as many, ascending, that come out; all in [0, 1].
    """

    before: tuple[float, ...]
    after: tuple[float, ...]

    def __post_init__(self) -> None:
        x, y = np.asarray(self.before, dtype=np.float64), np.asarray(self.after, dtype=np.float64)
        is_rising = x.shape == y.shape and x.size > 0 and bool((np.diff(x) > 0).all() and (np.diff(y) >= 0).all())
        if not is_rising or not (np.isfinite(x).all() and y[0] >= 0.0 and y[-1] <= 1.0):
            raise EvaluationError("Expected as many ascending probabilities after as before. Received: others.")


@dataclass(frozen=True, slots=True)
class Calibrator(Plain):
    """How the probabilities of one target are corrected.

    Attributes:
        method: "platt" or "isotonic".
        maps: one for each output of the target: 1 for binary, K otherwise.

    Example:
        >>> calibrator = Calibrator("isotonic", (Isotonic((0.2, 0.8), (0.1, 0.5)),))
        >>> apply_calibrator(np.array([0.0, 0.5, 1.0]), calibrator, kind="binary").round(2).tolist()
        [0.1, 0.3, 0.5]
    """

    method: Literal["platt", "isotonic"]
    maps: tuple[Platt | Isotonic, ...]

    def __post_init__(self) -> None:
        kind = {"platt": Platt, "isotonic": Isotonic}.get(self.method)
        if kind is None or not self.maps or not all(isinstance(one, kind) for one in self.maps):
            raise EvaluationError(f"Expected maps of the method platt or isotonic. Received: {self.method!r}.")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Calibrator:
        """Rebuild what ``to_dict`` gave."""
        kind = Platt if values["method"] == "platt" else Isotonic
        return cls(values["method"], tuple(kind.from_dict(one) for one in values["maps"]))


def apply_calibrator(prob: FloatArray, calibrator: Calibrator, *, kind: TargetKind) -> FloatArray:
    """Correct probabilities.

    Exclusive classes (multiclass, ordinal) are corrected one against the rest and then divided by their sum.

    Args:
        prob: float64 in [0, 1]: (N,) of the positive class for binary, (N, K) otherwise. NaN stays NaN.
        calibrator: as many maps as the target has outputs.
        kind: of the target.

    Returns:
        Probabilities in [0, 1] of the same shape.
    """
    values = np.asarray(prob, dtype=np.float64)
    columns = values.reshape(len(values), len(calibrator.maps))
    result = np.stack([_apply(columns[:, k], one) for k, one in enumerate(calibrator.maps)], axis=1)
    if kind_called(kind).is_exclusive:
        result /= result.sum(axis=1, keepdims=True)
    return result.reshape(values.shape)


def logits(prob: FloatArray) -> FloatArray:
    """Log odds, finite: probabilities are first brought into [SMALLEST, 1 - SMALLEST]."""
    inside = np.clip(prob, SMALLEST, 1.0 - SMALLEST)
    return np.log(inside) - np.log1p(-inside)


def sigmoid(line: FloatArray) -> FloatArray:
    """Probabilities of log odds; NaN stays NaN."""
    result: FloatArray = 1.0 / (1.0 + np.exp(-np.clip(line, -700.0, 700.0)))
    return result


def _apply(prob: FloatArray, one: Platt | Isotonic) -> FloatArray:
    if isinstance(one, Isotonic):
        return np.interp(prob, one.before, one.after)
    return sigmoid(one.intercept + one.slope * logits(prob))
