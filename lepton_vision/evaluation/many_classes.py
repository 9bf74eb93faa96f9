"""Figures of a question with so many exclusive answers that a bootstrap of each class would take hours and gigabytes.

What is a sum over samples (accuracy, log loss, balanced accuracy …) has the interval of the bootstrap over patients, as
with few classes. What depends on the order of the scores is computed class by class, once: the mean AUROC has DeLong's
interval (Obuchowski's where patients have several images), proportions of one class have Wilson's. Memory beside the
probabilities themselves is that of one class.
"""

from __future__ import annotations

import numpy as np

from lepton_vision.evaluation.delong import AurocQuestion, mean_auroc
from lepton_vision.evaluation.intervals import clustered_proportion
from lepton_vision.evaluation.over_classes import AVERAGED, Averaged
from lepton_vision.evaluation.ranking import IntArray, Ranking, ratio
from lepton_vision.types import Figure, FloatArray, Interval

MOST_CLASSES = 100
"""More exclusive classes than these are many."""
_MOST_CELLS = 2_000_000  # samples times classes: so are more than ``_FEW`` classes of so many samples
_FEW = 20
SHOWN = 24
"""Of many classes, so many have curves and analyses of their own: the first ones."""
_EPS = float(np.finfo(np.float64).eps)
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
        truth: (N,) float64 class index, without NaN.
        prob: (N, K) float64.
        unit: (N,) patient of each sample.
        units: U.
        classes: K names.
        is_ordinal: the classes have an order.
        averaged: which classes the means are over, to compare with others; None finds them.
    """

    def __init__(
        self,
        truth: FloatArray,
        prob: FloatArray,
        *,
        unit: IntArray,
        units: int,
        classes: tuple[str, ...],
        is_ordinal: bool = False,
        averaged: Averaged | None = None,
    ) -> None:
        self.units, self.n, self._classes, self._is_ordinal = units, int(truth.size), classes, is_ordinal
        self._label, self._prob, self._unit = truth.astype(np.intp), prob, unit
        self._called = prob.argmax(axis=1) if self.n else self._label
        self._hit = self._called == self._label
        own = prob[np.arange(self.n), self._label]
        squares = np.einsum("nk,nk->n", prob, prob) - 2.0 * own + 1.0
        step = np.abs(self._label - self._called).astype(np.float64)
        self._sums = [-np.log(own.clip(_EPS, 1.0 - _EPS)), squares, step, step**2]
        self._support = np.bincount(self._label, minlength=len(classes))
        self.averaged = self._judged() if averaged is None else averaged
        self._once: dict[str, float] = {}

    def _judged(self) -> Averaged:
        """Which classes the means are over, see ``class_measures.judged``."""
        has_both = (self._support > 0) & (self._support < self.n)
        figures = self._by_class(*self._counts(np.ones(self.n)), float(self.n))
        found = {name: has_both | ~np.isnan(figures.get(name, np.full(has_both.size, np.nan))) for name in AVERAGED}
        return found | {"f1": self._support > 0}

    def _counts(self, weight: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """(K,) each: samples of a class, those called so, and both."""
        k, hit = len(self._classes), self._hit
        true, called = (_count(side, weight, k) for side in (self._label, self._called))
        return true, called, _count(self._label[hit], weight[hit], k)

    def values(self, counts: FloatArray) -> dict[str, FloatArray]:
        """Figures over all classes, (R,) each; for the sample itself (each patient once) those of classes too."""
        found = [self._decisions(row[self._unit]) for row in counts]
        figures = {name: np.array([one[name] for one in found]) for name in found[0]} if found else {}
        if len(counts) == 1 and bool((counts == 1.0).all()):
            return figures | {name: np.array([value]) for name, value in self._ranked().items()}
        return figures | {name: np.full(len(counts), np.nan) for name in self._ranked()}

    def _decisions(self, weight: FloatArray) -> dict[str, float]:
        k = len(self._classes)
        true, called, hit = self._counts(weight)
        n, hits = float(weight.sum()), float(hit.sum())
        nats, square, step, step_square = (float(weight @ one) for one in self._sums)
        spread = (n**2 - float((true**2).sum())) * (n**2 - float((called**2).sum()))
        figures = self._by_class(true, called, hit, n)
        present = 1.0 if (true > 0)[self.averaged["f1"]].all() else np.nan
        found = {
            "accuracy": _ratio(hits, n),
            "balanced_accuracy": self._mean("sensitivity", figures),
            "f1_macro": self._mean("f1", figures) * present,
            "mcc": _ratio(hits * n - float(true @ called), float(np.sqrt(max(spread, 0.0)))),
            "log_loss": _ratio(nats, n),
            "brier": _ratio(square, n),
        }
        found |= {f"{name}_macro": self._mean(name, figures) for name in ("specificity", "ppv", "npv")}
        if self._is_ordinal:
            place, mean = np.arange(k), float(true @ np.arange(k)) * float(called @ np.arange(k))
            chance = float(true @ place**2) * float(called.sum()) + float(called @ place**2) * n - 2.0 * mean
            found |= {"kappa_quadratic": 1.0 - _ratio(step_square, _ratio(chance, n)), "class_error": _ratio(step, n)}
        wrong = _ratio(n - hits, n * (k - 1))
        shared = {"sensitivity": found["accuracy"], "ppv": found["accuracy"], "f1": found["accuracy"]}
        shared |= {"specificity": 1.0 - wrong, "npv": 1.0 - wrong}
        found |= {f"{name}_micro": value for name, value in shared.items()}
        return found | {f"{name}_weighted": self._weighted(name, figures[name], true) for name in _DECIDED}

    def _by_class(self, true: FloatArray, called: FloatArray, hit: FloatArray, n: float) -> dict[str, FloatArray]:
        rest = n - true - called + hit
        return {
            "sensitivity": ratio(hit, true),
            "specificity": ratio(rest, n - true),
            "ppv": ratio(hit, called),
            "npv": ratio(rest, n - called),
            "f1": ratio(2 * hit, true + called),
        }

    def _mean(self, name: str, figures: dict[str, FloatArray]) -> float:
        kept = figures[name][self.averaged[name]]
        return float(kept.mean()) if kept.size else float("nan")

    def _weighted(self, name: str, values: FloatArray, true: FloatArray) -> float:
        kept = self.averaged[name] & (true > 0)
        return _ratio(float((values[kept] * true[kept]).sum()), float(true[kept].sum()))

    def _ranked(self) -> dict[str, float]:
        """Figures of the sample that need the order of the scores, or are of one class; computed once."""
        if self._once:
            return self._once
        found = [self._ranking(k) for k in range(len(self._classes))]
        areas = {name: np.array(values) for name, values in zip(_RANKED, zip(*found, strict=True), strict=True)}
        true, called, hit = self._counts(np.ones(self.n))
        of_classes = areas | self._by_class(true, called, hit, float(self.n))
        figures = {name: self._mean(name, areas) for name in _RANKED}
        figures |= {f"{name}_weighted": self._weighted(name, areas[name], true) for name in _RANKED}
        for name in (*_RANKED, "sensitivity", "ppv"):
            figures |= {f"{name}_{k}": float(v) for k, v in zip(self._classes, of_classes[name], strict=True)}
        self._once = figures
        return figures

    def _ranking(self, k: int) -> tuple[float, float]:
        ranking = Ranking.of(self._label == k, np.ascontiguousarray(self._prob[:, k]), unit=self._unit)
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
        return int(self._support[found[1]] if found[0] == "sensitivity" else (self._called == found[1]).sum())

    def denominator_units(self, name: str) -> int | None:
        """Patients in the denominator of accuracy; other figures have no Wilson interval here."""
        return self.units if name == "accuracy" else None

    def fewest(self, name: str) -> int:
        """Patients in the smallest class that a figure of the ranking rests on, or all."""
        if not name.startswith(_RANKED):
            return self.units
        several = [self._unit[self._label == k] for k in np.flatnonzero(self.averaged["auroc"])]
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
            questions = (AurocQuestion(self._label == k, self._prob[:, k], self._unit) for k in asked)
            areas = mean_auroc(questions, count=len(asked), units=self.units)
            found["auroc"] = areas.intervals(confidence=confidence, is_clustered=is_clustered)
        for name, side in (("sensitivity", self._label), ("ppv", self._called)):
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
        figure = {"balanced_accuracy": "sensitivity"}.get(name, name.removesuffix("_macro").removesuffix("_weighted"))
        left = np.flatnonzero(~self.averaged[figure]) if figure in self.averaged else ()
        if not len(left):
            return ""
        few = ", ".join(self._classes[k] for k in left[:3])
        return f"mean of {len(self._classes) - len(left)} of {len(self._classes)} classes, without {few}" + (
            f" and {len(left) - 3} more" if len(left) > 3 else ""
        )

    def withheld(self, name: str) -> str:
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


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")
