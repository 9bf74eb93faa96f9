"""Small CT series and the DICOM Segmentations that highdicom makes of arrays."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian, RLELossless

SERIES = "1.2.3.10"
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
OBLIQUE = (0.8, 0.6, 0.0, -0.48, 0.64, 0.6)


def write_slice(
    path: Path, number: int, *, position: Sequence[float] | None, way: Sequence[float] = AXIAL, shape: Any = (7, 9)
) -> Dataset:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2" if position else "1.2.840.10008.5.1.4.1.1.1"
    meta.MediaStorageSOPInstanceUID = f"{SERIES}.{number}"
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    dataset.SeriesInstanceUID, dataset.StudyInstanceUID, dataset.PatientID = SERIES, "1.2.3", "P"
    texts = ("PatientName", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "AccessionNumber", "StudyID")
    for keyword in (*texts, "ReferringPhysicianName", "PositionReferenceIndicator", "Manufacturer"):
        setattr(dataset, keyword, "")
    dataset.Modality = "CT" if position else "CR"
    dataset.SeriesNumber, dataset.InstanceNumber = 1, number + 1
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    if position is not None:
        dataset.FrameOfReferenceUID = "1.2.3.77"
        dataset.ImagePositionPatient, dataset.ImageOrientationPatient = list(position), list(way)
        dataset.PixelSpacing, dataset.SliceThickness = [0.5, 0.7], 3
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 0
    dataset.PixelData = np.random.default_rng(number).integers(0, 99, shape, dtype=np.uint16).tobytes()
    dataset["PixelData"].VR = "OW"
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return dataset


def write_series(folder: Path, *, count: int = 6, way: Sequence[float] = AXIAL) -> list[Dataset]:
    normal = np.cross(way[:3], way[3:])
    start = np.array([-10.25, 4.5, 100.125])
    places = [(start + 3.0 * k * normal).tolist() for k in range(count)]
    return [write_slice(folder / f"{k}.dcm", k, position=place, way=way) for k, place in enumerate(places)]


def blobs(count: int = 6, *, segments: int = 2) -> np.ndarray:
    """(D, H, W) labels; each segment on slices of its own and one that it shares, none on the first and last."""
    labels = np.zeros((count, 7, 9), np.uint8)
    for k in range(segments):
        labels[1 + k : count - 2 + k, 1 + 3 * k : 3 + 3 * k, 1:5] = k + 1
    return labels


def write_seg(
    path: Path,
    sources: Sequence[Dataset],
    pixels: np.ndarray,
    *,
    segments: int = 2,
    kind: str = "BINARY",
    is_rle: bool = False,
    **more: Any,
) -> Path:
    import highdicom  # takes a second

    described = [
        highdicom.seg.SegmentDescription(
            segment_number=k + 1,
            segment_label=f"s{k + 1}",
            segmented_property_category=codes.SCT.Organ,
            segmented_property_type=codes.SCT.Lung,
            algorithm_type="MANUAL",
        )
        for k in range(segments)
    ]
    made = highdicom.seg.Segmentation(
        source_images=sources,
        pixel_array=pixels,
        segmentation_type=kind,
        segment_descriptions=described,
        series_instance_uid="1.2.3.99",
        series_number=2,
        sop_instance_uid="1.2.3.99.1",
        instance_number=1,
        manufacturer="m",
        manufacturer_model_name="m",
        software_versions="1",
        device_serial_number="1",
        **more,
    )
    if is_rle:  # by pydicom itself: GDCM, which may be its first choice, ends the process at frames of odd size
        made.compress(RLELossless, encoding_plugin="pydicom", generate_instance_uid=False)
    made.save_as(path)
    return path
