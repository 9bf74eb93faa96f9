"""Uncompressed pixel data, read straight into the array that is returned."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.pixels.processing import convert_color_space

from lepton_vision.errors import ReadError
from lepton_vision.readers.dicom.header import BIG_ENDIAN_PIXELS, DicomFile
from lepton_vision.readers.dicom.layout import PixelLayout

Stored = npt.NDArray[Any]


def read_native(file: DicomFile, layout: PixelLayout, *, wanted: range) -> Stored:
    """Read the wanted, consecutive frames.

    Returns:
        (F, H, W) or (F, H, W, 3), unused bits removed, YBR turned into RGB.

    Raises:
        ReadError: reason ``truncated``, ``corrupt`` or ``unsupported``.
    """
    pixels_per_frame = _values_per_frame(file, layout)
    if layout.bits_allocated in (1, 12):
        values = _read_packed(file, layout, wanted=wanted, pixels_per_frame=pixels_per_frame)
    else:
        values = _read_whole_bytes(file, layout, wanted=wanted, pixels_per_frame=pixels_per_frame)
    is_subsampled = pixels_per_frame < layout.rows * layout.columns * layout.samples
    return _arrange(values, layout, frames=len(wanted), is_subsampled=is_subsampled)


def _values_per_frame(file: DicomFile, layout: PixelLayout) -> int:
    """Check the length of the pixel data against what the header promises.

    Returns:
        Stored values per frame: of YBR_FULL_422 two for each pixel, or three where it was written in full.

    Raises:
        ReadError: reason ``corrupt``, ``unsupported``, or ``mismatch`` for more frames than the header tells of.
    """
    if file.pixels is None or file.pixels.length is None:
        raise ReadError(
            "The pixel data are compressed, and the transfer syntax of the meta header says that they are not, or is "
            "missing. Export the file again.",
            reason="corrupt",
        )
    if file.transfer_syntax == BIG_ENDIAN_PIXELS and layout.bits_allocated != 16:
        # DCMTK swaps bytes in pairs there and GDCM does not.
        raise ReadError(
            f"Expected 16 bits allocated in GE's private transfer syntax. Received: {layout.bits_allocated}.",
            reason="unsupported",
        )
    values = layout.rows * layout.columns * layout.samples
    excess = file.pixels.length - layout.frames * values
    is_in_doubt = False
    if layout.photometric == "YBR_FULL_422" and excess not in (0, 1):
        is_in_doubt = excess > 1  # longer than either way of writing it
        if layout.columns % 2:
            raise ReadError("YBR_FULL_422 needs an even number of columns.", reason="corrupt")
        values = values // 3 * 2
    bits = values * layout.bits_allocated
    excess = file.pixels.length - -(-layout.frames * bits // 8)
    # One byte may be added to make the length even, and several tiny frames may fit into it.
    if is_in_doubt or (excess > 1 and file.pixels.length * 8 // bits > layout.frames):
        raise ReadError(
            f"The header promises {layout.frames} frame(s) of {layout.rows} x {layout.columns} pixels, the pixel data "
            f"hold {excess} bytes more. Correct Number of Frames, or export the file again.",
            reason="mismatch",
        )
    return values


def check_length(file: DicomFile, layout: PixelLayout) -> None:
    """Check that the file holds all frames and no more; raises as ``read_native``."""
    bits = layout.frames * _values_per_frame(file, layout) * layout.bits_allocated
    _need(file, least=-(-bits // 8))


def _need(file: DicomFile, *, least: int) -> None:
    """Refuse a file with fewer bytes of pixel data."""
    place = file.pixels
    found = 0 if place is None or place.length is None else min(place.length, file.size - place.offset)
    if found < least:
        raise ReadError(
            f"Expected {least} bytes of pixel data. Received: {found}. Copy the file again.", reason="truncated"
        )


def _read_bytes(file: DicomFile, *, first: int, count: int) -> npt.NDArray[np.uint8]:
    """``count`` bytes of the pixel data's value, beginning with byte ``first`` of it."""
    _need(file, least=first + count)
    place = 0 if file.pixels is None else file.pixels.offset
    result = np.empty(count, dtype=np.uint8)
    file.stream.seek(place + first)
    received = file.stream.readinto(result.data)  # type: ignore[attr-defined]
    if received != count:
        raise ReadError(f"Expected {count} bytes of pixel data. Received: {received}.", reason="truncated")
    return result


def _read_ordered(file: DicomFile, *, first: int, count: int) -> npt.NDArray[np.uint8]:
    """As ``_read_bytes``; of bytes in big-endian 16-bit words (PS3.5 8.1.2), in their own order."""
    if file.is_little_endian or file.pixels is None or file.pixels.vr != b"OW":
        return _read_bytes(file, first=first, count=count)
    even = first - first % 2
    words = _read_bytes(file, first=even, count=(count + first - even + 1) // 2 * 2)
    return np.ascontiguousarray(words.view(np.uint16).byteswap().view(np.uint8)[first - even : first - even + count])


def _read_whole_bytes(file: DicomFile, layout: PixelLayout, *, wanted: range, pixels_per_frame: int) -> Stored:
    size = layout.dtype.itemsize
    first, count = wanted.start * pixels_per_frame * size, len(wanted) * pixels_per_frame * size
    if size == 1:
        return layout.mask(_read_ordered(file, first=first, count=count).view(layout.dtype))
    values = _read_bytes(file, first=first, count=count).view(layout.dtype)
    if not file.is_little_endian:
        values.byteswap(inplace=True)
    return layout.mask(values)


def _read_packed(file: DicomFile, layout: PixelLayout, *, wanted: range, pixels_per_frame: int) -> Stored:
    """1 or 12 bits allocated: pixels follow each other without gaps, also from frame to frame (PS3.5 8.1.1)."""
    bits = layout.bits_allocated
    start, stop = wanted.start * pixels_per_frame, (wanted.start + len(wanted)) * pixels_per_frame
    if bits == 1:
        first = start // 8
        data = _read_ordered(file, first=first, count=-(-stop // 8) - first)
        return unpack_bits(data.tobytes(), count=stop - first * 8)[start - first * 8 :]
    first = start // 2 * 3  # two pixels in three bytes
    data = _read_ordered(file, first=first, count=-(-stop * 3 // 2) - first)
    padded = np.zeros(-(-len(data) // 3) * 3, dtype=np.uint16)
    padded[: len(data)] = data
    low, middle, high = padded[0::3], padded[1::3], padded[2::3]
    values = np.empty(2 * len(low), dtype=np.uint16)
    values[0::2] = low | (middle & 0x0F) << 8
    values[1::2] = middle >> 4 | high << 4
    values = values[start - first // 3 * 2 :][: stop - start]
    return layout.mask(np.ascontiguousarray(values).view(layout.dtype))


def unpack_bits(data: bytes, *, count: int) -> npt.NDArray[np.uint8]:
    """First ``count`` bits as 0 and 1, lowest bit of a byte first (PS3.5 8.1.1)."""
    return np.unpackbits(np.frombuffer(data, dtype=np.uint8), count=count, bitorder="little")


def _arrange(values: Stored, layout: PixelLayout, *, frames: int, is_subsampled: bool) -> Stored:
    rows, columns = layout.rows, layout.columns
    if layout.samples == 1:
        return values.reshape(frames, rows, columns)
    if is_subsampled:  # Y1 Y2 Cb Cr for two neighbours in a row (PS3.3 C.7.6.3.1.2)
        pairs = values.reshape(frames, rows, columns // 2, 4)
        pixels = np.empty((frames, rows, columns, 3), dtype=values.dtype)
        pixels[..., 0] = pairs[..., :2].reshape(frames, rows, columns)
        pixels[..., 1:] = np.repeat(pairs[..., 2:], 2, axis=2)
    elif layout.is_planar:
        pixels = values.reshape(frames, 3, rows, columns).transpose(0, 2, 3, 1)
    else:
        pixels = values.reshape(frames, rows, columns, 3)
    if layout.photometric in ("YBR_FULL", "YBR_FULL_422"):
        return np.asarray(convert_color_space(pixels, "YBR_FULL", "RGB"))
    return pixels
