"""Figures of targets with several classes: multilabel, multiclass and ordinal.

All rest on a binary view of each class (one against the rest). Names: ``<figure>_<class>`` is of one class. Over the
classes, ``macro`` is the plain mean, ``weighted`` the mean weighted by how often each class is true, ``micro`` the
figure of all (sample, class) pairs as one binary view. Where every class is true, false and called somewhere, all
are scikit-learn's. Elsewhere scikit-learn takes an undefined figure of a class for 0; here a class that lacks samples,
or an operating point, is left out of the means that it would leave undefined, in every replicate alike (``caveat`` says
so), and the PPV of a class that is there but never called leaves its mean undefined.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from lepton_vision.evaluation.classes.class_averages import AveragedMeasures, ClassSamples, by_class
from lepton_vision.evaluation.classes.exclusive import Answers, averaged_figure
from lepton_vision.evaluation.classes.figure_table import AVERAGED, DECIDED, RANKED, SPECS, exclusive_values
from lepton_vision.evaluation.classes.measures import BinaryMeasures, Extent, unit_sums
from lepton_vision.evaluation.classes.sums import AnswerSums
from lepton_vision.types import Figure, FloatArray, TargetKind

_DEFAULT = Extent()


class MultilabelMeasures(AveragedMeasures):
    """Figures of K independent binary labels: each class by name, and means over the classes.

    A name without a class is the plain mean (macro) over the classes in ``averaged``; it is undefined where the figure
    of one of those is.

    Args:
        samples: with labels (N, K).
        thresholds: K thresholds; NaN where there is none.
        extent: what further figures hold at.
    """

    def __init__(self, samples: ClassSamples, *, thresholds: tuple[float, ...], extent: Extent = _DEFAULT) -> None:
        truth, prob, unit, units = samples.truth, samples.prob, samples.unit, samples.units
        self.units, self.n = units, len(truth)
        known = ~np.isnan(truth)
        limit = np.broadcast_to(np.asarray(thresholds, dtype=np.float64), truth.shape)
        self._parts = {
            name: BinaryMeasures(
                truth[rows, k], prob[rows, k], unit=unit[rows], units=units, threshold=thresholds[k], extent=extent
            )
            for k, (name, rows) in enumerate(zip(samples.classes, known.T, strict=True))
        }
        pairs = np.broadcast_to(unit[:, None], truth.shape)[known]
        self._micro = BinaryMeasures(
            truth[known], prob[known], unit=pairs, units=units, threshold=limit[known], extent=extent
        )
        self._whole = tuple(name for name in extent.names if name != "prevalence")
        self.averaged = self._find_averaged(self._whole) if samples.averaged is None else samples.averaged

    def values(self, counts: FloatArray) -> dict[str, FloatArray]:
        """Figures over all classes, then ``<figure>_<class>``, (R,) each."""
        parts = {name: part.values(counts) for name, part in self._parts.items()}
        figures = {name: self._macro(parts, name) for name in self._whole}
        support = np.stack([part.positives(counts) for part in self._parts.values()])
        return figures | self._averages(parts, counts, support=support) | by_class(parts)

    def means(self) -> dict[str, dict[str, float]]:
        """Figures that are means of those of the classes: by name, the weights of their parts."""
        return self._means({name: name for name in self._whole if name in DECIDED})

    def calibration(self, confidence: float) -> dict[str, Figure]:
        """Calibration errors of each class and their means over the classes, and the accuracy of each at one half."""
        half = {k: part.at_half(confidence) for k, part in self._parts.items()}
        found = self._calibration(confidence, is_over=self.averaged["ece"], caveat=self.caveat("ece"))
        return found | {f"{name}_{k}": figure for k, figures in half.items() for name, figure in figures.items()}

    def caveat(self, name: str) -> str:
        """Return which classes a mean is without; "" where it has all."""
        is_mean = self._find(name) is None and not name.endswith("_micro")
        return self._left_out(name.removesuffix("_weighted")) if is_mean else ""

    def reason(self, name: str) -> str:
        """Why a figure is undefined; for a figure over the classes, of the first class that lacks it."""
        found = self._find(name)
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


class MulticlassMeasures(AveragedMeasures):
    """Figures of K exclusive classes; the largest probability wins, the first of equal ones.

    ``auroc`` and ``average_precision`` are plain means of one class against the rest, ``mcc`` is Gorodkin's (Comput
    Biol Chem 28:367, 2004). Brier: sum over classes of the squared error, 0 to 2 (Brier 1950).

    Args:
        samples: with labels (N,).
        is_ordinal: the classes have an order: ``kappa_quadratic`` (Cohen, Psychol Bull 70:213, 1968) and
            ``class_error``, the mean distance between the called and the true class in steps, are added.
        extent: what further figures hold at.
    """

    def __init__(self, samples: ClassSamples, *, is_ordinal: bool = False, extent: Extent = _DEFAULT) -> None:
        truth, prob, unit, units = samples.truth, samples.prob, samples.unit, samples.units
        self.units, self.n, self._classes = units, int(truth.size), samples.classes
        self._kind: TargetKind = "ordinal" if is_ordinal else "multiclass"
        k = len(self._classes)
        answers = Answers.of(truth, prob)
        self._is_class = answers.label[:, None] == np.arange(k)
        is_called = answers.called[:, None] == np.arange(k)
        limit = np.where(is_called, 0.0, np.inf)  # each class is called or not, whatever its share
        self._parts = {
            name: BinaryMeasures(
                self._is_class[:, j].astype(np.float64),
                prob[:, j],
                unit=unit,
                units=units,
                threshold=limit[:, j],
                extent=extent,
            )
            for j, name in enumerate(self._classes)
        }
        truths, pairs = self._is_class.ravel().astype(np.float64), np.repeat(unit, k)
        self._micro = BinaryMeasures(
            truths, prob.ravel(), unit=pairs, units=units, threshold=limit.ravel(), extent=extent
        )
        whole = [self._is_class, is_called, self._is_class & is_called, answers.losses]
        self._sums = unit_sums(np.concatenate(whole, axis=1), unit, units=units)
        # A class that is called, but not there, has an F1 of 0, which no sample could raise: it is left out.
        found = self._find_averaged(AVERAGED) | {"f1": self._is_class.any(axis=0)}
        self.averaged = found if samples.averaged is None else samples.averaged

    def values(self, counts: FloatArray) -> dict[str, FloatArray]:
        """Figures over all classes, then ``<figure>_<class>``, (R,) each."""
        k = len(self._classes)
        sums = counts @ self._sums
        true, called, hits, losses = sums[:, :k], sums[:, k : 2 * k], sums[:, 2 * k : 3 * k], sums[:, 3 * k :]
        parts = {name: part.values(counts) for name, part in self._parts.items()}
        over, mean = self._averages(parts, counts, support=true.T), partial(self._macro, parts)
        figures = {name: mean(name) for name in ("auroc", "average_precision")}
        found = AnswerSums(true, called, hits.sum(axis=1), losses, mean, self.averaged["f1"])
        figures |= exclusive_values(found, self._kind)
        return figures | over | by_class(parts)

    def denominator_units(self, name: str) -> int | None:
        """Patients in the denominator of accuracy, of the proportions of a class, and of all pooled."""
        return self.units if name == "accuracy" else super().denominator_units(name)

    def fewest(self, name: str) -> int:
        """Patients in the smallest class, or denominator, that a figure rests on."""
        figure = self._averaged_figure(name)
        if figure is None and name in SPECS:  # a sum over all samples
            return self.units
        return super().fewest(figure or name)

    def means(self) -> dict[str, dict[str, float]]:
        """Figures that are means of those of the classes: by name, the weights of their parts."""
        names = {"balanced_accuracy": "sensitivity", **{f"{k}_macro": k for k in ("specificity", "ppv", "npv", "f1")}}
        return self._means(names)

    def calibration(self, confidence: float) -> dict[str, Figure]:
        """Figures of the calibration error, of each class against the rest and as means over the classes."""
        return self._calibration(confidence, is_over=np.ones(len(self._classes), dtype=np.bool_))

    def caveat(self, name: str) -> str:
        """Return which classes a mean is without; "" where it has all."""
        figure = self._averaged_figure(name)
        return "" if figure is None else self._left_out(figure)

    def _averaged_figure(self, name: str) -> str | None:
        """Figure of the classes that ``name`` is a mean of; None where it is no mean."""
        return None if self._find(name) is not None else averaged_figure(name, self.averaged)

    def reason(self, name: str) -> str:
        """Why a figure is undefined."""
        if not self.n:
            return "no labelled sample"
        found = self._find(name)
        if found is not None and found[1] == "ppv":
            return "no sample is called this class"
        if found is not None and found[1] not in RANKED:
            return found[0].reason(found[1])
        figure = self._averaged_figure(name)
        has_mean = figure is not None and bool(self.averaged[figure].any())
        missing = [c for k, c in enumerate(self._classes) if not self._is_class[:, k].any()]
        if missing and not has_mean:
            return f"no sample of class {', '.join(missing)}"
        return "a class is never called" if name.startswith(("ppv", "npv")) else "every sample is of one class"
