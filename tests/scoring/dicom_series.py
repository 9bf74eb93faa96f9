"""Synthetic DICOM series whose pixels are labels, so that the expected mask is known."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, ExplicitVRLittleEndian, generate_uid

PATIENT = {
    "PatientName": "Zzyzx^Plänted",
    "PatientID": "MRN-PLANTED-4711",
    "PatientBirthDate": "19510203",
    "PatientSex": "F",
    "AccessionNumber": "ACC-PLANTED",
    "StudyID": "S1",
    "StudyDate": "20200102",
    "StudyTime": "101112",
    "ReferringPhysicianName": "Referrer^Planted",
    "InstitutionName": "Planted Hospital",
}
ROWS, COLUMNS, LABELS = 7, 8, 4  # GDCM loses the last bits where H x W is no multiple of 8
SPACING = [0.75, 0.5]
AXIAL = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
_A, _B = np.radians(20), np.radians(30)
_X = np.array([[1, 0, 0], [0, np.cos(_A), -np.sin(_A)], [0, np.sin(_A), np.cos(_A)]])
_Z = np.array([[np.cos(_B), -np.sin(_B), 0], [np.sin(_B), np.cos(_B), 0], [0, 0, 1]])
OBLIQUE = (_Z @ _X)[:, :2].T
ORIGIN = np.array([-20.0, 30.0, 100.0])


def random_labels(*shape: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Labels 0 to 3 without any symmetry."""
    return np.random.default_rng(seed).integers(0, LABELS, shape).astype(np.uint8)


def header(pixels: npt.NDArray[Any], **elements: Any) -> Dataset:
    """Data set of one image, (H, W) or (N, H, W), with patient data in it."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, generate_uid()
    dataset.SeriesInstanceUID, dataset.StudyInstanceUID = generate_uid(), generate_uid()
    dataset.FrameOfReferenceUID = generate_uid()
    dataset.PositionReferenceIndicator = ""
    dataset.Modality, dataset.Manufacturer, dataset.SliceThickness = "CT", "Nobody", 99.0
    dataset.Rows, dataset.Columns = pixels.shape[-2:]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation = 15, 0
    dataset.PixelData = pixels.astype(np.uint16).tobytes()
    for keyword, value in {**PATIENT, **elements}.items():
        if value is None:
            dataset.pop(keyword, None)
        else:
            setattr(dataset, keyword, value)
    return dataset


def save(dataset: Dataset, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path


def write_series(
    folder: Path, distances: Sequence[float], *, ways: npt.NDArray[Any] = AXIAL, drift: float = 0.0, **elements: Any
) -> Path:
    """Slices at distances along the normal, under shuffled names and numbers; returns the folder."""
    uids = {"SeriesInstanceUID": generate_uid(), "StudyInstanceUID": generate_uid()}
    uids |= {"FrameOfReferenceUID": generate_uid()}
    names = np.random.default_rng(len(distances)).permutation(len(distances))
    values = random_labels(len(distances), ROWS, COLUMNS, seed=len(distances))
    for number, distance in enumerate(distances):
        position = ORIGIN + distance * np.cross(*ways) + number * drift * ways[1]
        own = {
            "ImagePositionPatient": [f"{part:.10g}" for part in position],
            "ImageOrientationPatient": [f"{part:.10g}" for part in ways.ravel()],
            "PixelSpacing": SPACING,
            "InstanceNumber": int(names[number]) + 1,
        }
        save(header(values[number], **{**uids, **own, **elements}), folder / f"{names[number]:03}.dcm")
    return folder


def write_enhanced(path: Path, distances: Sequence[float], *, ways: npt.NDArray[Any] = AXIAL, **elements: Any) -> Path:
    """One enhanced CT file, frames in the order of the distances."""
    values = random_labels(len(distances), ROWS, COLUMNS, seed=len(distances))
    frames = []
    for distance in distances:
        frame, place = Dataset(), Dataset()
        position = ORIGIN + distance * np.cross(*ways)
        place.ImagePositionPatient = [f"{part:.10g}" for part in position]
        frame.PlanePositionSequence = [place]
        frames.append(frame)
    shared, way, measures = Dataset(), Dataset(), Dataset()
    way.ImageOrientationPatient = [f"{part:.10g}" for part in ways.ravel()]
    measures.PixelSpacing, measures.SliceThickness = SPACING, 1.0
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [way], [measures]
    dataset = header(values, SOPClassUID=EnhancedCTImageStorage, SliceThickness=None, **elements)
    dataset.NumberOfFrames = len(distances)
    dataset.SharedFunctionalGroupsSequence, dataset.PerFrameFunctionalGroupsSequence = [shared], frames
    return save(dataset, path)
