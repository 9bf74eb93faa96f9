"""DICOM Segmentations as masks: part of the doorway to pydicom.

The label of a frame is its Referenced Segment Number, or that of its pixels in a label map (PS3.3 C.8.20.2), and its
place is Plane Position (Patient), or the image that it was derived from. The order of the frames says nothing: empty
ones are left out, and those of several segments follow each other in any way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from lepton_vision.errors import ReadError
from lepton_vision.readers.dicom.decode import read_stored
from lepton_vision.readers.dicom.header import DicomFile, items, number, open_dicom, text
from lepton_vision.readers.dicom.layout import PixelLayout, read_layout
from lepton_vision.readers.dicom.planes import read_planes
from lepton_vision.readers.dicom.segment_positions import (
    Canvas,
    FramePosition,
    SegmentFrame,
    Source,
    canvas_of,
    place_frames,
)
from lepton_vision.readers.identity import pseudonym
from lepton_vision.readers.limits import Limits, check_size, raise_read_errors
from lepton_vision.types import Image

_STORAGE = frozenset({"1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7"})  # and label maps
_TYPES = ("BINARY", "FRACTIONAL", "LABELMAP")
_MOST = 255
_HEADER = "Cannot parse the header of the Segmentation"


@dataclass(frozen=True, slots=True)
class Segmentation:
    """An open Segmentation.

    Attributes:
        file: with its pixel data not yet read.
        layout: of a frame.
        kind: Segmentation Type.
        full: stored value of a voxel that belongs to a segment: 1, or Maximum Fractional Value.
        frames: in the file's order.
        listed: pseudonymous ids of all images that the object says it was derived from.
        step_mm: Spacing Between Slices, or None.
    """

    file: DicomFile
    layout: PixelLayout
    kind: str
    full: int
    frames: tuple[SegmentFrame, ...]
    listed: frozenset[str]
    step_mm: float | None


def open_segmentation(stream: BinaryIO, *, head: bytes, limits: Limits) -> Segmentation | None:
    """Read the header of a DICOM Segmentation; None where the file is another DICOM object.

    Raises:
        ReadError: no pixel data, a damaged header, or reason ``mask_values``: segments that 8 bits cannot number.
    """
    with raise_read_errors(_HEADER, reason="corrupt"):
        file = open_dicom(stream, head=head, limits=limits)
        dataset = file.dataset
        if text(dataset, "SOPClassUID") not in _STORAGE:
            return None
        if "TotalPixelMatrixColumns" in dataset:
            raise ReadError(
                "A Segmentation of the tiles of a slide is no mask of an image. Save it for the image that you use.",
                reason="unsupported",
            )
        layout = read_layout(file)
        check_size(layout.frames, layout.rows, layout.columns, limits=limits)
        limits.check_frames(layout.frames, size=file.size)
        kind = text(dataset, "SegmentationType") or ""
        if kind not in _TYPES:
            raise ReadError(
                f"Expected a Segmentation that is {', '.join(_TYPES)}. Received: another.", reason="corrupt"
            )
        numbers = [int(number(one, "SegmentNumber") or 0) for one in items(dataset, "SegmentSequence")]
        _check_numbers(numbers)
        full = int(number(dataset, "MaximumFractionalValue") or 0) if kind == "FRACTIONAL" else 1
        return Segmentation(
            file,
            layout,
            kind,
            full,
            frames=tuple(_read_frames(dataset, layout, is_map=kind == "LABELMAP")),
            listed=_listed(dataset),
            step_mm=_step(dataset),
        )


def read_segmentation(found: Segmentation, *, on: Image | None, limits: Limits) -> Image:
    """Lay the segments on the grid of an image, or on a grid of their own.

    Args:
        found: of ``open_segmentation``.
        on: image whose voxels the mask shall have; None takes the planes that the frames lie on, from the lowest to the
            highest along their normal.
        limits: caps.

    Returns:
        Image with pixels (1, H, W) or (1, D, H, W): segment numbers, 0 where there is none.

    Raises:
        ReadError: reason ``mask_position`` or ``mask_size`` (a frame that does not lie on the grid, with the distance),
            ``mask_overlap`` (two segments in one voxel), ``mask_values`` (fractions), ``no_position``.
    """
    with raise_read_errors(_HEADER, reason="corrupt"):
        canvas = canvas_of(found.frames, found.layout, step_mm=found.step_mm) if on is None else Canvas.of(on)
        places = place_frames(found.frames, canvas, layout=found.layout, listed=found.listed, step_mm=found.step_mm)
    check_size(*canvas.shape, limits=limits)
    labels = np.zeros(canvas.shape, np.uint8)
    overlaps: dict[tuple[int, int], int] = {}
    for place in places:
        values = _values(found, place.frame, limits=limits)
        if place.fault is not None:
            if values.any():
                raise place.fault
            continue
        _write_labels(values, labels[place.box], place, overlaps=overlaps)
    if overlaps:
        (first, second), count = next(iter(overlaps.items()))
        raise ReadError(
            f"Expected segments that do not overlap: a mask has one label for each voxel. Received: segments {first} "
            f"and {second} share {count} voxels{', and others do' if len(overlaps) > 1 else ''}. Save them as files of "
            "their own, or cut the overlap.",
            reason="mask_overlap",
        )
    geometry = canvas.geometry
    return Image(
        pixels=labels[None].astype(np.float32),
        spacing_mm=canvas.spacing_mm,
        geometry=geometry,
        image_id=pseudonym("image", text(found.file.dataset, "SOPInstanceUID") or ""),
        modality="SEG",
        source_format="dicom",
        facts={
            "orientation": None if geometry is None else geometry.orientation,
            "segments": len(items(found.file.dataset, "SegmentSequence")),
        },
    )


def _write_labels(
    values: npt.NDArray[np.uint8],
    part: npt.NDArray[np.uint8],
    place: FramePosition,
    *,
    overlaps: dict[tuple[int, int], int],
) -> None:
    """Write the labels of one frame into its part of the mask, and count the voxels that have another label."""
    turned = place.turn(values)
    is_met = (turned > 0) & (part > 0) & (turned != part)
    if is_met.any():
        pairs = np.unique(np.stack([part[is_met], turned[is_met]]), axis=1, return_counts=True)
        for (first, second), count in zip(pairs[0].T.tolist(), pairs[1].tolist(), strict=True):
            key = (min(first, second), max(first, second))
            overlaps[key] = overlaps.get(key, 0) + count
    np.copyto(part, turned, where=turned > 0)


def _values(found: Segmentation, frame: SegmentFrame, *, limits: Limits) -> npt.NDArray[np.uint8]:
    """(H, W) segment numbers of one frame."""
    wanted = range(frame.number, frame.number + 1)
    stored: npt.NDArray[Any] = read_stored(found.file, found.layout, wanted=wanted, limits=limits)[0][0]
    if frame.segment is None:
        padding = number(found.file.dataset, "PixelPaddingValue")
        labels = stored if padding is None else np.where(stored == padding, 0, stored)
        _check_numbers([int(labels.max(initial=0))])
        return labels.astype(np.uint8)
    partly = int(((stored != 0) & (stored != found.full)).sum())
    if partly:
        raise ReadError(
            f"Expected a Segmentation of whole voxels. Received: values between 0 and {found.full} in {partly} voxels "
            "of a frame. Save it as binary, cut at a probability that you choose.",
            reason="mask_values",
        )
    return np.where(stored != 0, np.uint8(frame.segment), np.uint8(0))


def _check_numbers(numbers: Sequence[int]) -> None:
    if max(numbers, default=0) > _MOST:
        raise ReadError(
            f"Expected segment numbers up to {_MOST} in a mask. Received: {max(numbers)}. Save a Segmentation of fewer "
            "segments.",
            reason="mask_values",
        )


def _read_frames(dataset: Dataset, layout: PixelLayout, *, is_map: bool) -> list[SegmentFrame]:
    shared = items(dataset, "SharedFunctionalGroupsSequence")[:1]
    groups = items(dataset, "PerFrameFunctionalGroupsSequence")
    result = []
    for plane in read_planes(dataset, layout=layout, wanted=range(layout.frames)):
        macros = [*groups[plane.frame : plane.frame + 1], *shared]
        segment = None if is_map else _segment(macros)
        if not is_map and not segment:
            raise ReadError(
                f"Expected the number of the segment that each frame shows. Received: frame {plane.frame} without.",
                reason="corrupt",
            )
        result.append(SegmentFrame(plane.frame, segment, plane.geometry, frozenset(_sources(macros))))
    return result


def _segment(macros: Sequence[Dataset]) -> int | None:
    for macro in macros:
        for item in items(macro, "SegmentIdentificationSequence"):
            found = number(item, "ReferencedSegmentNumber")
            return None if found is None else int(found)
    return None


def _sources(macros: Sequence[Dataset]) -> list[Source]:
    """Images, or frames of them, that a frame was derived from (PS3.3 C.7.6.16.2.6)."""
    found = []
    for macro in macros:
        for derivation in items(macro, "DerivationImageSequence"):
            for item in items(derivation, "SourceImageSequence"):
                uid, frame = text(item, "ReferencedSOPInstanceUID"), number(item, "ReferencedFrameNumber")
                if uid is not None:
                    found.append(Source(pseudonym("image", uid), None if frame is None else int(frame) - 1))
    return found


def _listed(dataset: Dataset) -> frozenset[str]:
    """Images of Common Instance Reference (PS3.3 C.12.2): all that were looked at, empty ones too."""
    series = [*items(dataset, "ReferencedSeriesSequence")]
    for study in items(dataset, "StudiesContainingOtherReferencedInstancesSequence"):
        series += items(study, "ReferencedSeriesSequence")
    referred = [one for found in series for one in items(found, "ReferencedInstanceSequence")]
    uids = [text(one, "ReferencedSOPInstanceUID") for one in referred]
    return frozenset(pseudonym("image", uid) for uid in uids if uid is not None)


def _step(dataset: Dataset) -> float | None:
    for group in items(dataset, "SharedFunctionalGroupsSequence")[:1]:
        for measures in items(group, "PixelMeasuresSequence"):
            found = number(measures, "SpacingBetweenSlices")
            return abs(found) if found else None
    return None
