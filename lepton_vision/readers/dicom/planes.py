"""Position and orientation of each frame of a DICOM file, from its header: part of the doorway to pydicom."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from operator import mul

import numpy as np
from pydicom.dataset import Dataset

from lepton_vision.readers.dicom.facts import code, raw_identifiers, read_spacing
from lepton_vision.readers.dicom.header import items, numbers, texts
from lepton_vision.readers.dicom.kinds import object_kind
from lepton_vision.readers.dicom.layout import PixelLayout
from lepton_vision.readers.dicom.traits import read_traits
from lepton_vision.readers.identity import pseudonym
from lepton_vision.readers.plane import Plane
from lepton_vision.types import FloatArray, Geometry, Vector

_LENGTH_TOLERANCE = 1e-2  # of a direction vector, before it is made a unit vector: headers are rounded
# Each component is off by up to half a step, so along (1, 1, 1) / sqrt(3) a vector is by sqrt(3) / 2 of it: the normal
# of two such by sqrt(2) times that, and the product of both by twice.
_NORMAL_PER_STEP, _SKEW_PER_STEP = 1.2248, 1.7321
_EXACT = 1e-6
_TO_OURS = {"L": "L", "R": "R", "A": "A", "P": "P", "H": "S", "F": "I"}
_MEASURES = "SpacingBetweenSlices", "SliceThickness"


def describe_slices(dataset: Dataset, *, layout: PixelLayout) -> list[Plane]:
    """Return one plane per frame, with everything by which slices of a series may differ."""
    ids = raw_identifiers(dataset)
    series_id = pseudonym("series", ids.series_uid) if ids.series_uid else None
    patient_id = pseudonym("patient", ids.patient_id) if ids.patient_id else None
    instance = pseudonym("image", ids.sop_uid) if ids.sop_uid else None
    alone = read_traits(dataset, frames=1)[0] if layout.frames == 1 else ()
    planes = read_planes(dataset, layout=layout, wanted=range(layout.frames))
    return [
        replace(
            plane,
            series_id=series_id,
            patient_id=patient_id,
            modality=code(dataset, "Modality"),
            photometric=layout.photometric,
            kind=object_kind(dataset),
            instance=instance,
            traits=plane.traits or alone,
            between_mm=between,
            thickness_mm=thickness,
        )
        for plane, (between, thickness) in zip(planes, _read_measures(dataset, frames=len(planes)), strict=True)
    ]


def _read_measures(dataset: Dataset, *, frames: int) -> list[tuple[float | None, float | None]]:
    """By frame of an MR, how far apart slices are and how thick, where the header says; nothing of other images."""
    if code(dataset, "Modality") != "MR":
        return [(None, None)] * frames
    own = items(dataset, "PerFrameFunctionalGroupsSequence")
    shared = items(dataset, "SharedFunctionalGroupsSequence")[:1]
    top = [dataset] if frames == 1 else []
    found = []
    for frame in range(frames):
        groups = [*own[frame : frame + 1], *shared]
        between, thickness = (
            _look_up(groups, top, macro="PixelMeasuresSequence", keyword=keyword) for keyword in _MEASURES
        )
        found.append((_above_0(between), _above_0(thickness)))
    return found


def _above_0(values: tuple[float, ...]) -> float | None:
    return values[0] if values and values[0] > 0.0 else None


def read_orientation(dataset: Dataset, planes: Sequence[Plane]) -> str | None:
    """Where W and H grow, as ``Geometry.orientation`` has it, of an image whose place is not known; None if neither is.

    From the direction of rows and columns, else Patient Orientation of a projection (PS3.3 C.7.6.1.1.1), whose first
    letter is the main one; other words than those for people say nothing.
    """
    ways = {plane.orientation for plane in planes}
    way = ways.pop() if len(ways) == 1 else None
    if way is not None:
        return Geometry((0.0, 0.0, 0.0), way, (1.0, 1.0)).orientation
    said = texts(dataset, "PatientOrientation")
    if len(said) != 2 or not all(word and set(word) <= set(_TO_OURS) for word in said):
        return None
    return "".join(_TO_OURS[word[0]] for word in said)


def read_planes(dataset: Dataset, *, layout: PixelLayout, wanted: range) -> list[Plane]:
    """Return the size and place of each wanted frame, in the file's order; of several, also their traits.

    Places come from the functional groups of enhanced objects (PS3.3 C.7.6.16.2.3, C.7.6.16.2.4), from the top of the
    header for a file of one frame, and from Grid Frame Offset Vector for dose (PS3.3 C.8.8.3.2). A frame that has
    none of them has ``position_mm`` None.
    """
    frames = items(dataset, "PerFrameFunctionalGroupsSequence")
    shared = items(dataset, "SharedFunctionalGroupsSequence")[:1]
    offsets = numbers(dataset, "GridFrameOffsetVector")
    has_offsets = layout.frames > 1 and len(offsets) == layout.frames
    top = [dataset] if layout.frames == 1 or has_offsets else []
    traits = read_traits(dataset, frames=layout.frames) if len(wanted) > 1 else []
    result = []
    for frame in wanted:
        groups = [*frames[frame : frame + 1], *shared]
        spacing, source = read_spacing(dataset, frame=frame)
        position = _position(_look_up(groups, top, macro="PlanePositionSequence", keyword="ImagePositionPatient"))
        turned = _look_up(groups, top, macro="PlaneOrientationSequence", keyword="ImageOrientationPatient")
        ways, rounding = _orientation(turned), 0.0
        if ways is not None:
            rounding = _rounding(turned) * _NORMAL_PER_STEP
        if has_offsets and position is not None and ways is not None:
            position = _along(position, ways, offset=offsets[frame] - offsets[0], is_relative=offsets[0] == 0.0)
        # Imager Pixel Spacing is a distance at the detector, not in the patient (PS3.3 10.7.1.3).
        in_patient = spacing if source == "PixelSpacing" else None
        own = traits[frame] if traits else ()
        plane = Plane(layout.rows, layout.columns, position, ways, in_patient, frame, rounding=rounding, traits=own)
        result.append(plane)
    return result


def _look_up(groups: Sequence[Dataset], top: Sequence[Dataset], *, macro: str, keyword: str) -> tuple[float, ...]:
    """Numbers of an element: of a functional group macro, else of the header itself."""
    for group in groups:
        found = items(group, macro)
        if found:
            return numbers(found[0], keyword)
    return numbers(top[0], keyword) if top else ()


def _position(values: tuple[float, ...]) -> Vector | None:
    return values if len(values) == 3 else None


def _orientation(values: tuple[float, ...]) -> tuple[Vector, Vector] | None:
    """Unit vectors along which h and w grow. The header has them the other way round: the row's direction is w.

    Where few decimals leave them not quite at right angles, each is turned by half of what is missing.
    """
    if len(values) != 6:
        return None
    along_w, along_h = _unit(values[:3]), _unit(values[3:])
    if along_w is None or along_h is None:
        return None
    skew = sum(map(mul, along_w, along_h))
    if _EXACT < abs(skew) <= _SKEW_PER_STEP * _rounding(values):
        turned_w = _unit(tuple(a - skew / 2 * b for a, b in zip(along_w, along_h, strict=True)))
        turned_h = _unit(tuple(b - skew / 2 * a for a, b in zip(along_w, along_h, strict=True)))
        along_w, along_h = turned_w or along_w, turned_h or along_h
    return along_h, along_w


def _rounding(values: tuple[float, ...]) -> float:
    """Step of the decimals of an orientation, 0.01 or 0.001; 0 where there are more, or it is along the axes."""
    if all(value in (-1.0, 0.0, 1.0) for value in values):
        return 0.0
    for step in (100.0, 1000.0):
        if all(abs(value * step - round(value * step)) < 1e-6 for value in values):
            return 1.0 / step
    return 0.0


def _unit(values: tuple[float, ...]) -> Vector | None:
    x, y, z = values
    length = math.hypot(x, y, z)
    return (x / length, y / length, z / length) if abs(length - 1.0) <= _LENGTH_TOLERANCE else None


def _along(position: Vector, ways: tuple[Vector, Vector], *, offset: float, is_relative: bool) -> Vector:
    """Place of a dose plane: offsets count along the normal, or are z coordinates where the first one is not 0."""
    normal = np.cross(ways[1], ways[0]) if is_relative else np.array([0.0, 0.0, 1.0])
    return _vector(np.asarray(position) + offset * normal)


def _vector(values: FloatArray) -> Vector:
    x, y, z = values.tolist()
    return x, y, z
