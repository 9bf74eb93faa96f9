"""Decision curve analysis: net benefit by threshold probability (Vickers and Elkin, Med Decis Making 26:565, 2006)."""

from __future__ import annotations

import numpy as np

from lepton_vision.evaluation.classes.analyses import DecisionCurve
from lepton_vision.evaluation.classes.binary_views import BinaryView, band_of, grouped_sums
from lepton_vision.evaluation.statistics.intervals import Bootstrap, bootstrap_figures
from lepton_vision.evaluation.statistics.ranking import ratio
from lepton_vision.types import FloatArray

THRESHOLDS: FloatArray = np.arange(1, 100) / 100


def decision_curve(view: BinaryView, bootstrap: Bootstrap) -> DecisionCurve:
    """Compute the net benefit of one class at thresholds of 1 % to 99 %, with bands over patients.

    A threshold probability t says how many false alarms one found case is worth: (1 - t) / t. The prevalence is that
    of these samples: where it was raised on purpose (case–control), the curve does not hold in practice.

    Example:
        >>> unit, truth = np.arange(4), np.array([False, False, False, True])
        >>> curve = decision_curve(BinaryView("sick", truth, np.array([0.1, 0.2, 0.6, 0.7]), unit, 4), Bootstrap(100))
        >>> curve.threshold[49], curve.model.value[49]  # one found and one false alarm among four: 1/4 - 1/4 * 1
        (np.float64(0.5), np.float64(0.0))
    """
    figures = bootstrap_figures(_Measures(view), bootstrap)
    model, treat_all, gain = (band_of(figures, prefix) for prefix in ("model", "all", "gain"))
    return DecisionCurve(view.class_name, view.n, THRESHOLDS, model, treat_all, gain)


class _Measures:
    """``model_0`` … ``all_0`` … ``gain_0`` …: net benefit at each threshold."""

    def __init__(self, view: BinaryView) -> None:
        self._view, self.n, self.units = view, view.n, view.units
        reached = np.searchsorted(THRESHOLDS, view.prob, side="right")  # how many thresholds are reached
        columns = np.column_stack([view.is_positive, ~view.is_positive]).astype(np.float64)
        self._sums = grouped_sums(view.unit, reached, units=view.units, groups=THRESHOLDS.size + 1, columns=columns)

    def values(self, counts: FloatArray) -> dict[str, FloatArray]:
        """Figures by name, (R,) each."""
        cells = (counts @ self._sums).reshape(len(counts), 2, THRESHOLDS.size + 1)
        called = cells[:, :, ::-1].cumsum(axis=2)[:, :, ::-1]  # called[…, j]: at least j thresholds are reached
        everyone = called[:, :, :1]
        n = everyone.sum(axis=1)
        odds = THRESHOLDS / (1.0 - THRESHOLDS)
        model = ratio(called[:, 0, 1:] - odds * called[:, 1, 1:], n)
        treat_all = ratio(everyone[:, 0] - odds * everyone[:, 1], n)
        parts = {"model": model, "all": treat_all, "gain": model - np.maximum(treat_all, 0.0)}
        return {f"{name}_{k}": values[:, k] for name, values in parts.items() for k in range(THRESHOLDS.size)}

    def size(self, _name: str) -> int:
        """All labelled samples."""
        return self.n

    def denominator_units(self, _name: str) -> int | None:
        """None: it is no proportion."""
        return None

    def reason(self, _name: str) -> str:
        """Why a figure is undefined."""
        return self._view.missing()
