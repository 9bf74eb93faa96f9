"""Headers of too many parts, and values of too many numbers, are refused before pydicom makes objects of them."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.filebase import DicomFileLike
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_dataset
from pydicom.sequence import Sequence
from pydicom.uid import EncapsulatedPDFStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from lepton_vision.errors import ReadError
from lepton_vision.manifest.record import describe_file
from lepton_vision.readers.dicom.bounds import _count_parts, check_sequences, most_parts
from lepton_vision.readers.image import probe, read_image
from lepton_vision.readers.limits import Limits

Make = Callable[..., Path]
GRAY = np.arange(64, dtype=np.uint16).reshape(8, 8)


def reason_of(call: Callable[..., object], *arguments: object, **options: object) -> str:
    with pytest.raises(ReadError) as caught:
        call(*arguments, **options)
    return caught.value.reason


def item(**elements: object) -> Dataset:
    dataset = Dataset()
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return dataset


def nested() -> Dataset:
    """Seven items, and seven elements in them."""
    code = item(CodeValue="1", CodingSchemeDesignator="SCT")
    region = item(AnatomicRegionSequence=Sequence([code]))
    return item(ViewCodeSequence=Sequence([region, region, item(CodeValue="2"), item(), Dataset()]))


@pytest.mark.parametrize(("is_implicit", "is_little"), [(False, True), (True, True), (False, False)])
def test_parts_of_a_sequence_are_counted_in_all_encodings(is_implicit: bool, is_little: bool) -> None:
    stream = io.BytesIO()
    target = DicomFileLike(stream)
    target.is_implicit_VR, target.is_little_endian = is_implicit, is_little
    write_dataset(target, nested())
    stream.seek(0)
    dataset = read_dataset(stream, is_implicit, is_little)
    raw = dataset.get_item(0x00540220)
    count = _count_parts(raw.value, is_implicit=is_implicit, is_little=is_little, most=1000)  # type: ignore[arg-type]
    # Items: five, and one in each of two regions. Elements: two regions, two times two of a code, one code value.
    assert count == 4 * 7 + 2 + 4 + 1
    check_sequences(dataset, Limits(seconds=1.0))
    assert reason_of(check_sequences, dataset, Limits(seconds=34 / most_parts(Limits(seconds=1.0)))) == "too_large"


@pytest.mark.parametrize("is_undefined", [True, False])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_a_sequence_of_very_many_items(make_dicom: Make, syntax: str, is_undefined: bool) -> None:
    path = make_dicom(GRAY, syntax=syntax, ReferencedImageSequence=Sequence([item(CodeValue="MARK")]))
    data = path.read_bytes()
    place = data.index(b"\x08\x00\x40\x11")
    end = data.index(b"MARK", place) + 4
    items = b"\xfe\xff\x00\xe0\0\0\0\0" * 140_000
    if is_undefined:
        length, items = b"\xff\xff\xff\xff", items + b"\xfe\xff\xdd\xe0\0\0\0\0"
    else:
        length = len(items).to_bytes(4, "little")
    head = data[place : place + 8] if syntax == ExplicitVRLittleEndian else data[place : place + 4]
    path.write_bytes(data[:place] + head + length + items + data[end:])
    for call in (read_image, probe):
        assert reason_of(call, path, limits=Limits(seconds=1.0)) == "too_large"
    np.testing.assert_array_equal(read_image(path, limits=Limits(seconds=60.0)).pixels[0], GRAY)


@pytest.mark.parametrize("keyword", ["WindowCenter", "PixelSpacing", "RescaleSlope", "ImageType", "PatientID"])
def test_a_value_of_very_many_numbers(make_dicom: Make, keyword: str) -> None:
    path = make_dicom(GRAY, syntax=ImplicitVRLittleEndian, **{keyword: ["1"] * 10_000})
    for call in (read_image, probe):
        assert reason_of(call, path) == "too_large"


def test_an_object_without_pixels_is_told_as_one_whatever_its_uid_is(make_dicom: Make) -> None:
    path = make_dicom(GRAY, syntax=ImplicitVRLittleEndian, SOPInstanceUID=["1.2"] * 10_000)
    for call in (read_image, probe):
        assert reason_of(call, path) == "too_large"
    dataset = dcmread(path)
    del dataset.PixelData, dataset.Rows, dataset.Columns
    dataset.SOPClassUID = EncapsulatedPDFStorage
    dataset.save_as(path)
    for call in (read_image, probe):
        assert reason_of(call, path) == "no_pixels"
    (row,) = describe_file(str(path), path.name)
    assert row["reason"] == "no_pixels"


def test_the_places_of_many_frames_are_no_damage(make_dicom: Make) -> None:
    places = [f"{number}.25" for number in range(5000)]
    pixels = np.zeros((5000, 1, 1), np.uint16)
    path = make_dicom(pixels, syntax=ImplicitVRLittleEndian, GridFrameOffsetVector=places, PixelSpacing=["1", "2"])
    assert read_image(path).spacing_mm == (1.0, 1.0, 2.0)
