"""Patches: positions, and common movement of pixels and masks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from lepton_vision.config.sections import AugmentPreset
from lepton_vision.transforms.patches import choose_center, cut_patch, find_points, warp_patch
from lepton_vision.transforms.presets import PRESETS, Preset
from lepton_vision.transforms.volume_augment import VolumeAugment, draw_holes
from lepton_vision.types import UNKNOWN

SIZES = st.tuples(*[st.integers(1, 9)] * 3)


@given(SIZES, SIZES, st.integers(0, 1000))
def test_an_unmoved_warp_is_a_cut(size: tuple[int, int, int], patch: tuple[int, int, int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 65536, (2, *size)).astype(np.uint16)
    mask = rng.choice([0, 1, 2, UNKNOWN], size).astype(np.uint8)
    middle = choose_center(size, patch, points=find_points(mask, structures=2), foreground=0.5, rng=rng)
    cut, labels = cut_patch(pixels, mask, middle=middle, patch=patch)
    odd = (np.asarray(size) < patch) & ((np.asarray(patch) - size) % 2 == 1)
    where = middle - odd * 0.5  # the middle of an odd rim lies between two voxels
    warped, moved = warp_patch(pixels, mask, middle=where, matrix=np.eye(3), patch=patch)
    assert np.allclose(warped * 65535, cut, atol=2)
    assert np.array_equal(moved, labels)


def test_a_patch_keeps_values_in_place_and_is_unknown_outside() -> None:
    pixels = np.arange(24, dtype=np.uint16).reshape(1, 2, 3, 4)
    mask = np.ones((2, 3, 4), np.uint8)
    cut, labels = cut_patch(pixels, mask, middle=np.array([0.5, 1.0, 1.5]), patch=(2, 5, 2))
    assert labels is not None
    assert np.array_equal(cut[:, :, 1:4], pixels[:, :, :, 1:3])
    assert cut[:, :, [0, 4]].max() == 0
    assert labels[:, 1:4].min() == labels[:, 1:4].max() == 1
    assert labels[:, [0, 4]].min() == UNKNOWN


def smooth_ball(size: tuple[int, int, int]) -> np.ndarray:
    grid = np.indices(size)
    middle = (np.asarray(size) - 1)[:, None, None, None] / 2.0 + np.array([1.0, -2.0, 1.5])[:, None, None, None]
    radii = np.array([5.0, 7.0, 4.0])[:, None, None, None]
    return np.clip(2.0 - (((grid - middle) / radii) ** 2).sum(axis=0), 0.0, 1.0)


@given(st.integers(0, 2**40), st.sampled_from(["mr", "photo"]))
def test_a_mask_moves_with_its_image(seed: int, preset: AugmentPreset) -> None:
    """The image is the mask, smoothed at its edge: after any motion it still is."""
    size, patch = (20, 28, 22), (18, 20, 24)
    ball = smooth_ball(size)
    pixels, mask = np.rint(ball * 65535).astype(np.uint16)[None], (ball > 0.5).astype(np.uint8)
    augment = VolumeAugment(PRESETS[preset], strength=0.8, flips=True)
    matrix, shift = augment.motion(np.random.default_rng(seed), patch=patch, spacing_mm=(2.0, 1.0, 1.0))
    moved, labels = warp_patch(pixels, mask, middle=np.array([9.5, 13.5, 10.5]) + shift, matrix=matrix, patch=patch)
    assert labels is not None
    is_known = labels != UNKNOWN
    is_clear = np.abs(moved[0] - 0.5) > 0.35  # more than a voxel from the surface
    assert is_known.mean() > 0.5
    assert np.array_equal((moved[0] > 0.5)[is_known & is_clear], (labels == 1)[is_known & is_clear])


@given(st.integers(0, 2**40))
def test_a_warp_is_what_scipy_makes_of_it(seed: int) -> None:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 65536, (1, 9, 11, 8)).astype(np.uint16)
    patch, middle = (6, 5, 7), np.array([4.2, 5.1, 3.3])
    matrix, _ = VolumeAugment(Preset(True, rotate=40, scale=0.3), strength=1.0, flips=True).motion(
        rng, patch=patch, spacing_mm=(3.0, 0.5, 1.0)
    )
    found, _ = warp_patch(pixels, None, middle=middle, matrix=matrix, patch=patch)
    offset = middle - matrix @ ((np.asarray(patch) - 1) / 2.0)
    expected = ndimage.affine_transform(
        pixels[0] / 65535.0, matrix, offset, output_shape=patch, order=1, mode="grid-constant"
    )
    assert np.allclose(found[0], expected, atol=1e-4)


def test_turning_keeps_lengths_in_mm() -> None:
    spacing = np.array([5.0, 0.7, 0.7])
    augment = VolumeAugment(Preset(False, rotate=30), strength=1.0, flips=False)
    for seed in range(20):
        matrix, shift = augment.motion(np.random.default_rng(seed), patch=(8, 8, 8), spacing_mm=tuple(spacing))
        in_mm = np.diag(spacing) @ matrix @ np.diag(1 / spacing)
        assert np.allclose(in_mm @ in_mm.T, np.eye(3))
        assert np.linalg.det(in_mm) == pytest.approx(1.0)
        assert not shift.any()


def test_mirrors_change_left_and_right_alone() -> None:
    augment = VolumeAugment(Preset(True), strength=1.0, flips=True)
    drawn = [augment.motion(np.random.default_rng(k), patch=(8, 8, 8), spacing_mm=None)[0] for k in range(200)]
    diagonals = {tuple(np.diag(matrix).round(6)) for matrix in drawn}
    assert diagonals == {(1.0, 1.0, 1.0), (1.0, 1.0, -1.0)}
    assert 60 < sum(matrix[2, 2] < 0 for matrix in drawn) < 140


def test_only_presets_without_an_up_turn_volumes_over() -> None:
    """Along H, half of the time, whether or not they are mirrored; rounded diagonals tell which."""
    drawn: dict[str, set[tuple[float, ...]]] = {}
    for name in ("photo", "mr"):
        still = VolumeAugment(Preset(True, flip_vertical=PRESETS[name].flip_vertical), strength=1.0, flips=True)  # type: ignore[index]
        matrices = [still.motion(np.random.default_rng(k), patch=(8, 8, 8), spacing_mm=None)[0] for k in range(200)]
        drawn[name] = {tuple(np.diag(matrix).round(6)) for matrix in matrices}
        if name == "photo":
            assert 60 < sum(matrix[1, 1] < 0 for matrix in matrices) < 140
    assert drawn["photo"] == {(1.0, a, b) for a in (1.0, -1.0) for b in (1.0, -1.0)}
    assert drawn["mr"] == {(1.0, 1.0, 1.0), (1.0, 1.0, -1.0)}
    off = VolumeAugment(Preset(False, flip_vertical=True), strength=0.0, flips=False)
    assert all((off.motion(np.random.default_rng(k), patch=(8, 8, 8), spacing_mm=None)[0] > -1).all() for k in range(9))


@given(SIZES, st.floats(0.05, 0.5), st.integers(0, 2**40))
def test_holes_lie_inside_and_have_the_sides_asked_for(size: tuple[int, int, int], side: float, seed: int) -> None:
    holes = draw_holes(size, side=side, rng=np.random.default_rng(seed))
    assert len(holes) <= 3
    for hole in holes:
        for part, length in zip(hole, size, strict=True):
            assert 0 <= part.start < part.stop <= length
            assert part.stop - part.start <= max(1, side * length + 0.5)
            assert part.stop - part.start >= min(length, max(1, side / 2 * length - 0.5))


@given(st.integers(0, 2**40))
def test_holes_are_black_in_every_channel_and_change_nothing_else(seed: int) -> None:
    pixels = np.random.default_rng(seed).random((2, 8, 10, 12)).astype(np.float32) * 0.8 + 0.1
    values = {"contrast": 0.1, "brightness": 0.05}
    pierced = VolumeAugment(Preset(False, **values, hole=0.4), strength=1.0, flips=False).change(pixels, seed)  # type: ignore[arg-type]
    whole = VolumeAugment(Preset(False, **values), strength=1.0, flips=False).change(pixels, seed)  # type: ignore[arg-type]
    is_other = pierced != whole
    assert (pierced[is_other] == 0).all()
    assert np.array_equal(is_other[0] | (whole[0] == 0), is_other[1] | (whole[1] == 0)) or not is_other.any()


def test_a_part_of_the_patches_has_holes_anywhere() -> None:
    augment = VolumeAugment(Preset(False, hole=0.3), strength=1.0, flips=False)
    pixels = np.ones((1, 9, 9, 9), np.float32)
    found = np.stack([augment.change(pixels, seed)[0] for seed in range(600)])
    share = (found == 0).any(axis=(1, 2, 3)).mean()
    assert 0.1 < share < 0.2  # 0.15, n 600
    ever = (found == 0).any(axis=0)
    assert all(ever.any(axis=others).all() for others in ((1, 2), (0, 2), (0, 1)))  # every slice, row and column
    assert VolumeAugment(Preset(False, hole=0.3), strength=0.0, flips=False).change(pixels, 1).min() == 1.0


def test_patches_on_structures_hold_one_and_every_structure_has_its_turn() -> None:
    mask = np.zeros((30, 30, 30), np.uint8)
    mask[2:12, 2:12, 2:12] = 1
    mask[25, 26, 27] = 2
    points = find_points(mask, structures=3)
    assert set(points[:, 0]) == {1, 2}
    assert (points[:, 0] == 1).sum() == 1000
    held = []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        middle = choose_center(mask.shape, (5, 5, 5), points=points, foreground=0.999, rng=rng)  # type: ignore[arg-type]
        _, labels = cut_patch(np.zeros((1, 30, 30, 30), np.uint16), mask, middle=middle, patch=(5, 5, 5))
        assert labels is not None
        assert UNKNOWN not in labels
        held.append(set(np.unique(labels)) - {0})
    assert all(held)
    assert 90 < sum(2 in found for found in held) < 210
    rng = np.random.default_rng(0)
    far = [choose_center((30, 30, 30), (5, 5, 5), points=points, foreground=0.0, rng=rng) for _ in range(400)]
    assert np.min(far) == 2.0
    assert np.max(far) == 27.0


def test_values_change_by_the_seed_alone_and_stay_in_range() -> None:
    pixels = np.random.default_rng(0).random((2, 9, 8, 7)).astype(np.float32)
    kept = pixels.copy()
    augment = VolumeAugment(PRESETS["mr"], strength=2.0, flips=False)
    state = np.random.get_state()[1].copy()  # type: ignore[index,union-attr]  # noqa: NPY002
    first = [augment.change(pixels, seed) for seed in (5, 2**62, 5)]
    other = VolumeAugment(PRESETS["mr"], strength=2.0, flips=False).change(pixels, 2**62)
    assert np.array_equal(first[0], first[2])
    assert np.array_equal(first[1], other)
    assert not np.array_equal(first[0], first[1])
    assert np.array_equal(pixels, kept)
    assert np.array_equal(np.random.get_state()[1], state)  # type: ignore[index]  # noqa: NPY002
    for seed in range(40):
        changed = augment.change(pixels, seed)
        assert changed.dtype == np.float32
        assert changed.shape == pixels.shape
        assert 0.0 <= changed.min() <= changed.max() <= 1.0


@pytest.mark.parametrize("name", ["blur", "contrast", "brightness", "gamma", "noise", "hole"])
def test_each_change_happens_by_itself(name: str) -> None:
    pixels = np.random.default_rng(0).random((1, 9, 8, 7)).astype(np.float32) * 0.6 + 0.2
    augment = VolumeAugment(Preset(False, **{name: 0.3}), strength=1.0, flips=False)  # type: ignore[arg-type]
    share = np.mean([not np.allclose(augment.change(pixels, seed), pixels) for seed in range(120)])
    assert 0.05 < share < 0.7
    still = VolumeAugment(Preset(False), strength=1.0, flips=False)
    assert np.array_equal(still.change(pixels, 1), pixels)
