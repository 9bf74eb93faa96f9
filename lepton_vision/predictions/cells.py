"""Cell checks of prediction tables: ids as text, probabilities, labels, failed samples."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lepton_vision.errors import EvaluationError
from lepton_vision.types import FloatArray, Target

TextArray = npt.NDArray[np.str_]


class Failure(NamedTuple):
    """A sample that could not be read: it has no probability, and it is not lost."""

    image_id: str
    reason: str


def as_failures(values: Iterable[Iterable[str]]) -> tuple[Failure, ...]:
    """Turn pairs of id and reason, as JSON has them too, into failures."""
    return tuple(Failure(*pair) for pair in values)


def as_text(values: npt.ArrayLike) -> TextArray:
    """Turn ids into a (N,) str array; None and NaN become ""."""
    array = np.asarray(values)
    if array.dtype.kind == "U":
        return array
    return np.array(["" if v is None or v != v else str(v) for v in array.tolist()], dtype=np.str_)


# Softmax in float32 and a CSV with six digits both stay far inside; logits taken for probabilities do not.
SUM_TOLERANCE = 1e-3


def check_probabilities(prob: FloatArray, target: Target) -> None:
    """Refuse what is no probability: unknown, outside [0, 1], or classes that do not sum to one; or no finite value."""
    is_missing = np.isnan(prob)
    is_bad = np.isinf(prob) if target.is_value else ~((prob >= 0.0) & (prob <= 1.0))  # which catches NaN too
    what = "value" if target.is_value else "probability"
    if is_missing.any():
        row = int(np.argwhere(is_missing)[0][0])
        raise EvaluationError(
            f"Every row needs a {what} of {target.name!r}. Received: none in row {row} (from 0), "
            f"{int(is_missing.sum())} such values. Leave out rows that were not predicted, and report how many.",
            row=row,
            key=target.name,
        )
    if is_bad.any():
        row = int(np.argwhere(is_bad)[0][0])
        expected = "Values of {} must be finite" if target.is_value else "Probabilities of {} must lie in [0, 1]"
        advice = (
            "Leave out such rows, and report how many"
            if target.is_value
            else ("Apply the sigmoid or softmax first, or state that it is a number: kind=regression")
        )
        raise EvaluationError(
            f"{expected.format(repr(target.name))}. Received: {prob[is_bad][0]:g} in row {row} (from 0), "
            f"{int(is_bad.sum())} such values. {advice}.",
            row=row,
            key=target.name,
        )
    if target.is_exclusive and prob.size:
        total = prob.sum(axis=1)
        row = int(np.argmax(np.abs(total - 1.0)))
        if abs(total[row] - 1.0) > SUM_TOLERANCE:
            raise EvaluationError(
                f"Probabilities of the multiclass target {target.name!r} must sum to 1 in each row. Received: "
                f"{total[row]:g} in row {row} (from 0). Apply the softmax first.",
                row=row,
                key=target.name,
            )


def check_labels(labels: FloatArray, target: Target) -> None:
    """Refuse labels outside the classes of a target, and numbers that are not finite."""
    valid = range(len(target.classes)) if target.is_exclusive else range(2)
    is_bad = np.isinf(labels) if target.is_value else ~(np.isnan(labels) | np.isin(labels, list(valid)))
    if is_bad.any():
        row = int(np.argwhere(is_bad)[0][0])
        expected = f"0 … {valid[-1]} (a class index)" if target.is_exclusive else "0 or 1"
        expected = "finite numbers" if target.is_value else expected
        raise EvaluationError(
            f"Labels of the {target.kind} target {target.name!r} must be {expected}, or unknown. Received: "
            f"{labels[is_bad][0]:g} in row {row} (from 0).",
            row=row,
            key=target.name,
        )
