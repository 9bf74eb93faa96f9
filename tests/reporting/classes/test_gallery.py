"""Pictures against Pillow, and reasons instead of pictures."""

from __future__ import annotations

import base64
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image as Picture

from lepton_vision.config.sections import PreprocessConfig
from lepton_vision.demo.study import write_demo_series
from lepton_vision.reporting.classes.gallery import make_thumbnail
from lepton_vision.types import SampleAddress


def decode(uri: str) -> np.ndarray:
    assert uri.startswith("data:image/png;base64,")
    return np.asarray(Picture.open(BytesIO(base64.b64decode(uri.split(",", 1)[1]))))


def write(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    Picture.fromarray(pixels).save(path)
    return pixels


def test_a_small_image_comes_back_pixel_by_pixel(tmp_path: Path) -> None:
    pixels = write(tmp_path / "a.png", (28, 28))
    config = PreprocessConfig(size=(28, 28), windows=("full",))
    thumbnail = make_thumbnail(SampleAddress(tmp_path / "a.png"), config)
    np.testing.assert_array_equal(decode(thumbnail.uri), pixels)
    assert (thumbnail.width, thumbnail.height, thumbnail.reason) == (28, 28, "")


def test_colour_is_kept_where_the_model_saw_colour(tmp_path: Path) -> None:
    pixels = write(tmp_path / "a.png", (16, 16, 3))
    config = PreprocessConfig(size=(16, 16), windows=("full",), color="rgb")
    np.testing.assert_array_equal(decode(make_thumbnail(SampleAddress(tmp_path / "a.png"), config).uri), pixels)


def test_a_large_image_is_made_smaller_and_of_several_windows_the_first_is_shown(tmp_path: Path) -> None:
    write(tmp_path / "a.png", (300, 200))
    config = PreprocessConfig(size=(300, 200), windows=("full", "percentile"))
    thumbnail = make_thumbnail(SampleAddress(tmp_path / "a.png"), config, side=96)
    assert (thumbnail.width, thumbnail.height) == (64, 96)


def test_the_png_holds_pixels_and_nothing_else(tmp_path: Path) -> None:
    picture = Picture.fromarray(np.zeros((8, 8), np.uint8))
    exif = Picture.Exif()
    exif[0x010E] = "DOE^JANE"
    picture.save(tmp_path / "a.png", exif=exif)
    uri = make_thumbnail(SampleAddress(tmp_path / "a.png"), None).uri
    data = base64.b64decode(uri.split(",", 1)[1])
    assert b"DOE" not in data
    assert b"eXIf" not in data


def test_what_cannot_be_shown_gives_its_reason_without_a_name(tmp_path: Path) -> None:
    (tmp_path / "DOE^JANE.png").write_bytes(b"no picture")
    config = PreprocessConfig()
    assert "not say where" in make_thumbnail(None, config).reason
    assert "(missing)" in make_thumbnail(SampleAddress(tmp_path / "gone.png"), config).reason
    broken = make_thumbnail(SampleAddress(tmp_path / "DOE^JANE.png"), config)
    assert (broken.uri, broken.width) == ("", 0)
    assert "(not_an_image)" in broken.reason
    assert "DOE" not in broken.reason


def test_a_window_that_does_not_fit_gives_its_reason(tmp_path: Path) -> None:
    write(tmp_path / "a.png", (8, 8))
    assert "(units)" in make_thumbnail(SampleAddress(tmp_path / "a.png"), PreprocessConfig(windows=("lung",))).reason


@pytest.mark.parametrize(
    ("header", "sides"),
    [
        ({}, ("R", "L", "A", "P")),  # a plain axial slice, as radiologists look at it
        ({"ImageOrientationPatient": [-1, 0, 0, 0, 1, 0]}, ("L", "R", "A", "P")),
        ({"ImageOrientationPatient": [0, 1, 0, 0, 0, -1]}, ("A", "P", "H", "F")),  # sagittal
        ({"ImagePositionPatient": None}, ("R", "L", "A", "P")),
        ({"ImageOrientationPatient": None, "PatientOrientation": ["L", "F"]}, ("R", "L", "H", "F")),
        ({"ImageOrientationPatient": None, "PatientOrientation": ["AF", "R"]}, ("P", "A", "L", "R")),
        ({"ImageOrientationPatient": None, "PatientOrientation": ["LE", "V"]}, ()),  # an animal's
        ({"ImageOrientationPatient": None, "PatientOrientation": ["L"]}, ()),
        ({"ImageOrientationPatient": None}, ()),
    ],
)
def test_pictures_name_the_sides_of_the_patient_where_the_header_does(
    header: dict[str, Any], sides: tuple[str, ...], tmp_path: Path
) -> None:
    write_demo_series(tmp_path, slices=1)
    path = tmp_path / "IM0000.dcm"
    dataset = pydicom.dcmread(path)
    for keyword, value in header.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    dataset.save_as(path)
    assert make_thumbnail(SampleAddress(path), PreprocessConfig(windows=("lung",))).sides == sides


def test_files_that_know_no_patient_have_no_sides(tmp_path: Path) -> None:
    write(tmp_path / "a.png", (28, 28))
    assert make_thumbnail(SampleAddress(tmp_path / "a.png"), None).sides == ()
