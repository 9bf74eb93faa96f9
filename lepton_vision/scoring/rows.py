"""Score rows: ids, probabilities and decisions, or the reason for their absence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from lepton_vision.errors import ReadError, ScoringError
from lepton_vision.models.bundle import Bundle
from lepton_vision.predictions.answer_sets import SetRule, answer_sets
from lepton_vision.predictions.novelty import Features
from lepton_vision.predictions.operating_point import OperatingPoint
from lepton_vision.scoring.schema import NOVELTY
from lepton_vision.types import Image, ObjectKind, Target
from lepton_vision.types.target import are_called, output_stems, probability_names, set_names

Row = dict[str, Any]
# What lies beside images and is none to classify; any other reason is a failure.
_LEFT_OUT = frozenset({*get_args(ObjectKind), "no_pixels"})
Values = dict[str, npt.NDArray[np.floating[Any]]]

_ZERO = np.float32(0.0).tobytes()


def reason_of(error: Exception) -> str:
    """Reason code of an error that ends one input and must not end the run."""
    if isinstance(error, ReadError):
        return error.reason
    return "too_large" if isinstance(error, MemoryError) else f"unexpected:{type(error).__name__}"


def status_of(reason: str, *, is_stray: bool) -> str:
    """Status of an input without a score, "failed" or "left_out"; ``is_stray``: a file of a series, no slice of it."""
    return "left_out" if is_stray or reason in _LEFT_OUT else "failed"


def without_pixels(image: Image) -> Image:
    """Return the image with pixels of its shape that are all 0 and take no memory."""
    shape = image.pixels.shape
    return replace(image, pixels=np.ndarray(shape, np.float32, _ZERO, strides=(0,) * len(shape)))


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
        elif point is not None:
            row |= _decisions(values[target.name], target, point=point, is_first=position == 0)
    return row


def _decisions(values: npt.NDArray[np.floating[Any]], target: Target, *, point: OperatingPoint, is_first: bool) -> Row:
    thresholds, columns = point.thresholds[target.name], Row()
    for stem, value, threshold in zip(output_stems(target), values, thresholds, strict=True):
        is_decided = not np.isnan(threshold)
        columns[f"{stem}_positive"] = bool(are_called(value, threshold)) if is_decided else None
        if not is_first or target.kind == "multilabel":
            columns[f"{stem}_threshold"] = threshold if is_decided else None
        elif is_decided:
            columns["threshold"] = threshold
    return columns


def _sets(values: npt.NDArray[np.floating[Any]], target: Target, *, rules: Sequence[SetRule]) -> Row:
    """Answers in the conformal set of each rule; those of a binary answer see its probability and its complement."""
    wide = values.astype(np.float64)
    asked = [wide] if target.is_exclusive else [np.array([1.0 - value, value]) for value in wide]
    columns: Row = {}
    for name, prob, rule in zip(set_names(target), asked, rules, strict=False):
        is_in = answer_sets(prob[None], rule)[0]
        columns[name] = "|".join(answer for answer, there in zip(rule.classes, is_in, strict=True) if there)
    return columns
