"""Header facts without patient data: what stratifies, never who."""

from __future__ import annotations

import re
from itertools import pairwise

from pydicom.dataset import Dataset

from lepton_vision.readers.dicom_header import items, number, numbers, text
from lepton_vision.readers.dicom_kinds import object_kind
from lepton_vision.readers.dicom_layout import PixelLayout
from lepton_vision.readers.dicom_lut import macro
from lepton_vision.readers.facts import Fact, RawIds
from lepton_vision.readers.identity import pseudonym

_CODE = re.compile(r"[A-Z0-9_ ]{1,16}")  # VR CS: no room for a name in lower case or a sentence
_AGE = re.compile(r"(\d{3})([DWMY])")
_DATE = re.compile(r"(\d{4})(\d{2})(\d{2})")


def raw_identifiers(dataset: Dataset) -> RawIds:
    """Identifiers as they stand in the header."""
    return RawIds(
        sop_uid=text(dataset, "SOPInstanceUID"),
        series_uid=text(dataset, "SeriesInstanceUID"),
        study_uid=text(dataset, "StudyInstanceUID"),
        patient_id=text(dataset, "PatientID"),
    )


def read_facts(dataset: Dataset, *, layout: PixelLayout, transfer_syntax: str) -> dict[str, Fact]:
    """Everything in ``facts.FACT_NAMES``."""
    spacing, _ = read_spacing(dataset, frame=0)
    site = text(dataset, "InstitutionName")
    return {
        "sex": _sex(dataset),
        "age_band": _age_band(dataset),
        "manufacturer": _label(dataset, "Manufacturer"),
        "model_name": _label(dataset, "ManufacturerModelName"),
        "site": pseudonym("site", site) if site else None,
        "kvp": number(dataset, "KVP"),
        "slice_thickness_mm": _slice_thickness(dataset),
        "body_part": code(dataset, "BodyPartExamined"),
        "view_position": code(dataset, "ViewPosition"),
        "laterality": code(dataset, "ImageLaterality") or code(dataset, "Laterality"),
        "photometric": layout.photometric,
        "transfer_syntax": transfer_syntax,
        "bits_stored": layout.bits_stored,
        "burned_in_annotation": code(dataset, "BurnedInAnnotation"),
        "object_kind": object_kind(dataset),
        "spacing_row_mm": spacing[0] if spacing else None,
        "spacing_column_mm": spacing[1] if spacing else None,
    }


def code(dataset: Dataset, keyword: str) -> str | None:
    """A coded value in capitals (VR CS), or None where the text is anything else."""
    found = text(dataset, keyword)
    upper = found.upper() if found else ""
    return upper if _CODE.fullmatch(upper) else None


def _label(dataset: Dataset, keyword: str) -> str | None:
    """A short printable text, e.g. the manufacturer's name."""
    found = text(dataset, keyword)
    return found if found and len(found) <= 64 and found.isprintable() else None


def _sex(dataset: Dataset) -> str | None:
    found = code(dataset, "PatientSex")
    return found if found in ("M", "F", "O") else None


def _age_band(dataset: Dataset) -> str | None:
    """Age by decades, "90+" on top, so that no age identifies anybody (as HIPAA's safe harbour wants it)."""
    years = _age_years(dataset)
    if years is None or not 0 <= years <= 150:
        return None
    if years >= 90:
        return "90+"
    low = years // 10 * 10
    return f"{low}-{low + 9}"


def _age_years(dataset: Dataset) -> int | None:
    match = _AGE.fullmatch(text(dataset, "PatientAge") or "")
    if match:
        count = int(match[1])
        return {"D": count // 365, "W": count // 52, "M": count // 12, "Y": count}[match[2]]
    born = _DATE.fullmatch(text(dataset, "PatientBirthDate") or "")
    taken = _DATE.fullmatch(text(dataset, "StudyDate") or text(dataset, "AcquisitionDate") or "")
    if not born or not taken:
        return None
    birth, study = (tuple(int(part) for part in match.groups()) for match in (born, taken))
    return study[0] - birth[0] - (study[1:] < birth[1:])


def _slice_thickness(dataset: Dataset) -> float | None:
    found = number(dataset, "SliceThickness")
    if found is None:
        measures = macro(dataset, "PixelMeasuresSequence", frame=0)
        found = number(measures, "SliceThickness") if measures is not None else None
    return found


def read_spacing(dataset: Dataset, *, frame: int) -> tuple[tuple[float, float] | None, str | None]:
    """Distance of rows and of columns in mm, and the element that says so.

    Imager Pixel Spacing is the distance at the detector, larger than in the patient by the magnification
    (PS3.3 10.7.1.3); the name tells them apart.
    """
    measures = macro(dataset, "PixelMeasuresSequence", frame=frame)
    places = [(measures, "PixelSpacing")] if measures is not None else []
    places += [(dataset, key) for key in ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")]
    for source, keyword in places:
        found = numbers(source, keyword)
        if len(found) == 2 and min(found) > 0.0:
            return (found[0], found[1]), keyword
    return None, None


def read_depth_spacing(dataset: Dataset, *, frames: int) -> float | None:
    """Distance of the frames in mm, or None where they are no regular stack of slices (a cine loop, for one)."""
    measures = macro(dataset, "PixelMeasuresSequence", frame=0)
    for source in (measures, dataset):
        found = number(source, "SpacingBetweenSlices") if source is not None else None
        if found:
            return abs(found)
    places = numbers(dataset, "GridFrameOffsetVector")
    if len(places) != frames:
        places = _positions(dataset)
    if len(places) != frames or frames < 2:
        return None
    steps = [abs(after - before) for before, after in pairwise(places)]
    mean = sum(steps) / len(steps)
    return mean if mean > 0.0 and max(abs(step - mean) for step in steps) <= 0.01 * mean else None


def _positions(dataset: Dataset) -> tuple[float, ...]:
    """Distance of each frame from the first one, by Image Position (Patient)."""
    points = []
    for group in items(dataset, "PerFrameFunctionalGroupsSequence"):
        plane = items(group, "PlanePositionSequence")
        point = numbers(plane[0], "ImagePositionPatient") if plane else ()
        if len(point) != 3:
            return ()
        points.append(point)
    first = points[0] if points else ()
    return tuple(sum((a - b) ** 2 for a, b in zip(point, first, strict=True)) ** 0.5 for point in points)
