"""Palette color: stored indices mapped through the header's lookup tables (PS3.3 C.7.6.3.1.5, C.7.9.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from lepton_vision.errors import ReadError
from lepton_vision.readers.limits import raise_read_errors

_COLORS = ("Red", "Green", "Blue")
_DISCRETE, _LINEAR, _INDIRECT = 0, 1, 2


@dataclass(frozen=True, slots=True)
class _Table:
    """Entries of one color: stored value ``first`` has entry 0. ``top`` is the largest value that an entry may have."""

    entries: npt.NDArray[Any]
    first: int
    top: int


def expand_palette(stored: npt.NDArray[Any], dataset: Dataset) -> tuple[npt.NDArray[Any], tuple[float, float]]:
    """Turn palette indices (F, H, W) into RGB (F, H, W, 3) and its value range.

    Raises:
        ReadError: reason ``corrupt``.
    """
    with raise_read_errors("The color palette of the header cannot be applied", reason="corrupt"):
        tables = [_read_table(dataset, color, is_signed=stored.dtype.kind == "i") for color in _COLORS]
        if len({table.entries.dtype for table in tables}) > 1:
            raise ReadError("The three tables of the color palette differ in their width.", reason="corrupt")
        colors = np.empty((*stored.shape, 3), dtype=tables[0].entries.dtype)
        indices = stored.astype(np.int64)
        for channel, table in enumerate(tables):
            colors[..., channel] = table.entries[np.clip(indices - table.first, 0, len(table.entries) - 1)]
        return colors, (0.0, float(max(table.top for table in tables)))


def _read_table(dataset: Dataset, color: str, *, is_signed: bool) -> _Table:
    count, first, bits = (int(part) for part in dataset[f"{color}PaletteColorLookupTableDescriptor"].value)
    count = count % 65536 or 65536
    # The second value has the sign of the pixels, whatever VR the writer gave it.
    first = (first + 32768) % 65536 - 32768 if is_signed else first % 65536
    keyword = f"{color}PaletteColorLookupTableData"
    if keyword in dataset:
        entries = _plain(table_bytes(dataset, keyword), count=count, bits=bits)
    else:
        words = _plain(table_bytes(dataset, f"Segmented{keyword}"), count=None, bits=bits)
        entries = np.array(_Segments(words).expand(), dtype=words.dtype)[:count]
    if len(entries) != count or not 1 <= bits <= 16:
        raise ReadError(f"Expected {count} entries in a color palette. Received: {len(entries)}.", reason="corrupt")
    # Eight bits may lie in words, and words may be what a descriptor of 8 bits means; the entries tell.
    widest = 8 * entries.dtype.itemsize
    is_narrow = bits < widest and int(entries.max()) < 1 << bits
    return _Table(entries, first, (1 << (bits if is_narrow else widest)) - 1)


def table_bytes(dataset: Dataset, keyword: str) -> bytes:
    """Data of a table as bytes of little-endian words."""
    data = dataset[keyword].value
    if not isinstance(data, bytes):  # VR US: pydicom has read the words
        return np.atleast_1d(np.asarray(data, dtype=np.int64)).astype("<u2").tobytes()
    if dataset.original_encoding[1] is False and dataset[keyword].VR == "OW":
        return np.frombuffer(data[: len(data) // 2 * 2], dtype=">u2").astype("<u2").tobytes()
    return data


def _plain(data: bytes, *, count: int | None, bits: int) -> npt.NDArray[Any]:
    """Entries as bytes or words: by the length of the data where ``count`` is known, else by ``bits``."""
    is_bytes = bits <= 8 if count is None else len(data) < 2 * count or (bits <= 8 and len(data) == count + count % 2)
    entries = np.frombuffer(data[: len(data) if is_bytes else len(data) // 2 * 2], dtype="<u1" if is_bytes else "<u2")
    return entries[:count]


class _Segments:
    """Segmented table data (PS3.3 C.7.9.2): ``values`` are bytes or words, as wide as the entries."""

    def __init__(self, values: npt.NDArray[Any]) -> None:
        self._values: list[int] = values.tolist()
        self._width = values.dtype.itemsize
        self._found: list[int] = []

    def expand(self) -> list[int]:
        """All entries."""
        self._run(0, most=len(self._values), is_copy=False)
        return self._found

    def _run(self, place: int, *, most: int, is_copy: bool) -> None:
        """Expand up to ``most`` segments from a place on; a copy holds no copies."""
        while most and place + 2 < len(self._values) and len(self._found) <= 65536:
            kind, length = self._values[place : place + 2]
            place, most = place + 2, most - 1
            if kind == _DISCRETE:
                self._found += self._values[place : place + length]
                place += length
            elif kind == _LINEAR:
                start, end = self._found[-1], self._values[place]
                self._found += [round(start + (end - start) * step / length) for step in range(1, length + 1)]
                place += 1
            elif kind == _INDIRECT and not is_copy:
                parts = self._values[place : place + 4 // self._width]
                offset = sum(part << (8 * self._width * index) for index, part in enumerate(parts))
                self._run(offset // self._width, most=length, is_copy=True)
                place += len(parts)
            else:
                raise ReadError("The segments of a color palette are of an unknown kind.", reason="corrupt")
