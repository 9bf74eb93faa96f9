"""Figures of questions with several classes: multilabel, multiclass and ordinal targets.

All rest on one binary question per class (one against the rest). Names: ``<figure>_<class>`` is of one class. Over the
classes, ``macro`` is the plain mean, ``weighted`` the mean weighted by how often each class is true, ``micro`` the
figure of all (sample, class) pairs as one binary question. Where every class is true, false and called somewhere, all
are scikit-learn's. Elsewhere scikit-learn takes an undefined figure of a class for 0; here a class that lacks samples,
or an operating point, is left out of the means that it would leave undefined, in every replicate alike (``caveat`` says
so), and the PPV of a class that is there but never called leaves its mean undefined.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from lepton_vision.evaluation.calibration_error import mean_error
from lepton_vision.evaluation.delong import AurocQuestion, mean_auroc
from lepton_vision.evaluation.measures import BinaryMeasures, Extent, unit_sums
from lepton_vision.evaluation.ranking import BoolArray, IntArray, ratio
from lepton_vision.types import Figure, FloatArray, Interval

AVERAGED = ("auroc", "average_precision", "sensitivity", "specificity", "ppv", "npv", "f1")
Averaged = Mapping[str, BoolArray]
"""By figure, (K,) bool: which classes its means are over."""
_EPS = float(np.finfo(np.float64).eps)
_DEFAULT = Extent()


class MultilabelMeasures:
    """Figures of K independent binary questions: each class by name, and means over the classes.

    A name without a class is the plain mean (macro) over the classes in ``averaged``; it is undefined where the figure
    of one of those is.

    Args:
        truth: (N, K) float64 of 0, 1 and NaN (unknown: left out for that class).
        prob: (N, K) float64.
        unit: (N,) patient of each sample.
        units: U.
        thresholds: K thresholds; NaN where there is none.
        classes: K names.
        extent: what further figures hold at.
        averaged: which classes the means are over, to compare with others; None finds them (``judged``).
    """

    def __init__(
        self,
        truth: FloatArray,
        prob: FloatArray,
        *,
        unit: IntArray,
        units: int,
        thresholds: tuple[float, ...],
        classes: tuple[str, ...],
        extent: Extent = _DEFAULT,
        averaged: Averaged | None = None,
    ) -> None:
        self.units, self.n = units, len(truth)
        known = ~np.isnan(truth)
        limit = np.broadcast_to(np.asarray(thresholds, dtype=np.float64), truth.shape)
        self._parts = {
            name: BinaryMeasures(
                truth[rows, k], prob[rows, k], unit=unit[rows], units=units, threshold=thresholds[k], extent=extent
            )
            for k, (name, rows) in enumerate(zip(classes, known.T, strict=True))
        }
        pairs = np.broadcast_to(unit[:, None], truth.shape)[known]
        self._micro = BinaryMeasures(
            truth[known], prob[known], unit=pairs, units=units, threshold=limit[known], extent=extent
        )
        self._macro = tuple(name for name in extent.names if name != "prevalence")
        self.averaged = judged(self._parts, self._macro) if averaged is None else averaged

    def values(self, counts: FloatArray) -> dict[str, FloatArray]:
        """Figures over all classes, then ``<figure>_<class>``, (R,) each."""
        parts = {name: part.values(counts) for name, part in self._parts.items()}
        figures = {name: macro(parts, name, self.averaged) for name in self._macro}
        support = np.stack([part.positives(counts) for part in self._parts.values()])
        figures |= averages(parts, support=support, micro=self._micro.values(counts), averaged=self.averaged)
        return figures | by_class(parts)

    def size(self, name: str) -> int:
        """Samples in the denominator; of a figure over the classes, samples with a label for any class."""
        found = find_class(name, self._parts, whole=self._macro)
        return self.n if found is None else found[0].size(found[1])

    def denominator_units(self, name: str) -> int | None:
        """Patients in the denominator of the proportion of one class."""
        found = find_class(name, self._parts, whole=self._macro)
        return None if found is None else found[0].denominator_units(found[1])

    def analytic(self, confidence: float) -> dict[str, tuple[Interval, ...]]:
        """Intervals without resampling: of each class, of the mean AUROC, and of what is pooled over the classes."""
        return analytic(self._parts, micro=self._micro, confidence=confidence, averaged=self.averaged)

    def calibration(self, confidence: float) -> dict[str, Figure]:
        """Figures of the calibration error, of each class and as means over the classes."""
        return calibration(self._parts, confidence=confidence, is_over=self.averaged["ece"], caveat=self.caveat("ece"))

    def caveat(self, name: str) -> str:
        """Return which classes a mean is without; "" where it has all."""
        is_mean = find_class(name, self._parts, whole=self._macro) is None and not name.endswith("_micro")
        return left_out(self._parts, self.averaged, name.removesuffix("_weighted")) if is_mean else ""

    def withheld(self, name: str) -> str:
        """Return why a figure of the ranking of a class, or their mean, has no bootstrap interval."""
        return withheld(self._parts, name, averaged=self.averaged)

    def reason(self, name: str) -> str:
        """Why a figure is undefined; for a figure over the classes, of the first class that lacks it."""
        found = find_class(name, self._parts, whole=self._macro)
        if found is not None:
            return found[0].reason(found[1])
        figure = name.removesuffix("_weighted")
        if name.endswith("_micro"):
            found_reason = self._micro.reason(name.removesuffix("_micro"))
            return "a class has no operating point" if found_reason == "no operating point" else found_reason
        ones, is_over = np.ones((1, self.units)), self.averaged[figure]
        for is_asked, (class_name, part) in zip(
            is_over if is_over.any() else ~is_over, self._parts.items(), strict=True
        ):
            if is_asked and np.isnan(part.values(ones)[figure][0]):
                return f"class {class_name}: {part.reason(figure)}"
        return "no labelled sample"


class MulticlassMeasures:
    """Figures of one question with K exclusive answers; the largest probability wins, the first of equal ones.

    ``auroc`` and ``average_precision`` are plain means of one class against the rest, ``mcc`` is Gorodkin's (Comput
    Biol Chem 28:367, 2004). Brier: sum over classes of the squared error, 0 to 2 (Brier 1950).

    Args:
        truth: (N,) float64 class index, without NaN.
        prob: (N, K) float64.
        unit: (N,) patient of each sample.
        units: U.
        classes: K names.
        is_ordinal: the classes have an order: ``kappa_quadratic`` (Cohen, Psychol Bull 70:213, 1968) and
            ``class_error``, the mean distance between the called and the true class in steps, are added.
        extent: what further figures hold at.
        averaged: which classes the means are over, to compare with others; None finds them (``judged``).
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
        extent: Extent = _DEFAULT,
        averaged: Averaged | None = None,
    ) -> None:
        self.units, self.n, self._classes, self._unit = units, int(truth.size), classes, unit
        self._is_ordinal, k = is_ordinal, len(classes)
        label = truth.astype(np.intp)
        called = prob.argmax(axis=1) if self.n else label
        self._is_class = label[:, None] == np.arange(k)
        # Each class is called or not, whatever its share.
        limit = np.where(called[:, None] == np.arange(k), 0.0, np.inf)
        self._parts = {
            name: BinaryMeasures(
                self._is_class[:, j].astype(np.float64),
                prob[:, j],
                unit=unit,
                units=units,
                threshold=limit[:, j],
                extent=extent,
            )
            for j, name in enumerate(classes)
        }
        truths, pairs = self._is_class.ravel().astype(np.float64), np.repeat(unit, k)
        self._micro = BinaryMeasures(
            truths, prob.ravel(), unit=pairs, units=units, threshold=limit.ravel(), extent=extent
        )
        chance = prob[np.arange(self.n), label].clip(_EPS, 1.0 - _EPS)
        is_called = called[:, None] == np.arange(k)
        step = np.abs(label - called).astype(np.float64)
        columns = [-np.log(chance), ((prob - self._is_class) ** 2).sum(axis=1), step, step**2]
        whole = [self._is_class, is_called, self._is_class & is_called, np.column_stack(columns)]
        self._sums = unit_sums(np.concatenate(whole, axis=1), unit, units=units)
        # A class that is called, but not there, has an F1 of 0, which no sample could raise: it is left out.
        found = judged(self._parts, AVERAGED) | {"f1": self._is_class.any(axis=0)}
        self.averaged = found if averaged is None else averaged

    def values(self, counts: FloatArray) -> dict[str, FloatArray]:
        """Figures over all classes, then ``<figure>_<class>``, (R,) each."""
        k = len(self._classes)
        sums = counts @ self._sums
        true, called, hits = sums[:, :k], sums[:, k : 2 * k], sums[:, 2 * k : 3 * k].sum(axis=1)
        nats, square, step, step_square = sums[:, 3 * k :].T
        n = true.sum(axis=1)
        parts = {name: part.values(counts) for name, part in self._parts.items()}
        over = averages(parts, support=true.T, micro=self._micro.values(counts), averaged=self.averaged)
        present = np.where((true > 0)[:, self.averaged["f1"]].all(axis=1), 1.0, np.nan)
        spread = (n**2 - (true**2).sum(axis=1)) * (n**2 - (called**2).sum(axis=1))
        figures: dict[str, FloatArray] = {
            "auroc": macro(parts, "auroc", self.averaged),
            "average_precision": macro(parts, "average_precision", self.averaged),
            "accuracy": ratio(hits, n),
            "balanced_accuracy": macro(parts, "sensitivity", self.averaged),
            "f1_macro": macro(parts, "f1", self.averaged) * present,
            "mcc": ratio(hits * n - (true * called).sum(axis=1), np.sqrt(spread.clip(0.0))),
            "log_loss": ratio(nats, n),
            "brier": ratio(square, n),
        }
        for name in ("specificity", "ppv", "npv"):
            figures[f"{name}_macro"] = macro(parts, name, self.averaged)
        return (
            figures | (_ordinal(true, called, step, step_square) if self._is_ordinal else {}) | over | by_class(parts)
        )

    def size(self, name: str) -> int:
        """Samples in the denominator of a class's figure, all labelled samples otherwise."""
        found = find_class(name, self._parts)
        return self.n if found is None else found[0].size(found[1])

    def denominator_units(self, name: str) -> int | None:
        """Patients in the denominator of accuracy and of the proportions of a class."""
        found = find_class(name, self._parts)
        if found is not None:
            return found[0].denominator_units(found[1])
        return self.units if name == "accuracy" else None

    def analytic(self, confidence: float) -> dict[str, tuple[Interval, ...]]:
        """Intervals without resampling: of each class, of the mean AUROC, and of what is pooled over the classes."""
        return analytic(self._parts, micro=self._micro, confidence=confidence, averaged=self.averaged)

    def calibration(self, confidence: float) -> dict[str, Figure]:
        """Figures of the calibration error, of each class against the rest and as means over the classes."""
        return calibration(self._parts, confidence=confidence, is_over=np.ones(len(self._classes), dtype=np.bool_))

    def caveat(self, name: str) -> str:
        """Return which classes a mean is without; "" where it has all."""
        figure = self._averaged_figure(name)
        return "" if figure is None else left_out(self._parts, self.averaged, figure)

    def withheld(self, name: str) -> str:
        """Return why a figure of the ranking of a class, or their mean, has no bootstrap interval."""
        return withheld(self._parts, name, averaged=self.averaged)

    def _averaged_figure(self, name: str) -> str | None:
        """Figure of the classes that ``name`` is a mean of; None where it is no mean."""
        if find_class(name, self._parts) is not None:
            return None
        figure = {"balanced_accuracy": "sensitivity"}.get(name, name.removesuffix("_macro").removesuffix("_weighted"))
        return figure if figure in self.averaged else None

    def reason(self, name: str) -> str:
        """Why a figure is undefined."""
        if not self.n:
            return "no labelled sample"
        found = find_class(name, self._parts)
        if found is not None and found[1] == "ppv":
            return "no sample is called this class"
        if found is not None and found[1] not in ("auroc", "average_precision", "partial_auroc"):
            return found[0].reason(found[1])
        figure = self._averaged_figure(name)
        has_mean = figure is not None and bool(self.averaged[figure].any())
        missing = [c for k, c in enumerate(self._classes) if not self._is_class[:, k].any()]
        if missing and not has_mean:
            return f"no sample of class {', '.join(missing)}"
        return "a class is never called" if name.startswith(("ppv", "npv")) else "every sample is of one class"


def _ordinal(true: FloatArray, called: FloatArray, step: FloatArray, step_square: FloatArray) -> dict[str, FloatArray]:
    """Agreement of called and true class for classes in order; (R, K) counts of both, (R,) sums of their distances."""
    place, n = np.arange(true.shape[1], dtype=np.float64), true.sum(axis=1)
    # The distances that chance gives: (i - j)^2 over all pairs of a true and a called class.
    chance = n * (true @ place**2 + called @ place**2) - 2.0 * (true @ place) * (called @ place)
    return {"kappa_quadratic": 1.0 - ratio(step_square, ratio(chance, n)), "class_error": ratio(step, n)}


def judged(parts: Mapping[str, BinaryMeasures], names: Sequence[str]) -> dict[str, BoolArray]:
    """By figure, which of the K classes its means are over.

    Left out are those that leave it undefined because samples of the class, or of the rest, or an operating point are
    missing. A class without a positive sample that is called all the same has a PPV and an F1 of 0, which count. A
    class that has samples and is never called leaves the mean of the PPV undefined.
    """
    ones = {name: part.values(np.ones((1, part.units))) for name, part in parts.items()}
    return {
        name: np.array([not (part.lacks(name) and np.isnan(ones[k][name][0])) for k, part in parts.items()])
        for name in names
    }


def macro(parts: Mapping[str, Mapping[str, FloatArray]], name: str, averaged: Averaged) -> FloatArray:
    """(R,) plain mean of a figure over its classes; NaN where there are none."""
    stack = np.stack([values[name] for values in parts.values()])[averaged[name]]
    return stack.mean(axis=0) if len(stack) else np.full(stack.shape[1], np.nan)


def left_out(parts: Mapping[str, BinaryMeasures], averaged: Averaged, figure: str) -> str:
    """Say which classes a mean is without, and why; "" where it has all."""
    if averaged[figure].all():
        return ""
    absent = [
        f"{k} ({one.reason(figure)})"
        for k, one, is_in in zip(parts, parts.values(), averaged[figure], strict=True)
        if not is_in
    ]
    return f"mean of {int(averaged[figure].sum())} of {len(parts)} classes, without {', '.join(absent)}"


def withheld(parts: Mapping[str, BinaryMeasures], name: str, *, averaged: Averaged) -> str:
    """Say why a figure of the ranking has no interval: of its class, or of the first class of a mean that has none."""
    figure = name.removesuffix("_weighted")
    if figure in averaged:
        asked = zip(parts.items(), averaged[figure], strict=True)
        reasons = [f"{one.withheld(figure)} ({k})" for (k, one), is_in in asked if is_in and one.withheld(figure)]
        return reasons[0] if reasons else ""
    found = find_class(name, parts)
    return "" if found is None else found[0].withheld(found[1])


def averages(
    parts: Mapping[str, Mapping[str, FloatArray]],
    *,
    support: FloatArray,
    micro: Mapping[str, FloatArray],
    averaged: Averaged,
) -> dict[str, FloatArray]:
    """``<figure>_micro`` and ``<figure>_weighted`` of ``AVERAGED``; ``support`` (K, R): how often each class is true.

    Classes without a positive sample have no weight; they do not make a weighted mean undefined.
    """
    found = {f"{name}_micro": micro[name] for name in AVERAGED}
    for name in AVERAGED:
        stack = np.stack([values[name] for values in parts.values()])
        weight = support * averaged[name][:, None]
        total = (np.where(weight > 0, stack, 0.0) * weight).sum(axis=0)
        found[f"{name}_weighted"] = ratio(total, weight.sum(axis=0))
    return found


def by_class(parts: Mapping[str, Mapping[str, FloatArray]]) -> dict[str, FloatArray]:
    """``<figure>_<class>`` of every class."""
    return {f"{name}_{k}": values for k, figures in parts.items() for name, values in figures.items()}


def find_class(
    name: str, parts: Mapping[str, BinaryMeasures], *, whole: tuple[str, ...] = ()
) -> tuple[BinaryMeasures, str] | None:
    """Find the class and the figure that ``<figure>_<class>`` names; None for a figure over the classes."""
    if name in whole:
        return None
    for class_name, part in parts.items():
        figure = name.removesuffix(f"_{class_name}")
        if figure != name and figure in part.names:
            return part, figure
    return None


def analytic(
    parts: Mapping[str, BinaryMeasures], *, micro: BinaryMeasures, confidence: float, averaged: Averaged
) -> dict[str, tuple[Interval, ...]]:
    """Intervals without resampling: ``auroc``, ``<figure>_micro`` and ``<figure>_<class>``."""
    found = {f"{name}_{k}": ends for k, part in parts.items() for name, ends in part.analytic(confidence).items()}
    found |= {f"{name}_micro": ends for name, ends in micro.analytic(confidence).items() if name in AVERAGED}
    asked = [part.question for part, is_over in zip(parts.values(), averaged["auroc"], strict=True) if is_over]
    found["auroc"] = _of_mean_auroc(asked, confidence) if asked else ()
    return {name: ends for name, ends in found.items() if ends}


def calibration(
    parts: Mapping[str, BinaryMeasures], *, confidence: float, is_over: BoolArray, caveat: str = ""
) -> dict[str, Figure]:
    """Figures of the calibration error: their means over the classes, then ``<figure>_<class>``."""
    found = {name: part.calibration_error(confidence) for name, part in parts.items()}
    means = mean_error([one for one, is_in in zip(found.values(), is_over, strict=True) if is_in]).figures()
    means = {k: replace(one, reason="; ".join(filter(None, (caveat, one.reason)))) for k, one in means.items()}
    return means | {f"{k}_{name}": figure for name, one in found.items() for k, figure in one.figures().items()}


def _of_mean_auroc(questions: Sequence[AurocQuestion], confidence: float) -> tuple[Interval, ...]:
    if any(one.is_positive.all() or not one.is_positive.any() for one in questions):
        return ()
    units = max(int(one.unit.max()) for one in questions) + 1
    is_clustered = any(np.unique(one.unit).size < one.unit.size for one in questions)
    return mean_auroc(questions, units=units).intervals(confidence=confidence, is_clustered=is_clustered)
