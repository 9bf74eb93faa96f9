from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest

from lepton_vision.errors import ReadError
from lepton_vision.readers.image import probe, read_image
from lepton_vision.types import Window

RNG = np.random.default_rng(0)
VOLUME = RNG.integers(-500, 500, (5, 4, 3)).astype(np.int16)  # X, Y, Z


def save(path: Path, values: np.ndarray, *, kind: type = nibabel.Nifti1Image, **header: object) -> Path:
    image = kind(values, np.diag([0.5, 0.75, 2.0, 1.0]))
    for key, value in header.items():
        image.header[key] = value
    image.to_filename(path)
    return path


def reason_of(path: Path, **options: object) -> str:
    with pytest.raises(ReadError) as caught:
        read_image(path, **options)  # type: ignore[arg-type]
    return caught.value.reason


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("dtype", ["i2", "u1", "f4", "f8", ">i2", "i4"])
def test_volume_equals_nibabel(tmp_path: Path, kind: type, ending: str, dtype: str) -> None:
    path = save(tmp_path / f"v{ending}", (VOLUME % 100).astype(dtype), kind=kind)
    image = read_image(path)
    np.testing.assert_array_equal(image.pixels[0], nibabel.load(path).get_fdata().transpose(2, 1, 0))
    assert image.pixels.dtype == np.float32
    assert image.spacing_mm == (2.0, 0.75, 0.5)
    assert (image.units, image.source_format, image.facts["orientation"]) == ("US", "nifti", "RAS")
    one = read_image(path, frame=2)
    np.testing.assert_array_equal(one.pixels[0], image.pixels[0, 2])
    assert (one.spacing_mm, one.image_id) == ((0.75, 0.5), f"{image.image_id}-2")
    facts = probe(path)
    assert (facts.frames, facts.rows, facts.columns, facts.image_id) == (3, 4, 5, image.image_id)


def test_rescale_and_range(tmp_path: Path) -> None:
    path = tmp_path / "v.nii"
    image = nibabel.Nifti1Image((VOLUME % 100).astype(np.uint8), np.eye(4))
    image.header.set_slope_inter(2.0, -10.0)
    image.to_filename(path)
    data = bytearray(path.read_bytes())  # nibabel resets the slope on saving: write it into the file
    data[112:120] = np.array([2.0, -10.0], "<f4").tobytes()
    path.write_bytes(bytes(data))
    found = read_image(path)
    np.testing.assert_array_equal(found.pixels[0], nibabel.load(path).get_fdata().transpose(2, 1, 0))
    assert found.value_range == (-10.0, 500.0)


def test_two_dimensions_and_window(tmp_path: Path) -> None:
    path = save(tmp_path / "v.nii", VOLUME[:, :, :1], cal_min=-100.0, cal_max=300.0)
    image = read_image(path)
    assert image.pixels.shape == (1, 4, 5)
    assert image.window == Window(100, 400, "LINEAR_EXACT")
    assert read_image(path, frame=0).image_id == image.image_id
    assert read_image(save(tmp_path / "w.nii", VOLUME[..., None])).pixels.shape == (1, 3, 4, 5)


def test_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "v.nii", VOLUME)
    assert reason_of(path, frame=3) == "no_frame"
    path.write_bytes(path.read_bytes()[:-10])
    assert reason_of(path) == "truncated"
    packed = save(tmp_path / "v.nii.gz", VOLUME)
    packed.write_bytes(packed.read_bytes()[:-30])
    assert reason_of(packed) in ("truncated", "corrupt")
    assert reason_of(save(tmp_path / "t.nii", np.zeros((3, 3, 3, 2), np.int16))) == "unsupported"
    assert reason_of(save(tmp_path / "c.nii", np.zeros((3, 3, 3), np.complex64))) == "unsupported"
    broken = VOLUME.astype(np.float32)
    broken[0, 0, 0] = np.nan
    assert reason_of(save(tmp_path / "n.nii", broken)) == "non_finite"
    pair = nibabel.Nifti1Pair(VOLUME, np.eye(4))
    pair.to_filename(tmp_path / "p.hdr")
    assert reason_of(tmp_path / "p.hdr") == "unsupported"
