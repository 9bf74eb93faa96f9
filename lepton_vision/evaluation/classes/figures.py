"""Choice of figures by the kind of target: one class, several classes, very many classes, or several labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import numpy as np

from lepton_vision.config.sections import EvaluationConfig
from lepton_vision.errors import EvaluationError, nearest
from lepton_vision.evaluation.classes.binary_views import binary_views
from lepton_vision.evaluation.classes.class_averages import Averaged, ClassSamples
from lepton_vision.evaluation.classes.class_measures import MulticlassMeasures, MultilabelMeasures
from lepton_vision.evaluation.classes.many_classes import ManyClassMeasures, are_many
from lepton_vision.evaluation.classes.measures import BinaryMeasures, Extent
from lepton_vision.evaluation.classes.own_figures import ClassMeasures, Ours, OwnFigures, WithOwn, own_values
from lepton_vision.evaluation.statistics.composites import with_edges
from lepton_vision.evaluation.statistics.intervals import Bootstrap, bootstrap_figures, patient_units
from lepton_vision.evaluation.values.measures import ValueMeasures
from lepton_vision.predictions.operating_point import OperatingPoint
from lepton_vision.predictions.predictions import Predictions
from lepton_vision.types import Figure, Target

_DEFAULT = Extent()
_OF_CLASSES = {"val_auroc": "auroc", "val_average_precision": "average_precision"}
_OF_NUMBERS = {"val_mae": "mae", "val_r2": "r2"}
WATCHED = {**_OF_CLASSES, "val_loss": "log_loss", **_OF_NUMBERS}
"""What validation gives of targets, and which figure of the table each is; see ``watched``."""
COUNTED = ("val_classes_judged", "val_classes_left_out")
_NONE: OwnFigures = MappingProxyType({})


def measures_of(
    part: Predictions,
    target: Target,
    *,
    thresholds: tuple[float, ...],
    extent: Extent = _DEFAULT,
    averaged: Averaged | None = None,
    own: OwnFigures = _NONE,
) -> ClassMeasures:
    """Figures of one target, ready for any weighting of the patients; ``part`` holds its labelled samples.

    ``averaged`` says which classes means are over, so that figures of different samples can be compared; ``own`` holds
    figures that the caller brings.
    """
    ours = _measures_of_ours(part, target, thresholds=thresholds, extent=extent, averaged=averaged)
    own = {name: one for name, one in own.items() if target.is_among(one.kinds)}
    return WithOwn(ours, own, part=part, target=target) if own else ours


def _measures_of_ours(
    part: Predictions, target: Target, *, thresholds: tuple[float, ...], extent: Extent, averaged: Averaged | None
) -> Ours:
    truth, prob = part.y_true[target.name], part.y_prob[target.name]
    unit, units = patient_units(part.patient_id)
    if target.is_value:
        return ValueMeasures(truth, prob, unit=unit, units=units)
    if target.is_binary:
        return BinaryMeasures(truth, prob, unit=unit, units=units, threshold=thresholds[0], extent=extent)
    samples, is_ordinal = ClassSamples(truth, prob, unit, units, target.classes, averaged), target.is_ordered
    if target.has_label_by_class:
        return MultilabelMeasures(samples, thresholds=thresholds, extent=extent)
    if are_many(len(target.classes), part.n):
        return ManyClassMeasures(samples, is_ordinal=is_ordinal)
    return MulticlassMeasures(samples, is_ordinal=is_ordinal, extent=extent)


def same_means(several: Sequence[ClassMeasures]) -> Averaged:
    """Return the classes that the means of all of them are over."""
    return {name: np.logical_and.reduce([one.averaged[name] for one in several]) for name in several[0].averaged}


def figures_of(
    part: Predictions,
    target: Target,
    *,
    thresholds: tuple[float, ...],
    settings: EvaluationConfig,
    averaged: Averaged | None = None,
    own: OwnFigures = _NONE,
) -> dict[str, Figure]:
    """Figures with the interval of the bootstrap, and beside it those that need no resampling."""
    extent = Extent(settings.max_fpr, settings.prevalence)
    measures = measures_of(part, target, thresholds=thresholds, extent=extent, averaged=averaged, own=own)
    figures, others = bootstrap_figures(measures, Bootstrap.of(settings)), measures.analytic(settings.confidence)
    figures = with_edges(figures, edges=measures.at_edge(settings.confidence), means=measures.means())
    figures = {k: replace(_with_notes(k, figure, measures), others=others.get(k, ())) for k, figure in figures.items()}
    if target.is_exclusive and are_many(len(target.classes), part.n):
        figures = {name: _analytic_instead(figure) for name, figure in figures.items()}
    return figures | measures.calibration(settings.confidence)


def _with_notes(name: str, figure: Figure, measures: ClassMeasures) -> Figure:
    """The figure with its caveat, and without an interval that would rest on one patient."""
    if np.isnan(figure.value):
        return figure
    if reason := measures.no_interval(name):
        figure = replace(figure, low=np.nan, high=np.nan, reason=reason, method="")
    return replace(figure, reason="; ".join(text for text in (measures.caveat(name), figure.reason) if text))


def _analytic_instead(figure: Figure) -> Figure:
    """A figure without a bootstrap interval with the first of the others, where there is one."""
    if not figure.others or not np.isnan(figure.low):
        return figure
    first, *rest = figure.others
    return replace(figure, low=first.low, high=first.high, method=first.method, reason="", others=tuple(rest))


def thresholds_of(point: OperatingPoint, target: Target) -> tuple[float, ...]:
    """Thresholds of one target, checked: one for binary, K for multilabel (NaN: no decision), none for others.

    Raises:
        EvaluationError: the point lacks the target, or has another number of thresholds than it needs.
    """
    if not target.is_yes_no:
        return ()
    if target.name not in point.thresholds:
        raise EvaluationError(
            f"The operating point has no threshold for the target {target.name!r}. "
            f"{nearest(target.name, list(point.thresholds))} Choose one with choose_operating_point.",
            key=target.name,
        )
    thresholds = tuple(float(t) for t in point.thresholds[target.name])
    if len(thresholds) != target.outputs or np.isinf(thresholds).any():
        raise EvaluationError(
            f"The operating point needs {target.outputs} finite (NaN: no decision) thresholds for {target.name!r}. "
            f"Received: {list(thresholds)}.",
            key=target.name,
        )
    return thresholds


def watched(targets: Sequence[Target]) -> dict[str, str]:
    """Return those of ``WATCHED`` that validation gives of these targets; none without targets."""
    left_out = {*([] if any(t.is_value for t in targets) else _OF_NUMBERS)}
    left_out |= {*([] if any(not t.is_value for t in targets) else _OF_CLASSES)}
    return {key: name for key, name in WATCHED.items() if key not in left_out} if targets else {}


def validation_figures(predictions: Predictions, own: OwnFigures = _NONE) -> dict[str, float]:
    """Compute what training watches, without intervals: ``watched``, and ``val_<name>`` of what the caller brings.

    Each is the mean over the targets. Of classes it is the mean over those that can be judged: for ``val_loss``, the
    log loss of the probabilities, those with a label, otherwise those with positive and negative samples. Where others
    are left out, ``val_classes_judged`` and ``val_classes_left_out`` count both. The ``val_loss`` of a number is the
    mean squared error over the variance of the true values, 1 - R². A figure that nothing defines is NaN. An own figure
    is the mean over the targets that it is for, NaN where it is undefined for one.
    """
    keys = watched(predictions.targets)
    found: dict[str, list[float]] = {key: [] for key in (*keys, *(f"val_{name}" for name in own))}
    judged = left_out = 0
    for target in predictions.targets:
        asked = binary_views(predictions, target)
        both = [one.class_name for one in asked if not one.missing()]
        judged, left_out = judged + len(both), left_out + len(asked) - len(both)
        part = predictions.select(predictions.labelled(target))
        measures = measures_of(part, target, thresholds=(0.5,) * target.outputs)
        values = {name: float(one[0]) for name, one in measures.values(np.ones((1, measures.units))).items()}
        if target.is_value:
            of_target = {key: values[name] for key, name in _OF_NUMBERS.items()} | {"val_loss": 1.0 - values["r2"]}
        else:
            of_target = _class_means(values, target, both=both, labelled=[one.class_name for one in asked if one.n])
        of_target |= {f"val_{name}": value for name, value in own_values(part, target, own).items()}
        for key, value in of_target.items():
            found[key].append(value)
    figures = {key: float(np.mean(values)) if values else float("nan") for key, values in found.items()}
    return figures | (dict(zip(COUNTED, (judged, left_out), strict=True)) if left_out else {})


def _class_means(
    values: Mapping[str, float], target: Target, *, both: Sequence[str], labelled: Sequence[str]
) -> dict[str, float]:
    """Means over the classes that can be judged; nothing where none can."""
    found = {}
    for key, name in (*_OF_CLASSES.items(), ("val_loss", WATCHED["val_loss"])):
        is_whole = target.is_binary or (target.is_exclusive and name == "log_loss")
        classes = labelled if name == "log_loss" else both
        ends = [""] if is_whole and classes else [f"_{one}" for one in classes]
        if ends:
            found[key] = float(np.mean([values[f"{name}{end}"] for end in ends]))
    return found
