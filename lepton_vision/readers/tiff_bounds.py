"""Bounds on the directories of a TIFF file, counted before tifffile parses them.

tifffile takes about 10 µs for each tag and 40 bytes for each of its numbers, so that a chain of tiny directories, one
that comes back to itself, or tags that share their numbers can take minutes and gigabytes.
"""

from __future__ import annotations

import struct

from lepton_vision.errors import ReadError
from lepton_vision.readers.limits import Limits

_TAGS_PER_SECOND = 50_000
_NUMBERS_PER_SECOND = 1_000_000
_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_WITHOUT_NUMBERS = (1, 2, 6, 7)  # bytes and text stay as they are


def check_directories(data: bytes, *, limits: Limits) -> None:
    """Walk from directory to directory.

    Raises:
        ReadError: reason ``corrupt`` where they never end, ``too_large`` where there are too many.
    """
    order = "<" if data[:2] == b"II" else ">"
    is_big = data[2:4] in (b"+\0", b"\0+")
    count_of, entry, link = (struct.Struct(order + one) for one in (("Q", "HHQ", "Q") if is_big else ("H", "HHI", "I")))
    tag_bytes = 20 if is_big else 12
    tags, numbers, seen = 0, 0, set[int]()
    place = link.unpack_from(data, 8 if is_big else 4)[0] if len(data) >= 16 else 0
    while place and place + count_of.size <= len(data):
        if place in seen:
            raise ReadError("The directories of the TIFF file form a circle.", reason="corrupt")
        seen.add(place)
        (count,) = count_of.unpack_from(data, place)
        first = place + count_of.size
        tags += count + 1
        if first + count * tag_bytes > len(data):
            break  # cut off, as its reader will say
        if tags > limits.seconds * _TAGS_PER_SECOND:
            raise _too_many("tags", tags)
        for one in range(first, first + count * tag_bytes, tag_bytes):
            _, kind, length = entry.unpack_from(data, one)
            numbers += length if kind not in _WITHOUT_NUMBERS and length * _BYTES.get(kind, 8) <= len(data) else 0
        if numbers > limits.seconds * _NUMBERS_PER_SECOND:
            raise _too_many("numbers in its tags", numbers)
        after = first + count * tag_bytes
        place = link.unpack_from(data, after)[0] if after + link.size <= len(data) else 0


def _too_many(what: str, count: int) -> ReadError:
    return ReadError(
        f"The TIFF file has {count} or more {what}. Split it, or set LEPTON_VISION_FILE_SECONDS (or Limits.seconds) "
        "higher if it can be trusted.",
        reason="too_large",
    )
