"""Predicted masks as DICOM Segmentation objects (PS3.3 A.51): the doorway to highdicom.

A DICOM Segmentation belongs to the record of its patient. It carries the name, the identifiers and the study of its
source images, because a PACS files it by them; it and the report of scores (``report``) are the only things that
lepton_vision writes with patient data in them, and they are written only where they are asked for. File names, messages
and logs hold none, as everywhere.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from lepton_vision._version import __version__
from lepton_vision.errors import ScoringError
from lepton_vision.files import atomic_file
from lepton_vision.readers.dicom.sources import has_place, read_sources, read_time
from lepton_vision.readers.limits import DEFAULT_LIMITS, Limits
from lepton_vision.readers.quiet import quiet
from lepton_vision.readers.versions import package_version
from lepton_vision.scoring.dicom.source_slices import PlacedMask, place_on_source
from lepton_vision.scoring.masks.label_maps import check_labels, mask_suffix
from lepton_vision.types import Image

Code = tuple[str, str, str]
AlgorithmType = Literal["AUTOMATIC", "SEMIAUTOMATIC", "MANUAL"]

TISSUE: Code = ("85756007", "SCT", "Tissue")  # CID 7150 and CID 7151: says least and is true of most
PRODUCT = "lepton_vision"
AI_FAMILY: Code = ("123109", "DCM", "Artificial Intelligence")  # CID 7162
_NAMESPACE = uuid.UUID("0c0a5a34-7f0e-5d0c-9d3a-6a3c9a1b7e52")  # of the UIDs made here; must never change
_SERIES_NUMBER = 9001  # behind those of the scanner
_LONGEST = 64  # characters of VR LO
_NO_DATE = ("19700101", "000000")  # Content Date must have a value


@dataclass(frozen=True, slots=True)
class SegmentationInfo:
    """Description of a DICOM Segmentation inside the object.

    Attributes:
        bundle_id: of the model that predicted the mask; empty for a mask of another origin.
        codes: by structure, what it is: (value, scheme, meaning), e.g. ("10200004", "SCT", "Liver"), from SNOMED CT
            (CID 7151). Not named: tissue.
        categories: by structure, of which kind that is (CID 7150), e.g. ("123037004", "SCT", "Anatomical Structure")
            or ("49755003", "SCT", "Morphologically Altered Structure"). Not named: tissue.
        algorithm_type: "AUTOMATIC", "SEMIAUTOMATIC" or "MANUAL".
        algorithm_name: who made the mask; empty: lepton_vision where there is a bundle, else "not stated".
        algorithm_version: empty: that of lepton_vision where there is a bundle, else "not stated".
        created: written as Content Date and Time. None takes those of the source, so that a repeated export gives the
            same bytes; the source says nothing about the day of the export then.
    """

    bundle_id: str = ""
    codes: Mapping[str, Code] = field(default_factory=dict)
    categories: Mapping[str, Code] = field(default_factory=dict)
    algorithm_type: AlgorithmType = "AUTOMATIC"
    algorithm_name: str = ""
    algorithm_version: str = ""
    created: datetime | None = None


def write_segmentation(
    labels: npt.NDArray[np.uint8],
    path: str | Path,
    *,
    image: Image,
    source: str | Path | Sequence[str | Path],
    structures: Sequence[str],
    series: str | None = None,
    info: SegmentationInfo | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> Path:
    """Write a label map as a binary DICOM Segmentation that refers to its source images.

    THE FILE HOLDS PATIENT DATA: name, id, birth date, study and the rest of the patient and study modules of the
    source, as the standard wants it for filing in a PACS (PS3.3 A.51). Treat it as the source itself; it is readable by
    its owner alone (mode 0600).

    Slices go to source instances (or frames of one enhanced file) by their position, whatever the order of the files
    and the axes of ``image``. Frames without a voxel are left out. A mask without any voxel gets an empty frame for
    each slice and structure, since an object without frames is not valid, and reads as what it is: looked at, nothing
    found. Every structure is described, found or not. A single slice whose header states no thickness gets 1 mm.

    The same labels, source, names and ``info`` give the same bytes and UIDs; another mask of the same source and bundle
    goes to the same series under a UID of its own.

    Args:
        labels: (H, W) or (D, H, W) uint8 on the grid of ``image``; 0 background, k the k-th structure.
        path: file to write (``.dcm``), whole or not at all.
        image: as it was read from ``source``, perhaps reoriented; neither resampled nor repaired.
        source: DICOM files, or their folder. A single image for (H, W). A volume: single-frame files, or one enhanced
            file.
        structures: names in order; Segment Label, at most 64 characters.
        series: pseudonymous id of the series in ``source``, where there are several.
        info: codes, origin and time.
        limits: what a file of ``source`` may cost.

    Returns:
        ``path``.

    Raises:
        ScoringError: labels or names as they must not be; files of another series; an image that was resampled, filled
            or sheared; a source without a Frame of Reference, or of a kind that a Segmentation cannot refer to.
        ReadError: ``source`` cannot be read.

    Example:
        >>> image = read_image("study/ct")  # doctest: +SKIP
        >>> info = SegmentationInfo(bundle.bundle_id, codes={"liver": ("10200004", "SCT", "Liver")})  # doctest: +SKIP
        >>> write_segmentation(
        ...     labels, "seg.dcm", image=image, source="study/ct", structures=("liver",), info=info
        ... )  # doctest: +SKIP
    """
    path, info = Path(path), info or SegmentationInfo()
    mask_suffix(path, known=(".dcm",))
    check_labels(labels, image=image, structures=structures)
    check_info(info, structures=structures)
    with quiet:  # values of headers must reach no log
        mask = place_on_source(labels, image=image, files=read_sources(source, series=series, limits=limits))
        segmentation = _build(mask, structures=tuple(structures), info=info)
        with atomic_file(path, private=True) as file:
            segmentation.save_as(file, enforce_file_format=True)
    return path


def check_info(info: SegmentationInfo, *, structures: Sequence[str]) -> None:
    """Texts must fit their value representation; a code needs a structure."""
    for name in structures:
        check_text(name, "structures")
    for key, codes in (("codes", info.codes), ("categories", info.categories)):
        unknown = sorted(set(codes) - set(structures))
        if unknown:
            raise ScoringError(
                f"Expected {key} for structures that are there: {', '.join(structures)}. Received: {unknown[0]!r}.",
                key=key,
            )
        for code in codes.values():
            check_code(code, key)
    for key in ("algorithm_name", "algorithm_version", "bundle_id"):
        if getattr(info, key):
            check_text(getattr(info, key), key)
    if info.algorithm_type not in ("AUTOMATIC", "SEMIAUTOMATIC", "MANUAL"):
        raise ScoringError(
            f"Expected AUTOMATIC, SEMIAUTOMATIC or MANUAL. Received: {info.algorithm_type!r}.", key="algorithm_type"
        )


def check_code(code: Code, key: str) -> None:
    """Refuse what is no (value, scheme, meaning)."""
    if len(code) != 3:
        raise ScoringError(
            f"Expected a code as (value, scheme, meaning). Received: {len(code)} parts. E.g. ('10200004', 'SCT', "
            "'Liver').",
            key=key,
        )
    for part, longest in zip(code, (16, 16, _LONGEST), strict=True):
        check_text(part, key, longest=longest)


def check_text(value: str, key: str, *, longest: int = _LONGEST) -> None:
    """Refuse what VR LO and SH cannot hold (PS3.5 6.2)."""
    is_plain = isinstance(value, str) and value.isprintable() and "\\" not in value
    if not (is_plain and value == value.strip() and 1 <= len(value) <= longest):
        raise ScoringError(
            f"DICOM texts here have 1 to {longest} characters, no backslash, line break or outer blank. Received: "
            f"{value!r}.",
            key=key,
        )


def _build(mask: PlacedMask, *, structures: tuple[str, ...], info: SegmentationInfo) -> Any:
    """Segmentation by highdicom, the same for the same input."""
    from highdicom.seg import Segmentation

    header = mask.headers[0]
    day, time = content_time(mask.headers, info.created)
    series_uid, own_uid = _uids(mask, structures=structures, info=info, time=(day, time))
    try:
        segmentation = Segmentation(
            source_images=list(mask.headers),
            pixel_array=mask.labels,
            segmentation_type="BINARY",
            segment_descriptions=[_describe(k, name, info) for k, name in enumerate(structures, start=1)],
            series_instance_uid=series_uid,
            series_number=_SERIES_NUMBER,
            sop_instance_uid=own_uid,
            instance_number=1,
            manufacturer=PRODUCT,
            manufacturer_model_name=PRODUCT,
            software_versions=__version__,
            device_serial_number=info.bundle_id or "none",
            content_label="SEGMENTATION",
            content_description=f"Segmentation of {len(structures)} structure(s)",
            content_creator_name=PRODUCT,
            series_description="Segmentation",
            content_date=day,
            content_time=time,
            specific_character_set="ISO_IR 192",  # UTF-8 holds the patient's name and every structure's
        )
    except Exception as error:  # highdicom raises many kinds, and quotes header values
        raise _refusal(header, error) from None
    _settle(segmentation, mask, uid=own_uid, time=(day, time))
    return segmentation


def _refusal(header: Any, error: Exception) -> ScoringError:
    """Why highdicom cannot derive a Segmentation from this source, as far as that is known, in words of our own."""
    if not header.get("FrameOfReferenceUID"):
        return ScoringError(
            "Expected source images with a Frame of Reference UID: without it positions mean nothing. Received: none "
            "in the header. Write .nii.gz or .png.",
            key="source",
        )
    return ScoringError(
        f"Expected single-frame images, or an enhanced multi-frame file with functional groups, of a SOP class that is "
        f"not retired. Received: something else ({type(error).__name__}). Write .nii.gz or .png.",
        key="source",
    )


def _describe(number: int, name: str, info: SegmentationInfo) -> Any:
    from highdicom import AlgorithmIdentificationSequence
    from highdicom.seg import SegmentDescription
    from highdicom.sr import CodedConcept

    is_ours = bool(info.bundle_id)
    algorithm = AlgorithmIdentificationSequence(
        name=info.algorithm_name or (PRODUCT if is_ours else "not stated"),
        family=CodedConcept(*AI_FAMILY),
        version=info.algorithm_version or (__version__ if is_ours else "not stated"),
        parameters={"bundle_id": info.bundle_id} if is_ours else None,
    )
    return SegmentDescription(
        segment_number=number,
        segment_label=name,
        segmented_property_category=CodedConcept(*info.categories.get(name, TISSUE)),
        segmented_property_type=CodedConcept(*info.codes.get(name, TISSUE)),
        algorithm_type=info.algorithm_type,
        algorithm_identification=None if info.algorithm_type == "MANUAL" else algorithm,
    )


def content_time(headers: Iterable[Any], created: datetime | None) -> tuple[str, str]:
    """Content Date and Time: those given, or the latest of the source, so that a repeated run gives the same bytes."""
    if created is not None:
        return created.strftime("%Y%m%d"), created.strftime("%H%M%S.%f")
    return max((time for header in headers if (time := read_time(header))), default=_NO_DATE)


def fix_content_time(dataset: Any, *, time: tuple[str, str]) -> None:
    """Put the content time in place of what highdicom takes from the clock: a repeated run gives the same file."""
    for keyword in ("InstanceCreationDate", "InstanceCreationTime", "DateOfSecondaryCapture", "TimeOfSecondaryCapture"):
        if keyword in dataset:
            delattr(dataset, keyword)
    for equipment in dataset.get("ContributingEquipmentSequence", ()):
        equipment.ContributionDateTime = "".join(time)


def build_file(build: Callable[[], Any], *, expected: str) -> bytes:
    """Return the file of an object that highdicom builds; ``expected`` says what it is refused for.

    Raises:
        ScoringError: it cannot be built.
    """
    try:
        built = build()
    except Exception as error:  # highdicom raises many kinds, and quotes header values
        raise ScoringError(f"{expected} ({type(error).__name__}).", key="source") from None
    file = BytesIO()
    built.save_as(file, enforce_file_format=True)
    return file.getvalue()


def _uids(
    mask: PlacedMask, *, structures: tuple[str, ...], info: SegmentationInfo, time: tuple[str, str]
) -> tuple[str, str]:
    """UIDs of the series and of the object (PS3.5 B.2): the same input, the same UIDs; other bytes, another object."""
    series = ["series", str(mask.headers[0].SeriesInstanceUID), info.bundle_id]
    content = [
        *("object", sorted(str(header.SOPInstanceUID) for header in mask.headers), mask.frame, structures),
        *(hashlib.sha256(mask.labels.tobytes()).hexdigest(), mask.labels.shape, asdict(info), time),
        *(__version__, package_version("highdicom")),
    ]
    return make_uid(series), make_uid([*series, *content])


def make_uid(parts: Sequence[Any]) -> str:
    """Return the UID that stands for some plain values, in every run (PS3.5 B.2)."""
    return f"2.25.{uuid.uuid5(_NAMESPACE, json.dumps(parts, sort_keys=True, default=str)).int}"


def _settle(segmentation: Any, mask: PlacedMask, *, uid: str, time: tuple[str, str]) -> None:
    """Replace what highdicom takes from the clock and from chance, and correct the reference to one frame of many."""
    organization = make_uid(["dimensions", uid])
    for item in (*segmentation.DimensionOrganizationSequence, *segmentation.DimensionIndexSequence):
        item.DimensionOrganizationUID = organization
    del segmentation.InstanceCreationDate, segmentation.InstanceCreationTime
    segmentation.ContributingEquipmentSequence[-1].ContributionDateTime = "".join(time)
    if mask.frame is not None:
        for group in segmentation.PerFrameFunctionalGroupsSequence:
            for derivation in group.DerivationImageSequence:
                derivation.SourceImageSequence[0].ReferencedFrameNumber = mask.frame + 1
    for measures in segmentation.SharedFunctionalGroupsSequence[0].get("PixelMeasuresSequence", ()):
        if len(mask.labels) == 1 and "SpacingBetweenSlices" in measures:
            del measures.SpacingBetweenSlices  # highdicom's 1 mm to a neighbour that is not there
    if not has_place(mask.headers[0]):
        segmentation.PatientOrientation = mask.headers[0].get("PatientOrientation", "")  # type 2C (PS3.3 C.7.6.1)
    used = -(-int(segmentation.NumberOfFrames) * int(segmentation.Rows) * int(segmentation.Columns) // 8)
    if used % 2:  # highdicom 0.28 fills up with the character "0", the standard with a zero byte (PS3.5 8.1.1)
        segmentation.PixelData = segmentation.PixelData[:used] + b"\0"
