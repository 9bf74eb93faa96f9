"""Score rows and their columns: ids, probabilities and decisions, or the reason for their absence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lepton_vision.errors import ReadError, ScoringError
from lepton_vision.models.bundle import Bundle
from lepton_vision.predictions.answer_sets import IntervalRule, Rule, answer_sets, value_interval
from lepton_vision.predictions.novelty import Features
from lepton_vision.predictions.operating_point import OperatingPoint
from lepton_vision.types import Image, ObjectKind, Target
from lepton_vision.types.reasons import UNFORESEEN
from lepton_vision.types.target import are_called, output_stems, probability_names, set_names

Row = dict[str, Any]
# What lies beside images and is none to classify; any other reason is a failure.
_LEFT_OUT = frozenset({*get_args(ObjectKind), "no_pixels"})
Values = dict[str, npt.NDArray[np.floating[Any]]]

_TEXT, _NUMBER, _FLAG = pa.string(), pa.float64(), pa.bool_()
Fields = list[tuple[str, pa.DataType]]
NOVELTY = ("novelty", "novelty_percentile")


def reason_of(error: Exception) -> str:
    """Reason code of an error that ends one input and must not end the run."""
    if isinstance(error, ReadError):
        return error.reason
    return "too_large" if isinstance(error, MemoryError) else f"{UNFORESEEN}:{type(error).__name__}"


def status_of(reason: str, *, is_stray: bool) -> str:
    """Status of an input without a score, "failed" or "left_out"; ``is_stray``: a file of a series, no slice of it."""
    return "left_out" if is_stray or reason in _LEFT_OUT else "failed"


def ids_of(image: Image, *, frame: int | None = None) -> Row:
    """Columns that say which image it is; ``frame`` is its number in a file of several."""
    return {
        "image_id": image.image_id,
        "series_id": image.series_id,
        "study_id": image.study_id,
        "patient_id": image.patient_id,
        "frame": frame,
    }


def distances_of(bundle: Bundle, features: Features | None, *, count: int) -> Sequence[float | None]:
    """Distance of each of ``count`` images from those of the training; None where nothing tells.

    Args:
        bundle: knows the images of the training, or not.
        features: (B, F) pooled features, where the runtime gives them.
        count: B.
    """
    return [None] * count if bundle.novelty is None or features is None else bundle.novelty.distances_of(features)


def decide(values: Values, bundle: Bundle, *, distance: float | None = None) -> Row:
    """Turn what the network says of one image into columns; a probability that is not finite fails the row.

    Args:
        values: by target name, (1,) or (K,) probabilities.
        bundle: with an operating point, unless it has no targets.
        distance: from the images of the training, where it is known, see ``distances_of``.
    """
    if not all(np.isfinite(array).all() for array in values.values()):
        return {"status": "failed", "reason": "non_finite_output"}
    row: Row = {"status": "ok", "reason": None}
    if not bundle.targets:
        return row
    if bundle.operating_point is None:
        raise ScoringError("Expected a bundle with an operating point. Received: one without.")
    row |= target_columns(values, bundle.targets, point=bundle.operating_point)
    for target in bundle.targets:
        row |= _sets(values[target.name], target, rules=bundle.set_rules.get(target.name, ()))
    if bundle.novelty is not None and distance is not None:
        row |= dict(zip(NOVELTY, (distance, bundle.novelty.percentile(distance)), strict=True))
    return row


def target_columns(values: Values, targets: tuple[Target, ...], *, point: OperatingPoint | None) -> Row:
    """Columns of probabilities, and of decisions where there is an operating point for them; else these are empty."""
    row: Row = {}
    for position, target in enumerate(targets):
        row |= dict(zip(probability_names(target), map(float, values[target.name]), strict=True))
        if target.is_exclusive:
            row[f"{target.name}_class"] = target.classes[int(values[target.name].argmax())]
        elif target.is_yes_no and point is not None:
            row |= _decisions(values[target.name], target, point=point, is_first=position == 0)
    return row


def _decisions(values: npt.NDArray[np.floating[Any]], target: Target, *, point: OperatingPoint, is_first: bool) -> Row:
    thresholds, columns = point.thresholds[target.name], Row()
    for stem, value, threshold in zip(output_stems(target), values, thresholds, strict=True):
        is_decided = not np.isnan(threshold)
        columns[f"{stem}_positive"] = bool(are_called(value, threshold)) if is_decided else None
        if not is_first or not target.is_single:
            columns[f"{stem}_threshold"] = threshold if is_decided else None
        elif is_decided:
            columns["threshold"] = threshold
    return columns


def _sets(values: npt.NDArray[np.floating[Any]], target: Target, *, rules: Sequence[Rule]) -> Row:
    """Answers in the conformal set of each rule; those of a binary answer see its probability and its complement.

    Of a number the ends of its interval, empty where validation had too few patients for one.
    """
    wide = values.astype(np.float64)
    asked = [wide] if target.is_exclusive else [np.array([1.0 - value, value]) for value in wide]
    columns: Row = {}
    for name, prob, rule in zip(set_names(target), asked, rules, strict=False):
        if isinstance(rule, IntervalRule):
            ends = [float(end[0]) for end in value_interval(wide, rule)]
            return {k: x if np.isfinite(x) else None for k, x in zip(set_names(target), ends, strict=True)}
        is_in = answer_sets(prob[None], rule)[0]
        columns[name] = "|".join(answer for answer, there in zip(rule.classes, is_in, strict=True) if there)
    return columns


def row_schema(
    targets: tuple[Target, ...],
    *,
    measures: Sequence[str] = (),
    sets: Sequence[str] = (),
    has_novelty: bool = False,
    has_reports: bool = False,
    has_repairs: bool = False,
) -> pa.Schema:
    """Columns of a scored row, in order; what each means says ``columns.ROW_COLUMNS``.

    Args:
        targets: what is predicted.
        measures: ``<structure>_ml`` or ``<structure>_mm2``: with them come ``mask`` and ``mask_reason``.
        sets: targets with set rules.
        has_novelty: the bundle knows the images of its training.
        has_reports: DICOM reports are written.
        has_repairs: rows are of volumes, whose series may be repaired.
    """
    names = ("image_id", "path_id", "series_id", "study_id", "patient_id")
    fields: Fields = [(name, _TEXT) for name in names]
    fields += [("frame", pa.int64()), ("status", _TEXT), ("reason", _TEXT)]
    fields += target_fields(targets)
    for target in targets:
        if target.name in sets:
            fields += [(name, _NUMBER if target.is_value else _TEXT) for name in set_names(target)]
    fields += [(name, _NUMBER) for name in NOVELTY] if has_novelty else []
    if measures:
        fields += [(name, _NUMBER) for name in measures] + [("mask", _TEXT), ("mask_reason", _TEXT)]
    fields += [("report", _TEXT), ("report_reason", _TEXT)] if has_reports else []
    fields += [("repair", _TEXT)] if has_repairs else []
    fields += [("bundle_id", _TEXT), ("engine", _TEXT), ("seconds", _NUMBER), ("source_version", _TEXT)]
    return pa.schema(fields)


def case_schema(targets: tuple[Target, ...], *, unit: str, has_novelty: bool = False) -> pa.Schema:
    """Columns of a row of a series, study or patient; what each means says ``columns.CASE_COLUMNS``."""
    above = ("series_id", "study_id", "patient_id")
    fields: Fields = [(name, _TEXT) for name in above[above.index(f"{unit}_id") :]]
    fields += [("images", pa.int64()), *target_fields(targets)]
    fields += [(NOVELTY[1], _NUMBER)] if has_novelty else []
    return pa.schema([*fields, ("aggregation", _TEXT), ("bundle_id", _TEXT)])


def target_fields(targets: tuple[Target, ...]) -> Fields:
    """Columns of probabilities and decisions."""
    fields: Fields = []
    for position, target in enumerate(targets):
        fields += [(name, _NUMBER) for name in probability_names(target)]
        if target.is_exclusive:
            fields += [(f"{target.name}_class", _TEXT)]
        for stem in output_stems(target) if target.is_yes_no else ():
            fields += [(f"{stem}_positive", _FLAG)]
            if position or not target.is_single:
                fields += [(f"{stem}_threshold", _NUMBER)]
    return [*fields, ("threshold", _NUMBER)]
