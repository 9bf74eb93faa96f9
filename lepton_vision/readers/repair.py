"""Repairs of a series on plain arrays: sheared slices shifted back, missing slices interpolated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from lepton_vision.types import FloatArray, Geometry, Pixels


@dataclass(frozen=True, slots=True)
class Canvas:
    """Grid of every slice of a volume.

    Attributes:
        rows: H.
        columns: W.
        first_row: row of the first slice that row 0 of the canvas lies on; not above 0.
        first_column: the same for columns.
    """

    rows: int
    columns: int
    first_row: int = 0
    first_column: int = 0

    def move(self, geometry: Geometry) -> Geometry:
        """Geometry of the canvas, where ``geometry`` is that of a volume without its margins."""
        steps = np.array([0, self.first_row, self.first_column]) * geometry.spacing_mm
        x, y, z = (np.asarray(geometry.origin_mm) + steps @ np.asarray(geometry.direction)).tolist()
        return Geometry((x, y, z), geometry.direction, geometry.spacing_mm)


def plan_canvas(shifts: FloatArray, *, rows: int, columns: int) -> Canvas:
    """Smallest canvas that holds slices of (rows, columns) at these shifts, (N, 2) in voxels along (H, W)."""
    low = np.floor(np.round(shifts.min(axis=0), 6)).astype(int)
    high = np.ceil(np.round(shifts.max(axis=0), 6)).astype(int)
    top, left = low.tolist()
    height, width = (high - low).tolist()
    return Canvas(rows + height, columns + width, top, left)


def place_slice(pixels: Pixels, target: Pixels, *, canvas: Canvas, shift: FloatArray) -> None:
    """Write a slice (C, H, W) into its part (C, H', W') of the canvas, moved by ``shift`` (H, W) voxels.

    What lies between two pixels is interpolated linearly; what the slice does not cover stays as it is.
    """
    if not shift.any() and target.shape == pixels.shape:
        target[...] = pixels
        return
    moved, rows = _sample(pixels, axis=1, first=canvas.first_row - float(shift[0]), count=canvas.rows)
    moved, columns = _sample(moved, axis=2, first=canvas.first_column - float(shift[1]), count=canvas.columns)
    target[:, rows, columns] = moved


def _sample(pixels: Pixels, *, axis: int, first: float, count: int) -> tuple[Pixels, slice]:
    """Values at ``first``, ``first + 1``, … along an axis where those lie inside, and which of ``count`` do."""
    places = np.round(first + np.arange(count), 6)  # a rounding error must not cost the outermost row
    inside = np.flatnonzero((places >= 0) & (places <= pixels.shape[axis] - 1))
    places = places[inside]
    below = np.floor(places).astype(np.intp)
    above = np.minimum(below + 1, pixels.shape[axis] - 1)
    shape = [1, 1, 1]
    shape[axis] = len(places)
    part = (places - below).astype(np.float32).reshape(shape)
    result = _between(np.take(pixels, below, axis=axis), np.take(pixels, above, axis=axis), part)
    return result, slice(int(inside[0]), int(inside[-1]) + 1)


def _between(low: Pixels, high: Pixels, part: Pixels | np.float32) -> Pixels:
    """Values at ``part`` of the way from one array to another; beside what is unknown (NaN), that of the nearer one."""
    result: Pixels = low + (high - low) * part
    unknown = np.isnan(result)
    if unknown.any():
        nearest = np.where(part < 0.5, low, np.where(part > 0.5, high, np.float32(np.nan)))
        result[unknown] = nearest[unknown]
    return result


def fill_unknown(volume: Pixels, *, value: float | None) -> None:
    """Give what no slice covered, and what is padding, (NaN) a value; None is the smallest of (C, D, H, W)."""
    unknown = np.isnan(volume)
    if unknown.any():
        volume[unknown] = np.nanmin(volume) if value is None else value


def fill_missing(volume: Pixels, *, places: Sequence[float], between: Mapping[float, Pixels]) -> None:
    """Interpolate the slices of a volume (C, D, H, W) that are not in ``places``, linearly, from their neighbours.

    Args:
        volume: changed in place.
        places: of the slices that are there, sorted; a fraction is a slice between two of the volume.
        between: (C, H, W) by such a fraction.
    """

    def at(place: float) -> Pixels:
        return between[place] if place in between else volume[:, int(place)]

    for before, after in pairwise(places):
        for place in range(int(np.floor(before)) + 1, int(np.ceil(after))):
            part = np.float32((place - before) / (after - before))
            volume[:, place] = _between(at(before), at(after), part)
