"""Check that the slices of one volume differ in position only, with the tolerances for their headers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lepton_vision.errors import ReadError
from lepton_vision.readers.plane import Plane
from lepton_vision.types import Geometry

# Headers are rounded. How far that may move the far corner of a slice, as a part of a pixel, and how much it may change
# a spacing, as a part of it, or a direction [radian].
_TOLERANCE, _MOST = 0.25, 0.01


def check_consistent(planes: Sequence[Plane]) -> Geometry:
    """Geometry of the first plane, once all others are known to differ from it in position only.

    Raises:
        ReadError: reason ``one_slice``, ``localizer``, ``no_position`` or ``mixed_slices``.
    """
    if len(planes) < 2:
        raise ReadError(
            "Expected a series of at least 2 slices. Received: 1. Read the file itself as a 2-D image.",
            reason="one_slice",
        )
    scouts = sum(plane.kind == "localizer" for plane in planes)
    if scouts:
        raise ReadError(
            f"Expected slices of a volume. Received: {scouts} localizer(s) among {len(planes)} slices. Leave them out.",
            reason="localizer",
        )
    found = [plane.geometry for plane in planes]
    lost = sum(geometry is None for geometry in found)
    first = found[0]
    if lost or first is None:
        raise ReadError(
            "Expected Image Position, Image Orientation (Patient) and Pixel Spacing in every slice. "
            f"Received: {lost} of {len(planes)} slices without. An order by instance number would be a guess.",
            reason="no_position",
        )
    mixed = _differences(planes, [geometry for geometry in found if geometry is not None])
    if mixed:
        raise ReadError(
            f"Expected slices that differ in position only. Received: {', '.join(mixed)} among {len(planes)} slices.",
            reason="mixed_slices",
        )
    return first


def _differences(planes: Sequence[Plane], geometries: Sequence[Geometry]) -> list[str]:
    """Properties in which the slices differ, in words."""
    traits: dict[str, set[object]] = {
        "size": {(plane.rows, plane.columns) for plane in planes},
        "modality": {plane.modality for plane in planes},
        "patient": {plane.patient_id for plane in planes},
        "photometric interpretation": {plane.photometric for plane in planes},
    }
    mixed = [f"{len(values)} kinds of {name}" for name, values in traits.items() if len(values) > 1]
    extent = np.array([max(plane.rows for plane in planes), max(plane.columns for plane in planes)])
    spacings = np.array([geometry.spacing_mm for geometry in geometries])
    ways = np.array([geometry.direction for geometry in geometries])
    changes = {
        "pixel spacings": (np.abs(spacings - spacings[0]), extent, spacings[0].min()),
        "orientations": (np.linalg.norm(ways - ways[0], axis=2), extent * spacings[0], 1.0),
    }
    most_mm = _TOLERANCE * float(spacings[0].min())
    for name, (change, arm, unit) in changes.items():
        corner_mm = float((change @ arm).max())
        if corner_mm > most_mm or change.max() > _MOST * unit:
            mixed.append(f"several {name} (far corners {corner_mm:.2f} mm apart; up to {most_mm:.2f} mm is rounding)")
    return mixed
