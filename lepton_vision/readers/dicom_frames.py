"""Find the compressed frames of encapsulated pixel data (PS3.5 A.4)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from pydicom.dataset import Dataset

from lepton_vision.errors import ReadError
from lepton_vision.readers.dicom_header import DicomFile

_ITEM, _SEQUENCE_END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
# What ends a frame, where there is no offset table: EOI of JPEG and JPEG-LS, EOC of JPEG 2000.
_END_MARKER = b"\xff\xd9"


@dataclass(frozen=True, slots=True)
class Fragment:
    """One item: ``start`` counts from the first byte after the offset table's item, as offset tables do."""

    start: int
    offset: int
    length: int


def frame_bytes(file: DicomFile, *, frames: int, wanted: range) -> Iterator[bytes]:
    """Yield the compressed bytes of the wanted frames, in order.

    Raises:
        ReadError: reason ``truncated`` (an item reaches beyond the end of the file), ``corrupt``, or ``no_frame``.
    """
    if file.pixels is None or file.pixels.length is not None:
        raise ReadError("Compressed pixel data must be encapsulated. Export the file again.", reason="corrupt")
    offsets, fragments = _read_items(file.stream, start=file.pixels.offset, size=file.size)
    groups = _group(fragments, frames=frames, offsets=offsets, extended=_extended_offsets(file.dataset), file=file)
    for index in wanted:
        if index >= len(groups):
            raise ReadError(
                f"The header promises {frames} frame(s), the file holds {len(groups)}. Copy it again.",
                reason="truncated",
            )
        yield b"".join(_content(file.stream, fragment) for fragment in groups[index])


def _content(stream: BinaryIO, fragment: Fragment) -> bytes:
    stream.seek(fragment.offset)
    return stream.read(fragment.length)


def _read_items(stream: BinaryIO, *, start: int, size: int) -> tuple[list[int], list[Fragment]]:
    """Basic offset table (maybe empty) and all fragments; their bytes are not read yet."""
    offsets: list[int] = []
    fragments: list[Fragment] = []
    place, base = start, None
    while place + 8 <= size:
        stream.seek(place)
        head = stream.read(8)
        if head[:4] == _SEQUENCE_END:
            break
        if head[:4] != _ITEM:
            raise ReadError("The encapsulated pixel data are damaged: expected an item.", reason="corrupt")
        (length,) = struct.unpack_from("<I", head, 4)
        if place + 8 + length > size:
            raise ReadError("The file ends inside a compressed frame. Copy it again.", reason="truncated")
        if base is None:
            table = stream.read(length)
            offsets = list(struct.unpack(f"<{length // 4}I", table[: length // 4 * 4]))
            base = place + 8 + length
        else:
            fragments.append(Fragment(place - base, place + 8, length))
        place += 8 + length
    if not fragments:
        raise ReadError("The encapsulated pixel data hold no frame.", reason="truncated")
    return offsets, fragments


def _extended_offsets(dataset: Dataset) -> list[int]:
    """Extended Offset Table (PS3.3 C.7.6.3.1.8), or nothing."""
    table = dataset.get("ExtendedOffsetTable")
    if not isinstance(table, bytes) or len(table) % 8:
        return []
    return list(struct.unpack(f"<{len(table) // 8}Q", table))


def _group(
    fragments: list[Fragment], *, frames: int, offsets: list[int], extended: list[int], file: DicomFile
) -> list[list[Fragment]]:
    """Fragments of each frame."""
    if frames == 1:
        return [fragments]
    if len(fragments) == frames:
        return [[fragment] for fragment in fragments]
    starts = extended or offsets
    known = {fragment.start for fragment in fragments}
    if len(starts) == frames and starts == sorted(set(starts)) and known.issuperset(starts):
        return _split_at(fragments, starts=set(starts))
    # No usable table: a frame ends with the fragment whose last bytes are an end marker.
    groups: list[list[Fragment]] = [[]]
    for fragment in fragments:
        groups[-1].append(fragment)
        if _END_MARKER in _content(file.stream, fragment)[-10:]:
            groups.append([])
    return [group for group in groups if group]


def _split_at(fragments: list[Fragment], *, starts: set[int]) -> list[list[Fragment]]:
    groups: list[list[Fragment]] = []
    for fragment in fragments:
        if fragment.start in starts:
            groups.append([])
        if groups:
            groups[-1].append(fragment)
    return groups
