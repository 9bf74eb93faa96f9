"""Selection of example cases: confident errors first, then cases close to the threshold."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.special import logit

from lepton_vision.predictions.predictions import Predictions
from lepton_vision.types import FloatArray, Plain, SampleAddress, Target
from lepton_vision.types.target import are_called

LARGEST_GALLERY = 12
LARGEST_UNSURE = 6
_AT_ONCE = 4096  # rows of many classes of which a copy is held
_SMALLEST = 1e-7  # float32 probabilities saturate; a logit beyond ±16 carries no information


@dataclass(frozen=True, slots=True)
class WorstCase(Plain):
    """One decision, mostly a wrong one.

    Attributes:
        image_id: pseudonymous id.
        address: where the pixels lie (to draw them), or None.
        y_true: 0 or 1; for multiclass the class index; of a number the true one.
        y_prob: probability of the positive class (binary), of ``class_name`` (multilabel), or of the true class
            (multiclass); of a number the predicted one.
        truth: name of the true class; for multilabel "present" or "absent"; of a number its text.
        class_name: which class the decision is about: the positive class, the multilabel class, or the class that
            was called (where the decision is wrong: instead of the true one); "" of a number.
    """

    image_id: str
    address: SampleAddress | None
    y_true: float
    y_prob: float
    truth: str
    class_name: str
    _json = ("image_id", "y_true", "y_prob", "truth", "class_name")  # a path may hold a patient's name


def worst_cases(
    part: Predictions, target: Target, *, thresholds: tuple[float, ...], count: int = LARGEST_GALLERY
) -> tuple[WorstCase, ...]:
    """Wrong decisions at the operating point, by the probability that the truth was given, smallest first.

    Of a number they are the largest errors, the largest first.

    Args:
        part: samples with a label for the target.
        target: which target.
        thresholds: one for binary, K for multilabel, none for multiclass; NaN is no decision.
        count: at most so many.
    """
    if target.is_value:
        gap = np.abs(part.y_prob[target.name] - part.y_true[target.name])
        return tuple(_number(part, target, row) for row in _first(np.where(gap > 0, -gap, np.inf), count))
    find = _multiclass if target.is_exclusive else _yes_or_no
    return tuple(find(part, target, thresholds=thresholds, count=count))


def unsure_cases(
    part: Predictions, target: Target, *, thresholds: tuple[float, ...], count: int = LARGEST_UNSURE
) -> tuple[WorstCase, ...]:
    """Decisions that a small change would have turned, right or wrong, the nearest to the border first.

    The distance is that of the logits of probability and threshold; for a multiclass target it is how much smaller the
    second largest probability is than the largest. A number has none.

    Args:
        part: samples with a label for the target.
        target: which target.
        thresholds: one for binary, K for multilabel, none for multiclass; NaN is no decision.
        count: at most so many.
    """
    prob = part.y_prob[target.name]
    if target.is_value:
        return ()
    if target.is_exclusive:
        blocks = [np.partition(prob[at : at + _AT_ONCE], -2, axis=1)[:, -2:] for at in range(0, part.n, _AT_ONCE)]
        two = np.concatenate(blocks) if blocks else np.zeros((0, 2))
        return tuple(_named(part, target, row) for row in _first(two[:, 1] - two[:, 0], count))
    truth, prob = (values.reshape(part.n, target.outputs) for values in (part.y_true[target.name], prob))
    borders = np.asarray(thresholds).clip(_SMALLEST, 1.0 - _SMALLEST)
    distance = np.abs(logit(prob.clip(_SMALLEST, 1.0 - _SMALLEST)) - logit(borders))
    cells = _first(np.where(np.isnan(truth), np.inf, distance).ravel(), count)
    return tuple(_cell(part, target, *divmod(cell, target.outputs)) for cell in cells)


def _multiclass(part: Predictions, target: Target, *, thresholds: tuple[float, ...], count: int) -> Iterator[WorstCase]:
    del thresholds  # the largest probability wins
    truth, prob = part.y_true[target.name].astype(np.intp), part.y_prob[target.name]
    called = prob.argmax(axis=1) if part.n else truth
    given = prob[np.arange(part.n), truth]
    for row in _first(np.where(called != truth, given, np.inf), count):
        yield _named(part, target, row)


def _named(part: Predictions, target: Target, row: int) -> WorstCase:
    """One decision of a multiclass target."""
    truth, prob = int(part.y_true[target.name][row]), part.y_prob[target.name][row]
    return WorstCase(
        str(part.image_id[row]),
        _address(part, row),
        y_true=float(truth),
        y_prob=float(prob[truth]),
        truth=target.classes[truth],
        class_name=target.classes[int(prob.argmax())],
    )


def _number(part: Predictions, target: Target, row: int) -> WorstCase:
    truth, said = float(part.y_true[target.name][row]), float(part.y_prob[target.name][row])
    return WorstCase(str(part.image_id[row]), _address(part, row), truth, said, truth=f"{truth:g}", class_name="")


def _yes_or_no(part: Predictions, target: Target, *, thresholds: tuple[float, ...], count: int) -> Iterator[WorstCase]:
    """Binary and multilabel: each cell of (N, outputs) is one decision."""
    truth = part.y_true[target.name].reshape(part.n, target.outputs)
    prob = part.y_prob[target.name].reshape(part.n, target.outputs)
    given = np.where(truth > 0, prob, 1.0 - prob)
    limits = np.asarray(thresholds)
    is_wrong = (are_called(prob, limits) != (truth > 0)) & ~np.isnan(truth) & ~np.isnan(limits)
    for cell in _first(np.where(is_wrong, given, np.inf).ravel(), count):
        yield _cell(part, target, *divmod(cell, target.outputs))


def _cell(part: Predictions, target: Target, row: int, k: int) -> WorstCase:
    """One decision of a binary or multilabel target."""
    truth = part.y_true[target.name].reshape(part.n, target.outputs)[row, k]
    is_binary = target.is_binary
    names = target.classes if is_binary else ("absent", "present")
    return WorstCase(
        str(part.image_id[row]),
        _address(part, row),
        y_true=float(truth),
        y_prob=float(part.y_prob[target.name].reshape(part.n, target.outputs)[row, k]),
        truth=names[int(truth)],
        class_name=target.positive if is_binary else target.classes[k],
    )


def _first(given: FloatArray, count: int) -> list[int]:
    """Positions of the smallest finite values, in order."""
    order = np.argsort(given, kind="stable")[:count]
    return [int(i) for i in order if np.isfinite(given[i])]


def _address(part: Predictions, row: int) -> SampleAddress | None:
    return None if part.addresses is None else part.addresses[row]
