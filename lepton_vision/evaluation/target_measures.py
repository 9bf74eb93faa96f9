"""Which figures a target has: those of one class, of several, of very many, or of several questions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lepton_vision.evaluation.class_measures import MulticlassMeasures, MultilabelMeasures
from lepton_vision.evaluation.intervals import patient_units
from lepton_vision.evaluation.many_classes import ManyClassMeasures, are_many
from lepton_vision.evaluation.measures import BinaryMeasures, Extent
from lepton_vision.evaluation.over_classes import Averaged
from lepton_vision.inference.predictions import Predictions
from lepton_vision.types import Target

ClassMeasures = BinaryMeasures | MulticlassMeasures | ManyClassMeasures | MultilabelMeasures
_DEFAULT = Extent()


def measures_of(
    part: Predictions,
    target: Target,
    *,
    thresholds: tuple[float, ...],
    extent: Extent = _DEFAULT,
    averaged: Averaged | None = None,
) -> ClassMeasures:
    """Figures of one target, ready for any weighting of the patients; ``part`` holds its labelled samples.

    ``averaged`` says which classes means are over, so that figures of different samples can be compared.
    """
    truth, prob = part.y_true[target.name], part.y_prob[target.name]
    unit, units = patient_units(part.patient_id)
    if target.kind == "binary":
        return BinaryMeasures(truth, prob, unit=unit, units=units, threshold=thresholds[0], extent=extent)
    is_ordinal = target.kind == "ordinal"
    if target.is_exclusive and are_many(len(target.classes), part.n):
        return ManyClassMeasures(
            truth, prob, unit=unit, units=units, classes=target.classes, is_ordinal=is_ordinal, averaged=averaged
        )
    if target.is_exclusive:
        return MulticlassMeasures(
            truth,
            prob,
            unit=unit,
            units=units,
            classes=target.classes,
            is_ordinal=is_ordinal,
            extent=extent,
            averaged=averaged,
        )
    return MultilabelMeasures(
        truth,
        prob,
        unit=unit,
        units=units,
        thresholds=thresholds,
        classes=target.classes,
        extent=extent,
        averaged=averaged,
    )


def same_means(several: Sequence[ClassMeasures]) -> Averaged:
    """Return the classes that the means of all of them are over."""
    return {name: np.logical_and.reduce([one.averaged[name] for one in several]) for name in several[0].averaged}
