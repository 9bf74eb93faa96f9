"""Figures of K classes, each against the rest, and averages over them: macro, weighted and pooled (micro)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lepton_vision.evaluation.classes.calibration_error import mean_error
from lepton_vision.evaluation.classes.figure_table import AVERAGED
from lepton_vision.evaluation.classes.measures import BinaryMeasures
from lepton_vision.evaluation.statistics.delong import AurocSamples, mean_auroc
from lepton_vision.evaluation.statistics.ranking import BoolArray, IntArray, ratio
from lepton_vision.types import Figure, FloatArray, Interval

Averaged = Mapping[str, BoolArray]
"""By figure, (K,) bool: which classes its means are over."""
_Values = Mapping[str, Mapping[str, FloatArray]]


@dataclass(frozen=True, eq=False)
class ClassSamples:
    """Labelled samples of a target with several classes.

    Attributes:
        truth: (N,) float64 class index without NaN; of a multilabel target (N, K) of 0, 1 and NaN (unknown: left out
            for that class).
        prob: (N, K) float64.
        unit: (N,) patient of each sample.
        units: U.
        classes: K names.
        averaged: which classes the means are over, to compare with others; None finds them.
    """

    truth: FloatArray
    prob: FloatArray
    unit: IntArray
    units: int
    classes: tuple[str, ...]
    averaged: Averaged | None = None


class AveragedMeasures:
    """Base of the figures of K classes: ``<figure>_<class>`` of each, and averages over them.

    Attributes:
        n: samples.
        units: patients.
        averaged: which classes the means are over.
    """

    n: int
    units: int
    averaged: Averaged
    _parts: Mapping[str, BinaryMeasures]
    _micro: BinaryMeasures
    _whole: tuple[str, ...] = ()  # names of figures over the classes, which no class and figure together are

    def size(self, name: str) -> int:
        """Samples in the denominator of a class's figure; of a figure over the classes, all labelled samples."""
        found = self._find(name)
        return self.n if found is None else found[0].size(found[1])

    def denominator_units(self, name: str) -> int | None:
        """Patients in the denominator of a proportion of a class, or of all pooled; None for any other figure."""
        if name.endswith("_micro"):
            return self._micro.denominator_units(name.removesuffix("_micro"))
        found = self._find(name)
        return None if found is None else found[0].denominator_units(found[1])

    def fewest(self, name: str) -> int:
        """Patients in the smallest class, or denominator, that a figure rests on; of a mean, of any of its classes."""
        found = self._find(name)
        if found is not None:
            return found[0].fewest(found[1])
        figure = name.removesuffix("_weighted")
        if name.endswith("_micro") or figure not in self.averaged:
            return self._micro.fewest(name.removesuffix("_micro"))
        several = zip(self._parts.values(), self.averaged[figure], strict=True)
        return min((one.fewest(figure) for one, is_in in several if is_in), default=0)

    def at_edge(self, confidence: float) -> dict[str, Interval]:
        """Intervals of figures of a class, or of all pooled, made of proportions of which one is 0 or 1."""
        found = {f"{name}_{k}": e for k, part in self._parts.items() for name, e in part.at_edge(confidence).items()}
        pooled = self._micro.at_edge(confidence)
        return found | {f"{name}_micro": ends for name, ends in pooled.items() if name in AVERAGED}

    def analytic(self, confidence: float) -> dict[str, tuple[Interval, ...]]:
        """Intervals without resampling: of each class, of the mean AUROC, and of what is pooled over the classes."""
        found = {f"{name}_{k}": e for k, part in self._parts.items() for name, e in part.analytic(confidence).items()}
        pooled = self._micro.analytic(confidence)
        found |= {f"{name}_micro": ends for name, ends in pooled.items() if name in AVERAGED}
        several = zip(self._parts.values(), self.averaged["auroc"], strict=True)
        asked = [part.auroc_samples for part, is_over in several if is_over]
        found["auroc"] = _of_mean_auroc(asked, confidence) if asked else ()
        return {name: ends for name, ends in found.items() if ends}

    def no_interval(self, name: str) -> str:
        """Return why a figure of the ranking of a class, or their mean, has no bootstrap interval."""
        figure = name.removesuffix("_weighted")
        if figure in self.averaged:
            asked = zip(self._parts.items(), self.averaged[figure], strict=True)
            reasons = [
                f"{one.no_interval(figure)} ({k})" for (k, one), is_in in asked if is_in and one.no_interval(figure)
            ]
            return reasons[0] if reasons else ""
        found = self._find(name)
        return "" if found is None else found[0].no_interval(found[1])

    def _find(self, name: str) -> tuple[BinaryMeasures, str] | None:
        """Find the class and the figure that ``<figure>_<class>`` names; None for a figure over the classes."""
        if name in self._whole:
            return None
        for class_name, part in self._parts.items():
            figure = name.removesuffix(f"_{class_name}")
            if figure != name and figure in part.names:
                return part, figure
        return None

    def _find_averaged(self, names: Sequence[str]) -> dict[str, BoolArray]:
        """By figure, which of the K classes its means are over.

        Left out are those that leave it undefined because samples of the class, or of the rest, or an operating point
        are missing. A class without a positive sample that is called all the same has a PPV and an F1 of 0, which
        count. A class that has samples and is never called leaves the mean of the PPV undefined.
        """
        ones = {name: part.values(np.ones((1, part.units))) for name, part in self._parts.items()}
        return {
            name: np.array([not (part.lacks(name) and np.isnan(ones[k][name][0])) for k, part in self._parts.items()])
            for name in names
        }

    def _left_out(self, figure: str) -> str:
        """Say which classes a mean is without, and why; "" where it has all."""
        is_over = self.averaged[figure]
        if is_over.all():
            return ""
        several = zip(self._parts.items(), is_over, strict=True)
        absent = [f"{k} ({one.reason(figure)})" for (k, one), is_in in several if not is_in]
        return f"mean of {int(is_over.sum())} of {len(self._parts)} classes, without {', '.join(absent)}"

    def _means(self, names: Mapping[str, str]) -> dict[str, dict[str, float]]:
        """By name of a mean over the classes of a figure, and of balanced accuracies, the weights of their parts."""
        found = {
            f"{name}_{k}": {f"{p}_{k}": w for p, w in one.items()}
            for k, part in self._parts.items()
            for name, one in part.means().items()
        }
        for name, figure in names.items():
            kept = [k for k, is_in in zip(self._parts, self.averaged[figure], strict=True) if is_in]
            found[name] = {f"{figure}_{k}": 1.0 / len(kept) for k in kept}
        return found

    def _macro(self, parts: _Values, name: str) -> FloatArray:
        """(R,) plain mean of a figure over its classes; NaN where there are none."""
        stack = np.stack([values[name] for values in parts.values()])[self.averaged[name]]
        return stack.mean(axis=0) if len(stack) else np.full(stack.shape[1], np.nan)

    def _averages(self, parts: _Values, counts: FloatArray, *, support: FloatArray) -> dict[str, FloatArray]:
        """``<figure>_micro`` and ``<figure>_weighted`` of ``AVERAGED``; ``support`` (K, R): how often each is true.

        Classes without a positive sample have no weight; they do not make a weighted mean undefined.
        """
        pooled = self._micro.values(counts)
        found = {f"{name}_micro": pooled[name] for name in AVERAGED}
        for name in AVERAGED:
            stack = np.stack([values[name] for values in parts.values()])
            weight = support * self.averaged[name][:, None]
            total = (np.where(weight > 0, stack, 0.0) * weight).sum(axis=0)
            found[f"{name}_weighted"] = ratio(total, weight.sum(axis=0))
        return found

    def _calibration(self, confidence: float, *, is_over: BoolArray, caveat: str = "") -> dict[str, Figure]:
        """Figures of the calibration error: their means over the classes, then ``<figure>_<class>``."""
        found = {name: part.calibration_error(confidence) for name, part in self._parts.items()}
        means = mean_error([one for one, is_in in zip(found.values(), is_over, strict=True) if is_in]).figures()
        means = {k: replace(one, reason="; ".join(filter(None, (caveat, one.reason)))) for k, one in means.items()}
        return means | {f"{k}_{name}": figure for name, one in found.items() for k, figure in one.figures().items()}


def by_class(parts: _Values) -> dict[str, FloatArray]:
    """``<figure>_<class>`` of every class."""
    return {f"{name}_{k}": values for k, figures in parts.items() for name, values in figures.items()}


def _of_mean_auroc(samples: Sequence[AurocSamples], confidence: float) -> tuple[Interval, ...]:
    if any(one.is_positive.all() or not one.is_positive.any() for one in samples):
        return ()
    units = max(int(one.unit.max()) for one in samples) + 1
    is_clustered = any(np.unique(one.unit).size < one.unit.size for one in samples)
    return mean_auroc(samples, units=units).intervals(confidence=confidence, is_clustered=is_clustered)
