"""preprocess_image and to_input against independent arithmetic."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as PilImage
from pydicom.dataset import Dataset
from pydicom.pixels import apply_windowing

from lepton_vision.config.sections import PreprocessConfig
from lepton_vision.errors import ReadError
from lepton_vision.readers.window import apply_window
from lepton_vision.transforms.preprocess import display_window, preprocess_image, to_input
from lepton_vision.types import Image, VoiLut, Window


def ct(pixels: np.ndarray, **facts: object) -> Image:
    pixels = np.asarray(pixels, np.float32)
    values = {"units": "HU", "value_range": (-1024.0, 3071.0), "modality": "CT", "source_format": "dicom"}
    return Image(pixels[None] if pixels.ndim == 2 else pixels, **{**values, **facts})  # type: ignore[arg-type]


def display(pixels: np.ndarray) -> Image:
    pixels = np.asarray(pixels, np.float32)
    return Image(pixels[None] if pixels.ndim == 2 else pixels, source_format="png")


def area_matrix(source: int, target: int) -> np.ndarray:
    """(target, source) share of each input pixel in each output pixel: exact box filter."""
    edges = np.linspace(0, source, target + 1)
    low, high = edges[:-1, None], edges[1:, None]
    cover = np.minimum(high, np.arange(1, source + 1)) - np.maximum(low, np.arange(source))
    return np.clip(cover, 0, None) * target / source


@pytest.mark.parametrize("shape", [(512, 512), (300, 511), (225, 224), (1000, 230)])
def test_shrinking_is_the_exact_area_average(shape: tuple[int, int]) -> None:
    pixels = np.random.default_rng(1).uniform(0, 255, shape)
    config = PreprocessConfig(size=(224, 224), fit="stretch")
    got = preprocess_image(display(pixels), config)[0]
    expected = area_matrix(shape[0], 224) @ (pixels / 255) @ area_matrix(shape[1], 224).T
    assert np.abs(got - expected * 65535).max() <= 1.0


def test_shrinking_agrees_with_pillow_on_a_smooth_image() -> None:
    y, x = np.mgrid[0:480, 0:480] / 480
    pixels = (127 + 60 * np.sin(9 * x) + 60 * np.cos(7 * y)).astype(np.float32)
    got = preprocess_image(display(pixels), PreprocessConfig(size=(160, 160)))[0] / 257.0
    expected = np.asarray(PilImage.fromarray(pixels).resize((160, 160), PilImage.Resampling.BOX))
    assert np.abs(got - expected).max() < 0.01


def test_a_fine_pattern_does_not_alias() -> None:
    stripes = np.tile(np.asarray([0.0, 255.0]), (448, 224))
    got = preprocess_image(display(stripes), PreprocessConfig(size=(149, 149)))[0] / 65535
    assert np.abs(got - 0.5).max() < 0.2  # picking samples would give 0 and 1


def test_growing_agrees_with_pillow_bilinear() -> None:
    pixels = np.random.default_rng(2).uniform(0, 255, (28, 28)).astype(np.float32)
    got = preprocess_image(display(pixels), PreprocessConfig(size=(112, 112)))[0] / 257.0
    expected = np.asarray(PilImage.fromarray(pixels).resize((112, 112), PilImage.Resampling.BILINEAR))
    assert np.abs(got - expected).max() < 0.02


def test_one_axis_shrinks_while_the_other_grows() -> None:
    pixels = np.random.default_rng(3).uniform(0, 255, (400, 20)).astype(np.float32)
    got = preprocess_image(display(pixels), PreprocessConfig(size=(100, 60), fit="stretch"))[0] / 257.0
    shrunk = (area_matrix(400, 100) @ pixels).astype(np.float32)
    expected = np.asarray(PilImage.fromarray(shrunk).resize((60, 100), PilImage.Resampling.BILINEAR))
    assert np.abs(got - expected).max() < 0.05


def test_eight_bits_of_the_right_size_pass_unchanged() -> None:
    pixels = np.arange(256, dtype=np.float32).reshape(16, 16)
    got = preprocess_image(display(pixels), PreprocessConfig(size=(16, 16)))
    assert got.dtype == np.uint16
    assert (got[0] == pixels * 257).all()


@pytest.mark.parametrize(
    ("window", "function"), [(Window(40, 400), "LINEAR"), (Window(-600, 1500, "LINEAR_EXACT"), "LINEAR_EXACT")]
)
def test_window_equals_pydicom(window: Window, function: str) -> None:
    pixels = np.random.default_rng(4).integers(-1024, 3071, (64, 64)).astype(np.int16)
    header = Dataset()
    header.WindowCenter, header.WindowWidth, header.VOILUTFunction = window.center, window.width, function
    header.PhotometricInterpretation, header.BitsStored, header.PixelRepresentation = "MONOCHROME2", 16, 1
    header.RescaleSlope, header.RescaleIntercept = 1, 0
    shown = apply_windowing(pixels, header).astype(np.float64)
    expected = (shown + 32768) / 65535  # pydicom maps to the range of the stored values
    got = preprocess_image(ct(pixels, window=window), PreprocessConfig(size=(64, 64)))[0] / 65535
    assert np.abs(got - expected).max() < 2 / 65535


def test_windows_become_channels_in_their_order() -> None:
    pixels = np.full((8, 8), 80.0)
    config = PreprocessConfig(size=(8, 8), windows=("lung", "brain", Window(80, 200, "LINEAR_EXACT"), "full"))
    got = preprocess_image(ct(pixels), config)[:, 0, 0] / 65535
    lung = (80 + 600.5 - 1) / 1499 + 0.5  # LINEAR: (x - (c - 0.5)) / (w - 1) + 0.5
    assert got == pytest.approx([lung, 1.0, 0.5, (80 + 1024) / 4095], abs=1e-3)


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize("width", [1.0, 350.0])
def test_pixels_that_may_be_overwritten_change_no_bit(function: str, width: float) -> None:
    pixels = np.random.default_rng(0).uniform(-1000, 1000, (64, 48)).astype(np.float32)
    header = Window(40.0, width, function)  # type: ignore[arg-type]
    table = VoiLut(np.linspace(0, 1, 300, dtype=np.float32), -100.0)
    for windows in [("header",), ("header", "lung", "header"), ("lung", "percentile"), ("full",), ("full", "lung")]:
        config = PreprocessConfig(size=(24, 24), windows=windows)
        for window in (header, table):
            expected = preprocess_image(ct(pixels, window=window), config)
            own, fixed = pixels.copy(), pixels.copy()
            fixed.flags.writeable = False  # as from a file that is mapped
            for part in (own, fixed):
                np.testing.assert_array_equal(
                    preprocess_image(ct(part, window=window), config, is_last_use=True), expected
                )
            np.testing.assert_array_equal(fixed, pixels)


def test_pixels_are_left_alone_unless_that_is_said() -> None:
    pixels = np.random.default_rng(0).uniform(-1000, 1000, (16, 16)).astype(np.float32)
    before = pixels.copy()
    preprocess_image(ct(pixels), PreprocessConfig(size=(8, 8), windows=("lung",)))
    np.testing.assert_array_equal(pixels, before)


def test_the_window_comes_before_resizing() -> None:
    pixels = np.tile(np.asarray([-1000.0, 3000.0]), (4, 2))
    got = preprocess_image(ct(pixels), PreprocessConfig(size=(2, 2), windows=("brain",)))
    assert (got == 32768).all()  # half of the pixels are black, half white; averaging HU first would give white


def test_colour_becomes_luma_or_stays() -> None:
    pixels = np.zeros((3, 4, 4), np.float32)
    pixels[0], pixels[1] = 255, 51
    gray = preprocess_image(display(pixels), PreprocessConfig(size=(4, 4)))
    assert gray.shape == (1, 4, 4)
    assert gray[0, 0, 0] / 65535 == pytest.approx(0.299 + 0.587 * 0.2, abs=1e-4)
    rgb = preprocess_image(display(pixels), PreprocessConfig(size=(4, 4), color="rgb"))
    assert rgb[:, 0, 0].tolist() == [65535, 13107, 0]


def test_gray_is_repeated_for_a_colour_network_window_by_window() -> None:
    config = PreprocessConfig(size=(4, 4), windows=("lung", "bone"), color="rgb")
    got = preprocess_image(ct(np.full((4, 4), 100.0)), config)
    assert got.shape == (6, 4, 4)
    assert (got[0] == got[1]).all()
    assert (got[0] == got[2]).all()
    assert (got[3] == got[5]).all()
    assert got[0, 0, 0] != got[3, 0, 0]


@pytest.mark.parametrize(
    ("image", "config", "reason"),
    [
        (ct(np.zeros((1, 3, 4, 4))), PreprocessConfig(size=(4, 4)), "volume"),
        (ct(np.zeros((2, 4, 4))), PreprocessConfig(size=(4, 4)), "channels"),
        (ct(np.zeros((4, 4, 4))), PreprocessConfig(size=(4, 4)), "channels"),
        (ct(np.zeros((4, 4)), units="US"), PreprocessConfig(size=(4, 4), windows=("lung",)), "units"),
        (display(np.zeros((4, 4))), PreprocessConfig(size=(4, 4), windows=("bone",)), "units"),
        (ct(np.zeros((4, 4))), PreprocessConfig(size=(4, 4), missing_window="refuse"), "no_window"),
    ],
)
def test_what_cannot_be_shown_is_refused(image: Image, config: PreprocessConfig, reason: str) -> None:
    with pytest.raises(ReadError) as caught:
        preprocess_image(image, config)
    assert caught.value.reason == reason


def test_a_missing_header_window_means_what_the_configuration_says() -> None:
    pixels = np.linspace(0, 1000, 10000).reshape(100, 100)
    image = ct(pixels, value_range=(0.0, 2000.0), modality="MR", units="US")
    full = preprocess_image(image, PreprocessConfig(size=(100, 100), missing_window="full"))
    assert full.max() == pytest.approx(32768, abs=2)
    percentile = preprocess_image(image, PreprocessConfig(size=(100, 100), missing_window="percentile"))
    low, high = np.percentile(pixels, [0.5, 99.5])
    expected = np.clip((pixels - low) / (high - low), 0, 1)
    assert np.abs(percentile[0] / 65535 - expected).max() < 1e-4
    same = preprocess_image(image, PreprocessConfig(size=(100, 100), windows=("percentile",)))
    assert (same == percentile).all()


def test_a_lookup_table_of_the_header_is_used() -> None:
    image = ct(np.asarray([[0.0, 1], [2, 9]]), window=VoiLut(np.asarray([0.0, 0.25, 1.0], np.float32), 0.0))
    got = preprocess_image(image, PreprocessConfig(size=(2, 2)))
    assert got[0].ravel().tolist() == [0, 16384, 65535, 65535]


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    size=st.tuples(st.integers(1, 50), st.integers(1, 50)),
    value=st.integers(1, 255),
)
def test_padding_keeps_the_aspect_and_a_constant_stays_constant(
    height: int, width: int, size: tuple[int, int], value: int
) -> None:
    got = preprocess_image(display(np.full((height, width), value)), PreprocessConfig(size=size))[0]
    filled = got > 0
    rows, columns = int(filled.any(1).sum()), int(filled.any(0).sum())
    assert (got[filled] == value * 257).all()
    assert filled.sum() == rows * columns
    assert rows == size[0] or columns == size[1]
    scale = min(size[0] / height, size[1] / width)
    assert abs(rows - max(1, height * scale)) <= 0.5 + 1e-9
    assert abs(columns - max(1, width * scale)) <= 0.5 + 1e-9
    top = int(np.argmax(filled.any(1)))
    assert abs(top - (size[0] - rows) / 2) <= 0.5


@settings(max_examples=30, deadline=None)
@given(
    height=st.integers(1, 60),
    width=st.integers(1, 60),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    fit=st.sampled_from(["crop", "stretch"]),
)
def test_crop_and_stretch_leave_no_black(height: int, width: int, size: tuple[int, int], fit: str) -> None:
    config = PreprocessConfig.model_validate({"size": size, "fit": fit})
    assert (preprocess_image(display(np.full((height, width), 7)), config) == 7 * 257).all()


def test_crop_cuts_the_longer_side_in_the_middle() -> None:
    pixels = np.zeros((10, 30))
    pixels[:, 10:20] = 255
    got = preprocess_image(display(pixels), PreprocessConfig(size=(5, 5), fit="crop"))
    assert (got == 65535).all()


def test_to_input_is_the_usual_formula_for_both_dtypes() -> None:
    config = PreprocessConfig(size=(4, 4), color="rgb", mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 2.0))
    stored = np.random.default_rng(5).integers(0, 65536, (2, 3, 4, 4)).astype(np.uint16)
    mean, std = np.asarray(config.mean)[:, None, None], np.asarray(config.std)[:, None, None]
    expected = (stored / 65535 - mean) / std
    got = to_input(stored, config)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, atol=1e-6)
    np.testing.assert_allclose(to_input((stored / 65535).astype(np.float32), config), expected, atol=1e-6)
    assert (to_input(stored[1], config) == got[1]).all()
    one_mean = PreprocessConfig(color="rgb", mean=(0.5,), std=(0.5, 0.25, 2.0))
    np.testing.assert_allclose(to_input(stored, one_mean), (stored / 65535 - 0.5) / std, atol=1e-6)
    one_std = PreprocessConfig(color="rgb", mean=(0.1, 0.2, 0.3), std=(0.5,))
    np.testing.assert_allclose(to_input(stored, one_std), (stored / 65535 - mean) / 0.5, atol=1e-6)


def test_to_input_can_write_in_place() -> None:
    pixels = np.full((1, 2, 2), 0.75, np.float32)
    assert to_input(pixels, PreprocessConfig(), out=pixels) is pixels
    assert (pixels == 1.0).all()


def test_to_input_refuses_other_channels_and_dtypes() -> None:
    with pytest.raises(ReadError) as caught:
        to_input(np.zeros((3, 4, 4), np.uint16), PreprocessConfig())
    assert caught.value.reason == "channels"
    with pytest.raises(TypeError):
        to_input(np.zeros((1, 4, 4), np.uint8), PreprocessConfig())  # type: ignore[arg-type]


def test_preprocessing_loads_no_torch_and_no_albumentations() -> None:
    code = (
        "import sys, lepton_vision.transforms.preprocess as _; print(*({'torch', 'albumentations'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize("header", [None, Window(40.0, 400.0), VoiLut(np.linspace(0, 1, 50, dtype=np.float32), 0.0)])
@pytest.mark.parametrize("name", ["header", "full", "percentile", "lung", Window(10.0, 90.0, "SIGMOID")])
def test_the_window_of_a_picture_is_what_the_network_sees(name: object, header: Window | VoiLut | None) -> None:
    pixels = np.random.default_rng(0).normal(0, 400, (12, 12))
    image = ct(pixels, window=header)
    config = PreprocessConfig(size=(12, 12), windows=(name,))  # type: ignore[arg-type]
    shown = apply_window(image.pixels, display_window(image, config)) * 65535
    np.testing.assert_allclose(preprocess_image(image, config), shown, atol=1.01)


def test_a_volume_has_one_window_and_a_raster_file_its_full_range() -> None:
    volume = Image(np.arange(60, dtype=np.float32).reshape(1, 3, 4, 5), units="US", source_format="nifti")
    low, high = np.percentile(np.arange(60.0), [0.5, 99.5])
    found = display_window(volume)
    assert isinstance(found, Window)
    assert (found.center, found.width) == pytest.approx(((low + high) / 2, high - low))
    assert display_window(display(np.ones((3, 4, 4)))) == Window(127.5, 255.0, "LINEAR_EXACT")
    with pytest.raises(ReadError, match="VOI window"):
        display_window(volume, PreprocessConfig(missing_window="refuse"))
