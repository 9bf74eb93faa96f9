"""PNG, JPEG and TIFF with 8 or 16 bits, gray or color; an alpha channel is dropped.

Values are as stored (a 16-bit gray PNG gives 0 to 65535), palettes are expanded, and TIFF files in which white is zero
are turned, so that larger is brighter. EXIF orientation is not applied: labels and masks refer to the stored pixels.
"""

from __future__ import annotations

import os
import zlib
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image as Pillow
from PIL import UnidentifiedImageError

from lepton_vision.errors import ReadError
from lepton_vision.readers.codestream import parse_jpeg
from lepton_vision.readers.dicom_header import stored_path
from lepton_vision.readers.facts import FileFacts, no_facts
from lepton_vision.readers.identity import pseudonym
from lepton_vision.readers.limits import Limits, check_bytes, check_size, guard
from lepton_vision.readers.npz import probe_npz, read_npz
from lepton_vision.readers.versions import package_version
from lepton_vision.types import Image

__all__ = ["probe_npz", "probe_raster", "read_npz", "read_raster"]

_TIFF_BITS, _TIFF_PHOTOMETRIC, _TIFF_PLANAR, _TIFF_FORMAT = 258, 262, 284, 339
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


@dataclass(frozen=True, slots=True)
class _Sheet:
    """What the header of a raster file says: bits per sample, and whether Pillow would cut them to 8."""

    rows: int
    columns: int
    frames: int
    bits: int
    kind: str
    is_deep_color: bool = False
    is_white_zero: bool = False
    is_float: bool = False
    is_signed: bool = False


def read_raster(
    stream: BinaryIO, *, kind: str, path: Path, name: str | None, frame: int | None, limits: Limits
) -> Image:
    """Read an open PNG, JPEG or TIFF file; see ``image.read_image``."""
    data = _read_data(stream, kind=kind, limits=limits)
    with guard(f"The {kind.upper()} file cannot be decoded", reason="corrupt"):
        with _open(data, kind=kind) as picture:
            sheet = _describe(picture, data, kind=kind)
            wanted = _wanted(sheet, frame=frame)
            check_size(sheet.rows, sheet.columns, len(wanted), len(picture.getbands()), limits=limits)
            pages = _decode_deep(data, sheet, wanted=wanted) if sheet.is_deep_color else None
            if pages is None:
                pages = [_decode_page(picture, sheet, page=page, limits=limits) for page in wanted]
        if any(page.shape != pages[0].shape for page in pages):
            raise ReadError("The pages of the file differ in size. Read single pages (frame=i).", reason="geometry")
        pixels, value_range = _arrange(pages, sheet)
    image_id = pseudonym("image", name or stored_path(path))
    return Image(
        pixels=pixels,
        value_range=value_range,
        image_id=f"{image_id}-{wanted.start}" if frame is not None and sheet.frames > 1 else image_id,
        source_format=kind,
        decoder=f"opencv {cv2.__version__}" if sheet.is_deep_color else package_version("pillow"),
        facts={**no_facts(), "bits_stored": sheet.bits, "frames": sheet.frames},
    )


def probe_raster(stream: BinaryIO, *, kind: str, path: Path, limits: Limits) -> FileFacts:
    """Header facts of an open PNG, JPEG or TIFF file; see ``image.probe``."""
    data = _read_data(stream, kind=kind, limits=limits)
    with (
        guard(f"The header of the {kind.upper()} file is damaged", reason="corrupt"),
        _open(data, kind=kind) as picture,
    ):
        sheet = _describe(picture, data, kind=kind)
    return FileFacts(
        source_format=kind,
        frames=sheet.frames,
        rows=sheet.rows,
        columns=sheet.columns,
        image_id=pseudonym("image", stored_path(path)),
        facts={**no_facts(), "bits_stored": sheet.bits},
    )


def _read_data(stream: BinaryIO, *, kind: str, limits: Limits) -> bytes:
    """The whole file, once its own header has passed the cap."""
    check_bytes(stream.seek(0, os.SEEK_END), limits=limits)  # by its size: a giant is never in memory
    stream.seek(0)
    data = stream.read(limits.max_bytes)
    if kind == "png":
        if len(data) < 33 or data[12:16] != b"IHDR":
            raise ReadError("The PNG file ends inside its header.", reason="truncated")
        columns, rows = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
        check_size(rows, columns, limits=limits)
    elif kind == "jpeg":
        header = parse_jpeg(data)
        check_size(header.rows, header.columns, header.samples, limits=limits)
        if header.precision != 8:
            raise ReadError(f"Expected a JPEG file of 8 bits. Received: {header.precision}.", reason="unsupported")
    return data


def _open(data: bytes, *, kind: str) -> Pillow.Image:
    try:
        return Pillow.open(BytesIO(data), formats=(kind.upper(),))
    except Pillow.DecompressionBombError:
        raise ReadError("The image is larger than Pillow accepts.", reason="too_large") from None
    except UnidentifiedImageError:
        raise ReadError(f"The {kind.upper()} file is damaged beyond its first bytes.", reason="corrupt") from None


def _describe(picture: Pillow.Image, data: bytes, *, kind: str) -> _Sheet:
    columns, rows = picture.size
    if kind == "png":
        bits, color = data[24], data[25]
        return _Sheet(rows, columns, 1, max(bits, 8), kind, is_deep_color=bits == 16 and color != 0)
    if kind == "jpeg":
        return _Sheet(rows, columns, 1, 8, kind)
    tags: Any = getattr(picture, "tag_v2", {})
    bits = max(int(depth) for depth in np.atleast_1d(tags.get(_TIFF_BITS, 1)))
    sample_format = int(np.atleast_1d(tags.get(_TIFF_FORMAT, 1))[0])
    is_gray = len(picture.getbands()) == 1 and picture.mode != "P"
    if bits == 16 and not is_gray and tags.get(_TIFF_PLANAR) == 2:
        # OpenCV 5.0.0 returns memory that was never written, other values at every call.
        raise ReadError(
            "A TIFF file of 16-bit color in planes of their own cannot be read. Save it with interleaved samples.",
            reason="unsupported",
        )
    return _Sheet(
        rows,
        columns,
        int(getattr(picture, "n_frames", 1)),
        max(bits, 8),
        kind,
        is_deep_color=bits == 16 and not is_gray,
        # Pillow itself turns 1 and 8 bits.
        is_white_zero=tags.get(_TIFF_PHOTOMETRIC) == 0 and bits > 8,
        is_float=sample_format == 3,
        is_signed=sample_format == 2,
    )


def _wanted(sheet: _Sheet, *, frame: int | None) -> range:
    if frame is None:
        return range(sheet.frames)
    if not 0 <= frame < sheet.frames:
        raise ReadError(f"Expected a frame from 0 to {sheet.frames - 1}. Received: {frame}.", reason="no_frame")
    return range(frame, frame + 1)


def _decode_page(picture: Pillow.Image, sheet: _Sheet, *, page: int, limits: Limits) -> npt.NDArray[Any]:
    """One page as (H, W) or (H, W, 3)."""
    if sheet.frames > 1:
        picture.seek(page)
        check_size(*picture.size, len(picture.getbands()), limits=limits)
    try:
        picture.load()
    except (OSError, SyntaxError) as error:
        is_short = "truncated" in str(error)
        raise ReadError(
            f"The {sheet.kind.upper()} file {'ends too early' if is_short else 'is damaged'}. Copy it again.",
            reason="truncated" if is_short else "corrupt",
        ) from None
    mode = picture.mode
    if mode in ("LA", "RGBA", "RGBX", "RGBa", "La"):
        values = np.asarray(picture)[..., :-1]
        return values[..., 0] if values.shape[2] == 1 else values
    if mode == "1":
        return np.asarray(picture.convert("L"))
    if mode in ("P", "PA", "CMYK", "YCbCr", "LAB", "HSV"):
        return np.asarray(picture.convert("RGB"))
    values = np.asarray(picture)
    if values.dtype == np.int32 and not sheet.is_signed and sheet.bits == 32:
        return values.view(np.uint32)
    return values


def _decode_deep(data: bytes, sheet: _Sheet, *, wanted: range) -> list[npt.NDArray[Any]]:
    """Color of 16 bits, which Pillow would cut to 8: by OpenCV, which in turn does not notice missing data."""
    if sheet.kind == "png":
        _check_png(data, sheet)
    is_read, pages = cv2.imdecodemulti(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_UNCHANGED)
    if not is_read or len(pages) <= wanted.stop - 1 or any(pages[page].dtype != np.uint16 for page in wanted):
        raise ReadError(f"The {sheet.kind.upper()} file with 16-bit color is damaged.", reason="corrupt")
    result: list[npt.NDArray[Any]] = []
    for page in wanted:
        values = np.asarray(pages[page])
        is_gray = values.ndim == 2 or (sheet.kind == "png" and data[25] == 4)
        result.append((values if values.ndim == 2 else values[..., 0]) if is_gray else values[..., 2::-1])
    return result


def _check_png(data: bytes, sheet: _Sheet) -> None:
    """Refuse a PNG file with a damaged chunk or too little image data (libpng would leave the rest black)."""
    place, packed = 8, []
    while place + 12 <= len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        chunk = data[place + 4 : place + 8 + length]
        check = data[place + 8 + length : place + 12 + length]
        if len(check) < 4:
            break
        if zlib.crc32(chunk) != int.from_bytes(check, "big"):
            raise ReadError("The PNG file is damaged (a checksum is wrong). Copy it again.", reason="corrupt")
        if chunk[:4] == b"IDAT":
            packed.append(chunk[4:])
        place += 12 + length
    expected = _png_length(data, sheet)
    engine = zlib.decompressobj()
    inflated = len(engine.decompress(b"".join(packed), expected + 1))
    if inflated < expected:
        raise ReadError("The PNG file ends too early. Copy it again.", reason="truncated")


def _png_length(data: bytes, sheet: _Sheet) -> int:
    """Bytes of the filtered image data: each row of each pass has one byte more (PNG 7.2, 8)."""
    size = {2: 6, 4: 4, 6: 8}[data[25]]
    passes = _ADAM7 if data[28] else ((0, 0, 1, 1),)
    total = 0
    for x, y, dx, dy in passes:
        width, height = -(-(sheet.columns - x) // dx), -(-(sheet.rows - y) // dy)
        if width > 0 and height > 0:
            total += height * (width * size + 1)
    return total


def _arrange(pages: list[npt.NDArray[Any]], sheet: _Sheet) -> tuple[npt.NDArray[np.float32], tuple[float, float]]:
    """(C, H, W) of one page, (C, D, H, W) of several, and the value range."""
    stack = np.stack(pages) if len(pages) > 1 else pages[0][None]
    pixels = stack[None] if stack.ndim == 3 else np.moveaxis(stack, 3, 0)
    result = np.ascontiguousarray(pixels, dtype=np.float32)
    if sheet.is_float:
        if not np.isfinite(result).all():
            raise ReadError("The image holds NaN or infinite pixels. Remove or replace them.", reason="non_finite")
        low, high = float(result.min()), float(result.max())
    elif sheet.is_signed:
        low, high = float(-(1 << (sheet.bits - 1))), float((1 << (sheet.bits - 1)) - 1)
    else:
        low, high = 0.0, float((1 << sheet.bits) - 1)
    if sheet.is_white_zero:
        np.subtract(np.float32(low + high), result, out=result)
    return (result if len(pages) > 1 else result[:, 0]), (low, high)
