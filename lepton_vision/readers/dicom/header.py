"""DICOM header up to the pixel data, and the layout of what follows: part of the doorway to pydicom."""

from __future__ import annotations

import io
import math
import struct
import zlib
from collections.abc import Hashable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

from pydicom import dcmread
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.filereader import _read_file_meta_info, read_dataset, read_preamble

from lepton_vision.errors import ReadError
from lepton_vision.readers.dicom.bounds import UNSUSPICIOUS, check_length, check_sequences, metered
from lepton_vision.readers.limits import Limits

DEFLATED = "1.2.840.10008.1.2.1.99"
EXPLICIT = "1.2.840.10008.1.2.1"
_IMPLICIT, _BIG_ENDIAN = "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"
BIG_ENDIAN_PIXELS = "1.2.840.113619.5.2"  # GE's own: an implicit little-endian header, big-endian pixels
_NATIVE = frozenset({_IMPLICIT, EXPLICIT, _BIG_ENDIAN, DEFLATED, BIG_ENDIAN_PIXELS})
_PIXEL_TAGS = {0x0008: "FloatPixelData", 0x0009: "DoubleFloatPixelData", 0x0010: "PixelData"}
PIXEL_WORDS = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})
_PIXEL_VRS = frozenset({b"OB", b"OW", b"OF", b"OD", b"OL", b"OV", b"UN"})
_LONG_VRS = _PIXEL_VRS | {b"UT", b"UC", b"UR", b"SQ"}
_VRS = frozenset(
    b"AE AS AT CS DA DS DT FD FL IS LO LT OB OD OF OL OV OW PN SH SL SQ SS ST SV TM UC UI UL UN UR US UT UV".split()
)
_UNDEFINED = 0xFFFFFFFF
_CHUNK = 2**22


@dataclass(frozen=True, slots=True)
class PixelElement:
    """Where the pixel data lie in ``DicomFile.stream``: offset and length of the value; length None: encapsulated."""

    keyword: str
    vr: bytes
    offset: int
    length: int | None


@dataclass(frozen=True, slots=True)
class DicomFile:
    """An open DICOM file, parsed up to its pixel data.

    Attributes:
        dataset: the header.
        stream: the file, or its inflated data set.
        size: bytes in ``stream``.
        transfer_syntax: UID, deduced from the encoding where the file does not say.
        is_little_endian: byte order of the pixels.
        pixels: where the pixel data are, or None.
        shared: elements of a scanned header without those of the one instance: files that agree in them agree in layout
            and facts. None where the header was not scanned for facts.
    """

    dataset: Dataset
    stream: BinaryIO
    size: int
    transfer_syntax: str
    is_little_endian: bool
    pixels: PixelElement | None
    shared: Hashable = None

    @property
    def is_native(self) -> bool:
        """Whether the pixels are uncompressed."""
        return self.transfer_syntax in _NATIVE


def is_dicom(head: bytes) -> bool:
    """Whether the first bytes (at least 200 of them, or the whole file) can begin a DICOM file.

    Either "DICM" stands at byte 128, or the very first bytes are a plausible element of group 0002 or 0008:
    files without preamble exist, but text must never be taken for one.
    """
    return bool(head[128:132] == b"DICM") or _is_headerless(head)


def _is_headerless(head: bytes) -> bool:
    if len(head) < 16:
        return False
    for order in ("<", ">"):
        group, element = struct.unpack_from(f"{order}HH", head)
        if group not in (0x0002, 0x0008) or element > 0x2000:
            continue
        vr = head[4:6]
        if vr in _VRS:
            return vr in _LONG_VRS or int(struct.unpack_from(f"{order}H", head, 6)[0]) <= 1024
        (length,) = struct.unpack_from(f"{order}I", head, 4)
        # Implicit: a short even length, followed by an element of the same or a slightly higher group.
        if order == "<" and length <= 1024 and length % 2 == 0 and 8 + length + 4 <= len(head):
            (following,) = struct.unpack_from("<H", head, 8 + length)
            return bool(group <= following <= 0x0020)
    return False


def open_dicom(stream: BinaryIO, *, head: bytes, limits: Limits) -> DicomFile:
    """Parse the header; ``stream`` is an open file at its start, ``head`` its first bytes.

    Call it inside ``quiet`` and ``limits.raise_read_errors``: pydicom raises many kinds of errors on damaged files.

    Raises:
        ReadError: reason ``too_large`` (a deflated data set above the cap), ``truncated`` or ``corrupt``.
    """
    is_part10 = head[128:132] == b"DICM"
    size = stream.seek(0, io.SEEK_END)
    stream.seek(0)
    # pydicom itself would inflate 1 MB to 3 GB without asking, so the syntax is looked at first.
    with metered(stream, limits, is_needed=size > UNSUSPICIOUS) as source:
        read_preamble(source, force=not is_part10)
        syntax = str(_read_file_meta_info(source).get("TransferSyntaxUID") or "")
    if syntax == DEFLATED:
        cap = min(limits.max_bytes, limits.memory // 2)
        stream = _inflate(stream.read(), wbits=-zlib.MAX_WBITS, cap=cap)
    with metered(stream, limits, is_needed=size > UNSUSPICIOUS or syntax == DEFLATED) as source:
        dataset = _parse(source, syntax, is_part10=is_part10)
    # As found by pydicom, which may not be what the meta header says.
    is_implicit, is_little = (bool(flag) for flag in dataset.original_encoding)
    _check_byte_order(dataset)
    if stream.tell() > UNSUSPICIOUS:
        check_sequences(dataset, limits)
    if not syntax:
        syntax = _IMPLICIT if is_implicit else EXPLICIT if is_little else _BIG_ENDIAN
    return lay_out(dataset, stream, syntax=syntax, is_implicit=is_implicit, is_little=is_little)


def _parse(stream: BinaryIO, syntax: str, *, is_part10: bool) -> Dataset:
    """The data set up to its pixels."""
    if syntax == DEFLATED or (syntax.startswith(_IMPLICIT) and not _is_command(stream)):
        # What ``dcmread`` would do next; it would parse the group just read once more.
        return read_dataset(stream, syntax == _IMPLICIT, syntax != _BIG_ENDIAN, stop_when=_is_at_pixels)
    stream.seek(0)
    return dcmread(stream, stop_before_pixels=True, force=not is_part10)


def lay_out(dataset: Dataset, stream: BinaryIO, *, syntax: str, is_implicit: bool, is_little: bool) -> DicomFile:
    """The open file of a header, with its stream at the element at which reading the header stopped."""
    place = stream.tell()
    size = stream.seek(0, io.SEEK_END)
    stream.seek(place)
    pixels = _locate_pixels(stream, is_implicit=is_implicit, is_little=is_little, size=size)
    return DicomFile(dataset, stream, size, syntax, is_little and syntax != BIG_ENDIAN_PIXELS, pixels)


def _check_byte_order(dataset: Dataset) -> None:
    """Refuse a data set in another byte order than the meta header says: the order of its pixels is in doubt."""
    first = next(iter(dataset.keys()), 0) >> 16
    if first and first & 0xFF == 0:  # 0008 read as 0800; no group that a data set may begin with ends in 00
        raise ReadError(
            "The data set has another byte order than the transfer syntax of its meta header says. Export it again.",
            reason="mismatch",
        )


def _is_command(stream: BinaryIO) -> bool:
    """Whether a command set (group 0000) or nothing at all follows; left to ``dcmread``."""
    place = stream.tell()
    group = stream.read(2)
    stream.seek(place)
    return group in (b"\0\0", b"\0", b"")


def _is_at_pixels(tag: int, _vr: str | None, _length: int) -> bool:
    return tag in PIXEL_WORDS


def inflate(data: bytes, *, wbits: int, cap: int) -> bytes:
    """Inflate at most ``cap`` bytes.

    Raises:
        ReadError: reason ``too_large``, ``truncated`` or ``corrupt``.
    """
    return _inflate(data, wbits=wbits, cap=cap).getvalue()


def _inflate(data: bytes, *, wbits: int, cap: int) -> io.BytesIO:
    """As ``inflate``, as a file at its start: what is large is never held twice."""
    engine, result = zlib.decompressobj(wbits), io.BytesIO()
    place, rest = 0, b""
    try:
        while result.tell() <= cap and not engine.eof:
            if not rest:  # by pieces: zlib copies what it has not taken in yet
                place, rest = place + _CHUNK, data[place : place + _CHUNK]
            piece = engine.decompress(rest, min(_CHUNK, cap + 1 - result.tell()))
            result.write(piece)
            rest = engine.unconsumed_tail
            if not piece and not rest and place >= len(data):
                break
    except zlib.error:
        raise ReadError("The deflated part of the file is damaged.", reason="corrupt") from None
    if result.tell() > cap:
        raise ReadError(
            f"The deflated part of the file becomes more than {cap} bytes. "
            "Raise Limits.max_bytes and Limits.memory if the file can be trusted.",
            reason="too_large",
        )
    if not engine.eof:
        raise ReadError("The deflated part of the file ends too early. Copy it again.", reason="truncated")
    result.seek(0)
    return result


def _locate_pixels(stream: BinaryIO, *, is_implicit: bool, is_little: bool, size: int) -> PixelElement | None:
    """Read the element header at which pydicom stopped."""
    start = stream.tell()
    head = stream.read(12)
    order = "<" if is_little else ">"
    if len(head) < 8:
        return None
    group, element = struct.unpack_from(f"{order}HH", head)
    if group != 0x7FE0 or element not in _PIXEL_TAGS:
        return None
    vr, header = head[4:6], 12
    # Some files change between explicit and implicit on the way, so the element speaks for itself. As a length, each of
    # these VRs would be odd, which none is, or have bytes where an explicit element has two zeros.
    if vr not in _PIXEL_VRS or (is_implicit and head[6:8] != b"\0\0"):
        vr, header = b"OW", 8
    offset = start + header
    if offset > size:
        raise ReadError("The file ends inside the header of its pixel data.", reason="truncated")
    (length,) = struct.unpack_from(f"{order}I", head, header - 4)
    return PixelElement(_PIXEL_TAGS[element], vr, offset, None if length == _UNDEFINED else int(length))


@lru_cache(maxsize=256)
def _tag(keyword: str) -> int:
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise ValueError(f"No DICOM keyword {keyword!r}.")
    return tag


def _get(dataset: Dataset, keyword: str) -> Any:
    """Value of an element, or None. Most are absent, and pydicom's own ``get`` takes 5 µs to say so."""
    tag = _tag(keyword)
    if tag not in dataset.keys():  # noqa: SIM118  a look-up without conversion
        return None
    if isinstance(dataset, Dataset):  # not of a scanned header, which is short
        check_length(dataset.get_item(tag), keyword)
    return dataset[tag].value


def value(dataset: Dataset, keyword: str) -> Any:
    """First value of an element, or None where it is absent, empty or cannot be parsed."""
    try:
        found = _get(dataset, keyword)
    except ReadError:
        raise
    except Exception:  # pydicom converts on access: any error of the value's own
        return None
    if found is None or isinstance(found, str | bytes | int | float):
        return None if found in ("", b"") else found
    try:
        return found[0] if len(found) else None
    except Exception:  # PersonName, Sequence and others are no plain values
        return None


def text(dataset: Dataset, keyword: str) -> str | None:
    """Stripped text of an element's first value, or None."""
    found = value(dataset, keyword)
    stripped = str(found).strip(" \t\r\n\0") if found is not None else ""
    return stripped or None


def texts(dataset: Dataset, keyword: str) -> tuple[str, ...]:
    """All values of an element as stripped text in capitals; empty where it is absent or cannot be parsed."""
    try:
        found = _get(dataset, keyword)
    except ReadError:
        raise
    except Exception:  # as above
        return ()
    values = [found] if isinstance(found, str) else list(found or ()) if hasattr(found, "__iter__") else []
    return tuple(str(item).strip(" \t\r\n\0").upper() for item in values)


def number(dataset: Dataset, keyword: str) -> float | None:
    """Finite number of an element's first value, or None."""
    found = value(dataset, keyword)
    try:
        result = float(found)
    except (TypeError, ValueError, OverflowError):
        return None
    return result if math.isfinite(result) else None


def numbers(dataset: Dataset, keyword: str) -> tuple[float, ...]:
    """All values of an element as finite numbers; empty where it is absent or any value is not a number."""
    try:
        found = _get(dataset, keyword)
        if found is None or (isinstance(found, str) and not found):
            return ()
        values = tuple(float(item) for item in (found if hasattr(found, "__len__") else (found,)))
    except ReadError:
        raise
    except Exception:  # as above
        return ()
    return values if all(math.isfinite(item) for item in values) else ()


def items(dataset: Dataset, keyword: str) -> list[Dataset]:
    """Items of a sequence; empty where it is absent or no sequence."""
    try:
        found = _get(dataset, keyword)
        return list(found) if found else []
    except (AttributeError, TypeError, ValueError):
        return []


def stored_path(path: str | Path) -> str:
    """Absolute posix path: what a file without identifiers of its own is known by."""
    return Path(path).absolute().as_posix()
