"""Palettes as headers have them, against entries that were written by hand (PS3.3 C.7.6.3.1.5, C.7.9.2)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from pydicom import dcmread
from pydicom.pixels import apply_color_lut

from lepton_vision.errors import ReadError
from lepton_vision.readers.image import read_image, read_pixels

Make = Callable[..., Path]
INDICES = np.arange(16, dtype=np.uint8).reshape(2, 8)
TENS = np.arange(16) * 10


def make_palette(
    make_dicom: Make,
    pixels: npt.NDArray[np.generic],
    *,
    data: bytes,
    descriptor: list[int],
    prefix: str = "",
    **elements: object,
) -> Path:
    """A palette image with the same table for each color."""
    for color in ("Red", "Green", "Blue"):
        elements[f"{color}PaletteColorLookupTableDescriptor"] = descriptor
        elements[f"{prefix}{color}PaletteColorLookupTableData"] = data
    return make_dicom(pixels, PhotometricInterpretation="PALETTE COLOR", **elements)


@pytest.mark.parametrize(
    ("data", "bits", "top"),
    [
        (TENS.astype("u1").tobytes(), 8, 255.0),
        (TENS.astype("<u2").tobytes(), 8, 255.0),  # eight bits in words
        ((TENS * 256).astype("<u2").tobytes(), 8, 65535.0),  # words, whatever the descriptor says
        (TENS.astype("u1").tobytes(), 16, 255.0),
        (TENS.astype("<u2").tobytes(), 16, 65535.0),
        ((TENS * 256).astype("<u2").tobytes(), 16, 65535.0),
        ((TENS * 16).astype("<u2").tobytes(), 12, 4095.0),
    ],
)
def test_the_range_is_that_of_the_entries(make_dicom: Make, data: bytes, bits: int, top: float) -> None:
    path = make_palette(make_dicom, INDICES, data=data, descriptor=[16, 0, bits])
    expected = np.frombuffer(data, dtype="u1" if len(data) == 16 else "<u2").reshape(2, 8)
    for image in (read_image(path), read_pixels(path)):
        assert image.value_range == (0.0, top)
        np.testing.assert_array_equal(image.pixels, np.stack([expected] * 3))
    if bits != 12:  # which pydicom does not know
        np.testing.assert_array_equal(read_image(path).pixels[0], apply_color_lut(INDICES, dcmread(path))[..., 0])


def test_more_entries_than_bytes_can_count(make_dicom: Make) -> None:
    """The index does not wrap at the width of an entry, as pydicom's does."""
    entries = (np.arange(600) // 3).astype("u1")
    pixels = np.array([[0, 255, 256], [300, 599, 65535]], dtype=np.uint16)
    path = make_palette(make_dicom, pixels, data=entries.tobytes(), descriptor=[600, 0, 8])
    assert read_image(path).pixels[0].tolist() == [[0, 85, 85], [100, 199, 199]]


@pytest.mark.parametrize("first", [-3, 65533])
def test_first_value_has_the_sign_of_the_pixels(make_dicom: Make, first: int) -> None:
    pixels = np.array([[-9, -3, -2], [0, 12, 99]], dtype=np.int16)
    path = make_palette(make_dicom, pixels, data=TENS.astype("u1").tobytes(), descriptor=[16, 0, 8])
    dataset = dcmread(path)
    for color in ("Red", "Green", "Blue"):
        element = dataset[f"{color}PaletteColorLookupTableDescriptor"]
        element.VR, element.value = "SS" if first < 0 else "US", [16, first, 8]
    dataset.save_as(path)
    assert read_image(path).pixels[0].tolist() == [[0, 0, 10], [30, 150, 150]]


def test_an_odd_number_of_bytes_is_padded(make_dicom: Make) -> None:
    data = TENS.astype("u1")[:15].tobytes() + b"\0"
    path = make_palette(make_dicom, INDICES, data=data, descriptor=[15, 0, 8])
    assert read_image(path).pixels[0].ravel().tolist() == [*range(0, 150, 10), 140]


def test_65536_entries_are_written_as_none(make_dicom: Make) -> None:
    entries = np.arange(65536)[::-1].astype("<u2")
    path = make_palette(make_dicom, np.array([[0, 65535]], np.uint16), data=entries.tobytes(), descriptor=[0, 0, 16])
    assert read_image(path).pixels[0].tolist() == [[65535, 0]]


@pytest.mark.parametrize(
    ("segments", "bits", "expected"),
    [
        ([0, 1, 10, 1, 15, 40], 8, [10 + 2 * step for step in range(16)]),
        ([0, 1, 1000, 1, 15, 4000], 16, [1000 + 200 * step for step in range(16)]),
        # Three values, five to 100, and both segments once more: a copy of two segments from byte 0.
        ([0, 3, 1, 2, 5, 1, 5, 100, 2, 2, 0, 0], 16, [1, 2, 5, 24, 43, 62, 81, 100] * 2),
        # The same from the second segment, at byte 10; it goes on from the last value.
        (
            [0, 3, 1, 2, 100, 1, 5, 0, 0, 3, 7, 8, 9, 2, 1, 10, 0], 16,
            [1, 2, 100, 80, 60, 40, 20, 0, 7, 8, 9, 7, 5, 4, 2, 0],
        ),
    ],
)  # fmt: skip
def test_segmented(make_dicom: Make, segments: list[int], bits: int, expected: list[int]) -> None:
    data = np.array(segments, dtype="u1" if bits == 8 else "<u2").tobytes()
    path = make_palette(make_dicom, INDICES, data=data, descriptor=[16, 0, bits], prefix="Segmented")
    np.testing.assert_allclose(read_image(path).pixels[0].ravel(), expected, atol=0.5)


@pytest.mark.parametrize(
    ("data", "descriptor", "prefix"),
    [
        (b"\0" * 10, [16, 0, 8], ""),
        (b"\0" * 10, [4, 0, 17], ""),
        (b"\3\0\1\0\0\0", [16, 0, 16], "Segmented"),
        (b"\1\0\20\0\0\0", [16, 0, 16], "Segmented"),  # a line from nowhere
        (b"\0\0\1\0\1\0\2\0\1\0\6\0\0\0", [16, 0, 16], "Segmented"),  # a copy of itself
    ],
)
def test_damaged(make_dicom: Make, data: bytes, descriptor: list[int], prefix: str) -> None:
    path = make_palette(make_dicom, INDICES, data=data, descriptor=descriptor, prefix=prefix)
    with pytest.raises(ReadError) as caught:
        read_image(path)
    assert caught.value.reason == "corrupt"


def test_tables_of_different_widths_are_refused(make_dicom: Make) -> None:
    data = TENS.astype("u1").tobytes()
    path = make_palette(make_dicom, INDICES, data=data, descriptor=[16, 0, 16])
    dataset = dcmread(path)
    dataset.BluePaletteColorLookupTableData = TENS.astype("<u2").tobytes()
    dataset.save_as(path)
    with pytest.raises(ReadError, match="differ in their width"):
        read_image(path)
