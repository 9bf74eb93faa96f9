"""Answers to a question with mutually exclusive classes: true class, decision and losses of each sample."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lepton_vision.evaluation.statistics.ranking import BoolArray, IntArray
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


def averaged_figure(name: str, averaged: Mapping[str, BoolArray]) -> str | None:
    """Figure of the classes that ``name``, which is none of a class, is a mean of; None where it is no mean."""
    figure = {"balanced_accuracy": "sensitivity"}.get(name, name.removesuffix("_macro").removesuffix("_weighted"))
    return figure if figure in averaged else None
