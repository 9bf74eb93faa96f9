"""Unit of analysis: aggregation of image predictions to series, studies or patients."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import log_expit, log_softmax

from lepton_vision.errors import EvaluationError
from lepton_vision.evaluation.statistics.intervals import patient_units
from lepton_vision.evaluation.statistics.ranking import IntArray
from lepton_vision.predictions.aggregation import Aggregation as Aggregation
from lepton_vision.predictions.aggregation import Method as Method
from lepton_vision.predictions.aggregation import Unit as Unit
from lepton_vision.predictions.aggregation import join_probabilities, logit_features
from lepton_vision.predictions.cells import TextArray
from lepton_vision.predictions.predictions import Predictions
from lepton_vision.readers.identity import original_id
from lepton_vision.types import FloatArray, Target

_LOGGER = logging.getLogger(__name__)
# Half mean and half maximum is what a fit is drawn to, with deviation 1: few units must not give wild weights.
_PRIOR = np.array([0.0, 0.5, 0.5])


def aggregate(
    predictions: Predictions, *, unit: Unit, method: Method = "mean", learnt: Aggregation | None = None
) -> Predictions:
    """Join the images of each series, study or patient into one case.

    Probabilities: "max" and "mean" of the images, "noisy_or" 1 - prod(1 - p) (independent causes, Pearl 1988), or
    "learnt". Exclusive classes (multiclass, ordinal) are rescaled to sum to one after "max", and have no "noisy_or".
    Labels: a binary or multilabel label is positive where any image of the unit is, negative where none is and at least
    one is known to be negative; exclusive labels and numbers must not differ within a unit. A number is the mean of
    those of its images, whatever the method. Images of an unknown label count for
    the probability. An image whose unit is unknown ("") is a case of its own. Copies of an image in one unit, which a
    manifest tells by their ids, count once.

    Args:
        predictions: of images.
        unit: "image" changes nothing.
        method: how probabilities are joined.
        learnt: from ``fit_aggregation``, for the method "learnt".

    Returns:
        One row per unit, in order of first appearance; ``image_id`` is the id of the unit, without addresses.

    Raises:
        EvaluationError: no such ids, a unit of two patients, exclusive labels or numbers that differ within a unit,
            "noisy_or" of exclusive classes, or "learnt" without a fit of this unit and these targets.

    Example:
        >>> target, ids = Target("sick", "binary", ("no", "yes")), np.array(["a", "b", "c"])
        >>> patients, truth = np.array(["p", "p", "q"]), {"sick": np.array([0.0, 1.0, 0.0])}
        >>> images = Predictions((target,), ids, patients, ids, truth, {"sick": np.array([0.2, 0.6, 0.1])})
        >>> cases = aggregate(images, unit="patient", method="max")
        >>> cases.image_id.tolist(), cases.y_true["sick"].tolist(), cases.y_prob["sick"].tolist()
        (['p', 'q'], [1.0, 0.0], [0.6, 0.1])
    """
    if unit == "image":
        return predictions
    if method == "learnt" and (learnt is None or learnt.unit != unit):
        raise EvaluationError(
            f"A learnt aggregation needs a fit for the unit {unit!r}. Received: "
            f"{'none' if learnt is None else f'one for {learnt.unit!r}'}. Fit it on validation with fit_aggregation.",
            key="aggregation",
        )
    numbers = [target.name for target in predictions.targets if target.is_value]
    if numbers and method != "mean":
        _LOGGER.warning("Numbers are the mean of the images of a %s, not %s: %s.", unit, method, ", ".join(numbers))
    which, first = _group(predictions, unit)
    kept = _without_copies(predictions, which)
    weights = {} if learnt is None else learnt.weights
    targets = predictions.targets
    ids = _ids(predictions, unit)[first]
    unknown = np.full(first.size, "")
    return replace(
        predictions,
        image_id=np.where(ids == "", predictions.image_id[first], ids),
        patient_id=_same_patient(predictions.patient_id, which, first=first, unit=unit),
        series_id=predictions.series_id[first] if unit == "series" else unknown,
        study_id=None if predictions.study_id is None or unit == "patient" else predictions.study_id[first],
        y_true={t.name: _labels(predictions.y_true[t.name], which, target=t, unit=unit) for t in targets},
        y_prob={
            t.name: join_probabilities(predictions.y_prob[t.name][kept], which[kept], t, method=method, weights=weights)
            for t in targets
        },
        addresses=None,
        patient_known=predictions.names_patient[first],
    )


def joined_by(targets: Sequence[Target], method: Method) -> str:
    """Say how the images of a unit are joined, for provenance."""
    if method == "mean" or not any(target.is_value for target in targets):
        return method
    return "mean" if all(target.is_value for target in targets) else f"{method}, numbers by their mean"


def count_unknown(predictions: Predictions) -> dict[str, int]:
    """``unknown_patient``, the number of cases that name no patient; nothing where all name one."""
    unknown = int((~predictions.names_patient).sum())
    return {"unknown_patient": unknown} if unknown else {}


def join_values(values: Sequence[Any], predictions: Predictions, *, unit: Unit) -> list[Any]:
    """Value of each unit in the order of ``aggregate``; None where its images differ.

    Args:
        values: N values of a column, one for each image.
        predictions: of the images.
        unit: what is one case.

    Example:
        >>> target, ids = Target("sick", "binary", ("no", "yes")), np.array(["a", "b", "c"])
        >>> truth, patients = {"sick": np.zeros(3)}, np.array(["p", "p", "q"])
        >>> images = Predictions((target,), ids, patients, ids, truth, {"sick": np.zeros(3)})
        >>> join_values(["f", "f", "m"], images, unit="patient"), join_values([1, 2, 3], images, unit="patient")
        (['f', 'm'], [None, 3])
    """
    which, first = _group(predictions, unit)
    joined = [values[row] for row in first]
    for row, place in enumerate(which.tolist()):
        if values[row] != joined[place]:
            joined[place] = None
    return joined


def fit_aggregation(predictions: Predictions, *, unit: Unit) -> Aggregation:
    """Fit how much the mean and the maximum of a unit's logits count, by logistic regression with a weak prior.

    Args:
        predictions: of images of the validation split, or of an unknown split.
        unit: "series", "study" or "patient".

    Raises:
        EvaluationError: another split, or no unit with a label for a target.
    """
    if predictions.split not in ("val", None):
        raise EvaluationError(
            f"A learnt aggregation is fitted on validation. Received: predictions of the {predictions.split} split. "
            'Predict manifest.subset("val") and fit there.',
            key="split",
        )
    which, first = _group(predictions, unit)
    kept = _without_copies(predictions, which)
    weights: dict[str, tuple[tuple[float, ...], ...]] = {}
    for target in predictions.targets:
        if target.is_value:
            continue
        truth = _labels(predictions.y_true[target.name], which, target=target, unit=unit)
        mean, most = logit_features(predictions.y_prob[target.name][kept], which[kept], target)
        if target.is_exclusive:
            weights[target.name] = (_fit_exclusive(truth, mean, most, name=target.name),)
            continue
        columns = zip(truth.reshape(first.size, -1).T, mean.T, most.T, strict=True)
        weights[target.name] = tuple(_fit_binary(*column, name=target.name) for column in columns)
    return Aggregation(unit, weights, first.size)


def _ids(predictions: Predictions, unit: Unit) -> TextArray:
    ids: TextArray | None = {
        "series": predictions.series_id,
        "study": predictions.study_id,
        "patient": predictions.patient_id,
    }.get(unit)
    if ids is None or not (ids != "").any():
        raise EvaluationError(
            f"The unit {unit!r} needs the column {unit}_id. Received: predictions without such ids. "
            "Give them, or choose another unit (series, study, patient).",
            key="unit",
        )
    return ids


def _group(predictions: Predictions, unit: Unit) -> tuple[IntArray, IntArray]:
    """Number the units by first appearance: (N,) unit of each image, and (U,) the first image of each."""
    number = patient_units(_ids(predictions, unit))[0]
    _, first, which = np.unique(number, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = np.arange(order.size)
    return rank[which].astype(np.intp), first[order].astype(np.intp)


def _without_copies(predictions: Predictions, which: IntArray) -> IntArray:
    """(K,) positions of the images, the first of several copies in one unit."""
    originals = np.array([original_id(one) for one in predictions.image_id.tolist()], dtype=np.str_)
    _, number = np.unique(originals, return_inverse=True)
    _, first = np.unique(np.stack([which, number.astype(np.intp)]), axis=1, return_index=True)
    return np.sort(first).astype(np.intp)


def _same_patient(patient_id: TextArray, which: IntArray, *, first: IntArray, unit: Unit) -> TextArray:
    other = patient_id != patient_id[first][which]
    if other.any():
        row = int(np.flatnonzero(other)[0])
        raise EvaluationError(
            f"Images of one {unit} must be of one patient. Received: {np.unique(which[other]).size} of several, one in "
            f"row {row} (from 0). Correct the ids.",
            row=row,
            key="patient_id",
        )
    kept: TextArray = patient_id[first]
    return kept


def _labels(truth: FloatArray, which: IntArray, *, target: Target, unit: Unit) -> FloatArray:
    """Label of each unit; see ``aggregate``."""
    units = int(which.max(initial=-1)) + 1
    most = np.full((units, *truth.shape[1:]), -np.inf)
    np.maximum.at(most, which, np.where(np.isnan(truth), -np.inf, truth))
    if not target.is_yes_no:
        least = np.full(units, np.inf)
        np.minimum.at(least, which, np.where(np.isnan(truth), np.inf, truth))
        conflicts = np.flatnonzero(np.isfinite(least) & (least != most))
        if conflicts.size:
            row = int(np.flatnonzero(which == conflicts[0])[0])
            raise EvaluationError(
                f"Labels of the {target.kind} target {target.name!r} differ within a {unit}. Received: "
                f"{conflicts.size} such units of {units}, the first begins in row {row} (from 0). Give each {unit} one "
                "label, or evaluate images.",
                row=row,
                key=target.name,
            )
    return np.where(np.isfinite(most), most, np.nan)


def _fit_binary(truth: FloatArray, mean: FloatArray, most: FloatArray, *, name: str) -> tuple[float, ...]:
    known = _known(truth, name)
    design = np.column_stack([np.ones(known.sum()), mean[known], most[known]])
    sign = np.where(truth[known] > 0, 1.0, -1.0)

    def nats(weights: FloatArray) -> float:
        return -float(log_expit(sign * (design @ weights)).sum()) + 0.5 * float(((weights - _PRIOR) ** 2).sum())

    return tuple(float(x) for x in minimize(nats, _PRIOR, method="BFGS").x)


def _fit_exclusive(truth: FloatArray, mean: FloatArray, most: FloatArray, *, name: str) -> tuple[float, ...]:
    known = _known(truth, name)
    label, rows = truth[known].astype(np.intp), np.arange(int(known.sum()))

    def nats(weights: FloatArray) -> float:
        scores = weights[0] * mean[known] + weights[1] * most[known]
        return -float(log_softmax(scores, axis=1)[rows, label].sum()) + 0.5 * float(((weights - 0.5) ** 2).sum())

    return (0.0, *(float(x) for x in minimize(nats, np.full(2, 0.5), method="BFGS").x))


def _known(truth: FloatArray, name: str) -> npt.NDArray[np.bool_]:
    known = ~np.isnan(truth)
    if not known.any():
        raise EvaluationError(
            f"A learnt aggregation for {name!r} needs labelled units. Received: none. Use mean or max.", key=name
        )
    return known
