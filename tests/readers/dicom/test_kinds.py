"""Kinds of DICOM objects that are no images, by the standard's SOP classes as pydicom names them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread, uid
from pydicom.dataset import Dataset

from lepton_vision.errors import ReadError
from lepton_vision.readers.image import probe, read_image, read_named, require_image

PIXELS = np.arange(48, dtype=np.uint16).reshape(6, 8)
CAPTURES = [
    uid.SecondaryCaptureImageStorage,
    uid.MultiFrameSingleBitSecondaryCaptureImageStorage,
    uid.MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    uid.MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    uid.MultiFrameTrueColorSecondaryCaptureImageStorage,
]
CASES: list[tuple[dict[str, Any], str | None]] = [
    *(({"SOPClassUID": name}, "secondary_capture") for name in CAPTURES),
    ({"SOPClassUID": uid.SegmentationStorage, "Modality": "SEG"}, "segmentation"),
    ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.66.7"}, "segmentation"),
    ({"SOPClassUID": uid.ParametricMapStorage, "Modality": "MR"}, "parametric_map"),
    ({"SOPClassUID": uid.RTDoseStorage, "Modality": "RTDOSE"}, "dose"),
    ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "localizer"),
    ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER", "CT_SOM5 TOP"]}, "localizer"),
    ({"ImageType": ["ORIGINAL", "PRIMARY", "SCOUT"], "Modality": "PT"}, "localizer"),
    ({"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}, "secondary_capture"),
    ({"ImageType": ["DERIVED", "SECONDARY", "OTHER", "CT_SOM5 PROT"]}, "secondary_capture"),
    ({"ImageType": ["DERIVED", "PRIMARY", "DIXON", "WATER"], "Modality": "MR"}, None),
    ({"ImageType": ["DERIVED", "SECONDARY", "MPR"]}, None),
    ({"ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"]}, None),
    ({"SOPClassUID": uid.UltrasoundMultiFrameImageStorage, "Modality": "US"}, None),
    ({"SOPClassUID": uid.VLPhotographicImageStorage, "Modality": "XC"}, None),
    ({"SOPClassUID": uid.RTImageStorage, "Modality": "RTIMAGE"}, None),
]


@pytest.mark.parametrize(("elements", "kind"), CASES)
def test_the_kind_stands_in_the_header(
    make_dicom: Callable[..., Path], elements: dict[str, Any], kind: str | None
) -> None:
    path = make_dicom(PIXELS, **elements)
    assert probe(path).facts["object_kind"] == kind
    for read in (read_image, read_named):
        image = read(path)
        assert image.facts["object_kind"] == kind
        assert require_image(image, include=(kind or "",)) is image
        if kind is not None:
            with pytest.raises(ReadError) as refused:
                require_image(image, include=())
            assert refused.value.reason == kind


@pytest.mark.parametrize("frames", [["LOCALIZER", "LOCALIZER"], ["LOCALIZER", "VOLUME"]])
def test_an_enhanced_object_of_localizers_alone_is_one(make_dicom: Callable[..., Path], frames: list[str]) -> None:
    groups = []
    for word in frames:
        kind, group = Dataset(), Dataset()
        kind.FrameType = ["ORIGINAL", "PRIMARY", word, "NONE"]
        group.MRImageFrameTypeSequence = [kind]
        groups.append(group)
    path = make_dicom(
        np.stack([PIXELS, PIXELS]),
        SOPClassUID=uid.EnhancedMRImageStorage,
        ImageType=["ORIGINAL", "PRIMARY", "MIXED", "NONE"],
        SharedFunctionalGroupsSequence=[Dataset()],
        PerFrameFunctionalGroupsSequence=groups,
    )
    assert probe(path).facts["object_kind"] == ("localizer" if len(set(frames)) == 1 else None)


@pytest.mark.parametrize(("sop", "reason"), [
    ("1.2.840.10008.5.1.4.1.1.88.33", "no_pixels"),  # Comprehensive SR
    ("1.2.840.10008.5.1.4.1.1.11.1", "no_pixels"),  # Grayscale Softcopy Presentation State
    ("1.2.840.10008.5.1.4.1.1.481.3", "no_pixels"),  # RT Structure Set
    ("1.2.840.10008.5.1.4.1.1.104.1", "no_pixels"),  # Encapsulated PDF
    ("1.2.840.10008.5.1.4.1.1.88.59", "no_pixels"),  # Key Object Selection
    ("1.3.12.2.1107.5.9.1", "no_pixels"),  # a vendor's own, CSA Non-Image Storage
    ("1.2.840.10008.5.1.4.1.1.2", "truncated"),  # CT
    ("1.2.840.10008.5.1.4.1.1.4.1", "truncated"),  # Enhanced MR
    ("1.2.840.10008.5.1.4.1.1.1.1", "truncated"),  # digital X-ray
    ("1.2.840.10008.5.1.4.1.1.7", "truncated"),  # Secondary Capture
    ("1.2.840.10008.5.1.4.1", "truncated"),  # cut off
    (None, "truncated"),
])  # fmt: skip
@pytest.mark.parametrize("has_size", [False, True])
def test_a_document_never_had_pixels_and_an_image_lost_them(
    make_dicom: Callable[..., Path], sop: str | None, reason: str, has_size: bool
) -> None:
    path = make_dicom(PIXELS)
    dataset = dcmread(path)
    del dataset.PixelData, dataset.SOPClassUID
    if not has_size:
        del dataset.Rows, dataset.Columns
    if sop is not None:
        dataset.SOPClassUID = sop
    dataset.save_as(path)
    for call in (read_image, probe):
        with pytest.raises(ReadError) as caught:
            call(path)
        assert caught.value.reason == ("truncated" if has_size else reason)
