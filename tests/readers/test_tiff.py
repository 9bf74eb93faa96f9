"""TIFF: every type of sample, several images in one file, and what is refused by its true name."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import tifffile

from lepton_vision.errors import ReadError
from lepton_vision.manifest.table import Manifest
from lepton_vision.readers.image import Limits, probe, read_image

Array = npt.NDArray[Any]
GRAY: dict[str, Any] = {"photometric": "minisblack", "metadata": None}
WHITE: dict[str, Any] = {"photometric": "miniswhite", "metadata": None}
COLOR: dict[str, Any] = {"photometric": "rgb", "metadata": None}
INTEGERS = ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8"]
REALS = ["f2", "f4", "f8"]


def some(kind: str, shape: tuple[int, ...] = (9, 7)) -> Array:
    rng = np.random.default_rng(0)
    if kind[0] == "f":
        return rng.standard_normal(shape).astype(kind)
    limits = np.iinfo(kind)
    return rng.integers(limits.min, limits.max, shape, dtype=kind, endpoint=True)


def seen(pixels: Array) -> Array:
    """(C, H, W) as (H, W) or (H, W, 3)."""
    return pixels[0] if len(pixels) == 1 else np.moveaxis(pixels, 0, -1)


def refusal(path: Path, **options: Any) -> ReadError:
    with pytest.raises(ReadError) as caught:
        read_image(path, **options)
    return caught.value


def write_pages(path: Path, *pages: tuple[Array, dict[str, Any]]) -> Path:
    with tifffile.TiffWriter(path) as file:
        for values, options in pages:
            file.write(values, contiguous=False, **options)
    return path


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("is_big", [False, True], ids=["classic", "big"])
@pytest.mark.parametrize("kind", INTEGERS + REALS)
def test_samples_of_any_type_are_what_was_written(tmp_path: Path, kind: str, is_big: bool, order: str) -> None:
    gray, color = some(kind), some(kind, (9, 7, 3))
    options: dict[str, Any] = {"bigtiff": is_big, "byteorder": order}
    for values, more in ((gray, GRAY), (color, COLOR)):
        tifffile.imwrite(tmp_path / "x.tif", values, **options, **more)
        image = read_image(tmp_path / "x.tif")
        np.testing.assert_array_equal(seen(image.pixels), values.astype(np.float32))
        low, high = image.value_range
        assert low <= image.pixels.min()
        assert image.pixels.max() <= high
        if kind[0] != "f":
            assert (low, high) == (float(np.float32(np.iinfo(kind).min)), float(np.float32(np.iinfo(kind).max)))
        assert probe(tmp_path / "x.tif").facts["bits_stored"] == values.dtype.itemsize * 8


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", INTEGERS + REALS)
def test_white_zero_is_turned_whatever_the_type(tmp_path: Path, kind: str, order: str) -> None:
    values = some(kind)
    tifffile.imwrite(tmp_path / "x.tif", values, byteorder=order, **WHITE)
    expected = -values if kind[0] == "f" else (np.iinfo(kind).max - (values.astype(object) - np.iinfo(kind).min))
    image = read_image(tmp_path / "x.tif")
    np.testing.assert_array_equal(image.pixels[0], expected.astype(np.float32))
    assert image.value_range[0] <= image.pixels.min()
    assert image.pixels.max() <= image.value_range[1]


@pytest.mark.parametrize("kind", ["u1", "u2", "f4", "f8", "i2"])
@pytest.mark.parametrize(
    "options",
    [
        {"tile": (16, 32)},
        {"compression": "deflate"},
        {"compression": "deflate", "tile": (16, 16), "predictor": 2},
        {"rowsperstrip": 7},
    ],
    ids=["tiles", "deflate", "predicted", "strips"],
)
@pytest.mark.parametrize("order", ["<", ">"])
def test_tiles_and_compressions(tmp_path: Path, kind: str, options: dict[str, Any], order: str) -> None:
    if kind[0] == "f" and "predictor" in options:
        options = options | {"predictor": 1}
    for values, more in ((some(kind, (40, 48)), GRAY), (some(kind, (40, 48, 3)), COLOR)):
        tifffile.imwrite(tmp_path / "x.tif", values, byteorder=order, **options, **more)
        np.testing.assert_array_equal(seen(read_image(tmp_path / "x.tif").pixels), values.astype(np.float32))


@pytest.mark.parametrize("compression", [5, 32773], ids=["lzw", "packbits"])
@pytest.mark.parametrize("kind", ["u1", "u2", "i2", "i4", "f4", "f8"])
def test_compressions_of_libtiff(tmp_path: Path, kind: str, compression: int) -> None:
    path = tmp_path / "x.tif"
    for values in (some(kind, (40, 48)), some(kind, (40, 48, 3))):
        assert cv2.imwrite(str(path), values[..., ::-1] if values.ndim == 3 else values, [259, compression])
        np.testing.assert_array_equal(seen(read_image(path).pixels), values.astype(np.float32))
        path.write_bytes(path.read_bytes()[:-9])
        assert refusal(path).reason in ("truncated", "corrupt")


def test_alpha_is_dropped_and_other_samples_of_gray_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.tif"
    for kind in ("u1", "u2"):
        two = some(kind, (9, 7, 2))
        tifffile.imwrite(path, two, planarconfig="contig", extrasamples=["unassalpha"], **GRAY)
        np.testing.assert_array_equal(read_image(path).pixels[0], two[..., 0])
        four = some(kind, (9, 7, 4))
        tifffile.imwrite(path, four, extrasamples=["unassalpha"], **COLOR)
        np.testing.assert_array_equal(seen(read_image(path).pixels), four[..., :3])
        tifffile.imwrite(path, two, planarconfig="contig", extrasamples=["unspecified"], **GRAY)
        error = refusal(path)
        assert error.reason == "unsupported"
        assert "Received: 2" in str(error)


def test_colour_in_planes(tmp_path: Path) -> None:
    for kind in ("u1", "u2", "f4"):
        planes = some(kind, (3, 9, 7))
        tifffile.imwrite(tmp_path / "x.tif", planes, planarconfig="separate", **COLOR)
        np.testing.assert_array_equal(read_image(tmp_path / "x.tif").pixels, planes)


def test_a_smaller_copy_and_a_mask_are_no_images(tmp_path: Path) -> None:
    image, small = some("u2", (40, 48)), some("u2", (20, 24))
    mask = some("u1", (40, 48)) > 99
    reduced = GRAY | {"subfiletype": 1}
    transparency = {"photometric": "mask", "subfiletype": 4, "metadata": None}
    for pages in (
        [(image, GRAY), (small, reduced)],
        [(small, reduced), (image, GRAY)],
        [(image, GRAY), (mask, transparency)],
    ):
        path = write_pages(tmp_path / "x.tif", *pages)
        assert probe(path).frames == 1
        assert (probe(path).rows, probe(path).columns) == (40, 48)
        np.testing.assert_array_equal(read_image(path).pixels[0], image)
        np.testing.assert_array_equal(read_image(path, frame=0).pixels[0], image)


def test_each_page_is_turned_by_its_own_polarity(tmp_path: Path) -> None:
    for kind in ("u1", "u2"):
        first, second = some(kind), some(kind)[::-1]
        path = write_pages(tmp_path / "x.tif", (first, GRAY), (second, WHITE))
        np.testing.assert_array_equal(read_image(path).pixels[0], [first, np.iinfo(kind).max - second])
        np.testing.assert_array_equal(read_image(path, frame=1).pixels[0], np.iinfo(kind).max - second)


def test_pages_of_another_type_are_read_one_by_one(tmp_path: Path) -> None:
    shallow, deep, signed = some("u1"), some("u2"), some("i2")
    (tmp_path / "in").mkdir()
    path = write_pages(tmp_path / "in" / "x.tif", (shallow, GRAY), (deep, GRAY), (signed, GRAY))
    error = refusal(path)
    assert error.reason == "geometry"
    assert "frame=i" in str(error)
    ranges = []
    for number, values in enumerate((shallow, deep, signed)):
        image = read_image(path, frame=number)
        np.testing.assert_array_equal(image.pixels[0], values)
        ranges.append(image.value_range)
    assert ranges == [(0.0, 255.0), (0.0, 65535.0), (-32768.0, 32767.0)]
    frame = Manifest.scan(tmp_path / "in").frame
    assert frame["status"].tolist() == ["ok"] * 3
    assert frame["frame"].tolist() == [0, 1, 2]


def behind_one_page(path: Path, stack: Array, *, description: str, order: str = "<") -> Path:
    """What ImageJ writes above 4 GB: the directory of the first image, then all of them one behind the other."""
    color = "rgb" if stack.ndim == 4 else "minisblack"
    tifffile.imwrite(
        path, stack[0], byteorder=order, photometric=color, description=description, metadata=None, software=None
    )
    path.write_bytes(path.read_bytes() + stack[1:].astype(stack.dtype.newbyteorder(order)).tobytes())
    return path


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", ["u1", "u2", "f4"])
@pytest.mark.parametrize("extent", ["slices=4", "frames=4", "channels=2\nslices=2\nhyperstack=true", "channels=4"])
def test_a_stack_behind_one_page_is_read_whole(tmp_path: Path, extent: str, kind: str, order: str) -> None:
    stack = some(kind, (4, 9, 7))
    path = behind_one_page(tmp_path / "x.tif", stack, description=f"ImageJ=1.54f\nimages=4\n{extent}\n", order=order)
    image = read_image(path)
    np.testing.assert_array_equal(image.pixels[0], stack)
    np.testing.assert_array_equal(read_image(path, frame=2).pixels[0], stack[2])
    assert (probe(path).frames, image.facts["frames"]) == (4, 4)
    assert refusal(path, frame=4).reason == "no_frame"
    assert refusal(path, limits=Limits(max_pixels=200)).reason == "too_large"
    path.write_bytes(path.read_bytes()[:-9])
    error = refusal(path)
    assert error.reason == "truncated"
    assert "4 images" in str(error)


def test_colour_and_shapes_behind_one_page(tmp_path: Path) -> None:
    stack = some("u1", (2, 9, 7, 3))
    path = behind_one_page(tmp_path / "x.tif", stack, description="ImageJ=1.54f\nimages=2\nslices=2\n")
    np.testing.assert_array_equal(read_image(path).pixels, np.moveaxis(stack, 3, 0))
    deep = some("u2", (3, 9, 7))
    shape = json.dumps({"shape": [3, 9, 7], "truncated": True})  # tifffile's own
    path = behind_one_page(tmp_path / "y.tif", deep, description=shape)
    np.testing.assert_array_equal(read_image(path).pixels[0], deep)


def test_pages_of_imagej_and_of_ome_keep_their_order(tmp_path: Path) -> None:
    hyper = some("u2", (2, 3, 9, 7))
    tifffile.imwrite(tmp_path / "x.tif", hyper, imagej=True, metadata={"axes": "ZCYX"})
    np.testing.assert_array_equal(read_image(tmp_path / "x.tif").pixels[0], hyper.reshape(6, 9, 7))
    stack = some("u2", (4, 9, 7))
    tifffile.imwrite(tmp_path / "y.tif", stack, ome=True, photometric="minisblack", metadata={"axes": "ZYX"})
    np.testing.assert_array_equal(read_image(tmp_path / "y.tif").pixels[0], stack)


def test_the_orientation_tag_turns_nothing(tmp_path: Path) -> None:
    for kind in ("u1", "u2", "f4"):
        for orientation in (1, 3, 6, 8):
            tag = (274, 3, 1, orientation, True)
            pages = [(some(kind), GRAY), (some(kind)[::-1], GRAY | {"extratags": [tag]})]
            path = write_pages(tmp_path / "x.tif", *pages)
            np.testing.assert_array_equal(read_image(path).pixels[0], [values for values, _ in pages])


def hand_made(path: Path, values: Array, *, entries: dict[int, tuple[int, int]]) -> Path:
    """A classic little-endian file of one strip, written by hand from TIFF 6.0."""
    rows, columns = values.shape
    data = values.tobytes()
    tags: dict[int, tuple[int, int]] = {256: (3, columns), 257: (3, rows), 259: (3, 1), 262: (3, 1), 273: (4, 8)}
    tags |= {277: (3, 1), 278: (3, rows), 279: (4, len(data))} | entries
    packed = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, (kind, value) in sorted(tags.items()))
    head = struct.pack("<2sHI", b"II", 42, 8 + len(data))
    path.write_bytes(head + data + struct.pack("<H", len(tags)) + packed + bytes(4))
    return path


def test_files_made_by_hand(tmp_path: Path) -> None:
    signed = some("i1")
    path = hand_made(tmp_path / "x.tif", signed, entries={258: (3, 8), 339: (3, 2)})
    np.testing.assert_array_equal(read_image(path).pixels[0], signed)
    assert read_image(path).value_range == (-128.0, 127.0)
    double = some("f8").astype("<f8")
    path = hand_made(tmp_path / "x.tif", double, entries={258: (3, 64), 339: (3, 3)})
    np.testing.assert_array_equal(read_image(path).pixels[0], double.astype(np.float32))
    path = hand_made(tmp_path / "x.tif", double, entries={258: (3, 64), 339: (3, 3), 279: (4, 4000)})
    assert refusal(path).reason == "truncated"
    path = hand_made(tmp_path / "x.tif", double, entries={258: (3, 64), 339: (3, 3), 257: (3, 60000)})
    assert refusal(path).reason == "truncated"
    path = hand_made(tmp_path / "x.tif", double, entries={258: (3, 64), 339: (3, 3), 256: (4, 2**31), 257: (4, 2**31)})
    assert refusal(path).reason == "too_large"


def test_numbers_beyond_float32_are_refused_without_a_warning(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "x.tif", np.array([[1.0, 1e300], [0.0, 2.0]]), **GRAY)
    assert refusal(tmp_path / "x.tif").reason == "non_finite"


def test_a_deflated_strip_is_never_inflated_beyond_its_page(tmp_path: Path) -> None:
    path = tmp_path / "x.tif"
    tifffile.imwrite(path, np.zeros((900, 900), np.float64), compression="deflate", rowsperstrip=900, **GRAY)
    data = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as file:
        places = [file.pages[0].tags[tag].valueoffset for tag in (257, 278)]  # type: ignore[union-attr]
    for place in places:
        struct.pack_into("<H", data, place, 3)
    path.write_bytes(data)
    error = refusal(path)
    assert error.reason == "corrupt"
    assert "larger than its header says" in str(error)


@pytest.mark.parametrize(
    ("values", "options", "what"),
    [
        (some("f4").astype("c8"), GRAY, "complex"),
        (some("u2", (9, 7, 4)), {"photometric": "separated", "metadata": None}, "SEPARATED"),
        (some("u2"), {"photometric": "palette", "colormap": np.zeros((3, 65536), "u2"), "metadata": None}, "PALETTE"),
        (some("u2", (4, 9, 7)), GRAY | {"volumetric": True}, "depth"),
        (some("u1", (9, 7, 3)), GRAY | {"planarconfig": "contig"}, "Received: 3"),
    ],
)
def test_a_sound_file_of_another_kind_is_refused_by_its_name(
    tmp_path: Path, values: Array, options: dict[str, Any], what: str
) -> None:
    tifffile.imwrite(tmp_path / "x.tif", values, **options)
    error = refusal(tmp_path / "x.tif")
    assert error.reason == "unsupported"
    assert what in str(error)
    assert "damaged" not in str(error)
    with pytest.raises(ReadError, match=what) as caught:  # a scan must not call it sound
        probe(tmp_path / "x.tif")
    assert caught.value.reason == "unsupported"


def test_a_scan_sees_that_strips_are_missing(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "x.tif") as file:
        file.write(some("u2"), **GRAY)
        directory = file._fh.tell()
    data = (tmp_path / "x.tif").read_bytes()
    assert directory == len(data)  # the strip ends the file
    (tmp_path / "x.tif").write_bytes(data[:-20])
    with pytest.raises(ReadError, match="ends too early"):
        probe(tmp_path / "x.tif")
