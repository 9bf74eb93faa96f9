"""Pointwise bootstrap bands of ROC and precision–recall curves, resampled by patient."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lepton_vision.evaluation.statistics.intervals import Bootstrap, draw_counts
from lepton_vision.evaluation.statistics.ranking import BoolArray, IntArray
from lepton_vision.types import FloatArray, Result

GRID = 101
_POINTS = 200  # thresholds of a replicate's curve
_CELLS = 1e7  # of the patient-by-threshold table: 80 MB at most, and a few seconds for a very large study
_LEAST = 0.5  # share of replicates that must hold both classes


@dataclass(frozen=True, eq=False)
class CurveBands(Result):
    """Pointwise intervals of two curves; a point of the grid is a band's, not the whole curve's.

    Attributes:
        grid: (G,) from 0 to 1: false positive rate, or recall.
        sensitivity: (2, G) lower and upper end at that false positive rate.
        precision: (2, G) lower and upper end at that recall.
        confidence: of each point, e.g. 0.95.
    """

    grid: FloatArray
    sensitivity: FloatArray
    precision: FloatArray
    confidence: float


def curve_bands(
    is_positive: BoolArray, prob: FloatArray, *, unit: IntArray, units: int, bootstrap: Bootstrap
) -> CurveBands | None:
    """Draw patients with all their samples, and take percentiles of the curves at each point of a grid.

    At a false positive rate the sensitivity of a replicate is that of the straight line between its points (Fawcett,
    Pattern Recognition Letters 27:861, 2006, vertical averaging); at a recall its precision is that of the highest
    threshold that reaches it. Of more than 200 scores the curves go through 200, even along
    the ROC curve.

    Args:
        is_positive: (N,) bool.
        prob: (N,) float64 in [0, 1].
        unit: (N,) int, patient of each sample (``intervals.patient_units``).
        units: number of patients.
        bootstrap: replicates, confidence and seed; the patients drawn are those of ``bootstrap_figures``.

    Returns:
        None where there is one patient or one class, where most replicates hold one class only, and where all are the
        same: such a band would have no width.
    """
    if units < 2 or not 0 < int(is_positive.sum()) < is_positive.size:
        return None
    threshold = _thresholds(is_positive, prob, largest=int(max(2, min(_POINTS, _CELLS // units))))
    place = np.searchsorted(-threshold, -prob, side="left")
    tables = [
        np.bincount(unit[rows] * threshold.size + place[rows], minlength=units * threshold.size)
        .reshape(units, threshold.size)
        .astype(np.float64)
        for rows in (is_positive, ~is_positive)
    ]
    grid = np.linspace(0.0, 1.0, GRID)
    found: list[tuple[FloatArray, FloatArray]] = []
    draws = draw_counts(units, replicates=bootstrap.replicates, samples=max(units, threshold.size), seed=bootstrap.seed)
    for counts in draws:
        tp, fp = (np.cumsum(counts @ table, axis=1) for table in tables)
        found += [_on_grid(grid, a, b) for a, b in zip(tp, fp, strict=True) if a[-1] > 0 and b[-1] > 0]
    if len(found) < _LEAST * bootstrap.replicates:
        return None
    tail = (1.0 - bootstrap.confidence) / 2
    ends = [np.quantile(np.stack(curves), [tail, 1.0 - tail], axis=0) for curves in zip(*found, strict=True)]
    if not any(np.ptp(end, axis=0).any() for end in ends):
        return None
    return CurveBands(grid, ends[0], ends[1], bootstrap.confidence)


def _thresholds(is_positive: BoolArray, prob: FloatArray, *, largest: int) -> FloatArray:
    """Scores in descending order, at most so many, even along the ROC curve; the smallest score is among them."""
    scores = np.unique(prob)[::-1]
    if scores.size <= largest:
        return scores
    place = np.searchsorted(-scores, -prob, side="left")
    groups = [np.bincount(place[rows], minlength=scores.size) for rows in (is_positive, ~is_positive)]
    along = sum(np.cumsum(group) / group.sum() for group in groups)
    chosen = np.searchsorted(along, np.linspace(0.0, along[-1], largest)).clip(0, scores.size - 1)
    kept: FloatArray = scores[np.unique(np.concatenate([chosen, [scores.size - 1]]))]
    return kept


def _on_grid(grid: FloatArray, tp: FloatArray, fp: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Sensitivity and precision of one replicate, (G,) each, from (T,) cumulative counts."""
    recall = np.concatenate([[0.0], tp / tp[-1]])
    sensitivity = np.interp(grid, np.concatenate([[0.0], fp / fp[-1]]), recall)
    first = np.searchsorted(tp, np.maximum(grid * tp[-1] - 1e-9, 1e-9), side="left")
    return sensitivity, tp[first] / (tp[first] + fp[first])
