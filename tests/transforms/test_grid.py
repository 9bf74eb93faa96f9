"""Volumes to the network's grid and masks back: positions against nibabel and hand counts."""

from __future__ import annotations

from itertools import permutations, product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lepton_vision.config.sections import PreprocessConfig, VolumeConfig
from lepton_vision.errors import ReadError
from lepton_vision.readers.image import read_image
from lepton_vision.transforms.grid import (
    grid_of,
    prepare_mask,
    preprocess_volume,
    resize_volume,
    restore_mask,
    restore_share,
    turn,
    turn_back,
)
from lepton_vision.types import UNKNOWN, Image
from tests.transforms.volumes import write_nifti

FULL = PreprocessConfig(windows=("full",))
EVERY_WAY = ["".join(s) for p in permutations(("LR", "PA", "IS")) for s in product(*p)]


def one_hot(labels: np.ndarray, values: int) -> np.ndarray:
    return np.stack([(labels == value).astype(np.float32) for value in range(values)])


def axes_affine(codes: str, zooms: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> np.ndarray:
    """NIfTI affine of a volume whose first, second, third axis grow as ``codes`` say."""
    unit = {"R": (1, 0, 0), "L": (-1, 0, 0), "A": (0, 1, 0), "P": (0, -1, 0), "S": (0, 0, 1), "I": (0, 0, -1)}
    affine = np.eye(4)
    affine[:3, :3] = np.array([unit[letter] for letter in codes]).T * zooms
    return affine


def ramp(shape: tuple[int, ...] = (5, 6, 7)) -> np.ndarray:
    return np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)


@pytest.mark.parametrize("codes", EVERY_WAY)
def test_a_volume_is_turned_as_nibabel_turns_it(codes: str, tmp_path: Path) -> None:
    stored = ramp()
    write_nifti(tmp_path / "a.nii", stored, axes_affine(codes))
    assert "".join(nib.aff2axcodes(nib.load(tmp_path / "a.nii").affine)) == codes
    way = nib.orientations.ornt_transform(nib.orientations.axcodes2ornt(codes), nib.orientations.axcodes2ornt("LPS"))
    expected = nib.orientations.apply_orientation(stored, way).transpose(2, 1, 0)  # W, H, D to D, H, W
    image = read_image(tmp_path / "a.nii")
    found = preprocess_volume(image, FULL, VolumeConfig())
    assert np.array_equal(np.rint(found[0] / 257.0), expected)
    grid = grid_of(image, VolumeConfig())
    labels = stored.transpose(2, 1, 0) % 3
    assert np.array_equal(prepare_mask(labels, grid), expected % 3)
    assert np.array_equal(restore_mask(one_hot(expected % 3, 3), grid), labels)


def test_a_volume_without_geometry_stays_as_it_is_stored(tmp_path: Path) -> None:
    write_nifti(tmp_path / "a.nii", ramp())
    image = read_image(tmp_path / "a.nii")
    assert image.geometry is None
    found = preprocess_volume(image, FULL, VolumeConfig())
    assert np.array_equal(np.rint(found[0] / 257.0), ramp().transpose(2, 1, 0))


def test_spacing_follows_the_axes_and_sizes_are_rounded_to_voxels(tmp_path: Path) -> None:
    write_nifti(tmp_path / "a.nii", ramp(), axes_affine("SLP", (3.0, 1.0, 0.5)))  # 15 mm S, 6 mm L, 3.5 mm P
    image = read_image(tmp_path / "a.nii")
    grid = grid_of(image, VolumeConfig(spacing_mm=(2.0, 1.0, 1.0)))
    assert grid.shape == (7, 6, 5)
    assert grid.size == (8, 4, 6)  # 7.5 and 3.5 are rounded to even
    assert grid.spacing_mm == pytest.approx((15 / 8, 3.5 / 4, 1.0))
    assert preprocess_volume(image, FULL, VolumeConfig(spacing_mm=(2.0, 1.0, 1.0))).shape == (1, 8, 4, 6)
    write_nifti(tmp_path / "b.nii", ramp())
    plain = read_image(tmp_path / "b.nii")
    unknown = Image(plain.pixels)
    assert grid_of(unknown, VolumeConfig()).spacing_mm is None
    with pytest.raises(ReadError, match=r"distance of its voxels") as caught:
        grid_of(unknown, VolumeConfig(spacing_mm=(1.0, 1.0, 1.0)))
    assert caught.value.reason == "no_spacing"


def test_shrinking_averages_and_growing_interpolates() -> None:
    line = np.float32([0, 4, 8, 100])[:, None, None]
    assert resize_volume(line, size=(2, 1, 1)).ravel().tolist() == [2, 54]
    grown = resize_volume(np.float32([0, 4])[None, :, None], size=(1, 4, 1)).ravel()
    assert grown.tolist() == [0, 1, 3, 4]
    everywhere = resize_volume(np.full((3, 5, 7), 0.25, np.float32), size=(5, 2, 9))
    assert np.allclose(everywhere, 0.25)


@given(
    st.tuples(*[st.integers(1, 6)] * 3),
    st.sampled_from(EVERY_WAY),
    st.tuples(*[st.sampled_from([0.5, 2.0])] * 3),  # twice and four times as fine together: exactly half stays, a tie
    st.integers(0, 99),
)
def test_a_mask_on_a_finer_grid_comes_back_as_it_was(
    shape: tuple[int, int, int], codes: str, zooms: tuple[float, float, float], seed: int
) -> None:
    from lepton_vision.types import Geometry

    unit = {"L": (1, 0, 0), "R": (-1, 0, 0), "P": (0, 1, 0), "A": (0, -1, 0), "S": (0, 0, 1), "I": (0, 0, -1)}
    geometry = Geometry((0, 0, 0), tuple(unit[c] for c in codes[::-1]), zooms)
    image = Image(np.zeros((1, *shape), np.float32), zooms, geometry)
    grid = grid_of(image, VolumeConfig(spacing_mm=(0.25, 0.25, 0.25)))
    # Along two axes a voxel keeps more than half of the shares at its middle; along three a lonely one need not.
    labels = np.broadcast_to(np.random.default_rng(seed).integers(0, 3, shape[:2]).astype(np.uint8)[..., None], shape)
    fine = prepare_mask(labels, grid)
    assert fine.shape == grid.size
    assert np.array_equal(restore_mask(one_hot(fine, 3), grid), labels)
    shares = np.stack([restore_share(share, grid) for share in one_hot(fine, 3)])
    assert (shares.dtype, shares.shape, shares.min() >= 0, shares.max() <= 1) == (np.float32, (3, *shape), True, True)
    assert np.array_equal(shares.argmax(axis=0), labels)
    assert np.array_equal(turn_back(turn(labels, grid), grid), labels)


def test_a_voxel_of_a_shrunk_mask_is_what_covers_most_of_it() -> None:
    from lepton_vision.transforms.grid import Grid

    labels = np.array([[[1, 1, 2, 0, 0, UNKNOWN, UNKNOWN, 2, 2]]], np.uint8)
    grid = Grid((1, 1, 9), (0, 1, 2), (), (1, 1, 3))
    assert prepare_mask(labels, grid).tolist() == [[[1, 0, 2]]]
    equal = Grid((1, 1, 4), (0, 1, 2), (), (1, 1, 2))
    assert prepare_mask(np.array([[[1, 0, 2, 1]]], np.uint8), equal).tolist() == [[[0, 1]]]
    with pytest.raises(ReadError, match="Expected a mask of"):
        prepare_mask(labels[:, :, :8], grid)


def test_windows_see_the_whole_volume() -> None:
    pixels = np.zeros((1, 4, 10, 10), np.float32)
    pixels[0, 0], pixels[0, 3] = 100.0, 300.0
    found = preprocess_volume(
        Image(pixels, units="US", modality="MR"), PreprocessConfig(windows=("percentile",)), VolumeConfig()
    )
    assert found[0, 0].max() == pytest.approx(65535 / 3, abs=1)
    assert found[0, 1].max() == 0
    assert found[0, 3].min() == 65535
    two = PreprocessConfig(windows=("full", "percentile"), color="rgb")
    assert preprocess_volume(Image(pixels, units="US"), two, VolumeConfig()).shape == (6, 4, 10, 10)


def test_a_flat_image_is_no_volume() -> None:
    with pytest.raises(ReadError, match="2-D image") as caught:
        grid_of(Image(np.zeros((1, 4, 4), np.float32)), VolumeConfig())
    assert caught.value.reason == "volume"
