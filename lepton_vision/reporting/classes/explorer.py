"""Threshold explorer of the page: decisions at any threshold, as a table and as data for the page's script."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
from scipy.special import ndtri

from lepton_vision.evaluation.classes.curves import ClassCurves
from lepton_vision.evaluation.classes.evaluation import Evaluation
from lepton_vision.evaluation.classes.thresholds import ThresholdTable
from lepton_vision.evaluation.statistics.intervals import wilson
from lepton_vision.reporting.classes.charts import LARGEST_GRID
from lepton_vision.reporting.classes.view import has_width, is_known, number, range_text
from lepton_vision.reporting.figures import Line, roc_figure, scores_figure, small_frame, to_svg
from lepton_vision.types import Figure, Target

_SHOWN = ("sensitivity", "specificity", "ppv", "npv")
# Sensitivities whose thresholds the table lists: a reader wants to know what the next finding costs.
_LISTED = (1.0, 0.99, 0.975, 0.95, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5)


@dataclass(frozen=True, slots=True)
class Row:
    """Decisions at one threshold, as text; the predictive values hold at the prevalence of the sample.

    Attributes:
        threshold: the threshold.
        cells: sensitivity, specificity, PPV, NPV, each with its interval or "".
        counts: true positives, false negatives, false positives, true negatives.
        is_frozen: whether it is the operating point.
    """

    threshold: str
    cells: tuple[tuple[str, str], ...]
    counts: tuple[str, ...]
    is_frozen: bool


@dataclass(frozen=True, slots=True)
class Explorer:
    """One class to explore.

    Attributes:
        name: unique in the page.
        class_name: what is positive.
        rows: the table, thresholds descending.
        data: JSON for the script.
        count: number of thresholds.
        at: position of the operating point among them, or of the one nearest to 0.5.
        frozen: the operating point as text, or "".
        prevalence: of the sample, in percent.
        roc: small ROC curve.
        scores: small histogram of scores.
    """

    name: str
    class_name: str
    rows: tuple[Row, ...]
    data: str
    count: int
    at: int
    frozen: str
    prevalence: float
    roc: str
    scores: str


def make_explorers(evaluation: Evaluation, target: Target, *, anchor: str) -> list[Explorer]:
    """Return one explorer per class that a threshold decides on and that has positives and negatives."""
    if not target.is_yes_no:
        return []
    thresholds = evaluation.operating_point.thresholds.get(target.name, ())
    found = []
    for k, curves in enumerate(evaluation.curves.get(target.name, ())[:LARGEST_GRID]):
        if curves.thresholds.positives and curves.thresholds.negatives:
            frozen = thresholds[k] if k < len(thresholds) and is_known(thresholds[k]) else None
            name, end = f"{anchor}-explore-{k}", "" if target.is_binary else f"_{curves.class_name}"
            figures = [evaluation.figures[target.name].get(f"{key}{end}") for key in _SHOWN]
            found.append(_explorer(curves, frozen, figures, name=name, confidence=evaluation.confidence))
    return found


def _explorer(
    curves: ClassCurves, frozen: float | None, figures: Sequence[Figure | None], *, name: str, confidence: float
) -> Explorer:
    table = curves.thresholds
    rows = _rows(table, frozen, figures)
    own = next((row.cells for row in rows if row.is_frozen), (("", ""), ("", "")))
    start = 0.5 if frozen is None else frozen
    at = int(np.argmin(np.abs(table.threshold - start)))
    prevalence = table.positives / (table.positives + table.negatives)
    data = {
        "t": table.threshold.tolist(),
        "tp": table.true_positives.tolist(),
        "fp": table.false_positives.tolist(),
        "positives": table.positives,
        "negatives": table.negatives,
        "complete": table.is_complete,
        "at": at,
        "prevalence": prevalence,
        "z": float(ndtri(0.5 + confidence / 2)),
        "ranges": [interval for _, interval in own[:2]],
        "frame": small_frame(),
    }
    roc = to_svg(roc_figure([Line(curves)], is_small=True), name=f"{name}-roc", label=f"ROC of {curves.class_name}")
    histogram = scores_figure(curves.histogram, is_small=True)
    scores = to_svg(histogram, name=f"{name}-scores", label=f"Scores of {curves.class_name} and others")
    return Explorer(
        name,
        curves.class_name,
        rows,
        json.dumps(data, separators=(",", ":"), allow_nan=False),
        table.threshold.size,
        at,
        "" if frozen is None else number(frozen),
        round(100.0 * prevalence, 2),
        roc,
        scores,
    )


def _rows(table: ThresholdTable, frozen: float | None, figures: Sequence[Figure | None]) -> tuple[Row, ...]:
    """The highest threshold that reaches each listed sensitivity, and the operating point."""
    reached = [int(np.flatnonzero(table.sensitivity >= level - 1e-12)[-1]) for level in _LISTED]
    if frozen is not None:
        reached.append(int(np.argmin(np.abs(table.threshold - frozen))))
    places = sorted(set(reached), key=lambda k: -table.threshold[k])
    at = reached[-1] if frozen is not None else None
    return tuple(_row(table, k, is_frozen=k == at, figures=figures if k == at else ()) for k in places)


def _row(table: ThresholdTable, k: int, *, is_frozen: bool, figures: Sequence[Figure | None]) -> Row:
    """Decisions with Wilson's intervals; at the operating point with those that the page has of the same figures."""
    tp, fp = int(table.true_positives[k]), int(table.false_positives[k])
    fn, tn = table.positives - tp, table.negatives - fp
    cells = []
    shares = ((tp, tp + fn), (tn, tn + fp), (tp, tp + fp), (tn, tn + fn))
    for (part, whole), own in zip_longest(shares, figures):
        low, high = (float(end) for end in wilson(part, whole))
        interval = range_text(low, high, digits=2) if whole else ""
        if own is not None and is_known(own.value) and whole and abs(own.value - part / whole) < 1e-9:
            interval = range_text(own.low, own.high) if has_width(own) else ""
        cells.append((number(part / whole if whole else np.nan), interval))
    return Row(_short(float(table.threshold[k])), tuple(cells), tuple(f"{n:,}" for n in (tp, fn, fp, tn)), is_frozen)


def _short(threshold: float) -> str:
    """Enough digits to tell neighbours apart."""
    return f"{threshold:.4g}" if threshold < 0.1 else f"{threshold:.4f}"
