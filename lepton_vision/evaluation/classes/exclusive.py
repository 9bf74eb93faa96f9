"""Figures of mutually exclusive classes: true class, decision and losses of each sample."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from lepton_vision.evaluation.statistics.ranking import BoolArray, IntArray, ratio
from lepton_vision.types import FloatArray

_EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True, eq=False)
class Answers:
    """N samples of which each is of one class; the largest probability wins, the first of equal ones.

    Attributes:
        label: (N,) true class.
        called: (N,) class that it is called.
        losses: (N, 4) float64: log loss [nats], squared error summed over the classes (0 to 2, Brier 1950), distance
            between both classes in steps, and its square.
    """

    label: IntArray
    called: IntArray
    losses: FloatArray

    @classmethod
    def of(cls, truth: FloatArray, prob: FloatArray) -> Answers:
        """Decide; ``truth`` (N,) class index without NaN, ``prob`` (N, K)."""
        label = truth.astype(np.intp)
        called = prob.argmax(axis=1) if label.size else label
        own = prob[np.arange(label.size), label]
        squares = np.einsum("nk,nk->n", prob, prob) - 2.0 * own + 1.0  # without a table of differences
        step = np.abs(label - called).astype(np.float64)
        return cls(label, called, np.column_stack([-np.log(own.clip(_EPS, 1.0 - _EPS)), squares, step, step**2]))


def figures_of_answers(
    true: FloatArray,
    called: FloatArray,
    hits: FloatArray,
    losses: FloatArray,
    *,
    mean: Callable[[str], FloatArray],
    needed: BoolArray,
    is_ordinal: bool,
) -> dict[str, FloatArray]:
    """Figures over all classes that do not need the order of the scores, (R,) each.

    Args:
        true: (R, K) samples of each class.
        called: (R, K) samples called each class.
        hits: (R,) samples that are called what they are.
        losses: (R, 4) sums of ``Answers.losses``.
        mean: (R,) plain mean over the classes of a figure of one class.
        needed: (K,) classes without which there is no mean F1.
        is_ordinal: the classes have an order.
    """
    n, (nats, square, step, step_square) = true.sum(axis=1), losses.T
    spread = (n**2 - (true**2).sum(axis=1)) * (n**2 - (called**2).sum(axis=1))
    figures = {
        "accuracy": ratio(hits, n),
        "balanced_accuracy": mean("sensitivity"),
        "f1_macro": mean("f1") * np.where((true > 0)[:, needed].all(axis=1), 1.0, np.nan),
        "mcc": ratio(hits * n - (true * called).sum(axis=1), np.sqrt(spread.clip(0.0))),
        "log_loss": ratio(nats, n),
        "brier": ratio(square, n),
    }
    figures |= {f"{name}_macro": mean(name) for name in ("specificity", "ppv", "npv")}
    if not is_ordinal:
        return figures
    place = np.arange(true.shape[1], dtype=np.float64)
    # The distances that chance gives: (i - j)^2 over all pairs of a true and a called class.
    chance = n * (true @ place**2 + called @ place**2) - 2.0 * (true @ place) * (called @ place)
    return figures | {
        "kappa_quadratic": 1.0 - ratio(step_square, ratio(chance, n)),
        "class_error": ratio(step, n),
    }


def averaged_figure(name: str, averaged: Mapping[str, BoolArray]) -> str | None:
    """Figure of the classes that ``name``, which is none of a class, is a mean of; None where it is no mean."""
    figure = {"balanced_accuracy": "sensitivity"}.get(name, name.removesuffix("_macro").removesuffix("_weighted"))
    return figure if figure in averaged else None
