"""Stacking of slices by position into one volume: sorted, checked, never guessed (PS3.3 C.7.6.2.1.1).

A slice lies where Image Position and Image Orientation (Patient) say. Instance numbers, file names and slice thickness
say nothing about places and are not looked at.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lepton_vision.config.sections import GapChoice, TiltChoice
from lepton_vision.errors import ReadError
from lepton_vision.readers.passes import find_passes
from lepton_vision.readers.plane import Plane as Plane
from lepton_vision.readers.slice_consistency import check_consistent
from lepton_vision.readers.slice_grid import plan_grid
from lepton_vision.readers.traits import differing, mixed_traits, words_of
from lepton_vision.types import FloatArray, Geometry

# How far a slice may be from its regular place, as a part of a voxel: headers are rounded.
_TOLERANCE = 0.1
# Two slices nearer than this are at the same place; rounding to 0.01 mm counts where others are ten times as far apart.
_SAME_MM, _ROUNDED_MM = 1e-3, 0.02


@dataclass(frozen=True, slots=True)
class Stack:
    """Order and geometry of slices that form a volume of D slices.

    Attributes:
        order: numbers of the planes, by position along the normal (row direction x column direction).
        places: slice of the volume that each plane of ``order`` becomes; a number left out is a missing slice, and a
            fraction lies between two slices, which are interpolated from it.
        geometry: of the volume, before slices that are shifted are straightened.
        shifts: (N, 2) float64 in voxels, (H, W) by plane of ``order``: where its first voxel lies in the volume's grid.
        tilt_degrees: angle between the normal and the line through the positions.
        depth: D of the volume, missing slices included.
    """

    order: tuple[int, ...]
    places: tuple[float, ...]
    geometry: Geometry
    shifts: FloatArray
    tilt_degrees: float
    depth: int

    @property
    def seen(self) -> int:
        """Number of slices present in the volume."""
        return sum(place == int(place) for place in self.places)


def stack_planes(planes: Sequence[Plane], *, gaps: GapChoice = "refuse", tilt: TiltChoice = "refuse") -> Stack:
    """Sort slices by position along their normal and check that they form one regular volume.

    Args:
        planes: at least one, in any order.
        gaps: "fill" accepts missing slices and single steps of another size, as long as fewer slices are to be
            interpolated than are there.
        tilt: "shear" accepts slices that are shifted evenly against each other.

    Raises:
        ReadError: reason ``one_slice``, ``no_position``, ``localizer``, ``mixed_slices``, ``duplicate_position``,
            ``missing_slices``, ``tilt`` or ``geometry``.
    """
    first = check_consistent(planes)
    positions = np.array([plane.position_mm for plane in planes])
    ways = _straightened(np.asarray(first.direction), positions, spacing_mm=first.spacing_mm, planes=planes)
    normal = np.cross(ways[1], ways[0])
    order = np.argsort(positions @ normal, kind="stable")
    offsets = positions[order] - positions[order[0]]
    distances = offsets @ normal
    shifts = offsets @ ways.T / first.spacing_mm
    traits = [planes[k].traits for k in order]
    _check_duplicates(distances, shifts, traits=traits)
    _check_one_pass([planes[k] for k in order], distances)
    angle = _check_line(distances, shifts, spacing_mm=first.spacing_mm, tilt=tilt)
    grid = plan_grid(distances, gaps=gaps)
    used = (grid.places > -1.0) & (grid.places < grid.depth)
    kept = shifts[used] if angle else np.zeros((int(used.sum()), 2))
    x, y, z = (positions[order[0]] + grid.first * normal).tolist()
    direction = tuple((float(a), float(b), float(c)) for a, b, c in (normal, *ways))
    geometry = Geometry((x, y, z), direction, (grid.step, *first.spacing_mm))
    return Stack(tuple(order[used].tolist()), tuple(grid.places[used].tolist()), geometry, kept, angle, grid.depth)


def _straightened(
    ways: FloatArray, positions: FloatArray, *, spacing_mm: tuple[float, ...], planes: Sequence[Plane]
) -> FloatArray:
    """Directions (2, 3) of h and w, turned so that the slices lie straight above each other where rounding hides that.

    An orientation of two or three decimals is off by up to half a degree, and the positions say better where the normal
    of many slices points: as far as rounding explains it, and no further.
    """
    normal = np.cross(ways[1], ways[0])
    depths = positions @ normal
    line = positions[int(depths.argmax())] - positions[int(depths.argmin())]
    length = float(np.linalg.norm(line))
    aside = line - normal * (line @ normal)
    angle = float(np.linalg.norm(aside)) / length if length > 0.0 else 0.0
    is_straight = np.abs(ways @ line / spacing_mm).max() <= _TOLERANCE
    if is_straight or angle > max(plane.rounding for plane in planes):
        return ways
    line = line / length
    along_w = ways[1] - line * (line @ ways[1])
    along_w /= np.linalg.norm(along_w)
    return np.stack([np.cross(line, along_w), along_w])


def stack_frames(planes: Sequence[Plane]) -> Geometry | None:
    """Geometry of the frames of one file in the file's own order, or None where they form no regular stack of it."""
    try:
        stack = stack_planes(planes)
    except ReadError:
        return None
    if stack.order == tuple(range(len(planes))):
        return stack.geometry
    if stack.order != tuple(reversed(range(len(planes)))):
        return None
    last = stack.geometry.plane(stack.depth - 1)
    x, y, z = (-part for part in stack.geometry.direction[0])
    return Geometry(last.origin_mm, ((x, y, z), *last.direction), stack.geometry.spacing_mm)


def _check_duplicates(distances: FloatArray, shifts: FloatArray, *, traits: Sequence[tuple[str, ...]]) -> None:
    """Refuse planes at one depth; ``distances`` (N,) is sorted."""
    steps = np.diff(distances)
    apart = steps[steps > _ROUNDED_MM]
    same_mm = _ROUNDED_MM if len(apart) and np.median(apart) >= 10 * _ROUNDED_MM else _SAME_MM
    groups = np.concatenate([[0], np.cumsum(steps > same_mm)])
    counts = Counter(groups.tolist())
    if max(counts.values()) == 1:
        return
    if any(np.ptp(shifts[groups == group], axis=0).max() > _TOLERANCE for group in counts):
        raise ReadError(
            "Expected one slice at each depth. Received: slices side by side in one plane.", reason="geometry"
        )
    times = set(counts.values())
    if len(times) == 1:
        text = f"each of {len(counts)} positions {times.pop()} times: time points, echoes or other repetitions"
    else:
        text = f"{sum(count > 1 for count in counts.values())} of {len(counts)} positions more than once"
    found = differing(traits)
    known = f" They differ in {words_of(found)}." if found else " Nothing in their headers tells them apart."
    raise ReadError(
        f"Expected one slice at each position. Received: {text}.{known} Give the slices of one repetition only.",
        reason="duplicate_position",
    )


def _check_one_pass(planes: Sequence[Plane], distances: FloatArray) -> None:
    """Refuse slices, sorted by ``distances`` (N,), of several acquisitions that lie between each other."""
    traits = [plane.traits for plane in planes]
    found, passes = mixed_traits(traits, distances), find_passes(planes, distances)
    doubt = "" if passes is None or found else passes.doubt
    found = found if passes is None else sorted({*passes.traits, *found})
    if found:
        counts = ", ".join(
            f"{len({values[k] for values in traits})} kinds of {words_of([k])} between each other" for k in found
        )
        raise ReadError(
            f"Expected the slices of one acquisition. Received: {counts}{doubt}. Give the slices of one of them only.",
            reason="mixed_slices",
        )


def _check_line(distances: FloatArray, shifts: FloatArray, *, spacing_mm: tuple[float, ...], tilt: TiltChoice) -> float:
    """Angle [degrees] between the normal and the line through the positions; 0 where it is none to speak of."""
    if np.abs(shifts).max() <= _TOLERANCE:
        return 0.0
    even = distances[:, None] * (shifts[-1] / distances[-1])
    if np.abs(shifts - even).max() > _TOLERANCE:
        raise ReadError(
            f"Expected slices on a straight line. Received: slices up to {np.abs(shifts - even).max():.1f} pixels "
            f"({_millimeters(shifts - even, spacing_mm)}) beside it. Register the slices first.",
            reason="geometry",
        )
    angle = float(np.degrees(np.arctan2(np.linalg.norm(shifts[-1] * spacing_mm), distances[-1])))
    if tilt == "refuse":
        raise ReadError(
            f"Expected slices straight above each other. Received: a series tilted by {angle:.1f} degrees "
            f"(slices up to {np.abs(shifts).max():.1f} pixels, {_millimeters(shifts, spacing_mm)} aside; "
            f"{_TOLERANCE:g} pixels is rounding). Read it with tilt='shear' to resample it.",
            reason="tilt",
        )
    return angle


def _millimeters(shifts: FloatArray, spacing_mm: tuple[float, ...]) -> str:
    return f"{np.linalg.norm(shifts * spacing_mm, axis=1).max():.2f} mm"
