"""Header facts without patient data, for stratification but not identification."""

from __future__ import annotations

import re
from itertools import pairwise

from pydicom.dataset import Dataset

from lepton_vision.readers.dicom.header import items, number, numbers, text
from lepton_vision.readers.dicom.kinds import object_kind
from lepton_vision.readers.dicom.layout import PixelLayout
from lepton_vision.readers.dicom.lut import macro
from lepton_vision.readers.dicom.terms import Keyword, known_term
from lepton_vision.readers.facts import Fact, RawIds
from lepton_vision.readers.identity import pseudonym

_AGE = re.compile(r"(\d{1,3})([DWMY]?)")  # VR AS has three digits and a unit; fewer, and bare years, are found as well
_SNOMED = frozenset({"SCT", "SRT", "SNM3", "99SDM"})
# View Position (PS3.3 C.8.11.5, C.8.11.7) by code of SNOMED CT and its older form (PS3.16 CID 4010, 4014).
_VIEWS = {
    code: view
    for view, codes in {
        "AP": "399348003 R-10206", "PA": "272479007 R-40888 R-10214", "LL": "399173006 R-10236",
        "RL": "399198007 R-10232", "LATERAL": "399067008 R-102CD", "LAO": "399135007 R-10220",
        "RAO": "399356000 R-40985", "LPO": "399006002 R-10212", "RPO": "399038007 R-10210", "MLO": "399368009 R-10226",
        "CC": "399162004 R-10242", "ML": "399260004 R-10224", "LM": "399352003 R-10228", "LMO": "399099002 R-10230",
        "FB": "399196006 R-10244", "SIO": "399188001 R-102D0", "ISO": "441555000 R-40AAA",
        "XCCL": "399192008 R-1024A", "XCCM": "399101009 R-1024B",
    }.items()
    for code in codes.split()
}  # fmt: skip
_SIDES = {
    code: side
    for side, codes in {"R": "24028007 G-A100", "L": "7771000 G-A101", "B": "51440002 G-A102"}.items()
    for code in codes.split()
}
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
        "manufacturer": known_term("Manufacturer", text(dataset, "Manufacturer")),
        "model_name": known_term("ManufacturerModelName", text(dataset, "ManufacturerModelName")),
        "site": pseudonym("site", site) if site else None,
        "kvp": number(dataset, "KVP"),
        "slice_thickness_mm": _slice_thickness(dataset),
        "body_part": code(dataset, "BodyPartExamined"),
        "view_position": code(dataset, "ViewPosition") or _coded(dataset, "ViewCodeSequence", terms=_VIEWS),
        "laterality": _laterality(dataset),
        "photometric": layout.photometric,
        "transfer_syntax": known_term("TransferSyntaxUID", transfer_syntax),
        "bits_stored": layout.bits_stored,
        "burned_in_annotation": code(dataset, "BurnedInAnnotation"),
        "object_kind": object_kind(dataset),
        "spacing_row_mm": spacing[0] if spacing else None,
        "spacing_column_mm": spacing[1] if spacing else None,
    }


def code(dataset: Dataset, keyword: Keyword) -> str | None:
    """A coded value in capitals (VR CS), the category of one that the standard does not know, or None."""
    return known_term(keyword, text(dataset, keyword))


def _coded(dataset: Dataset, keyword: str, *, terms: dict[str, str]) -> str | None:
    """Term of the first code in a sequence, or None where it is none of ``terms``."""
    for item in items(dataset, keyword)[:1]:
        if text(item, "CodingSchemeDesignator") in _SNOMED:
            return terms.get(text(item, "CodeValue") or "")
    return None


def _laterality(dataset: Dataset) -> str | None:
    """Side of the image: of the whole file, else of its frames where they agree, else of the region that it shows."""
    return (
        code(dataset, "ImageLaterality")
        or code(dataset, "Laterality")
        or _frame_laterality(dataset)
        or _region_side(dataset)
    )


def _frame_laterality(dataset: Dataset) -> str | None:
    """Frame Laterality of the functional groups (PS3.3 C.7.6.16.2.8), or None where frames differ."""
    shared = [_anatomy(group) for group in items(dataset, "SharedFunctionalGroupsSequence")[:1]]
    frames = [_anatomy(group) for group in items(dataset, "PerFrameFunctionalGroupsSequence")]
    sides = {side or (shared[0] if shared else None) for side in frames or [None]}
    return sides.pop() if len(sides) == 1 else None


def _anatomy(group: Dataset) -> str | None:
    """Side in one functional group."""
    for anatomy in items(group, "FrameAnatomySequence")[:1]:
        return code(anatomy, "FrameLaterality") or _region_side(anatomy)
    return None


def _region_side(dataset: Dataset) -> str | None:
    """Side as modifier of the anatomic region (PS3.16 CID 244)."""
    for region in items(dataset, "AnatomicRegionSequence")[:1]:
        return _coded(region, "AnatomicRegionModifierSequence", terms=_SIDES)
    return None


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
    match = _AGE.fullmatch((text(dataset, "PatientAge") or "").upper())
    if match:
        count = int(match[1])
        return {"D": count // 365, "W": count // 52, "M": count // 12}.get(match[2], count)
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
