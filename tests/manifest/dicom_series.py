"""Small DICOM series on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid


def write_series(
    folder: Path,
    volume: np.ndarray,
    *,
    patient: str,
    series: str,
    spacing: tuple[float, float, float] = (2.0, 0.5, 0.5),
) -> list[Path]:
    """Write (D, H, W) Hounsfield units as axial slices, the topmost first; ``series`` seeds the UIDs."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in range(len(volume)):
        place = len(volume) - 1 - number
        meta = FileMetaDataset()
        meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, CTImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[series, str(number)])
        data: Any = Dataset()
        data.file_meta = meta
        data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        data.SeriesInstanceUID = generate_uid(entropy_srcs=[series])
        data.StudyInstanceUID = generate_uid(entropy_srcs=["study", patient])
        data.PatientID, data.Modality, data.Manufacturer = patient, "CT", "Maker"
        data.Rows, data.Columns = volume.shape[1:]
        data.ImagePositionPatient = [0, 0, place * spacing[0]]
        data.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        data.PixelSpacing = list(spacing[1:])
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.BitsAllocated = data.BitsStored = 16
        data.HighBit, data.PixelRepresentation = 15, 1
        data.RescaleSlope, data.RescaleIntercept, data.RescaleType = 1, 0, "HU"
        data.PixelData = volume[place].astype("<i2").tobytes()
        path = folder / f"{series}-{number}.dcm"
        data.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths
