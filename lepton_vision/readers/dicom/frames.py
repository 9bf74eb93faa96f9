"""Frame positions in encapsulated pixel data (PS3.5 A.4)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from pydicom.dataset import Dataset

from lepton_vision.errors import ReadError
from lepton_vision.readers.dicom.header import DicomFile

_ITEM, _SEQUENCE_END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
# First bytes of JPEG and JPEG-LS, of JPEG 2000, and of the latter in a JP2 file.
_STARTS = (b"\xff\xd8\xff", b"\xff\x4f\xff\x51", b"\x00\x00\x00\x0cjP  ")
_DEFLATED_FRAMES = "1.2.840.10008.1.2.8.1"  # nothing marks their beginning, and each is one fragment


@dataclass(frozen=True, slots=True)
class Fragment:
    """One item: ``start`` counts from the first byte after the offset table's item, as offset tables do."""

    start: int
    offset: int
    length: int


def frame_bytes(file: DicomFile, *, frames: int, wanted: range) -> Iterator[bytes]:
    """Yield the compressed bytes of the wanted frames, in order.

    Raises:
        ReadError: reason ``truncated`` (an item reaches beyond the end of the file), ``corrupt``, or ``mismatch`` for
            more frames than the header tells of.
    """
    groups = _group(file, frames=frames)
    for index in wanted:
        _check_count(groups, frames=frames, least=index + 1)
        yield b"".join(_content(file.stream, fragment) for fragment in groups[index])


def peek_frame(file: DicomFile, *, frames: int, most: int) -> bytes:
    """First bytes of the first frame, of a file that holds all of them; raises as ``frame_bytes``."""
    groups = _group(file, frames=frames)
    _check_count(groups, frames=frames, least=frames)
    head = b""
    for fragment in groups[0]:  # the first may end inside the header of the frame
        head += _content(file.stream, fragment, most=most - len(head))
    return head


def _check_count(groups: list[list[Fragment]], *, frames: int, least: int) -> None:
    if len(groups) < least:
        raise ReadError(
            f"The header promises {frames} frame(s), the file holds {len(groups)}. Copy it again.",
            reason="truncated",
        )


def _group(file: DicomFile, *, frames: int) -> list[list[Fragment]]:
    """Fragments of each frame; fewer than ``frames`` where the file was cut off."""
    if file.pixels is None or file.pixels.length is not None:
        raise ReadError(
            "The pixel data are not compressed, and the transfer syntax of the meta header says that they are. "
            "Export the file again.",
            reason="corrupt",
        )
    offsets, fragments = _read_items(file.stream, start=file.pixels.offset, size=file.size)
    if len(fragments) == frames:
        return [[fragment] for fragment in fragments]
    begins = {one.start for one in fragments if one is fragments[0] or _begins_frame(file, one)}
    if len(begins) > frames:
        raise ReadError(
            f"The header promises {frames} frame(s), the pixel data hold {len(begins)}. Correct Number of Frames, or "
            "export the file again.",
            reason="mismatch",
        )
    starts = _extended_offsets(file.dataset) or offsets
    known = {fragment.start for fragment in fragments}
    is_usable = len(starts) == frames and starts == sorted(set(starts)) and known.issuperset(starts)
    return _split_at(fragments, starts=set(starts) if is_usable else begins)


def _begins_frame(file: DicomFile, fragment: Fragment) -> bool:
    """Whether a fragment begins like a frame, and not in the middle of one."""
    head = _content(file.stream, fragment, most=12)
    is_rle = head[4:8] == b"\x40\0\0\0" and head[1:4] == b"\0\0\0" and 1 <= head[0] <= 15  # PS3.5 G.5
    return file.transfer_syntax == _DEFLATED_FRAMES or is_rle or head.startswith(_STARTS)


def _content(stream: BinaryIO, fragment: Fragment, *, most: int | None = None) -> bytes:
    stream.seek(fragment.offset)
    return stream.read(fragment.length if most is None else min(most, fragment.length))


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


def _split_at(fragments: list[Fragment], *, starts: set[int]) -> list[list[Fragment]]:
    groups: list[list[Fragment]] = []
    for fragment in fragments:
        if fragment.start in starts:
            groups.append([])
        if groups:
            groups[-1].append(fragment)
    return groups
