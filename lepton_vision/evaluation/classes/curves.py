"""Curves of one class: ROC, precision–recall, reliability and the histogram of scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from lepton_vision.evaluation.classes.thresholds import ThresholdTable, threshold_table
from lepton_vision.evaluation.statistics.bands import CurveBands
from lepton_vision.evaluation.statistics.intervals import wilson
from lepton_vision.evaluation.statistics.ranking import BoolArray, IntArray, ratio
from lepton_vision.types import Displayed, FloatArray, Plain

RELIABILITY_BINS = 10
HISTOGRAM_BINS = 20
LARGEST_CURVE = 500  # points: enough for a page at any width


@dataclass(frozen=True, eq=False)
class RocCurve(Displayed):
    """Points from (0, 0) to (1, 1), to be joined by straight lines.

    Attributes:
        false_positive_rate: (P,) ascending, 1 - specificity.
        sensitivity: (P,) ascending.
        threshold: (P,) descending; the first is infinite (nothing is called positive).
    """

    false_positive_rate: FloatArray
    sensitivity: FloatArray
    threshold: FloatArray


@dataclass(frozen=True, eq=False)
class PrecisionRecallCurve(Displayed):
    """A step curve: ``precision[i]`` holds from ``recall[i-1]`` to ``recall[i]`` (matplotlib: "steps-pre").

    The area under the steps is the average precision (before the curve is thinned). Straight lines between the
    points would flatter the model (Davis and Goadrich, ICML 2006).

    Attributes:
        recall: (P,) ascending from 0.
        precision: (P,).
        threshold: (P,) descending; the first is infinite.
    """

    recall: FloatArray
    precision: FloatArray
    threshold: FloatArray


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """Samples of similar probability: what was said and what was true.

    Attributes:
        predicted: mean probability.
        observed: share of positives.
        low: lower end of the 95 % Wilson interval of ``observed``, samples taken as independent.
        high: upper end.
        n: number of samples.
    """

    predicted: float
    observed: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, eq=False)
class Histogram(Displayed):
    """Scores by truth.

    Attributes:
        edges: (B + 1,) from 0 to 1.
        negatives: (B,) int count of negative samples.
        positives: (B,) int count of positive samples.
    """

    edges: FloatArray
    negatives: IntArray
    positives: IntArray


@dataclass(frozen=True, eq=False)
class ClassCurves(Plain):
    """All curves of one class against the rest.

    Attributes:
        class_name: what is positive.
        roc: None where one class only is labelled.
        pr: None where one class only is labelled.
        reliability: bins in ascending order of the probability.
        histogram: scores by truth.
        thresholds: decisions at many thresholds, the frozen one among them.
        bands: intervals of both curves over patients, or None where they were not or could not be made.
    """

    class_name: str
    roc: RocCurve | None
    pr: PrecisionRecallCurve | None
    reliability: tuple[ReliabilityBin, ...]
    histogram: Histogram
    thresholds: ThresholdTable
    bands: CurveBands | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; an infinite threshold becomes None."""
        names = ("roc", "pr", "histogram", "reliability", "thresholds", "bands")
        return {"class": self.class_name} | self._plain(*names)


def class_curves(
    is_positive: BoolArray, prob: FloatArray, *, class_name: str, threshold: float | None = None
) -> ClassCurves:
    """Curves of N samples with known labels, without bands.

    Args:
        is_positive: (N,) bool.
        prob: (N,) float64 in [0, 1], probability of the class.
        class_name: what is positive.
        threshold: the operating point of the class, or None.
    """
    positives = int(is_positive.sum())
    has_both = 0 < positives < is_positive.size
    edges = np.linspace(0.0, 1.0, HISTOGRAM_BINS + 1)
    histogram = Histogram(edges, np.histogram(prob[~is_positive], edges)[0], np.histogram(prob[is_positive], edges)[0])
    roc, pr = _rank_curves(is_positive, prob) if has_both else (None, None)
    table = threshold_table(is_positive, prob, also=() if threshold is None else (threshold,))
    return ClassCurves(class_name, roc, pr, reliability(is_positive, prob), histogram, table)


def _rank_curves(is_positive: BoolArray, prob: FloatArray) -> tuple[RocCurve, PrecisionRecallCurve]:
    order = np.argsort(-prob, kind="stable")
    ordered = prob[order]
    last = np.flatnonzero(np.concatenate([ordered[1:] != ordered[:-1], [True]]))  # last of each group of equal scores
    tp = np.concatenate([[0], np.cumsum(is_positive[order])[last]]).astype(np.float64)
    called = np.concatenate([[0], last + 1]).astype(np.float64)
    fp = called - tp
    threshold = np.concatenate([[np.inf], ordered[last]])
    bends = np.ones(tp.size, dtype=np.bool_)  # a point on the straight line between its neighbours adds nothing
    bends[1:-1] = np.diff(tp)[:-1] * np.diff(fp)[1:] != np.diff(tp)[1:] * np.diff(fp)[:-1]
    kept = np.flatnonzero(bends)
    x, y = fp[kept] / fp[-1], tp[kept] / tp[-1]
    thin = _spread(x + y)
    roc = RocCurve(x[thin], y[thin], threshold[kept][thin])
    steps = (
        np.flatnonzero(np.diff(tp) > 0) + 1
    )  # where recall grows; others only lower the precision at the same recall
    recall, precision = tp[steps] / tp[-1], tp[steps] / called[steps]
    thin = _spread(recall, room=1)
    first = thin[:1]
    return roc, PrecisionRecallCurve(
        np.concatenate([[0.0], recall[thin]]),
        np.concatenate([precision[first], precision[thin]]),
        np.concatenate([[np.inf], threshold[steps][thin]]),
    )


def _spread(position: FloatArray, *, room: int = 0) -> IntArray:
    """Choose at most LARGEST_CURVE points, both ends among them, even along ``position`` (ascending)."""
    largest = LARGEST_CURVE - room
    if position.size <= largest:
        return np.arange(position.size)
    wanted = np.linspace(position[0], position[-1], largest)
    chosen = np.searchsorted(position, wanted)
    return np.unique(np.concatenate([[0], chosen[1:-1].clip(0, position.size - 1), [position.size - 1]]))


def equal_mass_bins(prob: FloatArray, *, bins: int = RELIABILITY_BINS) -> IntArray:
    """Number the bins of about equal size, (N,) int from 0; equal probabilities share a bin, so there may be fewer."""
    if not prob.size:
        return np.zeros(0, dtype=np.intp)
    edges = np.unique(np.quantile(prob, np.linspace(0.0, 1.0, bins + 1)[1:-1]))
    result: IntArray = np.unique(np.searchsorted(edges, prob, side="left"), return_inverse=True)[1]
    return result


def reliability(is_positive: BoolArray, prob: FloatArray) -> tuple[ReliabilityBin, ...]:
    """Observed against predicted in bins of equal mass, in ascending order of the probability."""
    which = equal_mass_bins(prob)
    n = np.bincount(which).astype(np.float64)
    observed = np.bincount(which, is_positive.astype(np.float64))
    predicted = ratio(np.bincount(which, prob), n)
    low, high = wilson(observed, n)
    return tuple(
        ReliabilityBin(float(predicted[k]), float(observed[k] / n[k]), float(low[k]), float(high[k]), int(n[k]))
        for k in range(n.size)
    )
