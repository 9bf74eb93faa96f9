"""Evaluation of record of a classifier: figures with intervals at a stated operating point, curves, worst cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lepton_vision.config import EvaluationConfig, PreprocessConfig, nearest
from lepton_vision.errors import EvaluationError
from lepton_vision.evaluation.analyses import Analyses
from lepton_vision.evaluation.cases import WorstCase, worst_cases
from lepton_vision.evaluation.curves import ClassCurves, class_curves
from lepton_vision.evaluation.intervals import Bootstrap, Measures, bootstrap_figures, patient_units
from lepton_vision.evaluation.measures import BinaryMeasures, MulticlassMeasures, MultilabelMeasures
from lepton_vision.inference.predictions import Predictions
from lepton_vision.set_rules import SetRule
from lepton_vision.types import Figure, FloatArray, OperatingPoint, Target

if TYPE_CHECKING:
    from lepton_vision.evaluation.external import Site

CountArray = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What ``evaluate`` found. Every figure holds at ``operating_point`` and on ``split``.

    Attributes:
        targets: what was predicted.
        operating_point: where probabilities became decisions.
        split: "train", "val", "test", or None where it is not known.
        n: samples with a label for at least one target.
        n_patients: patients among them; an unknown patient id counts as a patient of its own.
        n_unlabelled: by target name, samples left out because the label is unknown.
        n_failed: samples that could not be read, and are in no figure.
        figures: by target name and figure name. Binary: ``measures.BINARY_FIGURES``. Multilabel: the same as means
            over the classes, and ``<figure>_<class>``. Multiclass: auroc and average_precision (one class against
            the rest, mean), accuracy, balanced_accuracy, f1_macro, log_loss, brier, and ``auroc_<class>`` ….
        curves: by target name, one ClassCurves for the positive class of a binary target, K otherwise.
        confusion: by target name, counts, rows truth, columns decision: (2, 2) for binary, (K, K) for multiclass,
            (K, 2, 2) for multilabel.
        worst: by target name, decisions that were wrong, the most wrong first.
        confidence: of the intervals, e.g. 0.95.
        preprocess: how the pixels were prepared, or None.
        provenance: plain facts: bundle id, method and number of the replicates, seed.
        analyses: calibration, net benefit, prediction sets, abstention, subgroups, comparison with another site.
    """

    targets: tuple[Target, ...]
    operating_point: OperatingPoint
    split: str | None
    n: int
    n_patients: int
    n_unlabelled: Mapping[str, int]
    n_failed: int
    figures: Mapping[str, Mapping[str, Figure]]
    curves: Mapping[str, tuple[ClassCurves, ...]]
    confusion: Mapping[str, CountArray]
    worst: Mapping[str, tuple[WorstCase, ...]]
    confidence: float = 0.95
    preprocess: PreprocessConfig | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    analyses: Analyses = field(default_factory=Analyses)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: undefined numbers are None, and no path of a file is in it."""
        targets = {
            target.name: {
                "kind": target.kind,
                "classes": list(target.classes),
                "n_unlabelled": self.n_unlabelled[target.name],
                "figures": {name: figure.to_dict() for name, figure in self.figures[target.name].items()},
                "confusion": self.confusion[target.name].tolist(),
                "curves": [curves.to_dict() for curves in self.curves[target.name]],
                "worst": [case.to_dict() for case in self.worst[target.name]],
            }
            for target in self.targets
        }
        preprocess = None if self.preprocess is None else self.preprocess.model_dump(mode="json")
        return {
            "split": self.split,
            "n": self.n,
            "n_patients": self.n_patients,
            "n_failed": self.n_failed,
            "confidence": self.confidence,
            "operating_point": self.operating_point.to_dict(),
            "targets": targets,
            "preprocess": preprocess,
            "provenance": dict(self.provenance),
            "analyses": self.analyses.to_dict(),
        }

    def _repr_html_(self) -> str:
        split, point = escape(str(self.split or "unknown")), escape(self.operating_point.criterion)
        parts = [
            f"<p>Evaluation · split {split} · {self.n} images of {self.n_patients} patients · operating point {point} "
            f"· {self.confidence:.0%} intervals</p>"
        ]
        for target in self.targets:
            rows = "".join(
                f"<tr><th>{escape(name)}</th><td>{escape(str(figure))}</td><td>{figure.n}</td></tr>"
                for name, figure in self.figures[target.name].items()
            )
            head = "<tr><th>figure</th><th>value [interval]</th><th>n</th></tr>"
            parts.append(f"<table><caption>{escape(target.name)} ({target.kind})</caption>{head}{rows}</table>")
        return "".join(parts)


def evaluate(
    predictions: Predictions,
    *,
    operating_point: OperatingPoint,
    config: EvaluationConfig | None = None,
    set_rules: Mapping[str, tuple[SetRule, ...]] | None = None,
    columns: Mapping[str, Sequence[Any]] | None = None,
    site: Site | None = None,
) -> Evaluation:
    """Compute every figure with its interval, the curves and the worst cases.

    Samples whose label is unknown are left out and counted. Intervals are percentiles of a bootstrap that resamples
    patients (see ``intervals.bootstrap_figures``). A figure that is undefined is NaN and carries the reason.

    Args:
        predictions: of one split.
        operating_point: chosen on validation (``choose_operating_point``) or stated; thresholds for every binary and
            multilabel target. Positive means probability >= threshold.
        config: replicates, confidence and seed.
        set_rules: of the bundle, fitted on validation; without them there are no sets of answers.
        columns: by column name, N values; figures are given by subgroup too (``subgroups.evaluate_subgroups``).
        site: where the predictions are of another site than the training (``external.compare_external``).

    Raises:
        EvaluationError: the operating point lacks a target, or has another number of thresholds than the target.

    Example:
        >>> target, ids = Target("covid", "binary", ("no", "yes")), np.array(["a", "b", "c", "d"])
        >>> truth, prob = {"covid": np.array([0, 0, 1, 1])}, {"covid": np.array([0.1, 0.6, 0.4, 0.8])}
        >>> predictions = Predictions((target,), ids, ids, ids, truth, prob)
        >>> result = evaluate(predictions, operating_point=OperatingPoint({"covid": (0.5,)}, "stated"))
        >>> result.figures["covid"]["auroc"].value
        0.75
    """
    from lepton_vision.evaluation.analysis import analyze  # which computes figures of subgroups with this module

    settings = config or EvaluationConfig()
    bootstrap = Bootstrap(settings.replicates, settings.confidence, settings.seed)
    thresholds = {target.name: _thresholds(operating_point, target) for target in predictions.targets}
    known = {target.name: predictions.labelled(target) for target in predictions.targets}
    is_known = np.any(list(known.values()), axis=0)
    parts = {target.name: predictions.select(known[target.name]) for target in predictions.targets}
    return Evaluation(
        targets=predictions.targets,
        operating_point=operating_point,
        split=predictions.split,
        n=int(is_known.sum()),
        n_patients=patient_units(predictions.patient_id[is_known])[1],
        n_unlabelled={name: int((~rows).sum()) for name, rows in known.items()},
        n_failed=len(predictions.failures),
        figures={
            t.name: bootstrap_figures(measures_of(parts[t.name], t, thresholds=thresholds[t.name]), bootstrap)
            for t in predictions.targets
        },
        curves={t.name: _curves(parts[t.name], t) for t in predictions.targets},
        confusion={t.name: _confusion(parts[t.name], t, thresholds=thresholds[t.name]) for t in predictions.targets},
        worst={t.name: worst_cases(parts[t.name], t, thresholds=thresholds[t.name]) for t in predictions.targets},
        confidence=settings.confidence,
        preprocess=predictions.preprocess,
        provenance={
            "bundle_id": predictions.bundle_id,
            "intervals": "percentile bootstrap over patients",
            "replicates": settings.replicates,
            "seed": settings.seed,
        },
        analyses=analyze(
            predictions,
            operating_point=operating_point,
            config=settings,
            set_rules=set_rules,
            columns=columns,
            site=site,
        ),
    )


def validation_figures(predictions: Predictions) -> dict[str, float]:
    """Compute what training watches, without intervals: ``val_auroc``, ``val_average_precision`` and ``val_loss``.

    Each is the mean over the targets; ``val_loss`` is the log loss of the probabilities. One that is undefined for a
    target (one class only) is NaN.
    """
    names = {"val_auroc": "auroc", "val_average_precision": "average_precision", "val_loss": "log_loss"}
    values = []
    for target in predictions.targets:
        part = predictions.select(predictions.labelled(target))
        measures = measures_of(part, target, thresholds=(0.5,) * target.outputs)
        values.append(measures.values(np.ones((1, measures.units))))
    return {key: float(np.mean([figures[name][0] for figures in values])) for key, name in names.items()}


def measures_of(part: Predictions, target: Target, *, thresholds: tuple[float, ...]) -> Measures:
    """Figures of one target, ready for any weighting of the patients; ``part`` holds its labelled samples."""
    truth, prob = part.y_true[target.name], part.y_prob[target.name]
    unit, units = patient_units(part.patient_id)
    if target.kind == "binary":
        return BinaryMeasures(truth, prob, unit=unit, units=units, threshold=thresholds[0])
    if target.kind == "multiclass":
        return MulticlassMeasures(truth, prob, unit=unit, units=units, classes=target.classes)
    return MultilabelMeasures(truth, prob, unit=unit, units=units, thresholds=thresholds, classes=target.classes)


def _thresholds(point: OperatingPoint, target: Target) -> tuple[float, ...]:
    if target.kind == "multiclass":
        return ()
    if target.name not in point.thresholds:
        raise EvaluationError(
            f"The operating point has no threshold for the target {target.name!r}. "
            f"{nearest(target.name, list(point.thresholds))} Choose one with choose_operating_point.",
            key=target.name,
        )
    thresholds = tuple(float(t) for t in point.thresholds[target.name])
    if len(thresholds) != target.outputs or not np.isfinite(thresholds).all():
        raise EvaluationError(
            f"The operating point needs {target.outputs} finite thresholds for the target {target.name!r}. "
            f"Received: {list(thresholds)}.",
            key=target.name,
        )
    return thresholds


def _curves(part: Predictions, target: Target) -> tuple[ClassCurves, ...]:
    truth, prob = part.y_true[target.name], part.y_prob[target.name]
    if target.kind == "binary":
        return (class_curves(truth > 0, prob, class_name=target.positive),)
    curves = []
    for k, name in enumerate(target.classes):
        known = ~np.isnan(truth[:, k]) if target.kind == "multilabel" else np.ones(part.n, dtype=np.bool_)
        is_positive = truth[known, k] > 0 if target.kind == "multilabel" else truth == k
        curves.append(class_curves(is_positive, prob[known, k], class_name=name))
    return tuple(curves)


def _confusion(part: Predictions, target: Target, *, thresholds: tuple[float, ...]) -> CountArray:
    truth, prob = part.y_true[target.name], part.y_prob[target.name]
    if target.kind == "binary":
        return _cells(truth, (prob >= thresholds[0]).astype(np.float64), classes=2)
    if target.kind == "multiclass":
        return _cells(truth, prob.argmax(axis=1).astype(np.float64), classes=len(target.classes))
    called = (prob >= np.asarray(thresholds)).astype(np.float64)
    tables = []
    for k in range(len(target.classes)):
        known = ~np.isnan(truth[:, k])
        tables.append(_cells(truth[known, k], called[known, k], classes=2))
    return np.stack(tables)


def _cells(truth: FloatArray, called: FloatArray, *, classes: int) -> CountArray:
    cells = np.bincount((truth * classes + called).astype(np.intp), minlength=classes * classes)
    return cells.reshape(classes, classes).astype(np.int64)
