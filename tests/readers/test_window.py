"""VOI windows and lookup tables."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_voi_lut

from lepton_vision.config.sections import PreprocessConfig
from lepton_vision.readers.window import CT_PRESETS, apply_window, percentile_window, reflect
from lepton_vision.types import VoiLut, Window

functions = st.sampled_from(["LINEAR", "LINEAR_EXACT", "SIGMOID"])
windows = st.builds(Window, st.floats(-3000, 3000, width=32), st.floats(1, 5000, width=32), functions)
pixel_arrays = hnp.arrays(np.float32, st.integers(1, 40), elements=st.floats(-5000, 5000, width=32))


def header_of(window: Window) -> Dataset:
    dataset = Dataset()
    dataset.WindowCenter, dataset.WindowWidth = window.center, window.width
    dataset.VOILUTFunction = window.function
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsStored, dataset.PixelRepresentation = 16, 1
    return dataset


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize(("center", "width"), [(40, 400), (-600, 1500), (0.5, 3), (100, 4095)])
def test_same_as_pydicom(function: str, center: float, width: float) -> None:
    window = Window(center, width, function)  # type: ignore[arg-type]
    pixels = np.arange(-2000, 3000, dtype=np.int16)
    with np.errstate(over="ignore"):  # pydicom's own exp
        expected = (apply_voi_lut(pixels, header_of(window)) + 32768.0) / 65535.0
    np.testing.assert_allclose(apply_window(pixels, window), expected, atol=2e-6)


def test_hand_values_of_the_standard() -> None:
    # PS3.3 C.11.2.1.2.1, Note 2: c=2048, w=4096 maps 0..4095 onto the whole output range.
    pixels = np.array([0, 4095, -1, 4096], dtype=np.float32)
    assert apply_window(pixels, Window(2048, 4096)).tolist() == [0.0, 1.0, 0.0, 1.0]
    # w=1: a step, x <= c - 0.5 is black.
    assert apply_window(np.array([99.0, 99.5, 100.0]), Window(100, 1)).tolist() == [0.0, 0.0, 1.0]
    # c=0, w=100 with LINEAR: -50 is black, 49 is white.
    assert apply_window(np.array([-50.0, 49.0]), Window(0, 100)).tolist() == [0.0, 1.0]
    assert apply_window(np.array([-50.0, 0.0, 50.0]), Window(0, 100, "LINEAR_EXACT")).tolist() == [0.0, 0.5, 1.0]
    assert apply_window(np.array([7.0]), Window(7, 10, "SIGMOID"))[0] == pytest.approx(0.5)


@given(pixel_arrays, windows)
def test_monotone_and_within_range(pixels: np.ndarray, window: Window) -> None:
    result = apply_window(np.sort(pixels), window)
    assert result.dtype == np.float32
    assert (np.diff(result) >= 0).all()
    assert result.min() >= 0.0
    assert result.max() <= 1.0


@given(
    st.lists(st.integers(-5000, 5000), min_size=1, max_size=30),
    st.builds(Window, st.integers(-3000, 3000), st.integers(2, 5000), functions),
    st.integers(-4000, 4000),
)
def test_reflected_window_is_the_negative(values: list[int], window: Window, total: int) -> None:
    pixels = np.array(values, dtype=np.float32)
    turned = apply_window(total - pixels, reflect(window, total=total))
    np.testing.assert_allclose(turned, 1.0 - apply_window(pixels, window), atol=1e-5)


def test_reflected_lookup_table_is_the_negative() -> None:
    table = VoiLut(np.array([0.0, 0.1, 0.5, 1.0], dtype=np.float32), -1.0)
    pixels = np.arange(-5.0, 6.0)
    turned = apply_window(3.0 - pixels, reflect(table, total=3.0))
    np.testing.assert_allclose(turned, 1.0 - apply_window(pixels, table), atol=1e-6)


def test_lookup_table_clips_to_its_ends() -> None:
    table = VoiLut(np.array([0.25, 0.5, 0.75], dtype=np.float32), 10.0)
    assert apply_window(np.array([-5.0, 10.0, 11.0, 12.0, 99.0]), table).tolist() == [0.25, 0.25, 0.5, 0.75, 0.75]


def test_input_is_not_changed() -> None:
    pixels = np.array([1.0, 2.0], dtype=np.float32)
    apply_window(pixels, Window(0, 1, "SIGMOID"))
    assert pixels.tolist() == [1.0, 2.0]


def test_percentile_window() -> None:
    window = percentile_window(np.arange(1001.0), low=10, high=90)
    assert (window.center, window.width, window.function) == (500.0, 800.0, "LINEAR_EXACT")
    assert percentile_window(np.full(9, 7.0)) == Window(7.0, 1.0, "LINEAR_EXACT")
    with pytest.raises(ValueError, match="low < high"):
        percentile_window(np.arange(5.0), low=90, high=10)
    with pytest.raises(ValueError, match="at least one pixel"):
        percentile_window(np.empty(0))


@pytest.mark.parametrize("name", CT_PRESETS)
def test_every_preset_is_a_window_of_the_configuration(name: str) -> None:
    assert PreprocessConfig(windows=(name,)).windows == (name,)  # type: ignore[arg-type]
