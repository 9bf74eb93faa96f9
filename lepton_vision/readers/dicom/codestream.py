"""Image sizes announced by a compressed frame, read before any decoder sees it.

A decoder allocates what the codestream's own header says: 822 bytes of JPEG can ask for 12 GB. So that header
must agree with Rows and Columns, which have passed the pixel cap.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from lepton_vision.errors import ReadError
from lepton_vision.readers.limits import Limits

_J2K_START = b"\xff\x4f\xff\x51"
_JP2_START = b"\x00\x00\x00\x0cjP  "
_SOS, _EOI = 0xDA, 0xD9
_MOST_SEGMENTS = 2**14  # and fill bytes before the data; profiles and comments of real files take some hundred
_SCAN_SECONDS = 60e-9  # that a decoder takes for a block of 8 x 8 in each scan, whatever the scan holds
_SCAN_BYTES = 10  # of the smallest header of a scan (ITU-T T.81 B.2.3)
_SOC_LENGTH = 2
_COD, _POC, _SOT, _SOD = 0xFF52, 0xFF5F, 0xFF90, 0xFF93
_MOST_TILES, _MOST_LAYERS, _MOST_MARKERS = 256, 64, 1024
_EOC = b"\xff\xd9"


@dataclass(frozen=True, slots=True)
class Codestream:
    """Header of one compressed frame: sizes in pixels, ``precision`` in bits per sample, ``process`` the SOF marker."""

    rows: int
    columns: int
    samples: int
    precision: int
    process: int = 0


def parse_jpeg(data: bytes) -> Codestream:
    """Find the start-of-frame segment of a JPEG or JPEG-LS stream (ITU-T T.81 B.2.2, T.87 C.2.2).

    Raises:
        ReadError: reason ``corrupt`` (no such stream) or ``truncated``.
    """
    for place, marker in _segments(data):
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            return _parse_frame_header(data, place=place, process=marker)
        if marker in (_SOS, _EOI):
            raise ReadError("The JPEG stream has no frame header before its data.", reason="corrupt")
    raise ReadError("The JPEG stream ends before its frame header.", reason="truncated")


def _segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Position and marker of each segment, up to the first that begins the data or ends the stream."""
    if data[:2] != b"\xff\xd8":
        raise ReadError("The compressed frame is no JPEG stream (no SOI marker).", reason="corrupt")
    place = 2
    for _ in range(_MOST_SEGMENTS):
        if place + 4 > len(data):
            return
        if data[place] != 0xFF:
            raise ReadError("The JPEG stream is damaged before its frame header.", reason="corrupt")
        marker = data[place + 1]
        if marker == 0xFF:  # fill byte
            place += 1
            continue
        if marker == 0x01 or 0xD0 <= marker <= 0xD8:  # markers without a segment
            place += 2
            continue
        yield place, marker
        (length,) = struct.unpack_from(">H", data, place + 2)
        if marker in (_SOS, _EOI):
            return
        if length < 2:
            raise ReadError("The JPEG stream has no frame header before its data.", reason="corrupt")
        place += 2 + length
    raise ReadError(f"The JPEG stream has more than {_MOST_SEGMENTS} segments before its data.", reason="too_large")


def check_scans(data: bytes, *, limits: Limits) -> None:
    """Refuse a JPEG stream of so many segments or scans that decoding takes too long: a scan costs even if it is empty.

    Raises:
        ReadError: reason ``corrupt`` or ``too_large``.
    """
    seconds, is_progressive, samples = 0.0, False, 0
    for place, marker in _segments(data):
        if 0xC0 <= marker <= 0xC2:
            rows, columns, samples = struct.unpack_from(">HHB", data, place + 5)
            seconds, is_progressive = -(-rows // 8) * -(-columns // 8) * samples * _SCAN_SECONDS, marker == 0xC2
        # Of a stream that is not progressive, a first scan of all components is the only one: libjpeg refuses more.
        if marker == _SOS and not is_progressive and data[place + 4 : place + 5] == bytes([samples]):
            return
    # Counting takes a tenth of decoding, and few streams are long enough for too many scans.
    if len(data) // _SCAN_BYTES * seconds <= limits.seconds:
        return
    scans = data.count(b"\xff\xda")  # compressed data hold no such pair (ITU-T T.81 B.1.1.5)
    if scans * seconds > limits.seconds:
        raise ReadError(
            f"The JPEG stream has {scans} scans, each over the whole image, which take too long. Save it as baseline.",
            reason="too_large",
        )


def _parse_frame_header(data: bytes, *, place: int, process: int) -> Codestream:
    if len(data) < place + 10:
        raise ReadError("The JPEG stream ends inside its frame header.", reason="truncated")
    precision, rows, columns, samples = struct.unpack_from(">BHHB", data, place + 4)
    # Each 8x8 block of a Huffman stream takes at least one bit: a tiny file cannot hold a huge image.
    blocks = -(-rows // 8) * -(-columns // 8)
    if process in (0xC0, 0xC1, 0xC2) and len(data) * 8 < blocks // 4:
        raise ReadError(
            f"The JPEG stream of {len(data)} bytes is too short for the {rows} x {columns} pixels that it announces.",
            reason="truncated",
        )
    return Codestream(rows, columns, samples, precision, process)


def parse_jpeg2000(data: bytes) -> Codestream:
    """Read the SIZ segment of a JPEG 2000 codestream, bare or in a JP2 file (ITU-T T.800 A.5.1, I.5).

    Raises:
        ReadError: reason ``corrupt``, ``truncated``, or ``unsupported`` for subsampled components.
    """
    start = _find_codestream(data) if data.startswith(_JP2_START) else 0
    if data[start : start + 4] != _J2K_START:
        raise ReadError("The compressed frame is no JPEG 2000 codestream (no SOC and SIZ).", reason="corrupt")
    if len(data) < start + 45:
        raise ReadError("The JPEG 2000 codestream ends inside its size segment.", reason="truncated")
    sizes = struct.unpack_from(">8I", data, start + 8)
    right, bottom, left, top, tile_w, tile_h, tile_x, tile_y = sizes
    (samples,) = struct.unpack_from(">H", data, start + 40)
    if right <= left or bottom <= top or not tile_w or not tile_h or tile_x > left or tile_y > top:
        raise ReadError("The JPEG 2000 size segment contradicts itself.", reason="corrupt")
    tiles = _count_tiles(sizes)
    if tiles > 65535:  # ITU-T T.800 A.4.2: Isot has 16 bits
        raise ReadError(f"A JPEG 2000 codestream has at most 65535 tiles. This announces {tiles}.", reason="corrupt")
    parts = data[start + 42 : start + 42 + 3 * samples]
    if len(parts) < 3 * samples or not samples:
        raise ReadError("The JPEG 2000 codestream ends inside its component table.", reason="truncated")
    if any(step != 1 for step in parts[1::3]) or any(step != 1 for step in parts[2::3]):
        raise ReadError("JPEG 2000 with subsampled components is not supported.", reason="unsupported")
    precision = max((depth & 0x7F) + 1 for depth in parts[0::3])
    return Codestream(bottom - top, right - left, samples, precision)


def is_usual_jpeg2000(data: bytes) -> bool:
    """Whether a codestream is as encoders write them: few tiles, layers and precincts, coded alike in all of it.

    Anything else (ITU-T T.800 A.6: up to 65,535 layers and tiles, and a precinct for each pixel) is no damage, but may
    take a decoder minutes and gigabytes.
    """
    try:
        start = _find_codestream(data) if data.startswith(_JP2_START) else 0
        if _count_tiles(struct.unpack_from(">8I", data, start + 8)) > _MOST_TILES:
            return False
        styles = [marker for marker, _ in _walk_jpeg2000(data, start + _SOC_LENGTH)].count(_COD)
        return styles == 1
    except (struct.error, ReadError):
        return False


def _walk_jpeg2000(data: bytes, place: int) -> Iterator[tuple[int, int]]:
    """Markers of all headers with their places.

    Raises:
        ReadError: reason ``unsupported`` for what is not usual.
    """
    unusual = ReadError("The JPEG 2000 codestream is of an unusual kind.", reason="unsupported")
    begin, size, tile_parts = place, 0, 0
    for _ in range(_MOST_MARKERS):
        if place + 4 > len(data) or data[place : place + 2] == _EOC:
            return
        marker, length = struct.unpack_from(">HH", data, place)
        yield marker, place
        if marker == _SOT:
            begin, tile_parts = place, tile_parts + 1
            (size,) = struct.unpack_from(">I", data, place + 6)
        elif marker == _COD:
            style, _, layers = struct.unpack_from(">BBH", data, place + 4)
            if style & 1 or layers > _MOST_LAYERS or tile_parts:
                raise unusual
        if marker == _POC or (marker == _SOD and size and begin + size <= place):
            raise unusual
        # The data of a tile-part end it; the last may say no size and ends the stream.
        place = place + 2 + length if marker != _SOD else begin + size if size else len(data)
    raise unusual


def _count_tiles(sizes: tuple[int, ...]) -> int:
    """Tiles of a codestream by the sizes of its SIZ segment."""
    right, bottom, _, _, tile_w, tile_h, tile_x, tile_y = sizes
    return -(-(right - tile_x) // tile_w) * -(-(bottom - tile_y) // tile_h)


def _find_codestream(data: bytes) -> int:
    """Offset of the contiguous codestream box's content in a JP2 file."""
    place = 0
    while place + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        header = 8
        if length == 1 and place + 16 <= len(data):
            (length,) = struct.unpack_from(">Q", data, place + 8)
            header = 16
        if kind == b"jp2c":
            return place + header
        if length < header:
            break
        place += length
    raise ReadError("The JP2 file has no codestream box.", reason="corrupt")


def check_agreement(stream: Codestream, *, rows: int, columns: int, samples: int, bits_allocated: int) -> None:
    """Refuse a frame whose own header differs from the DICOM header.

    Raises:
        ReadError: reason ``mismatch``.
    """
    header = (rows, columns, samples)
    if (stream.rows, stream.columns, stream.samples) != header or stream.precision > bits_allocated:
        raise ReadError(
            f"Header and compressed frame disagree. Header: {rows} x {columns}, {samples} sample(s), {bits_allocated} "
            f"bits allocated. Frame: {stream.rows} x {stream.columns}, {stream.samples} sample(s), "
            f"{stream.precision} bits. Export the file again.",
            reason="mismatch",
        )
