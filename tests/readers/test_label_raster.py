"""Labels of raster files: the numbers that were stored, written here by hand or by Pillow and OpenCV."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image as Pillow

from lepton_vision.errors import ReadError
from lepton_vision.readers import read_image
from lepton_vision.readers.mask import read_mask

LABELS = np.array([[0, 1, 1, 0, 0], [1, 3, 2, 0, 3], [0, 0, 0, 2, 1]], np.uint8)
LESION = (LABELS > 0).astype(np.uint8)


def packed(labels: np.ndarray, bits: int) -> list[bytes]:
    """Each row packed, the first pixel in the highest bits, as PNG (7.2) and TIFF have it."""
    rows = []
    for row in labels:
        text = "".join(f"{value:0{bits}b}" for value in row.tolist())
        text += "0" * (-len(text) % 8)
        rows.append(int(text, 2).to_bytes(len(text) // 8, "big"))
    return rows


def png(path: Path, labels: np.ndarray, *, bits: int, palette: bytes = b"") -> Path:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width = labels.shape
    header = struct.pack(">IIBBBBB", width, height, bits, 3 if palette else 0, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in packed(labels, bits)))
    colors = chunk(b"PLTE", palette) if palette else b""
    end = chunk(b"IDAT", data) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + colors + end)
    return path


def tiff(path: Path, labels: np.ndarray, *, bits: int, photometric: int) -> Path:
    """One uncompressed strip behind the directory."""
    height, width = labels.shape
    data = b"".join(packed(labels, bits))
    start = 8 + 2 + 9 * 12 + 4
    entries = [(256, width), (257, height), (258, bits), (259, 1), (262, photometric)]
    entries += [(273, start), (277, 1), (278, height), (279, len(data))]
    body = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    path.write_bytes(b"II*\0" + struct.pack("<IH", 8, len(entries)) + body + struct.pack("<I", 0) + data)
    return path


def found(path: Path) -> list[list[int]]:
    return read_mask(path).pixels[0].astype(int).tolist()


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_few_bits_are_not_stretched(tmp_path: Path, bits: int) -> None:
    assert found(png(tmp_path / "a.png", LABELS, bits=bits)) == LABELS.tolist()
    assert found(tiff(tmp_path / "a.tif", LABELS, bits=bits, photometric=1)) == LABELS.tolist()


def test_one_bit_is_zero_and_one_in_every_format(tmp_path: Path) -> None:
    white = Pillow.fromarray(LESION.astype(bool))
    white.save(tmp_path / "pillow.png")
    white.save(tmp_path / "pillow.tif")
    white.save(tmp_path / "fax.tif", compression="group4")
    cv2.imwrite(str(tmp_path / "opencv.png"), LESION * 255, [cv2.IMWRITE_PNG_BILEVEL, 1])
    png(tmp_path / "hand.png", LESION, bits=1)
    tiff(tmp_path / "hand.tif", LESION, bits=1, photometric=1)
    tiff(tmp_path / "white_is_zero.tif", 1 - LESION, bits=1, photometric=0)  # drawn the same
    for path in sorted(tmp_path.iterdir()):
        assert found(path) == LESION.tolist(), path.name


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_an_index_of_a_palette_is_the_label(tmp_path: Path, bits: int) -> None:
    colors = bytes([0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0])[: 3 * 2**bits]
    labels = LESION if bits == 1 else LABELS
    assert found(png(tmp_path / "a.png", labels, bits=bits, palette=colors)) == labels.tolist()


def test_palettes_of_tiff_files_and_of_pillow(tmp_path: Path) -> None:
    picture = Pillow.fromarray(LABELS, mode="P")
    picture.putpalette(list(range(255, -1, -1)) * 3)
    for name in ("a.png", "a.tif"):
        picture.save(tmp_path / name)
        assert found(tmp_path / name) == LABELS.tolist()


def test_a_gif_file_is_a_mask_by_its_indices(tmp_path: Path) -> None:
    """Those of a file written byte by byte: 2 x 2 pixels of two bits, 1 3 / 0 2 (GIF89a, LZW without a table)."""
    palette = bytes(range(12))
    codes = [4, 1, 3, 0, 2, 5]  # clear, four indices, end; three bits each, four for the last two
    bits = sum(code << place for code, place in zip(codes, (0, 3, 6, 9, 12, 16), strict=True))
    data = bits.to_bytes(3, "little")
    head = b"GIF89a" + struct.pack("<HHBBB", 2, 2, 0b1000_0001, 0, 0) + palette
    block = b"," + struct.pack("<HHHHB", 0, 0, 2, 2, 0) + bytes([2, len(data)]) + data + b"\0"
    path = tmp_path / "a.gif"
    path.write_bytes(head + block + b";")
    assert found(path) == [[1, 3], [0, 2]]
    path.write_bytes(head + block + block + b";")
    with pytest.raises(ReadError, match="moves") as caught:
        read_mask(path)
    assert caught.value.reason == "unsupported"
    with pytest.raises(ReadError) as caught:
        read_image(path)
    assert caught.value.reason == "not_an_image"


def test_white_is_zero_says_how_labels_are_shown(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    path = tiff(tmp_path / "a.tif", LESION * 255, bits=8, photometric=0)
    assert found(path) == tifffile.imread(path).tolist() == (LESION * 255).tolist()


@pytest.mark.parametrize("mode", ["RGB", "LA", "RGBA"])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_equal_channels_are_one(tmp_path: Path, mode: str, suffix: str) -> None:
    Pillow.fromarray(LESION * 255).convert(mode).save(tmp_path / f"a.{suffix}")
    assert found(tmp_path / f"a.{suffix}") == (LESION * 255).tolist()


def test_pages_keep_their_order(tmp_path: Path) -> None:
    pages = [Pillow.fromarray(np.roll(LABELS, k, axis=0), mode="P") for k in range(3)]
    for page in pages:
        page.putpalette([0, 0, 0, 9, 0, 0, 0, 9, 0, 0, 0, 9])
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    stack = np.stack([np.roll(LABELS, k, axis=0) for k in range(3)])
    assert np.array_equal(read_mask(tmp_path / "a.tif").pixels[0], stack)
    assert np.array_equal(read_mask(tmp_path / "a.tif", frame=2).pixels[0], stack[2])


def refusal(path: Path) -> str:
    with pytest.raises(ReadError) as caught:
        read_mask(path)
    assert caught.value.reason == "mask_values"
    return str(caught.value)


def test_what_is_no_label_is_refused_with_the_true_reason(tmp_path: Path) -> None:
    blob = np.zeros((40, 40), np.uint8)
    cv2.circle(blob, (21, 19), 11, 255, -1)
    Pillow.fromarray(blob).save(tmp_path / "lossy.jpg", quality=90)
    assert "that JPEG compression has changed" in refusal(tmp_path / "lossy.jpg")
    Pillow.fromarray(blob).save(tmp_path / "lossy.tif", compression="jpeg")
    assert "that JPEG compression has changed" in refusal(tmp_path / "lossy.tif")
    color = np.stack([LESION * 128, LESION * 0, LESION * 0], axis=-1)
    Pillow.fromarray(color).save(tmp_path / "red.png")
    assert "3 channels that differ" in refusal(tmp_path / "red.png")
    Pillow.fromarray(LESION.astype(np.uint16) * 65535).save(tmp_path / "deep.png")
    assert "from 0 to 255 in a mask. Received: 65535" in refusal(tmp_path / "deep.png")
    shape = np.dstack([np.full((3, 5, 3), 255, np.uint8), LESION * 255])
    Pillow.fromarray(shape).save(tmp_path / "glass.png")
    assert "transparent pixels that hold other values" in refusal(tmp_path / "glass.png")


def test_jpeg_that_changed_nothing_and_deep_files_of_small_numbers_are_labels(tmp_path: Path) -> None:
    blocks = np.zeros((32, 32), np.uint8)
    blocks[8:16, 8:24] = 255  # whole blocks of 8 x 8
    Pillow.fromarray(blocks).save(tmp_path / "a.jpg", quality=95)
    assert found(tmp_path / "a.jpg") == blocks.tolist()
    Pillow.fromarray(LABELS.astype(np.uint16)).save(tmp_path / "a.png")
    assert found(tmp_path / "a.png") == LABELS.tolist()


@pytest.mark.parametrize("kind", [bool, np.int64, np.float32, np.float64, np.uint16])
def test_arrays_of_every_type_hold_labels(tmp_path: Path, kind: Any) -> None:
    labels = LESION if kind is bool else LABELS
    np.savez(tmp_path / "a.npz", mask=labels[None].astype(kind))
    assert found(tmp_path / "a.npz") == labels.tolist()
    if kind is not bool:
        nibabel = pytest.importorskip("nibabel")
        image = nibabel.Nifti1Image(labels[None].astype(kind), np.eye(4), dtype=kind)
        image.to_filename(tmp_path / "a.nii")
        assert read_mask(tmp_path / "a.nii").pixels[0].max() == 3


def test_a_rescale_of_whole_numbers_leaves_labels(tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    path = tmp_path / "a.nii"
    nibabel.Nifti1Image((LABELS * 51)[None], np.eye(4)).to_filename(path)
    data = bytearray(path.read_bytes())
    struct.pack_into("<f", data, 112, 1 / 51)  # scl_slope (nifti1.h), which float32 cannot hold exactly
    path.write_bytes(data)
    scaled = nibabel.load(path).get_fdata()
    assert np.abs(scaled[0] - LABELS).max() > 0
    assert np.array_equal(read_mask(path).pixels[0].transpose(2, 1, 0)[0], LABELS)
