"""Row attributes that a loader needs, as a few arrays.

A list of Python objects would be copied page by page into every forked worker, as reading an object writes its
reference count; arrays are shared. 100,000 rows take a few megabytes.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lepton_vision.errors import ManifestError, ReadError
from lepton_vision.manifest.table import Manifest
from lepton_vision.types import SampleAddress

if TYPE_CHECKING:
    import pandas as pd


_GONE = ("missing", "empty", "not_an_image", "truncated", "corrupt", "unreachable")  # a scan finds these


@dataclass(frozen=True, slots=True)
class TextColumn:
    """Immutable strings end to end in one array.

    Attributes:
        data: (bytes,) uint8, UTF-8.
        ends: (N,) int64 end of each string.
    """

    data: npt.NDArray[np.uint8]
    ends: npt.NDArray[np.int64]

    @classmethod
    def of(cls, texts: Iterable[str]) -> TextColumn:
        """Pack strings one by one; undecodable bytes of file names (PEP 383) survive."""
        data, ends = bytearray(), array("q")
        for text in texts:
            data += text.encode("utf-8", "surrogateescape")
            ends.append(len(data))
        return cls(np.frombuffer(data, np.uint8), np.frombuffer(ends, np.int64))

    @classmethod
    def of_column(cls, values: pd.Series[Any], rows: npt.NDArray[np.int64]) -> TextColumn:
        """The rows of a column of Arrow strings, null as "": Arrow's own memory, without a Python string for each."""
        column = pa.array(values.array)
        if len(rows) < len(values):
            column = column.take(pa.array(rows))
        column = pc.fill_null(column.cast(pa.large_string()), "")
        whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        if not len(whole):
            return cls.of(())
        _, offsets, data = whole.buffers()
        ends = np.frombuffer(offsets, np.int64)[whole.offset : whole.offset + len(whole) + 1]
        first, last = int(ends[0]), int(ends[-1])
        text = np.frombuffer(data or b"", np.uint8)[first:last]
        return cls(text, ends[1:] - first if first else ends[1:])

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, row: int) -> str:
        start = int(self.ends[row - 1]) if row else 0
        return self.data[start : int(self.ends[row])].tobytes().decode("utf-8", "surrogateescape")

    def __iter__(self) -> Iterator[str]:
        return map(self.__getitem__, range(len(self)))


@dataclass(frozen=True, slots=True)
class RowTable:
    """Ids and addresses of the usable rows of a manifest.

    Attributes:
        root: folder that paths are relative to.
        index: (N,) int64 position of each row in the manifest.
        image_ids: pseudonymous ids.
        paths: relative paths.
        members: names of arrays inside .npz files; "" for other files.
        frames: (N,) int32 frame, -1 for a file that is one sample.
        repairs: what has to be repaired in a series, see ``SampleAddress.repair``.
        numbers: (N,) int64 row of each row in the whole manifest, for messages.
    """

    root: Path
    index: npt.NDArray[np.int64]
    image_ids: TextColumn
    paths: TextColumn
    members: TextColumn
    frames: npt.NDArray[np.int32]
    repairs: TextColumn
    numbers: npt.NDArray[np.int64]

    @classmethod
    def of(cls, manifest: Manifest) -> RowTable:
        """Take the rows whose status is "ok".

        Raises:
            ManifestError: DICOM series, which are found by their ids, under those of another key.
        """
        if (manifest.frame["source_format"].eq("dicom") & manifest.frame["member"].notna()).any():
            manifest.require_key("so that its DICOM series cannot be found")
        frame, index = manifest.frame, np.flatnonzero(manifest.is_ok).astype(np.int64, copy=False)
        # Arrow's allocator keeps what building and filtering the manifest needed for a moment: as much as the table.
        pa.default_memory_pool().release_unused()
        return cls(
            root=manifest.root,
            index=index,
            image_ids=TextColumn.of_column(frame["image_id"], index),
            paths=TextColumn.of_column(frame["path"], index),
            members=TextColumn.of_column(frame["member"], index),
            frames=frame["frame"].to_numpy(dtype=np.int32, na_value=-1)[index],
            repairs=TextColumn.of_column(frame["repair"], index),
            numbers=index if manifest.numbers is None else manifest.numbers[index],
        )

    def __len__(self) -> int:
        return len(self.index)

    def image_id(self, row: int) -> str:
        """Pseudonymous id of one row."""
        return self.image_ids[row]

    def locate(self, row: int) -> SampleAddress:
        """Location of the pixels of one row."""
        frame = int(self.frames[row])
        path, member = self.root / self.paths[row], self.members[row] or None
        return SampleAddress(path, member, None if frame < 0 else frame, self.repairs[row])

    def unreadable(self, row: int, error: ReadError, *, what: str = "") -> ReadError:
        """Return the error of one row that names it: file names may hold names of patients."""
        text = f"Row {self.numbers[row]} (from 0) of the manifest, {self.image_id(row)}{what}: {error}"
        if error.reason in _GONE:
            text += " It could be read when the folder was scanned: put the file back, or scan again."
        return ReadError(text, reason=error.reason, path=error.path or self.locate(row).path)


def usable_rows(manifest: Manifest, *, what: str) -> RowTable:
    """The usable rows of a manifest; ``what`` names one in the message.

    Raises:
        ManifestError: there is none.
    """
    rows = RowTable.of(manifest)
    if not len(rows):
        raise ManifestError(
            f"Expected at least one usable {what}. Received: {len(manifest)} rows, none of them with status 'ok'. "
            f"Check the split, or scan the folder that holds the {what}s."
        )
    return rows
