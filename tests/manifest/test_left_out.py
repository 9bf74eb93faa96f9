"""DICOM objects that are no images: left out with a message, and included on request."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pandas as pd
import pytest
from pydicom import dcmread, uid
from pydicom.dataset import FileDataset
from pydicom.sr.codedict import codes
from pydicom.uid import generate_uid

from lepton_vision.config import Config
from lepton_vision.errors import ManifestError
from lepton_vision.manifest import audit_manifest
from lepton_vision.manifest.table import Manifest
from lepton_vision.pipeline.prepare import with_kinds
from tests.manifest.dicom_series import write_series

RNG = np.random.default_rng(0)


def change(path: Path, *, to: Path, **elements: Any) -> FileDataset:
    """Copy a file with other elements and an instance of its own; None takes one out."""
    dataset = dcmread(path)
    for keyword, value in {"SOPInstanceUID": generate_uid(), **elements}.items():
        if value is None:
            del dataset[keyword]
        else:
            setattr(dataset, keyword, value)
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.save_as(to, enforce_file_format=True)
    return dataset


def write_segmentation(sources: list[Path], to: Path) -> None:
    """A DICOM Segmentation by highdicom, of two frames."""
    images = [dcmread(path) for path in sources]
    for number, image in enumerate(images):
        image.PatientName = image.PatientBirthDate = image.PatientSex = image.StudyDate = image.StudyTime = ""
        image.AccessionNumber = image.ReferringPhysicianName = image.StudyID = image.PositionReferenceIndicator = ""
        image.FrameOfReferenceUID, image.SliceThickness, image.InstanceNumber = "1.2.3", 2.0, number
    organ = hd.seg.SegmentDescription(1, "lung", codes.SCT.Organ, codes.SCT.Lung, "MANUAL")
    mask = np.zeros((len(images), images[0].Rows, images[0].Columns), np.uint8)
    mask[:2, 2:4, 2:5] = 1
    own = {"series_instance_uid": generate_uid(), "sop_instance_uid": generate_uid(), "device_serial_number": "1"}
    own |= {"manufacturer": "m", "manufacturer_model_name": "x", "software_versions": "1"}
    hd.seg.Segmentation(images, mask, "BINARY", [organ], series_number=2, instance_number=1, **own).save_as(to)


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Two patients: a CT of three slices each, a scout, a segmentation, a screen and a report."""
    root = tmp_path / "study"
    for patient in ("A", "B"):
        folder = root / patient
        slices = write_series(folder, RNG.integers(-90, 90, (3, 6, 8)), patient=patient, series=patient)
        beside = {"SeriesInstanceUID": generate_uid()}
        change(slices[0], to=folder / "scout.dcm", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], **beside)
        capture = {"SOPClassUID": uid.SecondaryCaptureImageStorage, "SeriesInstanceUID": generate_uid()}
        change(slices[0], to=folder / "screen.dcm", ImagePositionPatient=None, **capture)
        report = {"SOPClassUID": uid.BasicTextSRStorage, "Modality": "SR", "SeriesInstanceUID": generate_uid()}
        change(slices[0], to=folder / "report.dcm", PixelData=None, Rows=None, Columns=None, **report)
        write_segmentation(slices, folder / "seg.dcm")
    pd.DataFrame({"PatientID": ["A", "B"], "finding": [0, 1]}).to_csv(tmp_path / "labels.csv", index=False)
    return root


@pytest.mark.parametrize("volumes", [False, True])
def test_what_is_no_image_is_a_rejected_row(study: Path, volumes: bool, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        manifest = Manifest.scan(study, labels=study.parent / "labels.csv", volumes=volumes, workers=1)
    assert len(manifest.ok) == (2 if volumes else 6)
    assert manifest.rejected == {"localizer": 2, "no_pixels": 2, "secondary_capture": 2, "segmentation": 2}
    finding = next(one for one in audit_manifest(manifest).findings if one.kind == "rejected")
    assert all(text in finding.message for text in ("localizer: 2", "segmentation: 2", "secondary_capture: 2"))
    kinds = "segmentation,secondary_capture" if volumes else "segmentation,localizer,secondary_capture"
    assert f"--include {kinds} takes them in" in caplog.text  # the planes of a localizer are no volume


def test_what_is_asked_for_is_a_sample(study: Path) -> None:
    manifest = Manifest.scan(study, include=["localizer", "segmentation"], workers=1)
    kinds = manifest.ok.frame["object_kind"].value_counts().to_dict()
    assert kinds == {"segmentation": 4, "localizer": 2}  # a segmentation has a row for each of its two frames
    assert manifest.rejected == {"no_pixels": 2, "secondary_capture": 2}
    assert with_kinds(Config(), manifest).scan.include == ("segmentation", "localizer")
    with pytest.raises(ManifestError, match="Did you mean 'localizer'"):
        Manifest.scan(study, include=["localiser"])


@pytest.mark.parametrize("volumes", [False, True])
def test_captures_without_another_image_are_the_images(
    study: Path, volumes: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """RSNA Pneumonia and CBIS-DDSM are stored as secondary captures."""
    for path in study.rglob("*.dcm"):
        if path.name in ("screen.dcm", "seg.dcm"):
            path.unlink()
        elif path.name not in ("report.dcm", "scout.dcm"):
            change(path, to=path, SOPClassUID=uid.SecondaryCaptureImageStorage)
    manifest = Manifest.scan(study, volumes=volumes, workers=1)
    assert len(manifest.ok) == (2 if volumes else 6)
    assert manifest.rejected == {"localizer": 2, "no_pixels": 2}
    assert manifest.ok.frame["pixel_hash"].notna().all()
    assert "All DICOM images here are secondary captures" in caplog.text
    assert with_kinds(Config(), manifest).scan.include == ("secondary_capture",)


def test_a_scan_that_leaves_nothing_names_the_setting(study: Path) -> None:
    for path in study.rglob("*.dcm"):
        if path.name != "seg.dcm":
            path.unlink()
    with pytest.raises(ManifestError, match="--include segmentation takes them in"):
        Manifest.scan(study)


def test_processes_leave_out_the_same(study: Path) -> None:
    alone, together = (Manifest.scan(study, include=["localizer"], workers=count) for count in (1, 2))
    pd.testing.assert_frame_equal(alone.frame, together.frame)
