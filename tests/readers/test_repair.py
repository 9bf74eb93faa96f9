"""Repairs of slices on plain arrays, against hand counts."""

from __future__ import annotations

import numpy as np
import pytest

from lepton_vision.readers.repair import Canvas, fill_missing, fill_unknown, place_slice, plan_canvas

PIXELS = np.arange(12, dtype=np.float32).reshape(1, 3, 4)


def moved(shift: tuple[float, float], canvas: Canvas) -> np.ndarray:
    target = np.full((1, canvas.rows, canvas.columns), np.nan, np.float32)
    place_slice(PIXELS, target, canvas=canvas, shift=np.array(shift))
    return target[0]


def test_the_canvas_holds_all_slices() -> None:
    assert plan_canvas(np.zeros((2, 2)), rows=3, columns=4) == Canvas(3, 4)
    assert plan_canvas(np.array([[0, 0], [1.2, -0.5]]), rows=3, columns=4) == Canvas(5, 5, 0, -1)
    assert plan_canvas(np.array([[0, 0], [2 + 1e-12, -1e-12]]), rows=3, columns=4) == Canvas(5, 4)


@pytest.mark.parametrize("error", [0.0, 1e-9, -1e-9])
def test_a_shift_of_whole_voxels_keeps_every_pixel_in_spite_of_rounding(error: float) -> None:
    canvas = plan_canvas(np.array([[0, 0], [2, 1]]), rows=3, columns=4)
    found = moved((2 + error, 1 - error), canvas)
    np.testing.assert_array_equal(found[2:, 1:], PIXELS[0])
    assert np.isnan(found[:2]).all()
    assert np.isnan(found[:, 0]).all()


def test_between_pixels_is_the_weighted_mean() -> None:
    found = moved((0.25, 0.0), Canvas(4, 4))
    np.testing.assert_allclose(found[1:3], 0.25 * PIXELS[0, :2] + 0.75 * PIXELS[0, 1:])
    assert np.isnan(found[[0, 3]]).all()


def test_beside_what_is_unknown_the_nearer_pixel_counts() -> None:
    pixels = np.array([[[np.nan], [10], [20], [np.nan]]], np.float32)
    for shift, wanted in ((0.25, [10, 12.5 + 5, np.nan]), (0.75, [np.nan, 12.5, 20])):
        target = np.full((1, 5, 1), np.nan, np.float32)
        place_slice(pixels, target, canvas=Canvas(5, 1), shift=np.array([shift, 0.0]))
        np.testing.assert_allclose(target[0, 1:4, 0], wanted)  # canvas row k is pixel k - shift


def test_what_is_unknown_gets_a_value_and_gaps_the_weighted_mean() -> None:
    volume = np.full((1, 4, 1, 2), np.nan, np.float32)
    volume[0, 0, 0], volume[0, 3, 0] = [5, 2], [np.nan, 8]
    fill_missing(volume, places=[0, 3], between={})
    np.testing.assert_allclose(volume[0, :, 0], [[5, 2], [5, 4], [np.nan, 6], [np.nan, 8]], rtol=1e-6)
    kept = volume.copy()
    fill_unknown(volume, value=None)
    np.testing.assert_allclose(volume[0, :, 0], [[5, 2], [5, 4], [2, 6], [2, 8]], rtol=1e-6)
    fill_unknown(kept, value=-7.0)
    np.testing.assert_allclose(kept[0, 2:, 0], [[-7, 6], [-7, 8]], rtol=1e-6)


def test_a_slice_off_the_grid_is_interpolated_from() -> None:
    volume = np.zeros((1, 3, 1, 1), np.float32)
    volume[0, 1] = 10
    fill_missing(volume, places=[0, 1, 2.5], between={2.5: np.full((1, 1, 1), 25, np.float32)})
    np.testing.assert_allclose(volume.ravel(), [0, 10, 20], rtol=1e-6)
