"""Frames of a file one by one, and the time that all of them may take."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lepton_vision.readers import limits as limits_module
from lepton_vision.readers.frames import read_frames
from lepton_vision.readers.image import read_pixels
from lepton_vision.types import Image

Make = Callable[..., Path]
FRAMES = np.arange(5 * 6 * 4, dtype=np.uint16).reshape(5, 6, 4)


@pytest.fixture(params=["dicom", "tiff"])
def path(request: pytest.FixtureRequest, make_dicom: Make, tmp_path: Path) -> Path:
    if request.param == "dicom":
        return make_dicom(FRAMES)
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite(tmp_path / "a.tif", FRAMES, photometric="minisblack")
    return tmp_path / "a.tif"


def test_each_frame_is_what_it_is_alone(path: Path) -> None:
    found = list(read_frames(path, count=5))
    for number, image in enumerate(found):
        alone = read_pixels(path, frame=number)
        assert isinstance(image, Image)
        np.testing.assert_array_equal(image.pixels, alone.pixels)
        np.testing.assert_array_equal(image.pixels[0], FRAMES[number])
        assert (image.units, image.value_range, image.window) == (alone.units, alone.value_range, alone.window)


def test_a_frame_that_is_not_there_costs_that_one(path: Path) -> None:
    assert [one if isinstance(one, str) else "" for one in read_frames(path, count=6)] == [""] * 5 + ["no_frame"]


def test_what_the_time_does_not_suffice_for_is_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([0.0, 1.0, 2.0, *[11.0] * 9])
    monkeypatch.setattr(limits_module.time, "thread_time", lambda: next(now, 11.0))
    found = [one if isinstance(one, str) else "" for one in read_frames(path, count=5)]
    assert set(found) == {"", "too_slow"}
    assert found == sorted(found)
