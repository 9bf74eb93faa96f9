"""Figures of one binary target under many patient weightings at once, the base of ``class_measures``.

What is a sum over samples (cells of the confusion matrix, squared errors …) is summed per patient once; a replicate
is then one row of a matrix product. Only what depends on the order of the scores needs the samples, see ``ranking``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lepton_vision.evaluation.classes.calibration_error import CalibrationError, calibration_error
from lepton_vision.evaluation.classes.curves import equal_mass_bins
from lepton_vision.evaluation.classes.figure_table import BINARY, DECIDED, RANKED, SPECS, binary_values
from lepton_vision.evaluation.classes.sums import Cells
from lepton_vision.evaluation.statistics.composites import Share, at_edge, f1_interval
from lepton_vision.evaluation.statistics.delong import AurocSamples, auroc_covariance
from lepton_vision.evaluation.statistics.intervals import clustered_proportion
from lepton_vision.evaluation.statistics.ranking import BoolArray, IntArray, Ranking
from lepton_vision.types import Figure, FloatArray, Interval
from lepton_vision.types.target import are_called

FEWEST_RANKED = 4
"""Patients of each class from which a figure of the ranking has an interval: a bootstrap of three is too narrow."""
_EPS = float(np.finfo(np.float64).eps)  # a sure and wrong prediction costs 36 nats, as in scikit-learn


@dataclass(frozen=True, slots=True)
class Extent:
    """Settings, beside the threshold, at which some figures hold.

    Attributes:
        max_fpr: in (0, 1], largest false positive rate of the partial AUROC.
        prevalence: in (0, 1), at which PPV and NPV are expressed again; None leaves these figures out.
    """

    max_fpr: float = 0.1
    prevalence: float | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Figures of a binary target, in order."""
        return tuple(name for name, one in BINARY.items() if self.prevalence is not None or not one.is_stated)


class BinaryMeasures:
    """Figures of one binary target.

    ``mcc`` is Matthews' correlation, ``lr_positive`` sensitivity / (1 - specificity), ``lr_negative``
    (1 - sensitivity) / specificity, ``partial_auroc`` standardised (see ``Ranking.figures``), ``ppv_at_prevalence``
    what Bayes' rule makes of sensitivity and specificity.

    Args:
        truth: (N,) float64 of 0 and 1, without NaN.
        prob: (N,) float64 in [0, 1].
        unit: (N,) patient of each sample, 0 … U-1.
        units: U; may exceed what ``unit`` names (patients without a label for this class).
        threshold: positive means probability >= threshold: one for all samples, or (N,) one for each. With NaN among
            them there is no operating point, and figures of decisions are undefined.
        extent: what further figures hold at.
    """

    def __init__(
        self,
        truth: FloatArray,
        prob: FloatArray,
        *,
        unit: IntArray,
        units: int,
        threshold: float | FloatArray,
        extent: Extent = Extent(),
    ) -> None:
        self.units, self.n, self.names, self._extent = units, int(truth.size), extent.names, extent
        self._truth, self._prob, self._unit = truth, prob, unit
        self._ranking = Ranking.of(truth > 0, prob, unit=unit)
        self.averaged: dict[str, BoolArray] = {}  # one class has no means
        self.is_decided = not bool(np.isnan(threshold).any())
        self.is_half = bool(np.all(np.asarray(threshold) == 0.5))
        called = are_called(prob, threshold)
        self._rows = {
            "sensitivity": truth > 0,
            "specificity": truth == 0,
            "ppv": called,
            "npv": ~called,
            "accuracy": np.ones(truth.size, dtype=np.bool_),
            "prevalence": np.ones(truth.size, dtype=np.bool_),
        }
        chance = np.where(truth > 0, prob, 1.0 - prob).clip(_EPS, 1.0 - _EPS)
        # ECE: bins of equal mass in the whole sample; a replicate reweights them, it does not move their edges.
        which = equal_mass_bins(prob)
        self._bins = int(which.max(initial=-1)) + 1
        gap = np.zeros((truth.size, self._bins))
        gap[np.arange(truth.size), which] = truth - prob
        columns = [called * truth, called * (1 - truth), ~called * truth, ~called * (1 - truth)]
        columns += [(prob - truth) ** 2, -np.log(chance)]
        self._sums = unit_sums(np.column_stack([*columns, gap]), unit, units=units)

    def values(self, counts: FloatArray) -> dict[str, FloatArray]:
        """Figures by name, (R,) each."""
        sums = counts @ self._sums
        ranks = self._ranking.figures(counts, max_fpr=self._extent.max_fpr)
        gaps = np.abs(sums[:, 6:]).sum(axis=1)
        stated = np.nan if self._extent.prevalence is None else self._extent.prevalence
        tp, fp, fn, tn, squares, nats = sums[:, :6].T
        cells = Cells(tp, fp, fn, tn, squares, nats, gaps, ranks, stated)
        return binary_values(cells, self.names, is_decided=self.is_decided)

    def has_both(self) -> bool:
        """Whether there are positive and negative samples."""
        return bool(self._rows["sensitivity"].any() and self._rows["specificity"].any())

    def lacks(self, name: str) -> bool:
        """Whether samples, or an operating point, are missing that the figure needs."""
        return not self.has_both() or (name in DECIDED and not self.is_decided)

    def positives(self, counts: FloatArray) -> FloatArray:
        """Number of positive samples, (R,)."""
        return np.asarray(counts @ (self._sums[:, 0] + self._sums[:, 2]))

    def size(self, name: str) -> int:
        """Samples in the denominator."""
        return int(self._rows[name].sum()) if name in self._rows else self.n

    def denominator_units(self, name: str) -> int | None:
        """Patients in the denominator of a proportion."""
        return self._patients.get(name)

    def fewest(self, name: str) -> int:
        """Patients in the denominator of a proportion, in the smaller class for what compares classes, or all."""
        if name in self._rows:
            return self._patients[name]
        return self._patients["accuracy"] if SPECS[name].group == "probabilities" else self._fewest_of_class

    @cached_property
    def _patients(self) -> dict[str, int]:
        return {name: int(np.unique(self._unit[rows]).size) for name, rows in self._rows.items()}

    @property
    def _fewest_of_class(self) -> int:
        return min(self._patients["sensitivity"], self._patients["specificity"])

    def means(self) -> dict[str, dict[str, float]]:
        """Figures that are means of proportions: by name, the weights of their parts."""
        return {"balanced_accuracy": {"sensitivity": 0.5, "specificity": 0.5}}

    def analytic(self, confidence: float) -> dict[str, tuple[Interval, ...]]:
        """Intervals without resampling: of the AUROC, and Wilson's and Clopper–Pearson's of the proportions."""
        found = {"auroc": self._of_auroc(confidence)}
        names = [name for name in self._rows if name in DECIDED] if self.is_decided else ()
        return found | {name: clustered_proportion(*self._counts(name), confidence=confidence) for name in names}

    def _counts(self, name: str) -> tuple[FloatArray, FloatArray]:
        """Numerator and denominator of a proportion by patient, (U,) each."""
        tp, fp, fn, tn = self._sums[:, :4].T
        counts: dict[str, tuple[FloatArray, FloatArray]] = {
            "sensitivity": (tp, tp + fn),
            "specificity": (tn, tn + fp),
            "ppv": (tp, tp + fp),
            "npv": (tn, tn + fn),
            "accuracy": (tp + tn, tp + fp + fn + tn),
            "prevalence": (tp + fn, tp + fp + fn + tn),
            "overlap": (tp, tp + fp + fn),
        }
        return counts[name]

    def at_edge(self, confidence: float) -> dict[str, Interval]:
        """Intervals of the figures of the decisions where no replicate moves sensitivity or specificity: none else.

        So it is where it is 0 or 1, and where it is the same in each patient.
        """
        if not (self.is_decided and self.has_both() and self.units > 1):
            return {}
        counts = [self._counts(name) for name in ("sensitivity", "specificity", "prevalence", "overlap")]
        if not any(np.ptp(hits[sizes > 0] / sizes[sizes > 0]) == 0.0 for hits, sizes in counts[:2]):
            return {}
        ends = [clustered_proportion(*pair, confidence=confidence)[:1] for pair in counts]
        shares = [
            Share(float(hits.sum() / sizes.sum()), one[0].low, one[0].high)
            for (hits, sizes), one in zip(counts[:3], ends[:3], strict=True)
        ]
        found = at_edge(*shares, stated=self._extent.prevalence)
        return found | ({"f1": f1_interval(ends[3][0])} if ends[3] else {})

    def calibration_error(self, confidence: float) -> CalibrationError:
        """Calibration error of the class, of which no bootstrap gives an interval."""
        return calibration_error(self._truth, self._prob, unit=self._unit, confidence=confidence)

    def calibration(self, confidence: float) -> dict[str, Figure]:
        """Figures of the calibration error, and the accuracy at a threshold of one half, by name."""
        return self.calibration_error(confidence).figures() | self.at_half(confidence)

    def at_half(self, confidence: float) -> dict[str, Figure]:
        """Accuracy at a threshold of one half with Wilson's interval; nothing where that is the operating point."""
        if not self.n or not self.is_decided or self.is_half:
            return {}
        right = (are_called(self._prob, 0.5) == (self._truth > 0)).astype(np.float64)
        sums = unit_sums(np.column_stack([right, np.ones(self.n)]), self._unit, units=self.units)
        wilson = clustered_proportion(sums[:, 0], sums[:, 1], confidence=confidence)[0]
        return {"accuracy_at_half": Figure(float(right.mean()), wilson.low, wilson.high, self.n, "", "wilson")}

    def caveat(self, name: str) -> str:
        """Return what must be said beside a figure: nothing."""
        del name
        return ""

    def no_interval(self, name: str) -> str:
        """Return why a figure of the ranking has no bootstrap interval; "" where it has one.

        Resampling so few patients tells nothing of how others with the class would score.
        """
        if name not in RANKED or not self.has_both() or self.units < 2 or self._fewest_of_class >= FEWEST_RANKED:
            return ""
        few = self._fewest_of_class
        return f"no interval: one class has {'one patient' if few == 1 else f'{few} patients'} only"

    @property
    def auroc_samples(self) -> AurocSamples:
        """Truth, scores and patients, as an AUROC needs them."""
        return AurocSamples(self._truth > 0, self._prob, self._unit)

    def _of_auroc(self, confidence: float) -> tuple[Interval, ...]:
        is_positive = self._truth > 0
        if not self.n or is_positive.all() or not is_positive.any():
            return ()
        unit = np.unique(self._unit, return_inverse=True)[1].astype(np.intp)
        is_clustered = int(unit.max()) + 1 < self.n
        found = auroc_covariance(is_positive, self._prob[:, None], unit=unit)
        return found.intervals(confidence=confidence, is_clustered=is_clustered)

    def reason(self, name: str) -> str:
        """Why a figure is undefined."""
        if not self.n:
            return "no labelled sample"
        if name in DECIDED and not self.is_decided:
            return "no operating point"
        if name in ("ppv", "ppv_at_prevalence") and not self._rows["ppv"].any():
            return "no sample reaches the threshold"
        if name in ("npv", "npv_at_prevalence") and not self._rows["npv"].any():
            return "every sample reaches the threshold"
        if name == "f1":
            return "no positive sample, and none called positive"
        if not self._rows["sensitivity"].any():
            return "no positive sample"
        if not self._rows["specificity"].any():
            return "no negative sample"
        return _REASONS.get(name, "undefined for these decisions")


_REASONS = {
    "mcc": "every sample is called alike",
    "lr_positive": "no negative sample is called positive, the ratio has no upper bound",
    "lr_negative": "every negative sample is called positive",
}


def unit_sums(columns: FloatArray, unit: IntArray, *, units: int) -> FloatArray:
    """Sum the rows of each unit: (N, M) → (U, M)."""
    sums = np.zeros((units, columns.shape[1]))
    order = np.argsort(unit, kind="stable")
    present, starts = np.unique(unit[order], return_index=True)
    if present.size:
        sums[present] = np.add.reduceat(columns[order], starts, axis=0)
    return sums
