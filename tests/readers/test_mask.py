"""Masks in DICOM images: stored values, however a monitor shows them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest

from lepton_vision.readers import read_image
from lepton_vision.readers.mask import read_mask


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("modality", ["OT", "MG"])
def test_a_secondary_capture_holds_what_pydicom_reads(
    make_dicom: Callable[..., Path], photometric: str, modality: str
) -> None:
    lesion = np.zeros((6, 5), np.uint8)
    lesion[1:4, 2:4] = 255
    path = make_dicom(lesion, PhotometricInterpretation=photometric, Modality=modality)
    assert np.array_equal(read_mask(path).pixels[0], pydicom.dcmread(path).pixel_array)
    assert np.array_equal(read_image(path).pixels[0], lesion if photometric == "MONOCHROME2" else 255 - lesion)


def test_equal_channels_of_a_capture_are_one(make_dicom: Callable[..., Path]) -> None:
    lesion = np.eye(4, dtype=np.uint8)
    path = make_dicom(np.stack([lesion] * 3, axis=-1), Modality="OT")
    assert np.array_equal(read_mask(path).pixels[0], lesion)
