"""Confusion counts of a classifier at many thresholds, for interactive threshold selection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lepton_vision.evaluation.statistics.ranking import BoolArray, IntArray, ratio
from lepton_vision.types import FloatArray, Result

LARGEST_TABLE = 400  # thresholds: each score of a small study, and finer than any screen for a large one


@dataclass(frozen=True, eq=False)
class ThresholdTable(Result):
    """Decisions of N samples at T thresholds; positive means probability >= threshold.

    Attributes:
        threshold: (T,) float64, ascending; at the first one everything is called positive.
        true_positives: (T,) int, positives that are called positive.
        false_positives: (T,) int, negatives that are called positive.
        positives: labelled samples that are positive.
        negatives: labelled samples that are not.
        is_complete: whether every score is among the thresholds, so that no other threshold decides differently.
    """

    threshold: FloatArray
    true_positives: IntArray
    false_positives: IntArray
    positives: int
    negatives: int
    is_complete: bool

    @property
    def sensitivity(self) -> FloatArray:
        """(T,) share of the positives that are called positive; NaN without positives."""
        return ratio(self.true_positives.astype(np.float64), np.full(self.threshold.size, float(self.positives)))

    @property
    def specificity(self) -> FloatArray:
        """(T,) share of the negatives that are called negative; NaN without negatives."""
        kept = (self.negatives - self.false_positives).astype(np.float64)
        return ratio(kept, np.full(self.threshold.size, float(self.negatives)))


def threshold_table(is_positive: BoolArray, prob: FloatArray, *, also: Sequence[float] = ()) -> ThresholdTable:
    """Count the decisions at each score, or at ``LARGEST_TABLE`` of them spread evenly over the ranks.

    Args:
        is_positive: (N,) bool.
        prob: (N,) float64 in [0, 1].
        also: further thresholds that must be in the table, such as the frozen operating point; one that is not finite
            is left out.

    Example:
        >>> table = threshold_table(np.array([False, True, True]), np.array([0.2, 0.4, 0.9]), also=(0.5,))
        >>> table.threshold.tolist(), table.true_positives.tolist(), table.false_positives.tolist()
        ([0.2, 0.4, 0.5, 0.9, 1.0], [2, 2, 1, 1, 0], [1, 0, 0, 0, 0])
    """
    scores = np.unique(prob)
    is_complete = scores.size <= LARGEST_TABLE
    if not is_complete:
        ordered = np.sort(prob)
        ranks = np.linspace(0, ordered.size - 1, LARGEST_TABLE).round().astype(np.intp)
        scores = np.unique(ordered[ranks])
    ends = [1.0] if not scores.size or scores[-1] < 1.0 else []  # a threshold at which nothing is called
    threshold = np.unique(np.concatenate([scores, ends, [float(t) for t in also if np.isfinite(t)]]))
    positives, negatives = np.sort(prob[is_positive]), np.sort(prob[~is_positive])
    return ThresholdTable(
        threshold,
        positives.size - np.searchsorted(positives, threshold, side="left"),
        negatives.size - np.searchsorted(negatives, threshold, side="left"),
        int(positives.size),
        int(negatives.size),
        is_complete,
    )
