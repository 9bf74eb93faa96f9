"""What a scored row holds: ids, probabilities and decisions, or the reason why there are none."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from lepton_vision.errors import ReadError, ScoringError
from lepton_vision.models.bundle import Bundle
from lepton_vision.scoring.sink import output_stems
from lepton_vision.types import Image, OperatingPoint, Target

Row = dict[str, Any]
Values = dict[str, npt.NDArray[np.floating[Any]]]


def reason_of(error: Exception) -> str:
    """Reason code of an error that ends one input and must not end the run."""
    if isinstance(error, ReadError):
        return error.reason
    return "too_large" if isinstance(error, MemoryError) else f"unexpected:{type(error).__name__}"


def without_pixels(image: Image) -> Image:
    """Return the image with pixels of its shape that are all 0 and take no memory."""
    return replace(image, pixels=np.broadcast_to(np.float32(0.0), image.pixels.shape))


def ids_of(image: Image, *, frame: int | None = None) -> Row:
    """Columns that say which image it is; ``frame`` is its number in a file of several."""
    return {
        "image_id": image.image_id,
        "series_id": image.series_id,
        "study_id": image.study_id,
        "patient_id": image.patient_id,
        "frame": frame,
    }


def decide(values: Values, bundle: Bundle) -> Row:
    """Turn the probabilities of one image into columns; one that is not finite fails the row.

    Args:
        values: by target name, (1,) or (K,) probabilities.
        bundle: with an operating point, unless it has no targets.
    """
    if not all(np.isfinite(array).all() for array in values.values()):
        return {"status": "failed", "reason": "non_finite_output"}
    row: Row = {"status": "ok", "reason": None}
    for position, target in enumerate(bundle.targets):
        row |= _target_columns(target, values[target.name], _point(bundle), is_first=position == 0)
    return row


def _point(bundle: Bundle) -> OperatingPoint:
    if bundle.operating_point is None:
        raise ScoringError("Expected a bundle with an operating point. Received: one without.")
    return bundle.operating_point


def _target_columns(
    target: Target, values: npt.NDArray[np.floating[Any]], point: OperatingPoint, *, is_first: bool
) -> Row:
    if target.is_exclusive:
        columns: Row = {
            f"{target.name}_{name}_probability": float(value)
            for name, value in zip(target.classes, values, strict=True)
        }
        return columns | {f"{target.name}_class": target.classes[int(values.argmax())]}
    thresholds = point.thresholds[target.name]
    columns = {}
    for stem, value, threshold in zip(output_stems(target), values, thresholds, strict=True):
        columns |= {f"{stem}_probability": float(value), f"{stem}_positive": bool(value >= threshold)}
        if not is_first or target.kind == "multilabel":
            columns[f"{stem}_threshold"] = threshold
    if is_first and target.kind == "binary":
        columns["threshold"] = thresholds[0]
    return columns
