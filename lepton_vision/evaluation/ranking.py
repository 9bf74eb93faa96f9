"""AUROC and average precision of many weightings of the same samples, sorted once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lepton_vision.types import FloatArray

IntArray = npt.NDArray[np.intp]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Ranking:
    """N samples in ascending order of their score.

    Attributes:
        unit: (N,) sampling unit (patient) of each sample, in that order.
        is_positive: (N,) float64 0 or 1, in that order.
        starts: (G,) where each group of equal scores begins.
    """

    unit: IntArray
    is_positive: FloatArray
    starts: IntArray

    @classmethod
    def of(cls, is_positive: BoolArray, score: FloatArray, *, unit: IntArray) -> Ranking:
        """Sort samples once."""
        order = np.argsort(score, kind="stable")
        ordered = score[order]
        starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]])) if score.size else order
        return cls(unit[order], is_positive[order].astype(np.float64), starts)

    def figures(self, counts: FloatArray) -> tuple[FloatArray, FloatArray]:
        """AUROC and average precision for R weightings of the units.

        Equal scores count one half in the AUROC (Mann–Whitney), and form one threshold in the average precision,
        which is the sum of precision times the step in recall, as scikit-learn has it.

        Args:
            counts: (R, U) float64, how often each unit stands in each replicate.

        Returns:
            AUROC and average precision, (R,) each; NaN where a replicate lacks a class.
        """
        weight = counts.take(self.unit, axis=1)
        positive = weight * self.is_positive
        negative = np.subtract(weight, positive, out=weight)
        if self.starts.size < self.unit.size:
            positive = np.add.reduceat(positive, self.starts, axis=1)
            negative = np.add.reduceat(negative, self.starts, axis=1)
        below, true_positive = np.cumsum(negative, axis=1), np.cumsum(positive, axis=1)
        if not positive.size:
            nothing = np.full(len(counts), np.nan)
            return nothing, nothing
        negatives, positives = below[:, -1].copy(), true_positive[:, -1].copy()
        wins = np.einsum("rg,rg->r", positive, below) - 0.5 * np.einsum("rg,rg->r", positive, negative)
        auroc = ratio(wins, positives * negatives)
        # At the threshold of group g everything from g upwards is called positive.
        np.subtract(positives[:, None] + 0.0, true_positive - positive, out=true_positive)
        called = np.subtract(negatives[:, None], below - negative, out=below)
        called += true_positive
        precision = np.divide(true_positive, called, out=np.zeros_like(called), where=called > 0)
        average_precision = ratio(np.einsum("rg,rg->r", positive, precision), positives)
        return auroc, np.where(negatives > 0, average_precision, np.nan)


def ratio(part: npt.NDArray[Any], whole: npt.NDArray[Any]) -> FloatArray:
    """Divide; NaN where ``whole`` is zero."""
    result = np.full(np.broadcast_shapes(np.shape(part), np.shape(whole)), np.nan)
    np.divide(part, whole, out=result, where=np.asarray(whole) != 0)
    return result
