"""Which cases were decided wrongly, the most wrong first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from lepton_vision.inference.predictions import Predictions
from lepton_vision.types import SampleAddress, Target

LARGEST_GALLERY = 12


@dataclass(frozen=True, slots=True)
class WorstCase:
    """One wrong decision.

    Attributes:
        image_id: pseudonymous id.
        address: where the pixels lie (to draw them), or None.
        y_true: 0 or 1; for multiclass the class index.
        y_prob: probability of the positive class (binary), of ``class_name`` (multilabel), or of the true class
            (multiclass).
        truth: name of the true class; for multilabel "present" or "absent".
        class_name: which class the decision is about: the positive class, the multilabel class, or the class that
            was called instead of the true one.
    """

    image_id: str
    address: SampleAddress | None
    y_true: float
    y_prob: float
    truth: str
    class_name: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, without the address: a path may hold a patient's name."""
        keys = ("image_id", "y_true", "y_prob", "truth", "class_name")
        return {key: getattr(self, key) for key in keys}


def worst_cases(
    part: Predictions, target: Target, thresholds: tuple[float, ...], *, count: int = LARGEST_GALLERY
) -> tuple[WorstCase, ...]:
    """Wrong decisions at the operating point, by the probability that the truth was given, smallest first.

    Args:
        part: samples with a label for the target.
        target: which target.
        thresholds: one for binary, K for multilabel, none for multiclass.
        count: at most so many.
    """
    truth, prob = part.y_true[target.name], part.y_prob[target.name]
    if target.kind == "multiclass":
        label = truth.astype(np.intp)
        called = prob.argmax(axis=1) if part.n else label
        given = prob[np.arange(part.n), label]
        rows = _first(np.where(called != label, given, np.inf), count)
        return tuple(
            _case(
                part, row, float(label[row]), float(given[row]), target.classes[label[row]], target.classes[called[row]]
            )
            for row in rows
        )
    table = (truth.reshape(part.n, target.outputs), prob.reshape(part.n, target.outputs))
    given = np.where(table[0] > 0, table[1], 1.0 - table[1])
    is_wrong = ((table[1] >= np.asarray(thresholds)) != (table[0] > 0)) & ~np.isnan(table[0])
    cases = []
    for cell in _first(np.where(is_wrong, given, np.inf).ravel(), count):
        row, k = divmod(cell, target.outputs)
        y_true, y_prob = float(table[0][row, k]), float(table[1][row, k])
        if target.kind == "binary":
            cases.append(_case(part, row, y_true, y_prob, target.classes[int(y_true)], target.positive))
        else:
            cases.append(_case(part, row, y_true, y_prob, "present" if y_true else "absent", target.classes[k]))
    return tuple(cases)


def _first(given: np.ndarray[Any, np.dtype[np.float64]], count: int) -> list[int]:
    """Positions of the smallest finite values, in order."""
    order = np.argsort(given, kind="stable")[:count]
    return [int(i) for i in order if np.isfinite(given[i])]


def _case(part: Predictions, row: int, y_true: float, y_prob: float, truth: str, class_name: str) -> WorstCase:
    address = None if part.addresses is None else part.addresses[row]
    return WorstCase(str(part.image_id[row]), address, y_true, y_prob, truth, class_name)
