"""Figures of binary, multiclass and multilabel targets, for many weightings of the patients at once.

What is a sum over samples (cells of the confusion matrix, squared errors …) is summed per patient once; a replicate
is then one row of a matrix product. Only AUROC and average precision need the samples, see ``ranking``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lepton_vision.evaluation.curves import equal_mass_bins
from lepton_vision.evaluation.ranking import IntArray, Ranking, ratio
from lepton_vision.types import FloatArray

BINARY_FIGURES = (
    "auroc",
    "average_precision",
    "sensitivity",
    "specificity",
    "ppv",
    "npv",
    "accuracy",
    "f1",
    "balanced_accuracy",
    "brier",
    "log_loss",
    "ece",
    "prevalence",
)
_MACRO = tuple(name for name in BINARY_FIGURES if name != "prevalence")
_EPS = float(np.finfo(np.float64).eps)  # a sure and wrong prediction costs 36 nats, as in scikit-learn


class BinaryMeasures:
    """Figures of one binary question.

    Args:
        truth: (N,) float64 of 0 and 1, without NaN.
        prob: (N,) float64 in [0, 1].
        unit: (N,) patient of each sample, 0 … U-1.
        units: U; may exceed what ``unit`` names (patients without a label for this class).
        threshold: positive means probability >= threshold.
    """

    def __init__(self, truth: FloatArray, prob: FloatArray, *, unit: IntArray, units: int, threshold: float) -> None:
        self.units, self.n = units, int(truth.size)
        self._ranking = Ranking.of(truth > 0, prob, unit=unit)
        called = prob >= threshold
        self._rows = {
            "sensitivity": truth > 0,
            "specificity": truth == 0,
            "ppv": called,
            "npv": ~called,
            "accuracy": np.ones(truth.size, dtype=np.bool_),
        }
        self._unit = unit
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
        tp, fp, fn, tn, square, nats = sums[:, :6].T
        n = tp + fp + fn + tn
        auroc, average_precision = self._ranking.figures(counts)
        sensitivity, specificity = ratio(tp, tp + fn), ratio(tn, tn + fp)
        figures = (
            auroc,
            average_precision,
            sensitivity,
            specificity,
            ratio(tp, tp + fp),
            ratio(tn, tn + fn),
            ratio(tp + tn, n),
            ratio(2 * tp, 2 * tp + fp + fn),
            (sensitivity + specificity) / 2,
            ratio(square, n),
            ratio(nats, n),
            ratio(np.abs(sums[:, 6:]).sum(axis=1), n),
            ratio(tp + fn, n),
        )
        return dict(zip(BINARY_FIGURES, figures, strict=True))

    def size(self, name: str) -> int:
        """Samples in the denominator."""
        return int(self._rows[name].sum()) if name in self._rows else self.n

    def denominator_units(self, name: str) -> int | None:
        """Patients in the denominator of a proportion."""
        return int(np.unique(self._unit[self._rows[name]]).size) if name in self._rows else None

    def reason(self, name: str) -> str:
        """Why a figure is undefined."""
        if not self.n:
            return "no labelled sample"
        if name == "ppv":
            return "no sample reaches the threshold"
        if name == "npv":
            return "every sample reaches the threshold"
        if name == "f1":
            return "no positive sample, and none called positive"
        missing = "positive" if not self._rows["sensitivity"].any() else "negative"
        return f"no {missing} sample"


class MultilabelMeasures:
    """Figures of K independent binary questions: each class by name, and their plain mean (macro).

    A mean is undefined where the figure of any class is.

    Args:
        truth: (N, K) float64 of 0, 1 and NaN (unknown: left out for that class).
        prob: (N, K) float64.
        unit: (N,) patient of each sample.
        units: U.
        thresholds: K thresholds.
        classes: K names.
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
    ) -> None:
        self.units, self.n = units, len(truth)
        self._parts = {}
        for k, name in enumerate(classes):
            known = ~np.isnan(truth[:, k])
            self._parts[name] = BinaryMeasures(
                truth[known, k], prob[known, k], unit=unit[known], units=units, threshold=thresholds[k]
            )

    def values(self, counts: FloatArray) -> dict[str, FloatArray]:
        """Macro figures, then ``<figure>_<class>``, (R,) each."""
        parts = {name: part.values(counts) for name, part in self._parts.items()}
        figures = {name: np.mean([values[name] for values in parts.values()], axis=0) for name in _MACRO}
        return figures | {f"{name}_{k}": v for k, values in parts.items() for name, v in values.items()}

    def _find(self, name: str) -> tuple[BinaryMeasures, str] | None:
        for class_name, part in self._parts.items():
            figure = name.removesuffix(f"_{class_name}")
            if name not in _MACRO and figure in BINARY_FIGURES:
                return part, figure
        return None

    def size(self, name: str) -> int:
        """Samples in the denominator; of a macro figure, samples with a label for any class."""
        found = self._find(name)
        return self.n if found is None else found[0].size(found[1])

    def denominator_units(self, name: str) -> int | None:
        """Patients in the denominator of the proportion of one class."""
        found = self._find(name)
        return None if found is None else found[0].denominator_units(found[1])

    def reason(self, name: str) -> str:
        """Why a figure is undefined; for a macro figure, of the first class that lacks it."""
        found = self._find(name)
        if found is not None:
            return found[0].reason(found[1])
        ones = np.ones((1, self.units))
        for class_name, part in self._parts.items():
            if np.isnan(part.values(ones)[name][0]):
                return f"class {class_name}: {part.reason(name)}"
        return "no labelled sample"


class MulticlassMeasures:
    """Figures of one question with K exclusive answers; the largest probability wins, the first of equal ones.

    ``auroc`` and ``average_precision`` are means of one class against the rest. Every mean over classes is undefined
    where a class has no labelled sample. Brier: sum over classes of the squared error, 0 to 2 (Brier 1950).

    Args:
        truth: (N,) float64 class index, without NaN.
        prob: (N, K) float64.
        unit: (N,) patient of each sample.
        units: U.
        classes: K names.
    """

    def __init__(
        self, truth: FloatArray, prob: FloatArray, *, unit: IntArray, units: int, classes: tuple[str, ...]
    ) -> None:
        self.units, self.n, self._classes, self._unit = units, int(truth.size), classes, unit
        label = truth.astype(np.intp)
        called = prob.argmax(axis=1) if self.n else label
        self._is_class = label[:, None] == np.arange(len(classes))
        is_called = called[:, None] == np.arange(len(classes))
        self._rankings = [Ranking.of(self._is_class[:, k], prob[:, k], unit=unit) for k in range(len(classes))]
        chance = prob[np.arange(self.n), label].clip(_EPS, 1.0 - _EPS)
        square = ((prob - self._is_class) ** 2).sum(axis=1)
        columns = (self._is_class & is_called, self._is_class, is_called, -np.log(chance), square)
        self._sums = unit_sums(np.column_stack([column.astype(np.float64) for column in columns]), unit, units=units)

    def values(self, counts: FloatArray) -> dict[str, FloatArray]:
        """Figures over all classes, then ``<figure>_<class>``, (R,) each."""
        k = len(self._classes)
        sums = counts @ self._sums
        hits, true, called = sums[:, :k], sums[:, k : 2 * k], sums[:, 2 * k : 3 * k]
        n = true.sum(axis=1)
        ranks = [ranking.figures(counts) for ranking in self._rankings]
        sensitivity = ratio(hits, true)
        present = np.where((true > 0).all(axis=1), 1.0, np.nan)
        figures: dict[str, Any] = {
            "auroc": np.mean([auroc for auroc, _ in ranks], axis=0),
            "average_precision": np.mean([precision for _, precision in ranks], axis=0),
            "accuracy": ratio(hits.sum(axis=1), n),
            "balanced_accuracy": sensitivity.mean(axis=1),
            "f1_macro": ratio(2 * hits, true + called).mean(axis=1) * present,
            "log_loss": ratio(sums[:, 3 * k], n),
            "brier": ratio(sums[:, 3 * k + 1], n),
        }
        for index, name in enumerate(self._classes):
            figures[f"auroc_{name}"], figures[f"average_precision_{name}"] = ranks[index]
            figures[f"sensitivity_{name}"] = sensitivity[:, index]
            figures[f"ppv_{name}"] = ratio(hits[:, index], called[:, index])
            figures[f"prevalence_{name}"] = ratio(true[:, index], n)
        return figures

    def _class_of(self, name: str, figure: str) -> int | None:
        names = [f"{figure}_{class_name}" for class_name in self._classes]
        return names.index(name) if name in names else None

    def size(self, name: str) -> int:
        """Samples of the class for its sensitivity, all labelled samples otherwise."""
        k = self._class_of(name, "sensitivity")
        return self.n if k is None else int(self._is_class[:, k].sum())

    def denominator_units(self, name: str) -> int | None:
        """Patients in the denominator of accuracy and of a class's sensitivity."""
        k = self._class_of(name, "sensitivity")
        if k is not None:
            return int(np.unique(self._unit[self._is_class[:, k]]).size)
        return self.units if name == "accuracy" else None

    def reason(self, name: str) -> str:
        """Why a figure is undefined."""
        if not self.n:
            return "no labelled sample"
        if self._class_of(name, "ppv") is not None:
            return "no sample is called this class"
        missing = [c for k, c in enumerate(self._classes) if not self._is_class[:, k].any()]
        return f"no sample of class {', '.join(missing)}" if missing else "every sample is of one class"


def unit_sums(columns: FloatArray, unit: IntArray, *, units: int) -> FloatArray:
    """Sum the rows of each unit: (N, M) → (U, M)."""
    sums = np.zeros((units, columns.shape[1]))
    order = np.argsort(unit, kind="stable")
    present, starts = np.unique(unit[order], return_index=True)
    if present.size:
        sums[present] = np.add.reduceat(columns[order], starts, axis=0)
    return sums
