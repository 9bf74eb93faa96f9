"""Calibration statistics: calibration line, calibration errors, reliability curve, Brier decomposition."""

from __future__ import annotations

import numpy as np

from lepton_vision.evaluation.classes.analyses import CalibrationBin, CalibrationStatistics
from lepton_vision.evaluation.classes.binary_views import BinaryView, grouped_sums
from lepton_vision.evaluation.classes.calibration_error import calibration_error
from lepton_vision.evaluation.classes.curves import equal_mass_bins
from lepton_vision.evaluation.statistics.calibration_curve import Groups, curve_distances
from lepton_vision.evaluation.statistics.intervals import Bootstrap, bootstrap_figures
from lepton_vision.evaluation.statistics.logistic import fit_lines, fit_offsets
from lepton_vision.evaluation.statistics.ranking import ratio
from lepton_vision.predictions.calibration import logits
from lepton_vision.types import FloatArray

GROUPS = 512
_LINE = ("slope", "intercept", "observed_expected")
_BRIER = ("brier_reliability", "brier_resolution", "brier_uncertainty")


def calibration_statistics(view: BinaryView, bootstrap: Bootstrap) -> CalibrationStatistics:
    """Compute the calibration of one class, with intervals over patients.

    Lines are fitted to the log odds, of which more than 512 different ones are gathered into 512 groups of equal mass
    at their means: the estimate moves in the fourth digit, and a replicate costs the same for any number of samples.

    Example:
        >>> unit, truth = np.arange(4), np.array([False, True, False, True])
        >>> view = BinaryView("sick", truth, np.array([0.25, 0.25, 0.75, 0.75]), unit, 4)
        >>> round(calibration_statistics(view, Bootstrap(100)).figures["slope"].value, 3)
        0.0
    """
    measures = _Measures(view)
    figures = bootstrap_figures(measures, bootstrap)
    bins = tuple(
        CalibrationBin(float(predicted), figures[f"bin_{k}"]) for k, predicted in enumerate(measures.mean_prob)
    )
    own = {name: figures[name] for name in _LINE}
    own |= calibration_error(
        view.is_positive.astype(np.float64), view.prob, unit=view.unit, confidence=bootstrap.confidence
    ).figures()
    own |= curve_distances(measures.groups, confidence=bootstrap.confidence, lacking=view.missing())
    own |= {name: figures[name] for name in _BRIER}
    return CalibrationStatistics(view.class_name, view.n, int(view.is_positive.sum()), bins, own)


class _Measures:
    """The figures of ``CalibrationStatistics``, and ``bin_0`` … the observed share in each bin."""

    def __init__(self, view: BinaryView) -> None:
        self._view, self.n, self.units = view, view.n, view.units
        truth = view.is_positive.astype(np.float64)
        self._bin = equal_mass_bins(view.prob)
        self._bins = int(self._bin.max(initial=-1)) + 1
        columns = np.column_stack([np.ones(self.n), truth, view.prob])
        self._in_bins = grouped_sums(view.unit, self._bin, units=view.units, groups=self._bins, columns=columns)
        self.mean_prob = ratio(
            np.bincount(self._bin, view.prob, self._bins), np.bincount(self._bin, minlength=self._bins)
        )
        line = logits(view.prob)
        values, group = np.unique(line, return_inverse=True)
        if values.size > GROUPS:
            group = equal_mass_bins(line, bins=GROUPS)
        self._groups = int(group.max(initial=-1)) + 1
        self._x = ratio(np.bincount(group, line, self._groups), np.bincount(group, minlength=self._groups))
        self._in_groups = grouped_sums(view.unit, group, units=view.units, groups=self._groups, columns=columns[:, :2])

    @property
    def groups(self) -> Groups:
        """Samples gathered by their log odds, for a curve."""
        weight, positive = np.asarray(self._in_groups.sum(axis=0)).reshape(2, self._groups)
        is_clustered = np.unique(self._view.unit).size < self.n
        return Groups(self._x, weight, positive, self._in_groups if is_clustered else None)

    def values(self, counts: FloatArray) -> dict[str, FloatArray]:
        """Figures by name, (R,) each."""
        weight, positive = (counts @ self._in_groups).reshape(len(counts), 2, self._groups).transpose(1, 0, 2)
        n, observed, expected = (counts @ self._in_bins).reshape(len(counts), 3, self._bins).transpose(1, 0, 2)
        total, positives = n.sum(axis=1), observed.sum(axis=1)
        prevalence = ratio(positives, total)
        share, mean = np.nan_to_num(ratio(observed, n)), np.nan_to_num(ratio(expected, n))
        figures = {
            "slope": fit_lines(self._x, weight, positive)[1],
            "intercept": fit_offsets(self._x, weight, positive),
            "observed_expected": ratio(positives, expected.sum(axis=1)),
            "brier_reliability": ratio((n * (mean - share) ** 2).sum(axis=1), total),
            "brier_resolution": ratio((n * (share - prevalence[:, None]) ** 2).sum(axis=1), total),
            "brier_uncertainty": prevalence * (1.0 - prevalence),
        }
        return figures | {f"bin_{k}": ratio(observed[:, k], n[:, k]) for k in range(self._bins)}

    def size(self, name: str) -> int:
        """Samples in the denominator."""
        return int((self._bin == _number(name)).sum()) if name.startswith("bin_") else self.n

    def denominator_units(self, name: str) -> int | None:
        """Patients in a bin."""
        if not name.startswith("bin_"):
            return None
        return int(np.unique(self._view.unit[self._bin == _number(name)]).size)

    def reason(self, name: str) -> str:
        """Why a figure is undefined."""
        lacking = self._view.missing()
        if lacking or name != "slope":
            return lacking or "the probabilities are all 0"
        return "the probabilities are all equal, or separate the classes"


def _number(name: str) -> int:
    return int(name.rpartition("_")[2])
