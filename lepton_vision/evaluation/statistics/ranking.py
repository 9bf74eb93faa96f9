"""AUROC, partial AUROC and average precision under many weightings of the same samples, sorted once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from lepton_vision.types import FloatArray

IntArray = npt.NDArray[np.intp]
BoolArray = npt.NDArray[np.bool_]


class RankFigures(NamedTuple):
    """Figures of R weightings, (R,) float64 each; NaN where a weighting lacks a class."""

    auroc: FloatArray
    average_precision: FloatArray
    partial_auroc: FloatArray


@dataclass(frozen=True, eq=False)
class Ranking:
    """The samples of a binary question in descending order of their score, positives and negatives apart.

    All three figures are sums over the positives (in groups of equal score) that need of the negatives only how much
    weight lies above each group: one cumulative sum of the negatives is the only pass over them.

    Attributes:
        negative_unit: (n,) sampling unit (patient) of each negative.
        positive_unit: (m,) sampling unit of each positive.
        starts: (G,) where each group of equal scores begins among the positives.
        above: (G,) how many negatives have a higher score than the group.
        upto: (G,) how many have at least its score.
    """

    negative_unit: IntArray
    positive_unit: IntArray
    starts: IntArray
    above: IntArray
    upto: IntArray

    @classmethod
    def of(cls, is_positive: BoolArray, score: FloatArray, *, unit: IntArray) -> Ranking:
        """Sort samples once."""
        fall = -score
        order = np.argsort(fall, kind="stable")
        is_first = is_positive[order]
        negative, positive = order[~is_first], order[is_first]
        ordered = fall[positive]
        starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]])) if positive.size else positive
        above = np.searchsorted(fall[negative], ordered[starts], side="left")
        upto = np.searchsorted(fall[negative], ordered[starts], side="right")
        return cls(unit[negative], unit[positive], starts, above, upto)

    def figures(self, counts: FloatArray, *, max_fpr: float = 1.0) -> RankFigures:
        """AUROC, average precision and partial AUROC for R weightings of the units.

        Equal scores count one half in the AUROC (Mann–Whitney), are joined by a straight line in the partial AUROC, and
        form one threshold in the average precision, which is the sum of precision times the step in recall: all as
        scikit-learn has it. The partial AUROC is the area left of ``max_fpr``, rescaled so that chance is 0.5 and
        perfection 1 (McClish, Med Decis Making 9:190, 1989).

        Args:
            counts: (R, U) float64, how often each unit stands in each replicate.
            max_fpr: in (0, 1], largest false positive rate of the partial AUROC.
        """
        if not self.positive_unit.size or not self.negative_unit.size:
            nothing = np.full(len(counts), np.nan)
            return RankFigures(nothing, nothing, nothing)
        weight = counts.take(self.positive_unit, axis=1)
        if self.starts.size < self.positive_unit.size:
            weight = np.add.reduceat(weight, self.starts, axis=1)
        false = np.zeros((len(counts), self.negative_unit.size + 1))
        np.cumsum(counts.take(self.negative_unit, axis=1), axis=1, out=false[:, 1:])
        before = false.take(self.above, axis=1)
        has_ties = bool(np.any(self.upto != self.above))
        after = false.take(self.upto, axis=1) if has_ties else before
        true = np.cumsum(weight, axis=1)
        positives, negatives = true[:, -1].copy(), false[:, -1]
        lost = _dot(weight, before) if not has_ties else (_dot(weight, before) + _dot(weight, after)) / 2
        auroc = 1.0 - ratio(lost, positives * negatives)
        partial = _partial(weight, before, after, positives=positives, negatives=negatives, max_fpr=max_fpr)
        called = true + after
        precision = np.divide(true, called, out=called, where=called > 0)
        average_precision = ratio(_dot(weight, precision), positives)
        return RankFigures(auroc, np.where(negatives > 0, average_precision, np.nan), partial)


def _dot(left: FloatArray, right: FloatArray) -> FloatArray:
    """Sum of the products of each row."""
    result: FloatArray = np.einsum("rg,rg->r", left, right)
    return result


def _partial(
    weight: FloatArray,
    before: FloatArray,
    after: FloatArray,
    *,
    positives: FloatArray,
    negatives: FloatArray,
    max_fpr: float,
) -> FloatArray:
    """McClish's standardised area: each group of positives adds what its step covers left of the largest FPR."""
    end = (max_fpr * negatives)[:, None]
    stop = int(np.max((before < end).sum(axis=1), initial=0))  # groups are in order: nothing beyond adds anything
    weight, before, after = weight[:, :stop], before[:, :stop], after[:, :stop]
    width = np.maximum(end - (before + after) / 2, 0.0)
    is_cut = (before < end) & (end < after)  # the line of a group of equal scores crosses the end
    if is_cut.any():
        reach = np.broadcast_to(end, before.shape)[is_cut] - before[is_cut]
        width[is_cut] = reach**2 / (2 * (after - before)[is_cut])
    area = ratio(_dot(weight, width), positives * negatives)
    least = max_fpr**2 / 2
    return np.minimum(0.5 * (1.0 + (area - least) / (max_fpr - least)), 1.0)  # rounding must not exceed perfection


def ratio(part: npt.NDArray[Any], whole: npt.NDArray[Any]) -> FloatArray:
    """Divide; NaN where ``whole`` is zero."""
    result = np.full(np.broadcast_shapes(np.shape(part), np.shape(whole)), np.nan)
    np.divide(part, whole, out=result, where=np.asarray(whole) != 0)
    return result
