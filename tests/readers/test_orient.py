"""Reorientation of volumes: properties, and SimpleITK's orientation filter."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import numpy.typing as npt
import pytest
import SimpleITK
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lepton_vision.errors import ConfigError, ReadError
from lepton_vision.readers.orient import reorient
from lepton_vision.types import Geometry, Image

AXES = ["".join(pair[bit] for pair, bit in zip(order, bits, strict=True))
        for order in permutations(("LR", "PA", "SI")) for bits in product((0, 1), repeat=3)]  # fmt: skip
SIZES = st.tuples(*[st.integers(1, 4)] * 3)


def rotation(angles: tuple[float, float, float]) -> npt.NDArray[np.float64]:
    """Rows are orthonormal."""
    matrix = np.eye(3)
    for axis, angle in enumerate(angles):
        turn = np.eye(3)
        first, second = [k for k in range(3) if k != axis]
        turn[first, first] = turn[second, second] = np.cos(angle)
        turn[first, second], turn[second, first] = -np.sin(angle), np.sin(angle)
        matrix = matrix @ turn
    return matrix


def make(size: tuple[int, ...], *, angles: tuple[float, float, float], mirror: bool, channels: int = 1) -> Image:
    direction = rotation(angles)
    if mirror:
        direction[0] = -direction[0]
    rows = [tuple(float(part) for part in row) for row in direction]
    geometry = Geometry((-10.0, 20.0, 5.0), (rows[0], rows[1], rows[2]), (2.5, 0.5, 0.75))  # type: ignore[arg-type]
    pixels = np.arange(channels * np.prod(size), dtype=np.float32).reshape(channels, *size)
    return Image(pixels, spacing_mm=geometry.spacing_mm, geometry=geometry, facts={"orientation": geometry.orientation})


def places(image: Image) -> npt.NDArray[np.float64]:
    """Position of every voxel (3, N) in the order of its value."""
    assert image.geometry is not None
    indices = np.indices(image.pixels.shape[1:]).reshape(3, -1)
    found = (image.geometry.affine @ np.concatenate([indices, np.ones((1, indices.shape[1]))]))[:3]
    return found[:, np.argsort(image.pixels[0].ravel())]


@pytest.mark.parametrize("axes", AXES)
def test_a_tie_of_45_degrees_is_broken_alike_however_the_axes_stand(axes: str) -> None:
    half = 0.7071067811865476  # as headers write it: both in-plane axes are as near to x as to y
    direction = ((0.0, 0.0, 1.0), (-half, half, 0.0), (half, half, 0.0))
    geometry = Geometry((0.0, 0.0, 0.0), direction, (2.0, 0.5, 0.75))
    image = Image(np.arange(24, dtype=np.float32).reshape(1, 2, 3, 4), spacing_mm=(2.0, 0.5, 0.75), geometry=geometry)
    turned = reorient(image, axes)
    assert turned.geometry is not None
    assert turned.geometry.orientation == axes
    np.testing.assert_array_equal(reorient(turned, geometry.orientation).pixels, image.pixels)


@given(
    size=SIZES,
    angles=st.tuples(*[st.floats(-3.2, 3.2)] * 3),
    mirror=st.booleans(),
    axes=st.sampled_from(AXES),
)
@example(size=(1, 1, 1), angles=(0.734375, -0.28125, 0.734375), mirror=False, axes="LPS")  # two assignments tie
@settings(deadline=None)
def test_every_voxel_stays_at_its_place_and_the_way_back_is_exact(
    size: tuple[int, ...], angles: tuple[float, float, float], mirror: bool, axes: str
) -> None:
    image = make(size, angles=angles, mirror=mirror, channels=2)
    assert image.geometry is not None
    turned = reorient(image, axes)
    assert turned.geometry is not None
    assert turned.geometry.orientation == turned.facts["orientation"] == axes
    assert turned.spacing_mm == turned.geometry.spacing_mm
    assert turned.pixels.flags.c_contiguous
    np.testing.assert_allclose(places(turned), places(image), atol=1e-9)
    back = reorient(turned, image.geometry.orientation)
    np.testing.assert_array_equal(back.pixels, image.pixels)
    assert back.geometry is not None
    np.testing.assert_allclose(back.geometry.affine, image.geometry.affine, atol=1e-9)
    assert back.geometry.direction == image.geometry.direction
    assert back.spacing_mm == image.spacing_mm


@pytest.mark.parametrize("axes", AXES)
def test_simpleitk_turns_the_same_way(axes: str) -> None:
    image = make((2, 3, 4), angles=(0.3, -0.4, 2.0), mirror=False)
    assert image.geometry is not None
    other = SimpleITK.GetImageFromArray(image.pixels[0])
    other.SetOrigin(image.geometry.origin_mm)
    other.SetSpacing(image.geometry.spacing_mm[::-1])
    other.SetDirection(np.array(image.geometry.direction)[::-1].T.ravel().tolist())
    filter_of = SimpleITK.DICOMOrientImageFilter()
    assert filter_of.GetOrientationFromDirectionCosines(other.GetDirection()) == image.geometry.orientation
    expected = SimpleITK.DICOMOrient(other, axes)
    turned = reorient(image, axes)
    np.testing.assert_array_equal(turned.pixels[0], SimpleITK.GetArrayFromImage(expected))
    assert turned.geometry is not None
    np.testing.assert_allclose(turned.geometry.origin_mm, expected.GetOrigin(), atol=1e-9)
    np.testing.assert_allclose(turned.geometry.spacing_mm, expected.GetSpacing()[::-1], atol=1e-12)
    np.testing.assert_allclose(
        turned.geometry.direction, np.array(expected.GetDirection()).reshape(3, 3).T[::-1], atol=1e-12
    )


@pytest.mark.parametrize("axes", ["", "LP", "LPSA", "LLS", "LRS", "XYZ", "LPH", None])
def test_letters_that_are_no_orientation_are_refused(axes: str) -> None:
    with pytest.raises(ConfigError, match="three letters") as caught:
        reorient(make((2, 2, 2), angles=(0, 0, 0), mirror=False), axes)
    assert caught.value.key == "axes"


def test_what_lies_nowhere_or_is_flat_cannot_be_turned() -> None:
    volume = np.zeros((1, 2, 2, 2), np.float32)
    for image, reason in ((Image(volume), "no_position"), (Image(volume[:, 0]), "volume")):
        with pytest.raises(ReadError) as caught:
            reorient(image)
        assert caught.value.reason == reason
