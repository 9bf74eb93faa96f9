"""Sums over samples that figures of classes and of numbers are made of, for many weightings of the patients at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from lepton_vision.evaluation.statistics.ranking import BoolArray, RankFigures, ratio
from lepton_vision.types import FloatArray


@dataclass(frozen=True, eq=False)
class Cells:
    """Sums of R weightings of one binary question, (R,) float64 each.

    Attributes:
        tp: positives called positive; ``fp``, ``fn``, ``tn`` likewise.
        squares: squared errors of the probability.
        nats: log losses.
        gaps: absolute gaps of the bins of the calibration error.
        ranks: figures of the order of the scores.
        stated: prevalence at which PPV and NPV are expressed again; NaN where none was stated.
    """

    tp: FloatArray
    fp: FloatArray
    fn: FloatArray
    tn: FloatArray
    squares: FloatArray
    nats: FloatArray
    gaps: FloatArray
    ranks: RankFigures
    stated: float

    @cached_property
    def n(self) -> FloatArray:
        """Samples."""
        return self.tp + self.fp + self.fn + self.tn

    @cached_property
    def sensitivity(self) -> FloatArray:
        """Share of the positives that are called positive."""
        return ratio(self.tp, self.tp + self.fn)

    @cached_property
    def specificity(self) -> FloatArray:
        """Share of the negatives that are called negative."""
        return ratio(self.tn, self.tn + self.fp)


@dataclass(frozen=True, eq=False)
class AnswerSums:
    """Sums of R weightings of one question with K exclusive answers.

    Attributes:
        true: (R, K) samples of each class.
        called: (R, K) samples called each class.
        hits: (R,) samples that are called what they are.
        losses: (R, 4) sums of ``exclusive.Answers.losses``.
        mean: (R,) plain mean over the classes of a figure of one class.
        needed: (K,) classes without which there is no mean F1.
    """

    true: FloatArray
    called: FloatArray
    hits: FloatArray
    losses: FloatArray
    mean: Callable[[str], FloatArray]
    needed: BoolArray

    @cached_property
    def n(self) -> FloatArray:
        """(R,) samples."""
        n: FloatArray = self.true.sum(axis=1)
        return n


@dataclass(frozen=True, eq=False)
class ValueSums:
    """Sums of R weightings of a number, (R,) float64 each, in the unit of the number or its square.

    Attributes:
        n: samples.
        absolute: absolute errors.
        squares: squared errors.
        bias: mean of prediction less truth.
        deviation: standard deviation of prediction less truth; NaN where there is none.
        spread_true: squared distances of the true values from their mean; 0 where they are all the same.
        spread_said: of the predictions.
        product: products of both distances.
        rank_correlation: Spearman's.
    """

    n: FloatArray
    absolute: FloatArray
    squares: FloatArray
    bias: FloatArray
    deviation: FloatArray
    spread_true: FloatArray
    spread_said: FloatArray
    product: FloatArray
    rank_correlation: FloatArray
