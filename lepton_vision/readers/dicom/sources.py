"""Headers of a DICOM series, for the objects derived from it: part of the doorway to pydicom.

These headers hold the patient's name and identifiers. They go from here into a DICOM object for the same patient's
record and nowhere else: no value of them may reach a message, a log, a table or a file name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset
from pydicom.valuerep import DA, TM

from lepton_vision.errors import ReadError
from lepton_vision.readers.content import open_content
from lepton_vision.readers.dicom.header import items, open_dicom, text
from lepton_vision.readers.identity import pseudonym
from lepton_vision.readers.limits import DEFAULT_LIMITS, Limits
from lepton_vision.readers.series import find_series
from lepton_vision.readers.stack import Plane

_NEEDED = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")  # type 1
_MAY_BE_EMPTY = (  # type 2: to be there, with or without a value
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
)
_FORMS = {"PatientBirthDate": DA, "StudyDate": DA, "StudyTime": TM}
_DATES = ("ContentDate", "AcquisitionDate", "SeriesDate", "StudyDate")


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file of a series.

    Attributes:
        header: pydicom's data set up to the pixel data, completed: attributes that an image may leave out and a derived
            object may not are there, empty; a date or sex that is none is empty. It may be changed: nobody else has it.
        planes: the place of each frame, in the file's order.
        image_id: pseudonymous id, as ``Image.image_id`` of the whole file.
    """

    header: Any
    planes: tuple[Plane, ...]
    image_id: str


def read_sources(
    source: str | Path | Sequence[str | Path], *, series: str | None = None, limits: Limits = DEFAULT_LIMITS
) -> tuple[SourceFile, ...]:
    """Read the headers of one series; arguments as ``series.read_series``. No pixel is decoded.

    Raises:
        ReadError: as ``series.find_series``, or a header without its UIDs (reason ``corrupt``).
    """
    planes: dict[Path, list[Plane]] = {}
    for one in find_series(source, series=series, limits=limits):
        planes.setdefault(one.path, []).append(one.plane)
    return tuple(_read(path, tuple(found), limits=limits) for path, found in planes.items())


def _read(path: Path, planes: tuple[Plane, ...], *, limits: Limits) -> SourceFile:
    with open_content(path, what="Cannot read the header", limits=limits) as content:
        header = open_dicom(content.stream, head=content.head, limits=content.limits).dataset
        missing = [keyword for keyword in _NEEDED if text(header, keyword) is None]
        if missing:
            raise ReadError(
                f"Expected a header with {', '.join(_NEEDED)}. Received: one without {', '.join(missing)}. Nothing can "
                "refer to it: export the series again.",
                reason="corrupt",
            )
        _complete(header)
        return SourceFile(header, planes, pseudonym("image", text(header, "SOPInstanceUID") or ""))


def _complete(header: Dataset) -> None:
    """Add what may be empty, and empty what would be refused; macros of all frames go to the shared groups."""
    for keyword in _MAY_BE_EMPTY:
        if keyword not in header or header.get(keyword) is None:
            setattr(header, keyword, "")
    for keyword, form in _FORMS.items():
        try:
            form(text(header, keyword) or "")
        except (ValueError, TypeError):
            setattr(header, keyword, "")
    if text(header, "PatientSex") not in (None, "M", "F", "O"):
        header.PatientSex = ""
    if "SliceThickness" not in header:
        header.SliceThickness = None
    frames = items(header, "PerFrameFunctionalGroupsSequence")
    if not frames:
        return
    if not items(header, "SharedFunctionalGroupsSequence"):
        header.SharedFunctionalGroupsSequence = [Dataset()]
    shared = header.SharedFunctionalGroupsSequence[0]
    for macro in ("PixelMeasuresSequence", "PlaneOrientationSequence"):
        # Some scanners repeat these for each frame; that they are alike was checked when the planes were stacked.
        if macro not in shared and macro in frames[0]:
            setattr(shared, macro, frames[0][macro].value)


def read_time(header: Any) -> tuple[str, str] | None:
    """Date and time (YYYYMMDD, HHMMSS) of the first pair that the header states, from content to study, or None."""
    for keyword in _DATES:
        date, time = text(header, keyword), text(header, keyword.replace("Date", "Time"))
        try:
            if date:
                return DA(date).strftime("%Y%m%d"), TM(time).strftime("%H%M%S") if time else "000000"
        except (ValueError, TypeError):
            continue
    return None


def refer_to(header: Any, *, frame: int | None) -> Dataset:
    """Return an item that refers to an image, or to one of its frames, from 0 (PS3.3 10.3)."""
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = header.SOPClassUID, header.SOPInstanceUID
    if frame is not None:
        item.ReferencedFrameNumber = frame + 1
    return item


def keep_frame(header: Any, *, frame: int) -> None:
    """Reduce the header of a file of several frames to one of them."""
    if items(header, "PerFrameFunctionalGroupsSequence"):
        header.PerFrameFunctionalGroupsSequence = [header.PerFrameFunctionalGroupsSequence[frame]]
    header.NumberOfFrames = 1


def state_spacing(header: Any, *, slices_mm: float) -> None:
    """Write the true distance of the slices into a header, whatever it said; thickness too where it said nothing."""
    for place in _measures(header):
        place.SpacingBetweenSlices = f"{slices_mm:.10g}"
        if text(place, "SliceThickness") is None:
            place.SliceThickness = f"{slices_mm:.10g}"


def state_thickness(header: Any) -> None:
    """Complete the measures of a single slice: no distance to a neighbour, and a thickness or no measures at all.

    highdicom cannot read measures without a thickness. Where the header states none, a slice with a place gets 1 mm,
    which is what tools assume; one without a place needs no measures.
    """
    for place in _measures(header):
        if "SpacingBetweenSlices" in place:
            del place.SpacingBetweenSlices
        if text(place, "SliceThickness") is None and has_place(header):
            place.SliceThickness = "1"
        elif text(place, "SliceThickness") is None and "PixelSpacing" in place:
            del place.PixelSpacing


def has_place(header: Any) -> bool:
    """Whether a position in the header means something: there is a frame of reference that it counts in."""
    frames = items(header, "PerFrameFunctionalGroupsSequence")
    is_placed = "ImagePositionPatient" in header or any("PlanePositionSequence" in frame for frame in frames)
    return text(header, "FrameOfReferenceUID") is not None and is_placed


def _measures(header: Any) -> list[Dataset]:
    """Where spacing and thickness stand."""
    groups = items(header, "SharedFunctionalGroupsSequence")
    return (items(groups[0], "PixelMeasuresSequence") if groups else []) or [header]
