"""Repairs of a series on plain arrays: slices shifted back to a straight volume, missing slices interpolated."""

from __future__ import annotations

from collections.abc import Sequence
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
    low = np.take(pixels, below, axis=axis)
    result: Pixels = low + (np.take(pixels, above, axis=axis) - low) * part
    return result, slice(int(inside[0]), int(inside[-1]) + 1)


def fill_margins(volume: Pixels, *, places: Sequence[int]) -> None:
    """Give what no slice covered (NaN in the slices ``places``) the smallest value of the volume (C, D, H, W)."""
    smallest = np.nanmin([np.nanmin(volume[:, place]) for place in places])
    for place in places:
        part = volume[:, place]
        part[np.isnan(part)] = smallest


def fill_missing(volume: Pixels, *, places: Sequence[int]) -> None:
    """Interpolate the slices of a volume (C, D, H, W) that are not in ``places``, linearly, from their neighbours.

    ``places`` is sorted and holds the first and the last slice.
    """
    for before, after in pairwise(places):
        step = (volume[:, after] - volume[:, before]) / np.float32(after - before)
        for place in range(before + 1, after):
            volume[:, place] = volume[:, before] + step * np.float32(place - before)
