"""Figures of one predicted number under many patient weightings at once.

What is a sum over samples is summed per patient once, as in ``classes.measures``; only the rank correlation needs the
samples, whose ranks are those of each weighting.
"""

from __future__ import annotations

import numpy as np

from lepton_vision.evaluation.classes.figure_table import value_figures
from lepton_vision.evaluation.classes.measures import unit_sums
from lepton_vision.evaluation.classes.sums import ValueSums
from lepton_vision.evaluation.statistics.ranking import BoolArray, IntArray, ratio
from lepton_vision.types import Figure, FloatArray, Interval

FEWEST = 4
"""Patients from which a figure has an interval: a bootstrap of three is too narrow."""
_CONSTANT = 1e-12  # share of the variance of all samples below which a resample has none
_ROUNDING = 1e-13  # share of the mean square that rounding leaves of no variance
_RELATIVE = frozenset(("r2", "pearson", "spearman", "concordance"))
_CORRELATIONS = frozenset(("pearson", "spearman"))


class ValueMeasures:
    """Figures of one number, see ``figure_table`` for what they are.

    Args:
        truth: (N,) float64 without NaN, in the unit of the target.
        said: (N,) float64, the predictions.
        unit: (N,) patient of each sample, 0 … U-1.
        units: U.
    """

    def __init__(self, truth: FloatArray, said: FloatArray, *, unit: IntArray, units: int) -> None:
        self.units, self.n, self.averaged = units, int(truth.size), dict[str, BoolArray]()
        self._unit, self._truth, self._said = unit, _Ranks(truth), _Ranks(said)
        self._is_constant = [bool(self.n) and bool(np.ptp(one) == 0.0) for one in (truth, said)]
        (t, s), gap = (_centered(one) for one in (truth, said)), said - truth
        self._least = [_CONSTANT * float(one.var()) if self.n else 0.0 for one in (truth, said)]
        columns = np.column_stack([np.ones(self.n), t, s, t * t, s * s, t * s, np.abs(gap), gap, gap * gap])
        sums = unit_sums(columns, unit, units=units)
        n, of_gap = sums[:, 0], sums[:, 7]
        between = np.divide(of_gap**2, n, out=np.zeros(units), where=n > 0)
        self._sums = np.column_stack([sums, between, n**2, n > 0])

    def values(self, counts: FloatArray) -> dict[str, FloatArray]:
        """Figures by name, (R,) each."""
        n, t, s, tt, ss, ts, absolute, gap, squares, between, nn, patients = (counts @ self._sums).T
        weight = counts[:, self._unit]
        spreads = tt - ratio(t * t, n), ss - ratio(s * s, n)
        # What rounding leaves of no spread is none.
        kept = [np.where(one > n * least, one, 0.0) for one, least in zip(spreads, self._least, strict=True)]
        sums = ValueSums(
            n=n,
            absolute=absolute,
            squares=squares,
            bias=ratio(gap, n),
            deviation=_deviation(n, patients, gap=gap, squares=squares, between=between, squared_sizes=nn),
            spread_true=kept[0],
            spread_said=kept[1],
            product=np.where(kept[1] > 0, ts - ratio(t * s, n), 0.0),
            rank_correlation=self._spearman(weight),
        )
        return value_figures(sums)

    def _spearman(self, weight: FloatArray) -> FloatArray:
        """(R,) rank correlation, ties averaged; NaN where one of both is constant."""
        n = weight.sum(axis=1)
        first, second = (one.of(weight) - n[:, None] / 2.0 for one in (self._truth, self._said))
        product, a, b = ((weight * one).sum(axis=1) for one in (first * second, first * first, second * second))
        least = _CONSTANT * n**3
        a, b = (np.where(one > least, one, 0.0) for one in (a, b))
        return ratio(product, np.sqrt(a * b))

    def size(self, name: str) -> int:
        """All labelled samples."""
        del name
        return self.n

    def denominator_units(self, name: str) -> int | None:
        """None: no figure is a proportion."""
        del name
        return None

    def fewest(self, name: str) -> int:
        """All patients."""
        del name
        return self.units

    def means(self) -> dict[str, dict[str, float]]:
        """No figure is a mean of others."""
        return {}

    def analytic(self, confidence: float) -> dict[str, tuple[Interval, ...]]:
        """No interval without resampling."""
        del confidence
        return {}

    def at_edge(self, confidence: float) -> dict[str, Interval]:
        """No interval of what no replicate moves."""
        del confidence
        return {}

    def calibration(self, confidence: float) -> dict[str, Figure]:
        """No further figures."""
        del confidence
        return {}

    def caveat(self, name: str) -> str:
        """Return what must be said beside a figure: nothing."""
        del name
        return ""

    def no_interval(self, name: str) -> str:
        """Return why a figure has no interval; "" where it has one."""
        del name
        return f"no interval: {self.units} patients only" if 1 < self.units < FEWEST else ""

    def reason(self, name: str) -> str:
        """Why a figure is undefined."""
        if not self.n:
            return "no labelled sample"
        if name.startswith("limit_") and self.units < 2:
            return "one patient only"
        if self.n < 2:
            return "one labelled sample only"
        if name in _RELATIVE and self._is_constant[0]:
            return "every true value is the same"
        if name in _CORRELATIONS and self._is_constant[1]:
            return "every predicted value is the same"
        return "undefined for these values"


class _Ranks:
    """Ranks of values under weights: of equal values the mean."""

    def __init__(self, values: FloatArray) -> None:
        self._order = np.argsort(values, kind="stable")
        ordered = values[self._order]
        is_first = np.concatenate([[True], ordered[1:] != ordered[:-1]]) if values.size else np.zeros(0, dtype=np.bool_)
        self._starts, self._group = np.flatnonzero(is_first), np.cumsum(is_first) - 1

    def of(self, weight: FloatArray) -> FloatArray:
        """(R, N) rank of each sample where it, and each other, stands as often as (R, N) weights say, less one half."""
        if not self._starts.size:
            return np.zeros_like(weight)
        weights = np.add.reduceat(weight[:, self._order], self._starts, axis=1)
        middle = np.cumsum(weights, axis=1) - weights / 2.0
        ranks = np.empty_like(weight)
        ranks[:, self._order] = middle[:, self._group]
        return ranks


def _centered(values: FloatArray) -> FloatArray:
    """Values about their mean, so that squares keep their digits; zeros where all are the same."""
    return values - values.mean() if values.size and np.ptp(values) > 0.0 else np.zeros_like(values)


def _deviation(
    n: FloatArray,
    patients: FloatArray,
    *,
    gap: FloatArray,
    squares: FloatArray,
    between: FloatArray,
    squared_sizes: FloatArray,
) -> FloatArray:
    """Standard deviation of the differences, of which a patient may have several, (R,); NaN with one patient.

    The variance between patients and that within them, from a one-way analysis of variance, added (Bland and Altman,
    J Biopharm Stat 17:571, 2007, section 3). With one image for each patient it is the usual one.
    """
    of_all = ratio(gap * gap, n)
    within = ratio(np.maximum(squares - between, 0.0), np.maximum(n - patients, 0.0))
    within = np.where(n > patients, within, 0.0)
    freedom = np.maximum(patients - 1.0, 0.0)
    among = ratio(np.maximum(between - of_all, 0.0), freedom)
    size = ratio(n * n - squared_sizes, freedom * n)
    variance = within + np.maximum(ratio(among - within, size), 0.0)
    return np.sqrt(np.where(variance <= _ROUNDING * ratio(squares, n), 0.0, variance))
