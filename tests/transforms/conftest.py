"""A folder of small CT-like DICOM files and its manifest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from lepton_vision.config import Config
from lepton_vision.manifest.table import Manifest
from lepton_vision.types import Target

ROWS = 10
TARGET = Target("finding", "binary", ("0", "1"))


def write_dicom(path: Path, pixels: np.ndarray) -> None:
    """Write (H, W) int16 Hounsfield units as an uncompressed CT slice."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[path.name])
    data = Dataset()
    data.file_meta = meta
    data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    data.PatientID, data.Modality = path.stem, "CT"
    data.Rows, data.Columns = pixels.shape
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = 16
    data.HighBit, data.PixelRepresentation = 15, 1
    data.RescaleSlope, data.RescaleIntercept, data.RescaleType = 1, 0, "HU"
    data.WindowCenter, data.WindowWidth = 40, 400
    data.PixelData = pixels.astype("<i2").tobytes()
    data.save_as(path, enforce_file_format=True)


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    """Ten usable slices, one rejected file between them; labels 0, 1, unknown."""
    folder = tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(0)
    rows = []
    for number in range(ROWS + 1):
        if number == 3:
            rows.append({"image_id": "bad", "path": "bad.dcm", "status": "rejected", "reason": "truncated"})
            continue
        write_dicom(folder / f"{number}.dcm", rng.integers(-200, 300, (40, 48)))
        label = None if number == 1 else number % 2
        rows.append({"image_id": f"id{number}", "path": f"{number}.dcm", "status": "ok", "finding": label})
    return Manifest(pd.DataFrame(rows), root=folder, label_columns=("finding",))


@pytest.fixture
def config() -> Config:
    """Small images, CT augmentation, no workers."""
    values = {"preprocess": {"size": [32, 32]}, "augment": {"preset": "ct"}, "train": {"batch_size": 4}}
    return Config.from_dict({**values, "targets": [{"name": "finding", "kind": "binary", "classes": ["0", "1"]}]})
