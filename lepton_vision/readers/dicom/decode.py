"""Decoding of DICOM pixel data: one pinned decoder per transfer syntax, no second try with another.

pydicom falls back to the next installed plugin when one fails and so turns an honest error into silent damage;
here a frame is decoded by the decoder of its syntax or refused, and the decoder's name and version are kept.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import convert_color_space

from lepton_vision._version import __version__
from lepton_vision.errors import ReadError
from lepton_vision.readers.dicom.child import decode_isolated
from lepton_vision.readers.dicom.codestream import (
    check_agreement,
    check_scans,
    is_usual_jpeg2000,
    parse_jpeg,
    parse_jpeg2000,
)
from lepton_vision.readers.dicom.frames import frame_bytes, peek_frame
from lepton_vision.readers.dicom.header import DEFLATED, DicomFile, inflate
from lepton_vision.readers.dicom.layout import PixelLayout
from lepton_vision.readers.dicom.native import check_length, read_native, unpack_bits
from lepton_vision.readers.limits import Clock, Limits, check_size, raise_read_errors
from lepton_vision.readers.versions import package_version

Stored = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Route:
    """Decoder of one transfer syntax and its settings.

    Attributes:
        package: distribution whose name and version are recorded.
        stream: kind of codestream whose header is checked first.
        plugin: pydicom's name of the plugin; "" means not by pydicom.
        is_isolated: decoded in a child process that may crash.
    """

    package: str
    stream: str
    plugin: str = ""
    is_isolated: bool = False


_PILLOW = Route("pillow", "jpeg", "pillow")
_GDCM = Route("python-gdcm", "jpeg", "gdcm", is_isolated=True)
_SIMPLEITK = Route("simpleitk", "jpeg", "simpleitk", is_isolated=True)
_JPEGLS = Route("pyjpegls", "jpeg", "pyjpegls")
_OPENJPEG = Route("pylibjpeg-openjpeg", "jpeg2000", "pylibjpeg")
_RLE = Route("pylibjpeg-rle", "rle", "pylibjpeg")
_DEFLATED_FRAME = Route("numpy", "deflate")

_JPEG_EXTENDED = "1.2.840.10008.1.2.4.51"
_RLE_LOSSLESS = "1.2.840.10008.1.2.5"
_MOST_HERE = 2**22  # samples of a JPEG 2000 frame that is decoded in this process; more take a third of a second
_HEAD_BYTES = 2**14  # of a frame that is looked at and not decoded
ROUTES = {
    "1.2.840.10008.1.2.4.50": _PILLOW,
    _JPEG_EXTENDED: _SIMPLEITK,  # with 8 bits it is what Pillow reads, see _route
    "1.2.840.10008.1.2.4.53": _SIMPLEITK,
    "1.2.840.10008.1.2.4.55": _SIMPLEITK,
    "1.2.840.10008.1.2.4.57": _GDCM,
    "1.2.840.10008.1.2.4.70": _GDCM,
    "1.2.840.10008.1.2.4.80": _JPEGLS,
    "1.2.840.10008.1.2.4.81": _JPEGLS,
    "1.2.840.10008.1.2.4.90": _OPENJPEG,
    "1.2.840.10008.1.2.4.91": _OPENJPEG,
    "1.2.840.10008.1.2.4.201": _OPENJPEG,
    "1.2.840.10008.1.2.4.202": _OPENJPEG,
    "1.2.840.10008.1.2.4.203": _OPENJPEG,
    _RLE_LOSSLESS: _RLE,
    "1.2.840.10008.1.2.8.1": _DEFLATED_FRAME,
}
"""Decoder of each compressed transfer syntax that is read."""


def read_stored(file: DicomFile, layout: PixelLayout, *, wanted: range, limits: Limits) -> tuple[Stored, str]:
    """Decode the wanted frames.

    Returns:
        (F, H, W) or (F, H, W, 3) stored values, as pydicom's ``pixel_array`` gives them (unused bits removed, YBR
        turned into RGB, palettes not expanded), and the decoder's name and version.

    Raises:
        ReadError: any reason.
    """
    held = file.size if file.transfer_syntax == DEFLATED else 0
    sizes = (len(wanted), layout.rows, layout.columns, layout.samples)
    check_size(*sizes, limits=limits, itemsize=_bytes_beside(file, layout, frames=len(wanted)), held=held)
    limits.check_frames(layout.frames, size=file.size)
    if file.is_native:
        with raise_read_errors("Cannot read the pixel data", reason="corrupt"):
            return read_native(file, layout, wanted=wanted), package_version("numpy")
    _require_decoder(file.transfer_syntax)
    frames: list[Stored] = []
    name, clock = "", Clock(limits, frames=len(wanted))
    for data in frame_bytes(file, frames=layout.frames, wanted=wanted):
        frame, name = decode_frame(data, file.transfer_syntax, layout=layout, limits=limits)
        frames.append(frame)
        clock.check()
    return (frames[0][None] if len(frames) == 1 else np.stack(frames)), name


def _bytes_beside(file: DicomFile, layout: PixelLayout, *, frames: int) -> int:
    """Bytes that a sample takes while it is read, beside those of the float32 that it becomes."""
    stored = layout.dtype.itemsize
    if layout.photometric == "PALETTE COLOR":
        return 8 + 3 * 2 + 2 * 4 + stored  # its index, and two colors more
    if layout.photometric.startswith("YBR_FULL") and file.is_native:
        return stored * 2 + 8  # float32 before and after the conversion
    return stored if file.is_native or frames == 1 else 2 * stored  # frames, and the stack of them


def check_pixels(file: DicomFile, layout: PixelLayout, *, limits: Limits) -> None:
    """Refuse pixel data that can be seen to be wrong without decoding them: their length, frames and first frame.

    Raises:
        ReadError: reason ``truncated``, ``mismatch``, ``corrupt``, ``unsupported`` or ``too_large``.
    """
    check_size(layout.rows, layout.columns, layout.samples, limits=limits)
    limits.check_frames(layout.frames, size=file.size)
    if file.is_native:
        check_length(file, layout)
        return
    _require_decoder(file.transfer_syntax)
    head = peek_frame(file, frames=layout.frames, most=_HEAD_BYTES)
    try:
        _check_stream(head, _route(file.transfer_syntax, head), layout=layout)
    except ReadError as error:
        if error.reason != "truncated" or len(head) < _HEAD_BYTES:  # else the frame goes on
            raise


def _require_decoder(syntax: str) -> None:
    if syntax not in ROUTES:
        raise ReadError(
            f"No decoder for transfer syntax {syntax if syntax[:4] == '1.2.' else 'of this file'}. "
            "Convert the file to an uncompressed or JPEG 2000 syntax.",
            reason="unsupported",
        )


def _route(syntax: str, data: bytes) -> Route:
    return _PILLOW if syntax == _JPEG_EXTENDED and parse_jpeg(data).precision == 8 else ROUTES[syntax]


def decode_frame(data: bytes, syntax: str, *, layout: PixelLayout, limits: Limits) -> tuple[Stored, str]:
    """Decode one frame by the decoder of its syntax, whose name and version are given too."""
    route = _route(syntax, data)
    _check_stream(data, route, layout=layout)
    if route is _PILLOW:
        check_scans(data, limits=limits)
    is_own = layout.bits_allocated == 1 and route is _RLE
    name = f"lepton-vision {__version__}" if is_own else package_version(route.package)
    with raise_read_errors(f"The decoder {route.package} failed on a frame", reason="decoder_failed"):
        if layout.bits_allocated == 1 and route in (_DEFLATED_FRAME, _RLE):
            frame = _decode_bits(data, route, layout=layout)
        elif route.stream == "deflate":
            frame = _decode_deflated(data, layout=layout)
        elif route.is_isolated or (route is _OPENJPEG and _may_run_away(data, layout)):
            frame = decode_isolated(data, syntax, plugin=route.plugin, layout=layout, limits=limits)
        else:
            frame = decode_with_pydicom(data, syntax, plugin=route.plugin, layout=layout)
    expected = (layout.rows, layout.columns, layout.samples)[: 2 if layout.samples == 1 else 3]
    if frame.shape != expected:
        raise ReadError(f"Expected a frame of {expected}. The decoder gave {frame.shape}.", reason="mismatch")
    return frame, name


def _may_run_away(data: bytes, layout: PixelLayout) -> bool:
    """Whether a JPEG 2000 frame might take longer than its budget: a large one, or one with unusually many parts.

    Damage makes a sample cost up to a microsecond, ten times the usual.
    """
    return layout.rows * layout.columns * layout.samples > _MOST_HERE or not is_usual_jpeg2000(data)


def _check_stream(data: bytes, route: Route, *, layout: PixelLayout) -> None:
    if route.stream == "deflate":
        return
    if route.stream == "rle":
        is_other = not 1 <= int.from_bytes(data[:4], "little") <= 15  # segments (PS3.5 G.5)
    else:
        stream = parse_jpeg(data) if route.stream == "jpeg" else parse_jpeg2000(data)
        is_other = (stream.process == 0xF7) != (route is _JPEGLS) or (route is _PILLOW and stream.process > 0xC2)
    if is_other:
        raise ReadError("The frame is compressed otherwise than the transfer syntax says.", reason="mismatch")
    if route.stream == "rle":
        return
    check_agreement(
        stream,
        rows=layout.rows,
        columns=layout.columns,
        samples=layout.samples,
        bits_allocated=layout.bits_allocated,
    )


def decode_with_pydicom(data: bytes, syntax: str, *, plugin: str, layout: PixelLayout) -> Stored:
    """Decode one frame with exactly one plugin of pydicom."""
    is_rle = syntax == _RLE_LOSSLESS  # holds native cells, whose stored bits may end below the highest
    options = layout.options() | {"correct_unused_bits": not is_rle}
    pixels, _ = get_decoder(syntax).as_array(encapsulate_frame(data), index=0, decoding_plugin=plugin, **options)
    return layout.mask(np.asarray(pixels)) if is_rle else np.asarray(pixels)


def encapsulate_frame(data: bytes) -> bytes:
    """Wrap one frame as pixel data of one fragment with an empty offset table (PS3.5 A.4)."""
    padded = data + b"\0" * (len(data) % 2)
    return b"".join(
        (
            b"\xfe\xff\x00\xe0\0\0\0\0",
            b"\xfe\xff\x00\xe0" + len(padded).to_bytes(4, "little"),
            padded,
            b"\xfe\xff\xdd\xe0\0\0\0\0",
        )
    )


def _decode_deflated(data: bytes, *, layout: PixelLayout) -> Stored:
    """Deflated Image Frame Compression (PS3.5 A.4.12): each frame is a raw deflate stream of native pixels."""
    count = layout.rows * layout.columns * layout.samples
    length = count * layout.bits_allocated // 8
    inflated = inflate(data, wbits=-zlib.MAX_WBITS, cap=length + 1)
    if len(inflated) < length:
        raise ReadError(f"Expected {length} bytes in a deflated frame. Received: {len(inflated)}.", reason="truncated")
    values = layout.mask(np.frombuffer(inflated, dtype=layout.dtype, count=count).copy())
    if layout.samples == 1:
        return values.reshape(layout.rows, layout.columns)
    shape = (layout.rows, layout.columns, layout.samples)
    pixels = values.reshape(shape[2], *shape[:2]).transpose(1, 2, 0) if layout.is_planar else values.reshape(shape)
    if layout.photometric in ("YBR_FULL", "YBR_FULL_422"):
        return np.asarray(convert_color_space(pixels, layout.photometric, "RGB"))
    return pixels


def _decode_bits(data: bytes, route: Route, *, layout: PixelLayout) -> Stored:
    """One bit per pixel, packed: no plugin knows it, so the bytes are unpacked to bits here."""
    count = layout.rows * layout.columns
    length = -(-count // 8)
    if route.stream == "deflate":
        packed = inflate(data, wbits=-zlib.MAX_WBITS, cap=length + 1)
    else:
        packed = _unpack_rle(data, length=length)
    if len(packed) < length:
        raise ReadError(f"Expected {length} bytes in a one-bit frame. Received: {len(packed)}.", reason="truncated")
    return unpack_bits(packed, count=count).reshape(layout.rows, layout.columns)


def _unpack_rle(data: bytes, *, length: int) -> bytes:
    """PackBits of a single segment (PS3.5 G.3), at most ``length`` bytes."""
    if len(data) < 64 or data[:4] != b"\x01\0\0\0":
        raise ReadError("Expected one RLE segment for one bit per pixel.", reason="corrupt")
    result = bytearray()
    place = int.from_bytes(data[4:8], "little")
    while len(result) < length and place + 1 < len(data):
        control = data[place]
        if control < 128:
            result += data[place + 1 : place + 2 + control]
            place += 2 + control
        elif control > 128:
            result += data[place + 1 : place + 2] * (257 - control)
            place += 2
        else:
            place += 1
    return bytes(result[:length])
