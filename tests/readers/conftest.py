"""Synthetic DICOM files for the tests of the readers."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import config
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

SECRETS = {
    "PatientName": "Zzyzx^Planted",
    "PatientID": "MRN-PLANTED-4711",
    "PatientBirthDate": "19510203",
    "PatientAddress": "Planted Street 5",
    "InstitutionName": "Planted Hospital",
    "ReferringPhysicianName": "Referrer^Planted",
    "StudyDescription": "Planted description",
    "AccessionNumber": "ACC-PLANTED",
    "PatientComments": "Planted comment",
    "OperatorsName": "Operator^Planted",
}


@pytest.fixture(scope="module")
def corpus(shared: Path) -> Path:
    folder = shared / "corpus"
    if not folder.is_dir():
        pytest.skip("the DICOM corpus is not here: set LEPTON_VISION_DATA to the folder that holds corpus/")
    return folder


@pytest.fixture
def secrets() -> dict[str, str]:
    """Patient data that no output may hold."""
    return SECRETS


@pytest.fixture
def make_dicom(tmp_path: Path) -> Callable[..., Path]:
    """Write a DICOM file of ``pixels`` with further elements by keyword, and return its path."""

    def make(pixels: np.ndarray, *, syntax: str = ExplicitVRLittleEndian, name: str = "a.dcm", **elements: Any) -> Path:
        dataset = Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = syntax
        dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, generate_uid()
        dataset.SeriesInstanceUID, dataset.StudyInstanceUID = generate_uid(), generate_uid()
        dataset.Modality = "CT"
        is_color = pixels.ndim >= 3 and pixels.shape[-1] == 3
        dataset.Rows, dataset.Columns = pixels.shape[-3:-1] if is_color else pixels.shape[-2:]
        if pixels.ndim == (4 if is_color else 3):
            dataset.NumberOfFrames = pixels.shape[0]
        dataset.SamplesPerPixel = 3 if is_color else 1
        if is_color:
            dataset.PlanarConfiguration = 0
        dataset.PhotometricInterpretation = "RGB" if is_color else "MONOCHROME2"
        bits = pixels.dtype.itemsize * 8
        dataset.BitsAllocated = dataset.BitsStored = bits
        dataset.HighBit = bits - 1
        dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
        for keyword, value in SECRETS.items():
            setattr(dataset, keyword, value)
        if pixels.dtype.kind == "f":
            keyword = "FloatPixelData" if bits == 32 else "DoubleFloatPixelData"
            setattr(dataset, keyword, pixels.tobytes())
        else:
            data = pixels.tobytes()
            dataset.PixelData = data + b"\0" * (len(data) % 2)
            dataset["PixelData"].VR = "OB" if bits == 8 else "OW"
        path = tmp_path / name
        with warnings.catch_warnings(action="ignore"), config.disable_value_validation():
            for keyword, value in elements.items():
                setattr(dataset, keyword, value)
            dataset.save_as(path, enforce_file_format=True)
        return path

    return make
