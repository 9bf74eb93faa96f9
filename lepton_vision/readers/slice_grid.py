"""Slice positions on a regular grid: index of each slice in the volume, and gaps between slices."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from lepton_vision.config.sections import GapChoice
from lepton_vision.errors import ReadError
from lepton_vision.types import FloatArray

# How far a slice may be from its regular place, as a part of the distance: headers are rounded.
_TOLERANCE = 0.1
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Grid:
    """Slices of a volume at even distances.

    Attributes:
        places: (N,) float64, slice of the volume that each slice is: whole numbers, and fractions for slices between
            two or beyond the ends.
        step: distance of the slices [mm].
        depth: D of the volume.
        first: distance of the volume's first slice from the first of the series [mm].
    """

    places: FloatArray
    step: float
    depth: int
    first: float = 0.0

    @property
    def is_placed(self) -> npt.NDArray[np.bool_]:
        """(N,) bool: which slices are slices of the volume."""
        placed: npt.NDArray[np.bool_] = self.places == np.rint(self.places)
        return placed


def plan_grid(distances: FloatArray, *, gaps: GapChoice) -> Grid:
    """Find the grid that slices at these sorted distances (N,) [mm] lie on.

    Args:
        distances: along the normal, the first one 0.
        gaps: "fill" accepts missing slices and single slices off the grid, as long as most of what the volume needs is
            there.

    Raises:
        ReadError: reason ``missing_slices`` or ``geometry``.
    """
    steps = np.diff(distances)
    grid = _even(distances, float(np.median(steps))) if np.ptp(steps) < 0.5 * steps.min() else None
    if grid is not None:  # nearly always
        return grid
    usual, count = _usual_step(steps)
    is_usual = 2 * count > len(steps)
    for step in (usual, float(np.median(steps[steps < 1.5 * steps.min()]))):
        grid = _even(distances, step)
        if grid is not None:
            _check_gaps(grid, gaps=gaps)
            return grid
        if is_usual:
            break
    around = _around(distances, usual) if is_usual else None
    if around is None or gaps == "refuse":
        remedy = "Resample the series first."
        if around is not None:
            remedy = "Read it with gaps='fill' to interpolate slices at even distances."
        raise ReadError(
            f"Expected slices at even distances. Received: {_uneven(steps, usual, is_usual=is_usual)}. {remedy}",
            reason="geometry",
        )
    return around


def _usual_step(steps: FloatArray) -> tuple[float, int]:
    """The step that most others are near to, and how many are; the smallest of several such."""
    near = np.abs(steps[:, None] - steps) <= _TOLERANCE * steps[:, None]
    counts = near.sum(axis=1)
    chosen = min(np.flatnonzero(counts == counts.max()), key=lambda k: steps[k])
    return float(np.median(steps[near[chosen]])), int(counts.max())


def _even(distances: FloatArray, step: float) -> Grid | None:
    """The grid of slices that all lie on one, but for rounding."""
    places = np.concatenate([[0.0], np.cumsum(np.rint(np.diff(distances) / step))])
    if not places[-1]:
        return None
    mean = float(distances[-1] / places[-1])
    if len(set(places)) < len(places) or np.abs(distances - places * mean).max() > _TOLERANCE * mean:
        return None
    return Grid(places, mean, int(places[-1]) + 1)


def _around(distances: FloatArray, step: float) -> Grid | None:
    """The grid that most slices lie on, others between or beyond; None where more would be invented than is there."""
    found = [_anchored(distances, step, float(first)) for first in distances]
    best = max(found, key=lambda grid: grid.is_placed.sum())
    placed = int(best.is_placed.sum())
    return best if 2 * placed > len(distances) and best.depth - placed < placed else None


def _anchored(distances: FloatArray, step: float, anchor: float) -> Grid:
    places = (distances - anchor) / step
    is_near = np.abs(places - np.rint(places)) <= _TOLERANCE
    lowest, highest = np.ceil(places[0] - _TOLERANCE), np.floor(places[-1] + _TOLERANCE)
    places = np.where(is_near, np.rint(places), places) - lowest
    return Grid(places, step, int(highest - lowest) + 1, float(anchor + lowest * step))


def _uneven(steps: FloatArray, usual: float, *, is_usual: bool) -> str:
    """Steps that differ from the others, in words."""
    wanted = np.maximum(np.rint(steps / usual), 1.0)
    odd = np.flatnonzero(np.abs(steps - wanted * usual) > _TOLERANCE * usual)
    if not is_usual or not len(odd):
        return (
            f"steps from {steps.min():.3f} to {steps.max():.3f} mm, off a regular grid by more than "
            f"{_TOLERANCE * usual:.3f} mm"
        )
    last = len(steps) - 1
    shown = [f"step {k + 1} of {len(steps)}{' (the last)' if k == last else ''} is {steps[k]:.3f} mm" for k in odd]
    more = f" and {len(odd) - _SHOWN} further ones too" if len(odd) > _SHOWN else ""
    return f"{', '.join(shown[:_SHOWN])}{more}, where {usual:.3f} mm is usual"


def _check_gaps(grid: Grid, *, gaps: GapChoice) -> None:
    count = len(grid.places)
    missing = grid.depth - count
    if not missing:
        return
    holes = sum(after - before > 1 for before, after in pairwise(grid.places))
    text = f"Expected slices without gaps. Received: {count} slices, {missing} missing at {holes} place(s)."
    if gaps == "refuse":
        raise ReadError(f"{text} Export the series again, or read it with gaps='fill'.", reason="missing_slices")
    if missing >= count:
        raise ReadError(
            f"{text} More slices would be invented than are there. Export it again.", reason="missing_slices"
        )
