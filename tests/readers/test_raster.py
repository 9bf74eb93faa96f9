"""PNG, JPEG and TIFF images: values, modes and refusals."""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image as Pillow

from lepton_vision.errors import ReadError
from lepton_vision.readers.identity import pseudonym
from lepton_vision.readers.image import Limits, probe, read_image, read_pixels

RNG = np.random.default_rng(0)
GRAY8 = RNG.integers(0, 256, (9, 7), dtype=np.uint8)
GRAY16 = RNG.integers(0, 65536, (9, 7), dtype=np.uint16)
RGB8 = RNG.integers(0, 256, (9, 7, 3), dtype=np.uint8)
RGB16 = RNG.integers(0, 65536, (9, 7, 3), dtype=np.uint16)


def reason_of(path: Path, **options: object) -> str:
    with pytest.raises(ReadError) as caught:
        read_image(path, **options)  # type: ignore[arg-type]
    return caught.value.reason


@pytest.mark.parametrize("ending", ["png", "tiff"])
@pytest.mark.parametrize("pixels", [GRAY8, GRAY16, RGB8], ids=["gray8", "gray16", "rgb8"])
def test_pillow_files(tmp_path: Path, ending: str, pixels: np.ndarray) -> None:
    path = tmp_path / "x.wrong"  # the ending of the name says nothing
    Pillow.fromarray(pixels).save(path, ending)
    image, facts = read_image(path), probe(path)
    expected = pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, 2, 0)
    np.testing.assert_array_equal(image.pixels, expected)
    assert image.value_range == (0.0, float(np.iinfo(pixels.dtype).max))
    assert (image.units, image.source_format, image.spacing_mm, image.patient_id) == ("display", ending, None, None)
    assert (facts.rows, facts.columns, facts.frames, facts.image_id) == (9, 7, 1, image.image_id)
    assert image.decoder.startswith("pillow ")


@pytest.mark.parametrize("ending", ["png", "tiff"])
@pytest.mark.parametrize("has_alpha", [False, True])
def test_color_of_16_bits_keeps_its_bits(tmp_path: Path, ending: str, has_alpha: bool) -> None:
    alpha = np.full((9, 7, 1), 65535, np.uint16)
    bgr = RGB16[..., ::-1]
    path = tmp_path / f"x.{ending}"
    assert cv2.imwrite(str(path), np.concatenate([bgr, alpha], axis=2) if has_alpha else bgr)
    image = read_image(path)
    np.testing.assert_array_equal(image.pixels, np.moveaxis(RGB16, 2, 0))
    assert image.value_range == (0.0, 65535.0)
    assert image.decoder.startswith("opencv ")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])
    assert reason_of(path) in ("truncated", "corrupt")


@pytest.mark.parametrize("mode", ["LA", "RGBA", "P", "1"])
def test_other_modes(tmp_path: Path, mode: str) -> None:
    source = Pillow.fromarray(RGB8).convert(mode)
    path = tmp_path / "x.png"
    source.save(path)
    pixels = read_image(path).pixels
    expected = np.asarray(source.convert("L" if mode in ("LA", "1") else "RGB"))
    np.testing.assert_array_equal(pixels[0] if expected.ndim == 2 else np.moveaxis(pixels, 0, 2), expected)


def test_jpeg(tmp_path: Path) -> None:
    for pixels in (GRAY8, RGB8):
        path = tmp_path / "x.jpg"
        Pillow.fromarray(pixels).save(path, quality=90)
        found = read_image(path).pixels
        expected = np.asarray(Pillow.open(path))
        np.testing.assert_array_equal(found[0] if pixels.ndim == 2 else np.moveaxis(found, 0, 2), expected)
        path.write_bytes(path.read_bytes()[:-40])
        assert reason_of(path) == "truncated"


def test_white_is_zero_is_turned(tmp_path: Path) -> None:
    path = tmp_path / "x.tif"
    Pillow.fromarray(GRAY16).save(path, tiffinfo={262: 0})
    np.testing.assert_array_equal(read_image(path).pixels[0], 65535 - GRAY16.astype(np.int64))


def test_real_numbers(tmp_path: Path) -> None:
    path = tmp_path / "x.tif"
    values = np.array([[0.5, -2.0], [7.25, 1.0]], dtype=np.float32)
    Pillow.fromarray(values).save(path)
    image = read_image(path)
    np.testing.assert_array_equal(image.pixels[0], values)
    assert image.value_range == (-2.0, 7.25)
    values[0, 0] = np.inf
    Pillow.fromarray(values).save(path)
    assert reason_of(path) == "non_finite"


def test_pages(tmp_path: Path) -> None:
    path = tmp_path / "x.tif"
    pages = [GRAY8, 255 - GRAY8, GRAY8 // 2]
    first, *rest = (Pillow.fromarray(page) for page in pages)
    first.save(path, save_all=True, append_images=rest)
    whole = read_image(path)
    np.testing.assert_array_equal(whole.pixels[0], np.stack(pages))
    one = read_image(path, frame=2)
    np.testing.assert_array_equal(one.pixels[0], pages[2])
    assert one.image_id == f"{whole.image_id}-2"
    assert probe(path).frames == 3
    assert reason_of(path, frame=3) == "no_frame"
    assert reason_of(path, limits=Limits(max_pixels=100)) == "too_large"
    first.save(path, save_all=True, append_images=[Pillow.fromarray(GRAY8[:4])])
    assert reason_of(path) == "geometry"


def test_id_is_of_the_content_and_not_of_the_place(tmp_path: Path) -> None:
    for name, values in (("a", GRAY8), ("b", GRAY8), ("c", GRAY8 + 1)):
        cv2.imwrite(str(tmp_path / f"{name}.png"), values)
    one, other, third = (read_image(tmp_path / f"{name}.png").image_id for name in "abc")
    data = hashlib.sha256((tmp_path / "a.png").read_bytes()).hexdigest()
    assert one == other == pseudonym("image", f"content {data}") == probe(tmp_path / "b.png").image_id
    assert third != one
    assert read_pixels(tmp_path / "a.png").image_id == ""  # a loader knows its images


def test_deep_color_in_planes(tmp_path: Path) -> None:
    # OpenCV 5.0.0 gives other pixels at each call for such a file, Pillow cuts it to 8 bits.
    path, planes = tmp_path / "x.tif", np.moveaxis(RGB16, 2, 0).astype("<u2")
    start = 8 + planes.nbytes
    entries = [(256, 4, [7]), (257, 4, [9]), (258, 3, [16, 16, 16]), (259, 3, [1]), (262, 3, [2])]
    entries += [(273, 4, [8, 8 + 126, 8 + 252]), (277, 3, [3]), (278, 4, [9]), (279, 4, [126] * 3), (284, 3, [2])]
    table, extra = struct.pack("<H", len(entries)), b""
    for tag, kind, values in entries:
        packed = struct.pack(f"<{len(values)}{'H' if kind == 3 else 'I'}", *values)
        if len(packed) > 4:
            place = start + 2 + 12 * len(entries) + 4 + len(extra)
            packed, extra = struct.pack("<I", place), extra + packed
        table += struct.pack("<HHI", tag, kind, len(values)) + packed.ljust(4, b"\0")
    path.write_bytes(struct.pack("<2sHI", b"II", 42, start) + planes.tobytes() + table + b"\0\0\0\0" + extra)
    with Pillow.open(path) as picture:
        assert (picture.size, picture.mode) == ((7, 9), "RGB")
    np.testing.assert_array_equal(read_image(path).pixels, np.moveaxis(RGB16, 2, 0))
