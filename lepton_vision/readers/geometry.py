"""From the places of single slices to one volume: sorted by position, checked, never guessed (PS3.3 C.7.6.2.1.1).

A slice lies where Image Position and Image Orientation (Patient) say. Instance numbers, file names and slice thickness
say nothing about places and are not looked at.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np

from lepton_vision.errors import ReadError
from lepton_vision.types import FloatArray, Geometry, Vector

GapChoice = Literal["refuse", "fill"]
TiltChoice = Literal["refuse", "shear"]

# How far a slice may be from its regular place, as a part of a voxel: headers are rounded.
_TOLERANCE = 0.1
_SAME_MM = 1e-3  # two slices nearer than this are at the same place
_FARTHEST_MM, _FINEST_MM = 1e6, 1e-6  # nobody lies a kilometer away; what a header says beyond is damage
_DIRECTION_TOLERANCE = 1e-4  # 0.04 mm at the far side of 400 mm


@dataclass(frozen=True, slots=True)
class Plane:
    """Header of one slice: a file, or one frame of it.

    Attributes:
        rows: H.
        columns: W.
        position_mm: (x, y, z) of the center of the first voxel, or None.
        orientation: unit vectors along which h and w grow (H first), or None.
        spacing_mm: distance of rows and of columns in the patient, or None.
        frame: number of the frame in its file, from 0.
        series_id: pseudonymous id, or None.
        patient_id: pseudonymous id, or None.
        modality: DICOM Modality, or None.
        photometric: photometric interpretation.
        is_localizer: Image Type calls it a localizer or scout.
    """

    rows: int
    columns: int
    position_mm: Vector | None = None
    orientation: tuple[Vector, Vector] | None = None
    spacing_mm: tuple[float, float] | None = None
    frame: int = 0
    series_id: str | None = None
    patient_id: str | None = None
    modality: str | None = None
    photometric: str = ""
    is_localizer: bool = False

    @property
    def geometry(self) -> Geometry | None:
        """Place of this slice alone, or None where the header does not say all of it."""
        if self.position_mm is None or self.orientation is None or self.spacing_mm is None:
            return None
        if min(self.spacing_mm) < _FINEST_MM or max(map(abs, self.position_mm + self.spacing_mm)) > _FARTHEST_MM:
            return None
        try:
            return Geometry(self.position_mm, self.orientation, self.spacing_mm)
        except ValueError:  # directions that are not at right angles, and the like
            return None


@dataclass(frozen=True, slots=True)
class Stack:
    """How slices form a volume of D slices.

    Attributes:
        order: numbers of the planes, by position along the normal (row direction x column direction).
        places: slice of the volume that each plane of ``order`` becomes; a number left out is a missing slice.
        geometry: of the volume, before slices that are shifted are straightened.
        shifts: (N, 2) float64 in voxels, (H, W) by plane of ``order``: where its first voxel lies in the volume's grid.
        tilt_degrees: angle between the normal and the line through the positions.
    """

    order: tuple[int, ...]
    places: tuple[int, ...]
    geometry: Geometry
    shifts: FloatArray
    tilt_degrees: float

    @property
    def depth(self) -> int:
        """D of the volume, missing slices included."""
        return self.places[-1] + 1


def stack_planes(planes: Sequence[Plane], *, gaps: GapChoice = "refuse", tilt: TiltChoice = "refuse") -> Stack:
    """Sort slices by position along their normal and check that they form one regular volume.

    Args:
        planes: at least one, in any order.
        gaps: "fill" accepts missing slices, as long as there are fewer of them than slices.
        tilt: "shear" accepts slices that are shifted evenly against each other.

    Raises:
        ReadError: reason ``one_slice``, ``no_position``, ``localizer``, ``mixed_slices``, ``duplicate_position``,
            ``missing_slices``, ``tilt`` or ``geometry``.
    """
    first = _check_alike(planes)
    positions = np.array([plane.position_mm for plane in planes])
    columns_way, rows_way = (np.asarray(way) for way in first.direction)
    normal = np.cross(rows_way, columns_way)
    normal /= np.linalg.norm(normal)
    order = np.argsort(positions @ normal, kind="stable")
    offsets = positions[order] - positions[order[0]]
    distances = offsets @ normal
    shifts = np.stack([offsets @ columns_way, offsets @ rows_way], axis=1) / first.spacing_mm
    _check_duplicates(distances, shifts)
    places = _places(distances)
    step = float(distances[-1]) / int(places[-1])
    angle = _check_line(distances, shifts, spacing_mm=first.spacing_mm, tilt=tilt)
    _check_gaps(places, gaps=gaps)
    x, y, z = positions[order[0]].tolist()
    nx, ny, nz = normal.tolist()
    geometry = Geometry((x, y, z), ((nx, ny, nz), *first.direction), (step, *first.spacing_mm))
    return Stack(tuple(order.tolist()), tuple(places), geometry, shifts if angle else np.zeros_like(shifts), angle)


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


def _check_alike(planes: Sequence[Plane]) -> Geometry:
    """Geometry of the first plane, once all others are known to differ from it in position only."""
    if len(planes) < 2:
        raise ReadError(
            "Expected a series of at least 2 slices. Received: 1. Read the file itself as a 2-D image.",
            reason="one_slice",
        )
    scouts = sum(plane.is_localizer for plane in planes)
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
    """What more than one kind of is among the slices, in words."""
    traits: dict[str, set[object]] = {
        "size": {(plane.rows, plane.columns) for plane in planes},
        "modality": {plane.modality for plane in planes},
        "patient": {plane.patient_id for plane in planes},
        "photometric interpretation": {plane.photometric for plane in planes},
    }
    mixed = [f"{len(values)} kinds of {name}" for name, values in traits.items() if len(values) > 1]
    spacings = np.array([geometry.spacing_mm for geometry in geometries])
    if not np.allclose(spacings, spacings[0], rtol=1e-4, atol=0.0):
        mixed.append("several pixel spacings")
    ways = np.array([geometry.direction for geometry in geometries])
    if not np.allclose(ways, ways[0], rtol=0.0, atol=_DIRECTION_TOLERANCE):
        mixed.append("several orientations")
    return mixed


def _check_duplicates(distances: FloatArray, shifts: FloatArray) -> None:
    """Refuse planes at one depth; ``distances`` (N,) is sorted."""
    groups = np.concatenate([[0], np.cumsum(np.diff(distances) > _SAME_MM)])
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
    raise ReadError(
        f"Expected one slice at each position. Received: {text}. Give the slices of one repetition only.",
        reason="duplicate_position",
    )


def _places(distances: FloatArray) -> list[int]:
    """Number of each plane on a regular grid along the normal, missing slices counted."""
    steps = np.diff(distances)
    usual = float(np.median(steps[steps < 1.5 * steps.min()]))
    places = np.concatenate([[0], np.cumsum(np.rint(steps / usual))]).astype(np.int64)
    regular = places * (distances[-1] / places[-1])
    worst = float(np.abs(distances - regular).max())
    if worst > _TOLERANCE * distances[-1] / places[-1]:
        raise ReadError(
            f"Expected slices at even distances. Received: steps from {steps.min():.3f} to {steps.max():.3f} mm, "
            f"up to {worst:.3f} mm off a regular grid. Resample the series first.",
            reason="geometry",
        )
    return [int(place) for place in places]


def _check_line(distances: FloatArray, shifts: FloatArray, *, spacing_mm: tuple[float, ...], tilt: TiltChoice) -> float:
    """Angle [degrees] between the normal and the line through the positions; 0 where it is none to speak of."""
    if np.abs(shifts).max() <= _TOLERANCE:
        return 0.0
    even = distances[:, None] * (shifts[-1] / distances[-1])
    if np.abs(shifts - even).max() > _TOLERANCE:
        raise ReadError(
            f"Expected slices on a straight line. Received: slices up to {np.abs(shifts - even).max():.1f} pixels "
            "beside it. Register the slices first.",
            reason="geometry",
        )
    angle = float(np.degrees(np.arctan2(np.linalg.norm(shifts[-1] * spacing_mm), distances[-1])))
    if tilt == "refuse":
        raise ReadError(
            f"Expected slices straight above each other. Received: a series tilted by {angle:.1f} degrees "
            f"(slices up to {np.abs(shifts).max():.1f} pixels aside). Read it with tilt='shear' to resample it.",
            reason="tilt",
        )
    return angle


def _check_gaps(places: list[int], *, gaps: GapChoice) -> None:
    missing = places[-1] + 1 - len(places)
    if not missing:
        return
    holes = sum(after - before > 1 for before, after in pairwise(places))
    text = f"Expected slices without gaps. Received: {len(places)} slices, {missing} missing at {holes} place(s)."
    if gaps == "refuse":
        raise ReadError(f"{text} Export the series again, or read it with gaps='fill'.", reason="missing_slices")
    if missing >= len(places):
        raise ReadError(
            f"{text} More slices would be invented than are there. Export it again.", reason="missing_slices"
        )
