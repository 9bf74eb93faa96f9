"""Figures of targets with very many classes, where a bootstrap of each class would take hours and gigabytes.

What is a sum over samples (accuracy, log loss, balanced accuracy …) has the interval of the bootstrap over patients, as
with few classes. What depends on the order of the scores is computed class by class, once: the mean AUROC has DeLong's
interval (Obuchowski's where patients have several images), proportions of one class have Wilson's. Memory beside the
probabilities themselves is that of one class.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
from scipy.sparse import csr_array

from lepton_vision.evaluation.classes.class_averages import Averaged, ClassSamples
from lepton_vision.evaluation.classes.exclusive import Answers, averaged_figure
from lepton_vision.evaluation.classes.figure_table import AVERAGED, exclusive_values
from lepton_vision.evaluation.classes.measures import unit_sums
from lepton_vision.evaluation.classes.sums import AnswerSums
from lepton_vision.evaluation.statistics.delong import AurocSamples, mean_auroc
from lepton_vision.evaluation.statistics.intervals import clustered_proportion
from lepton_vision.evaluation.statistics.ranking import IntArray, Ranking, ratio
from lepton_vision.types import Figure, FloatArray, Interval, TargetKind

MOST_CLASSES = 100
"""More exclusive classes than these are many."""
_MOST_CELLS = 2_000_000  # samples times classes: so are more than ``_FEW`` classes of so many samples
_FEW = 20
SHOWN = 24
"""Of many classes, so many have curves and analyses of their own: the first ones."""
_RANKED = ("auroc", "average_precision")
_DECIDED = ("sensitivity", "specificity", "ppv", "npv", "f1")
_NO_INTERVAL = "no interval: too many classes for a bootstrap of each"


def are_many(classes: int, samples: int) -> bool:
    """Whether so many exclusive classes of so many samples are too many for a bootstrap of each."""
    return classes > MOST_CLASSES or (classes > _FEW and classes * samples > _MOST_CELLS)


class ManyClassMeasures:
    """Figures of K exclusive classes, see the module; names as of ``MulticlassMeasures``.

    Of one class there are AUROC, average precision, sensitivity and PPV; there are no ranking figures of all pairs of
    sample and class (``_micro``), and no calibration errors.

    Args:
        samples: with labels (N,).
        is_ordinal: the classes have an order.
    """

    def __init__(self, samples: ClassSamples, *, is_ordinal: bool = False) -> None:
        truth, prob, unit, units, classes = samples.truth, samples.prob, samples.unit, samples.units, samples.classes
        self.units, self.n, self._classes = units, int(truth.size), classes
        self._kind: TargetKind = "ordinal" if is_ordinal else "multiclass"
        self._answers, self._prob, self._unit = Answers.of(truth, prob), prob, unit
        label, called = self._answers.label, self._answers.called
        self._hit = called == label
        self._sums = unit_sums(self._answers.losses, unit, units=units)
        rows = np.ones(self.n, dtype=np.bool_), np.ones(self.n, dtype=np.bool_), self._hit
        self._counts = [
            csr_array((np.ones(int(kept.sum())), (unit[kept], side[kept])), shape=(units, len(classes)))
            for side, kept in zip((label, called, label), rows, strict=True)
        ]
        self._support = np.bincount(label, minlength=len(classes))
        self.averaged = self._find_averaged() if samples.averaged is None else samples.averaged
        self._once: dict[str, float] = {}

    def _find_averaged(self) -> Averaged:
        """Which classes the means are over, as of ``AveragedMeasures``."""
        has_both = (self._support > 0) & (self._support < self.n)
        figures = self._by_class(np.ones((1, self.units)))
        found = {
            name: has_both | ~np.isnan(figures.get(name, np.full((1, has_both.size), np.nan))[0]) for name in AVERAGED
        }
        return found | {"f1": self._support > 0}

    def _by_class(self, counts: FloatArray) -> dict[str, FloatArray]:
        """(R, K) of every figure of one class that needs no order of the scores."""
        true, called, hit = (counts @ one for one in self._counts)
        n = true.sum(axis=1, keepdims=True)
        rest = n - true - called + hit
        return {
            "sensitivity": ratio(hit, true),
            "specificity": ratio(rest, n - true),
            "ppv": ratio(hit, called),
            "npv": ratio(rest, n - called),
            "f1": ratio(2 * hit, true + called),
        }

    def values(self, counts: FloatArray) -> dict[str, FloatArray]:
        """Figures over all classes, (R,) each; for the sample itself (each patient once) those of classes too."""
        true, called, hit = (counts @ one for one in self._counts)
        hits, n, of_classes = hit.sum(axis=1), true.sum(axis=1), self._by_class(counts)
        mean = partial(self._mean, of_classes)
        sums = AnswerSums(true, called, hits, counts @ self._sums, mean, self.averaged["f1"])
        figures = exclusive_values(sums, self._kind)
        wrong = ratio(n - hits, n * (len(self._classes) - 1))
        figures |= dict.fromkeys(("sensitivity_micro", "ppv_micro", "f1_micro"), figures["accuracy"])
        figures |= dict.fromkeys(("specificity_micro", "npv_micro"), 1.0 - wrong)
        figures |= {f"{name}_weighted": self._weighted(name, of_classes[name], true) for name in _DECIDED}
        if len(counts) == 1 and bool((counts == 1.0).all()):
            return figures | {name: np.array([value]) for name, value in self._ranked().items()}
        return figures | dict.fromkeys(self._ranked(), np.full(len(counts), np.nan))

    def _mean(self, figures: Mapping[str, FloatArray], name: str) -> FloatArray:
        kept = figures[name][:, self.averaged[name]]
        return ratio(kept.sum(axis=1), np.full(len(kept), kept.shape[1]))

    def _weighted(self, name: str, values: FloatArray, true: FloatArray) -> FloatArray:
        weight = true * self.averaged[name]
        return ratio((np.where(weight > 0, values, 0.0) * weight).sum(axis=1), weight.sum(axis=1))

    def _ranked(self) -> dict[str, float]:
        """Figures of the sample that need the order of the scores, or are of one class; computed once."""
        if self._once:
            return self._once
        found = [self._ranking(k) for k in range(len(self._classes))]
        areas = {name: np.array([values]) for name, values in zip(_RANKED, zip(*found, strict=True), strict=True)}
        of_classes = areas | self._by_class(np.ones((1, self.units)))
        figures = {name: float(self._mean(areas, name)[0]) for name in _RANKED}
        support = self._support[None].astype(np.float64)
        figures |= {f"{name}_weighted": float(self._weighted(name, areas[name], support)[0]) for name in _RANKED}
        for name in (*_RANKED, "sensitivity", "ppv"):
            figures |= {f"{name}_{k}": float(v) for k, v in zip(self._classes, of_classes[name][0], strict=True)}
        self._once = figures
        return figures

    def _ranking(self, k: int) -> tuple[float, float]:
        ranking = Ranking.of(self._answers.label == k, np.ascontiguousarray(self._prob[:, k]), unit=self._unit)
        found = ranking.figures(np.ones((1, self.units)))
        return float(found.auroc[0]), float(found.average_precision[0])

    def _class_of(self, name: str) -> tuple[str, int] | None:
        for figure in (*_RANKED, "sensitivity", "ppv"):
            if name.startswith(f"{figure}_") and name.removeprefix(f"{figure}_") in self._classes:
                return figure, self._classes.index(name.removeprefix(f"{figure}_"))
        return None

    def size(self, name: str) -> int:
        """Samples in the denominator of a class's figure, all labelled samples otherwise."""
        found = self._class_of(name)
        if found is None or found[0] in _RANKED:
            return self.n
        return int(self._support[found[1]] if found[0] == "sensitivity" else (self._answers.called == found[1]).sum())

    def denominator_units(self, name: str) -> int | None:
        """Patients in the denominator of accuracy; other figures have no Wilson interval here."""
        return self.units if name == "accuracy" else None

    def fewest(self, name: str) -> int:
        """Patients in the smallest class that a figure of the ranking rests on, or all."""
        if not name.startswith(_RANKED):
            return self.units
        several = [self._unit[self._answers.label == k] for k in np.flatnonzero(self.averaged["auroc"])]
        return min((int(np.unique(one).size) for one in several), default=0)

    def means(self) -> dict[str, dict[str, float]]:
        """Return nothing: of very many classes one that does not move weighs little."""
        return {}

    def at_edge(self, confidence: float) -> dict[str, Interval]:
        """Return nothing, as ``means``."""
        del confidence
        return {}

    def analytic(self, confidence: float) -> dict[str, tuple[Interval, ...]]:
        """Intervals without resampling: of the mean AUROC, and of sensitivity and PPV of each class."""
        found: dict[str, tuple[Interval, ...]] = {}
        asked = [k for k in range(len(self._classes)) if self.averaged["auroc"][k] and 0 < self._support[k] < self.n]
        if asked:
            is_clustered = self.units < self.n
            samples = (AurocSamples(self._answers.label == k, self._prob[:, k], self._unit) for k in asked)
            areas = mean_auroc(samples, count=len(asked), units=self.units)
            found["auroc"] = areas.intervals(confidence=confidence, is_clustered=is_clustered)
        for name, side in (("sensitivity", self._answers.label), ("ppv", self._answers.called)):
            order = np.argsort(side, kind="stable")
            ends = np.searchsorted(side[order], np.arange(len(self._classes) + 1))
            for k, name_of_class in enumerate(self._classes):
                rows = order[ends[k] : ends[k + 1]]
                unit = np.unique(self._unit[rows], return_inverse=True)[1]
                hits, sizes = self._hit[rows].astype(np.float64), np.ones(rows.size)
                sums = _count(unit, hits, 0), _count(unit, sizes, 0)
                found[f"{name}_{name_of_class}"] = clustered_proportion(*sums, confidence=confidence)
        return {name: ends for name, ends in found.items() if ends}

    def calibration(self, confidence: float) -> dict[str, Figure]:
        """Return nothing: no calibration error is computed of so many classes."""
        del confidence
        return {}

    def caveat(self, name: str) -> str:
        """Return which classes a mean is without; "" where it has all."""
        figure = averaged_figure(name, self.averaged)
        left = () if figure is None else np.flatnonzero(~self.averaged[figure])
        if not len(left):
            return ""
        few = ", ".join(self._classes[k] for k in left[:3])
        return f"mean of {len(self._classes) - len(left)} of {len(self._classes)} classes, without {few}" + (
            f" and {len(left) - 3} more" if len(left) > 3 else ""
        )

    def no_interval(self, name: str) -> str:
        """Return why a figure has no bootstrap interval; "" where it has one."""
        return _NO_INTERVAL if name in self._ranked() else ""

    def reason(self, name: str) -> str:
        """Why a figure is undefined."""
        if not self.n:
            return "no labelled sample"
        found = self._class_of(name)
        if found is not None and found[0] == "ppv":
            return "no sample is called this class"
        if found is not None:
            return f"no sample of class {self._classes[found[1]]}, or none of another"
        return "a class is never called" if name.startswith(("ppv", "npv")) else "every sample is of one class"


def _count(place: IntArray, weight: FloatArray, least: int) -> FloatArray:
    """Sum of the weights at each place; at least so many places."""
    return np.asarray(np.bincount(place, weight, minlength=least), dtype=np.float64)
