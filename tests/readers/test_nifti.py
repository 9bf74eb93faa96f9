"""NIfTI files: values, axes, spacing and refusals."""

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
    assert (facts.frames, facts.rows, facts.columns, facts.image_id) == (3, 4, 5, "")  # it is of the voxels


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


# Columns at right angles, of lengths 0.5, 1.6 and 2 mm: X, Y, Z to x right, y front, z head.
OBLIQUE = np.array([[0.0, -1.6, 0.0, 30.0], [0.3, 0.0, -1.6, -20.0], [0.4, 0.0, 1.2, 5.0], [0, 0, 0, 1]])


def save_with(
    path: Path, *, sform: np.ndarray | None = None, qform: np.ndarray | None = None, unit: str = "mm"
) -> Path:
    image = nibabel.Nifti1Image(VOLUME, None)
    image.header.set_xyzt_units(unit)
    image.set_sform(sform, code=0 if sform is None else 1)
    image.set_qform(qform, code=0 if qform is None else 1)
    image.to_filename(path)
    return path


@pytest.mark.parametrize("form", ["sform", "qform"])
def test_place_equals_nibabel(tmp_path: Path, form: str) -> None:
    path = save_with(tmp_path / "v.nii", **{form: OBLIQUE})
    image, affine = read_image(path), nibabel.load(path).affine
    assert image.geometry is not None
    for index in ((0, 0, 0), (1, 2, 3), (4, 3, 2)):
        right_front_up = affine @ [*index, 1]
        left_back_up = image.geometry.affine @ [*index[::-1], 1]
        np.testing.assert_allclose(left_back_up, right_front_up * [-1, -1, 1, 1], atol=1e-5)
    assert image.spacing_mm == image.geometry.spacing_mm == pytest.approx((2.0, 1.6, 0.5), abs=1e-6)
    assert image.geometry.orientation == "".join(nibabel.aff2axcodes(affine)) == image.facts["orientation"]
    one = read_image(path, frame=2)
    assert one.geometry is not None
    assert (one.geometry, one.spacing_mm) == (image.geometry.plane(2), image.spacing_mm[1:])
    np.testing.assert_allclose(one.geometry.affine @ [3, 1, 1], image.geometry.affine @ [2, 3, 1, 1], atol=1e-9)


@pytest.mark.parametrize(("unit", "factor"), [("meter", 1000.0), ("micron", 0.001)])
def test_place_is_in_millimeters(tmp_path: Path, unit: str, factor: float) -> None:
    image = read_image(save_with(tmp_path / "v.nii", sform=OBLIQUE, unit=unit))
    assert image.geometry is not None
    np.testing.assert_allclose(image.geometry.origin_mm, np.array([-30.0, 20.0, 5.0]) * factor, rtol=1e-6)
    assert image.spacing_mm == pytest.approx(np.array([2.0, 1.6, 0.5]) * factor)


def test_a_header_that_does_not_say_where_has_no_place(tmp_path: Path) -> None:
    sheared = np.array([[1.0, 0.4, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    for number, forms in enumerate(({}, {"sform": sheared}, {"sform": np.diag([0.0, 1, 1, 1])})):
        image = read_image(save_with(tmp_path / f"{number}.nii", **forms))
        assert image.geometry is None
        assert image.facts["orientation"] is None


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
