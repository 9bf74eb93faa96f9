"""Surfaces and their distances: scipy's erosion and distance transform, and hand counts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from lepton_vision.evaluation.masks.surfaces import bounding_box, surface, surface_distances

SHAPES = hnp.array_shapes(min_dims=2, max_dims=3, min_side=1, max_side=7)
MASKS = SHAPES.flatmap(lambda shape: hnp.arrays(np.bool_, shape))
PAIRS = SHAPES.flatmap(lambda shape: st.tuples(hnp.arrays(np.bool_, shape), hnp.arrays(np.bool_, shape))).filter(
    lambda pair: bool(pair[0].any() and pair[1].any())
)


@given(MASKS)
def test_the_surface_is_what_an_erosion_takes_away(mask: np.ndarray) -> None:
    np.testing.assert_array_equal(surface(mask), mask & ~ndimage.binary_erosion(mask))


@given(MASKS)
def test_the_box_is_scipys(mask: np.ndarray) -> None:
    found = ndimage.find_objects(mask.astype(int))
    expected = found[0] if found else (slice(0, 0),) * mask.ndim
    assert bounding_box(mask) == expected


@given(PAIRS)
@settings(deadline=None)
def test_distances_are_those_of_a_distance_transform(pair: tuple[np.ndarray, np.ndarray]) -> None:
    spacing = (3.0, 0.7, 1.3)[-pair[0].ndim :]
    edges = [mask & ~ndimage.binary_erosion(mask) for mask in pair]
    maps = [ndimage.distance_transform_edt(~edge, sampling=spacing) for edge in edges]
    found = surface_distances(*pair, spacing_mm=spacing)
    np.testing.assert_allclose(np.sort(found.truth_mm), np.sort(maps[1][edges[0]]), atol=1e-12)
    np.testing.assert_allclose(np.sort(found.prediction_mm), np.sort(maps[0][edges[1]]), atol=1e-12)


@given(PAIRS, st.floats(0.1, 10.0))
@settings(deadline=None)
def test_a_larger_spacing_scales_the_distance(pair: tuple[np.ndarray, np.ndarray], factor: float) -> None:
    spacing = (3.0, 0.7, 1.3)[-pair[0].ndim :]
    once = surface_distances(*pair, spacing_mm=spacing).hausdorff_mm()
    scaled = surface_distances(*pair, spacing_mm=tuple(factor * step for step in spacing)).hausdorff_mm()
    assert scaled == pytest.approx(factor * once, rel=1e-9)


@pytest.mark.parametrize(("axis", "step"), [(0, 4.0), (1, 2.0), (2, 0.5)])
def test_a_plate_shifted_by_one_voxel_is_one_spacing_away(axis: int, step: float) -> None:
    truth = np.zeros((9, 9, 9), dtype=np.bool_)
    truth[(slice(None),) * axis + (3,)] = True
    shifted = np.roll(truth, 1, axis=axis)
    found = surface_distances(truth, shifted, spacing_mm=(4.0, 2.0, 0.5))
    assert found.hausdorff_mm() == step
    assert found.hausdorff_mm(percentile=100) == step
    assert found.surface_dice(tolerance_mm=step) == 1.0
    assert found.surface_dice(tolerance_mm=0.99 * step) == 0.0


def test_the_95th_percentile_by_hand_is_the_larger_direction() -> None:
    """21 points in a row against the same and one 10 away: directed percentiles 0 and 0.95 of the way, not pooled."""
    truth = np.zeros((1, 40), dtype=np.bool_)
    truth[0, :20] = True
    prediction = truth.copy()
    prediction[0, 29] = True  # 10 voxels from the last one
    found = surface_distances(truth, prediction, spacing_mm=(1.0, 1.0))
    assert sorted(found.truth_mm) == [0.0] * 20
    assert sorted(found.prediction_mm) == [0.0] * 20 + [10.0]
    assert found.hausdorff_mm() == 0.0  # rank 0.95 * 20 = 19 of 0 … 20
    assert found.hausdorff_mm(percentile=96) == pytest.approx(2.0)  # rank 19.2: a fifth of the way from 0 to 10
    assert found.hausdorff_mm(percentile=100) == 10.0
    assert found.surface_dice(tolerance_mm=0.0) == 40 / 41


def test_the_pooled_percentile_of_other_tools_can_be_lower_or_higher() -> None:
    """By hand: MedPy's figure is numpy's percentile of the distances of both directions together."""
    few = np.array([[0, 1, 1]], dtype=np.bool_), np.array([[1, 0, 1]], dtype=np.bool_)
    found = surface_distances(*few)  # 1 and 0 both ways: rank 0.95 of 1, and rank 2.85 of 0, 0, 1, 1
    assert found.hausdorff_mm() == pytest.approx(0.95)
    assert np.percentile([1, 0, 1, 0], 95) == 1.0
    truth = np.zeros((1, 60), dtype=np.bool_)
    truth[0, :30] = True
    prediction = truth.copy()
    prediction[0, 39:41] = True  # 10 and 11 from the truth: 2 of 32 distances one way, of 62 both ways
    assert surface_distances(truth, prediction).hausdorff_mm() == pytest.approx(10 * 0.45)  # rank 29.45 of 0 … 31
    assert np.percentile([0] * 60 + [10, 11], 95) == 0.0


def test_a_distance_equal_to_the_tolerance_is_within_it_in_spite_of_rounding() -> None:
    truth = np.zeros((1, 9), dtype=np.bool_)
    prediction = truth.copy()
    truth[0, 2] = prediction[0, 5] = True
    found = surface_distances(truth, prediction, spacing_mm=(1.0, 0.1))
    assert found.truth_mm[0] > 0.3  # 3 * 0.1 in floating point
    assert found.surface_dice(tolerance_mm=0.3) == 1.0
    assert found.surface_dice(tolerance_mm=0.2999) == 0.0
