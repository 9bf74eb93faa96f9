"""The header that is opened is ``dcmread``'s, and a loader's reader sees the same pixels as ``read_image``."""

from __future__ import annotations

import pickle
import random
import struct
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from lepton_vision.errors import ReadError
from lepton_vision.readers.content import sniff
from lepton_vision.readers.dicom_header import open_dicom
from lepton_vision.readers.image import read_image, read_pixels
from lepton_vision.readers.limits import Limits, guard, quiet

Make = Callable[..., Path]
GRAY = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)


def header(path: Path) -> Dataset | None:
    with path.open("rb") as stream:
        head = stream.read(1024)
        stream.seek(0)
        try:
            if sniff(head) != "dicom":
                return None
            with quiet, guard("test", reason="corrupt"):
                return open_dicom(stream, head=head, limits=Limits()).dataset
        except ReadError:
            return None


def elements(dataset: Dataset) -> dict[int, str]:
    """All values as pydicom converts them, or the kind of error."""
    found = {}
    for tag in list(dataset.keys()):
        try:
            found[int(tag)] = f"{dataset[tag].VR} {dataset[tag].value}"
        except Exception as error:
            found[int(tag)] = type(error).__name__
    return found


def test_every_element_is_that_of_dcmread() -> None:
    seen = 0
    for path in sorted((Path(pydicom.__file__).parent / "data").rglob("*")):
        found = header(path) if path.is_file() else None
        if found is None:
            continue
        with warnings.catch_warnings(action="ignore"):
            expected = dcmread(path, stop_before_pixels=True, force=True)
            assert elements(found) == elements(expected), path.name
        seen += 1
    assert seen > 100


def test_a_command_set_before_the_data_set_is_read(make_dicom: Make) -> None:
    path = make_dicom(GRAY)
    content = path.read_bytes()
    group_length = struct.unpack_from("<I", content, 140)[0]
    start = 144 + group_length
    command = struct.pack("<HHI", 0x0000, 0x0100, 2) + b"\x01\0"
    path.write_bytes(content[:start] + command + content[start:])
    found = header(path)
    assert found is not None
    assert found.CommandField == 1
    assert (read_image(path).pixels[0] == GRAY).all()


def outcome(read: Callable[[Path], object], path: Path) -> object:
    try:
        image = read(path)
    except ReadError as error:
        return error.reason
    return (image.pixels.tobytes(), image.units, image.value_range, image.modality, pickle.dumps(image.window))


@pytest.mark.parametrize("seed", range(4))
def test_damage_is_refused_alike(make_dicom: Make, seed: int) -> None:
    path = make_dicom(GRAY, WindowCenter="40", WindowWidth="400", RescaleSlope="1", RescaleIntercept="-1024")
    content, chance = path.read_bytes(), random.Random(seed)
    refused = 0
    for _ in range(100):
        damaged = bytearray(content[: chance.choice([len(content), chance.randrange(len(content))])])
        for _ in range(chance.randrange(1, 4)):
            damaged[chance.randrange(min(len(damaged), 900))] = chance.randrange(256)
        path.write_bytes(damaged)
        wanted = outcome(read_image, path)
        assert outcome(read_pixels, path) == wanted
        refused += isinstance(wanted, str)
    assert 10 < refused < 100


def test_what_a_loader_does_not_ask_for_is_not_looked_up(make_dicom: Make) -> None:
    path = make_dicom(GRAY, PatientID="p", PixelSpacing=[1, 1])
    image = read_pixels(path)
    assert (image.image_id, image.patient_id, image.facts, image.spacing_mm, image.geometry) == (
        "",
        None,
        {},
        None,
        None,
    )
    assert read_image(path).spacing_mm == (1.0, 1.0)
