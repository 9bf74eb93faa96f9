"""Bounds on the parts of a DICOM header: part of the doorway to pydicom.

pydicom takes some 10 µs and half a kilobyte for each element, and 40 µs for each item of a sequence, so a header of a
few megabytes that holds nothing else can take minutes and gigabytes. What a header holds is counted before that
happens: while it is read, and in the sequences of known length that pydicom parses where they are asked for.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, cast

from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset

from lepton_vision.errors import ReadError
from lepton_vision.readers.limits import Limits

_PARTS_PER_SECOND = 40_000  # elements, or quarters of items, that pydicom parses on a busy core
_ITEM_PARTS = 4
UNSUSPICIOUS = 2**20  # bytes of a header that cannot hold too many parts for the least of budgets
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_VALUE_BYTES = 2**14
_VECTOR_BYTES = 2**21  # of the places of 100,000 frames
_VECTORS = frozenset({"GridFrameOffsetVector"})
_UNDEFINED = 0xFFFFFFFF
_LONG_VRS = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})


@contextmanager
def metered(stream: BinaryIO, limits: Limits, *, is_needed: bool) -> Iterator[BinaryIO]:
    """A file for pydicom, which reads twice or three times for each element, that ends beyond the budget.

    Raises:
        ReadError: reason ``too_large``, whatever pydicom made of the end.
    """
    if not is_needed:
        yield stream
        return
    meter = _MeteredStream(stream, most_parts(limits))
    try:
        yield cast(BinaryIO, meter)
    except Exception:
        if meter.left >= 0:
            raise
    if meter.left < 0:
        raise _too_many(most_parts(limits))


class _MeteredStream:
    """A file that ends after so many reads."""

    def __init__(self, stream: BinaryIO, most: int) -> None:
        self._read, self.left = stream.read, most
        self.seek, self.tell = stream.seek, stream.tell

    def read(self, size: int = -1, /) -> bytes:
        """Read bytes, as from any file."""
        self.left -= 1
        if self.left < 0:
            raise EOFError
        return self._read(size)


def most_parts(limits: Limits) -> int:
    """Parts that the header of one file may have."""
    return int(limits.seconds * _PARTS_PER_SECOND)


def check_sequences(dataset: Dataset, limits: Limits) -> None:
    """Refuse sequences, not parsed yet, that hold too many items and elements together.

    Raises:
        ReadError: reason ``too_large``.
    """
    most, found = most_parts(limits), 0
    is_implicit, is_little = (bool(flag) for flag in dataset.original_encoding)
    start = b"\xfe\xff\x00\xe0" if is_little else b"\xff\xfe\xe0\x00"
    for tag in dataset.keys():  # noqa: SIM118  tags, where iteration would convert the elements
        raw: Any = dataset.get_item(tag)
        if isinstance(raw, RawDataElement) and isinstance(raw.value, bytes) and raw.value.startswith(start):
            found += _count_parts(raw.value, is_implicit=is_implicit, is_little=is_little, most=most - found)
        if found > most:
            raise _too_many(most)


def check_length(element: DataElement | RawDataElement, keyword: str) -> None:
    """Refuse a value, not parsed yet, that is far longer than any of its kind: pydicom makes an object of each number.

    Raises:
        ReadError: reason ``too_large``.
    """
    if not isinstance(element, RawDataElement) or not isinstance(element.value, bytes):
        return
    size = len(element.value)
    if size > (_VECTOR_BYTES if keyword in _VECTORS else _VALUE_BYTES) and not keyword.endswith("Sequence"):
        raise ReadError(
            f"Expected a value of {keyword} as the standard has it. Received: one of {size} bytes. The header is "
            "damaged: export the file again.",
            reason="too_large",
        )


def _count_parts(data: bytes, *, is_implicit: bool, is_little: bool, most: int) -> int:
    """Elements, and items four times, of a sequence and of those in it; stops above ``most``."""
    order = "<" if is_little else ">"
    head, long = struct.Struct(f"{order}HHI"), struct.Struct(f"{order}I")
    start = head.pack(_ITEM >> 16, _ITEM & 0xFFFF, 0)[:4]
    place, count = 0, 0
    while place + 8 <= len(data) and count <= most:
        group, element, length = head.unpack_from(data, place)
        tag = group << 16 | element
        place += 8
        if tag in (_ITEM, _ITEM_END, _SEQUENCE_END):
            count += _ITEM_PARTS if tag == _ITEM else 0
            continue
        count += 1
        if not is_implicit:
            vr = data[place - 4 : place - 2]
            if vr in _LONG_VRS and place + 4 <= len(data):
                (length,), place = long.unpack_from(data, place), place + 4
            else:
                (length,) = struct.unpack_from(f"{order}H", data, place - 2)
        if length != _UNDEFINED and data[place : place + 4] != start:  # a sequence is entered, whatever it is called
            place += length
    return count


def _too_many(most: int) -> ReadError:
    return ReadError(
        f"Expected a header of at most {most} elements. Received: more. Set LEPTON_VISION_FILE_SECONDS (or "
        "Limits.seconds) higher if the file can be trusted.",
        reason="too_large",
    )
