"""Reading of images by content: recognised formats, and reasons of refusals."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lepton_vision.errors import ReadError
from lepton_vision.readers.content import sniff
from lepton_vision.readers.image import probe, raw_ids, read_image


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"just some text\n" * 40, "not_an_image"),
        (b"id,label\n1,2\n" * 40, "not_an_image"),
        (b"#!/bin/sh\nexit 0\n" * 20, "not_an_image"),
        (b"MZ" + bytes(600), "not_an_image"),
        (b"\x7fELF\x02\x01\x01" + bytes(600), "not_an_image"),
        (bytes(4096), "not_an_image"),
        (b"%PDF-1.7\n" + bytes(500), "not_an_image"),
        (gzip.compress(b"text", mtime=0), "not_an_image"),  # the time of day would be part of the test's name
        (b"PK\x03\x04" + bytes(100), "corrupt"),
        (b"\x89PNG\r\n\x1a\n", "truncated"),
        (b"\xff\xd8\xff\xe0", "truncated"),
        (b"II*\0", "corrupt"),
        (bytes(128) + b"DICM", "truncated"),
        (bytes(128) + b"DICM" + b"\xff" * 300, "truncated"),
        # plausible first tags, implausible rest
        (b"\x08\x00\x05\x00CS" + b"\xff\xff" + bytes(300), "not_an_image"),
        (b"\x08\x00\x05\x00\x04\x00\x00\x00abcd" + b"zz" * 300, "not_an_image"),
    ],
)
def test_content_decides(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "looks_like.dcm"
    path.write_bytes(content)
    for call in (read_image, probe):
        with pytest.raises(ReadError) as caught:
            call(path)
        assert caught.value.reason == reason
        assert caught.value.path == path
        assert "looks_like" not in str(caught.value)


def test_missing_folder_and_device(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing", "a\0b"):
        with pytest.raises(ReadError) as caught:
            read_image(path)
        assert caught.value.reason == "missing"
    for options, reason in (({}, "no_slices"), ({"frame": 0}, "missing")):  # a series is read as a whole
        with pytest.raises(ReadError) as caught:
            read_image(tmp_path, **options)
        assert (caught.value.reason, caught.value.path) == (reason, tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ReadError) as caught:
        read_image(tmp_path / "pipe")
    assert caught.value.reason == "not_an_image"


def test_no_permission(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(b"x")
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything")
    with pytest.raises(ReadError) as caught:
        raw_ids(path)
    assert caught.value.reason == "missing"


def test_sniff_prefers_dicom_over_the_preamble() -> None:
    assert sniff(b"II*\0".ljust(128, b"\0") + b"DICM") == "dicom"
    assert sniff(b"II*\0".ljust(300, b"\0")) == "tiff"


def test_raw_ids_of_a_raster_file_are_unknown(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    assert raw_ids(path).patient_id is None


def test_reading_needs_no_torch_and_no_pandas() -> None:
    code = (
        "import sys, warnings, logging\n"
        "import numpy, cv2, PIL.Image, pydicom.pixels, pydicom.pixels.decoders\n"  # numpy itself adds filters
        "before = list(warnings.filters), list(logging.root.handlers)\n"
        "import lepton_vision.readers.image, lepton_vision.readers.dicom.decode_worker\n"
        "heavy = {'torch', 'pandas', 'matplotlib', 'sklearn', 'SimpleITK', 'nibabel'} & set(sys.modules)\n"
        "same = before == (list(warnings.filters), list(logging.root.handlers))\n"
        "print(heavy or 'light', same)\n"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert answer.strip() == "light True"
