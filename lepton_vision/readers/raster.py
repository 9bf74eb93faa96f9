"""PNG, JPEG and TIFF images with 8 or 16 bits, gray or color; an alpha channel is dropped.

Values are as stored (a 16-bit gray PNG gives 0 to 65535), palettes are expanded, and TIFF files in which white is zero
are turned, so that larger is brighter. EXIF orientation is not applied: labels and masks refer to the stored pixels.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from typing import Any, BinaryIO

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image as Pillow
from PIL import UnidentifiedImageError

from lepton_vision.errors import ReadError
from lepton_vision.readers.dicom.codestream import check_scans, parse_jpeg
from lepton_vision.readers.facts import FileFacts, no_facts
from lepton_vision.readers.identity import content_id
from lepton_vision.readers.limits import Limits, check_bytes, check_size, raise_read_errors
from lepton_vision.readers.npz import probe_npz, read_npz
from lepton_vision.readers.pages import Decoded, Samples, arrange, decode_picture, open_picture, wanted_pages
from lepton_vision.readers.tiff import TiffFacts, open_pages, probe_tiff, read_tiff
from lepton_vision.readers.versions import package_version
from lepton_vision.types import Image

__all__ = ["probe_npz", "probe_raster", "read_npz", "read_raster"]

_PNG_SAMPLES = {2: 3, 3: 3, 4: 2, 6: 4}  # by colour type; of a palette, what it becomes
_NEEDED_CHUNKS = (b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS")
_FEW_CHUNKS = 2**14
_CHUNK_BYTES = 256  # that a chunk of a file of many has on average: encoders write 8 KiB and more
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def read_raster(stream: BinaryIO, *, kind: str, frame: int | None, limits: Limits, is_named: bool = True) -> Image:
    """Read an open PNG, JPEG or TIFF file; see ``image.read_image``. Without ``is_named`` it has no id."""
    data = _read_data(stream, kind=kind, limits=limits)
    with raise_read_errors(f"The {kind.upper()} file cannot be decoded", reason="corrupt"):
        if kind == "tiff":
            decoded = read_tiff(data, open_pages(data, limits=limits), frame=frame, limits=limits)
        else:
            decoded = _read_picture(data, kind=kind, frame=frame, limits=limits)
        return _to_image(decoded, kind=kind, image_id=content_id(data) if is_named else "", frame=frame)


def page_reader(stream: BinaryIO, *, limits: Limits) -> Callable[[int], Image]:
    """Reads single pages of an open TIFF file by their numbers."""
    data = _read_data(stream, kind="tiff", limits=limits)
    pages = open_pages(data, limits=limits)

    def read(number: int) -> Image:
        return _to_image(read_tiff(data, pages, frame=number, limits=limits), kind="tiff", image_id="", frame=number)

    return read


def _to_image(decoded: Decoded, *, kind: str, image_id: str, frame: int | None) -> Image:
    pixels, value_range = arrange(decoded)
    return Image(
        pixels=pixels,
        value_range=value_range,
        image_id=f"{image_id}-{frame}" if image_id and frame is not None and decoded.frames > 1 else image_id,
        source_format=kind,
        decoder=decoded.decoder,
        facts={**no_facts(), "bits_stored": decoded.samples.bits, "frames": decoded.frames},
    )


def probe_raster(stream: BinaryIO, *, kind: str, limits: Limits) -> FileFacts:
    """Header facts of an open PNG, JPEG or TIFF file; see ``image.probe``."""
    data = _read_data(stream, kind=kind, limits=limits)
    with raise_read_errors(f"The header of the {kind.upper()} file is damaged", reason="corrupt"):
        if kind == "tiff":
            header = probe_tiff(data, limits=limits)
        else:
            with _open(data, kind=kind) as picture:
                columns, rows = picture.size
            header = TiffFacts(1, rows, columns, _bits(data, kind=kind))
    return FileFacts(
        source_format=kind,
        frames=header.frames,
        rows=header.rows,
        columns=header.columns,
        image_id=content_id(data),
        facts={**no_facts(), "bits_stored": header.bits},
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
        check_size(rows, columns, _PNG_SAMPLES.get(data[25], 1), limits=limits, itemsize=3 if data[24] == 16 else 2)
        _check_chunks(data)
    elif kind == "jpeg":
        header = parse_jpeg(data)
        # As decoded, as a copy of that, and the coefficients of a progressive one.
        itemsize = 4 if header.process == 0xC2 else 2
        check_size(header.rows, header.columns, header.samples, limits=limits, itemsize=itemsize)
        check_scans(data, limits=limits)
        if header.precision != 8:
            raise ReadError(f"Expected a JPEG file of 8 bits. Received: {header.precision}.", reason="unsupported")
    return data


def _check_chunks(data: bytes) -> None:
    """Refuse a PNG file of very many chunks: Pillow takes microseconds for each, whatever it holds."""
    place = 8
    for _ in range(max(_FEW_CHUNKS, len(data) // _CHUNK_BYTES)):
        if place + 12 > len(data):
            return
        place += 12 + int.from_bytes(data[place : place + 4], "big")
    raise ReadError("The PNG file has too many chunks for its size. Save it again.", reason="too_large")


def _open(data: bytes, *, kind: str) -> Pillow.Image:
    try:
        return open_picture(data, kind=kind)
    except UnidentifiedImageError:
        raise ReadError(f"The {kind.upper()} file is damaged beyond its first bytes.", reason="corrupt") from None


def _bits(data: bytes, *, kind: str) -> int:
    return max(data[24], 8) if kind == "png" else 8


def _read_picture(data: bytes, *, kind: str, frame: int | None, limits: Limits) -> Decoded:
    """The one image of a PNG or JPEG file."""
    wanted_pages(1, frame=frame)
    with _open(data, kind=kind) as picture:
        columns, rows = picture.size
        check_size(rows, columns, len(picture.getbands()), limits=limits)
        samples = Samples(_bits(data, kind=kind))
        if kind == "png" and samples.bits == 16 and data[25] != 0:
            return Decoded([_decode_deep(data, size=(rows, columns))], samples, 1, f"opencv {cv2.__version__}")
        return Decoded([decode_picture(picture, kind=kind)], samples, 1, package_version("pillow"))


def _decode_deep(data: bytes, *, size: tuple[int, int]) -> npt.NDArray[Any]:
    """Color of 16 bits, which Pillow would cut to 8: by OpenCV, which in turn does not notice missing data."""
    packed = _check_png(data, size=size)
    values = cv2.imdecode(np.frombuffer(packed, dtype=np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None or values.dtype != np.uint16 or values.ndim != 3:
        raise ReadError("The PNG file with 16-bit color is damaged.", reason="corrupt")
    return np.asarray(values[..., 0] if data[25] == 4 else values[..., 2::-1])


def _check_png(data: bytes, *, size: tuple[int, int]) -> bytes:
    """Refuse a PNG file with a damaged chunk or too little image data (libpng would leave the rest black).

    Returns:
        The file without what libpng would inflate and nobody looks at: text and profiles.
    """
    place, packed, kept = 8, [], [data[:8]]
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
        if chunk[:4] in _NEEDED_CHUNKS:
            kept.append(data[place : place + 12 + length])
        place += 12 + length
    expected = _png_length(data, size=size)
    engine = zlib.decompressobj()
    inflated = len(engine.decompress(b"".join(packed), expected + 1))
    if inflated < expected:
        raise ReadError("The PNG file ends too early. Copy it again.", reason="truncated")
    return b"".join(kept)


def _png_length(data: bytes, *, size: tuple[int, int]) -> int:
    """Bytes of the filtered image data: each row of each pass has one byte more (PNG 7.2, 8)."""
    rows, columns = size
    pixel = {2: 6, 4: 4, 6: 8}[data[25]]
    passes = _ADAM7 if data[28] else ((0, 0, 1, 1),)
    total = 0
    for x, y, dx, dy in passes:
        width, height = -(-(columns - x) // dx), -(-(rows - y) // dy)
        if width > 0 and height > 0:
            total += height * (width * pixel + 1)
    return total
