"""Header facts of an image, without pixels and without patient data."""

from __future__ import annotations

from dataclasses import dataclass, field

Fact = str | int | float | None

# Every fact a DICOM file may give; other formats leave them None.
FACT_NAMES: tuple[str, ...] = (
    "sex",
    "age_band",
    "manufacturer",
    "model_name",
    "site",
    "kvp",
    "slice_thickness_mm",
    "body_part",
    "view_position",
    "laterality",
    "photometric",
    "transfer_syntax",
    "bits_stored",
    "burned_in_annotation",
    "object_kind",
    "spacing_row_mm",
    "spacing_column_mm",
)


@dataclass(frozen=True, slots=True)
class FileFacts:
    """Header of one file, read without decoding.

    Attributes:
        source_format: "dicom", "nifti", "png", "jpeg", "tiff" or "npz".
        frames: frames, pages, slices or npz entries; each can be read by its number.
        rows: H of a frame.
        columns: W of a frame.
        image_id: pseudonymous id of the file; ``read_image(frame=i)`` appends ``-i``. Empty of a NIfTI file, whose id
            is of its voxels; entries of an npz file have ids of their own.
        series_id: pseudonymous id, or None.
        study_id: pseudonymous id, or None.
        patient_id: pseudonymous id, or None where the file does not say.
        modality: DICOM Modality, or None.
        facts: the names in ``FACT_NAMES``; None means unknown, never "no".
    """

    source_format: str
    frames: int
    rows: int
    columns: int
    image_id: str
    series_id: str | None = None
    study_id: str | None = None
    patient_id: str | None = None
    modality: str | None = None
    facts: dict[str, Fact] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RawIds:
    """Identifiers as the header has them: for joining a label table in memory, never stored, logged or shown."""

    sop_uid: str | None = field(default=None, repr=False)
    series_uid: str | None = field(default=None, repr=False)
    study_uid: str | None = field(default=None, repr=False)
    patient_id: str | None = field(default=None, repr=False)


def no_facts() -> dict[str, Fact]:
    """All facts unknown: what a raster file says."""
    return dict.fromkeys(FACT_NAMES)
