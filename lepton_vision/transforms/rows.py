"""What a loader needs to know of each row, in a few arrays.

A list of Python objects would be copied page by page into every forked worker, as reading an object writes its
reference count; arrays are shared. 100,000 rows take a few megabytes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lepton_vision.manifest.table import Manifest
from lepton_vision.types import SampleAddress


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
        """Pack strings; undecodable bytes of file names (PEP 383) survive."""
        parts = [text.encode("utf-8", "surrogateescape") for text in texts]
        ends = np.cumsum([len(part) for part in parts], dtype=np.int64)
        return cls(np.frombuffer(b"".join(parts), np.uint8), ends)

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, row: int) -> str:
        start = int(self.ends[row - 1]) if row else 0
        return self.data[start : int(self.ends[row])].tobytes().decode("utf-8", "surrogateescape")


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
    """

    root: Path
    index: npt.NDArray[np.int64]
    image_ids: TextColumn
    paths: TextColumn
    members: TextColumn
    frames: npt.NDArray[np.int32]

    @classmethod
    def of(cls, manifest: Manifest) -> RowTable:
        """Take the rows whose status is "ok"."""
        index = np.flatnonzero(manifest.frame["status"].to_numpy(dtype=object) == "ok")
        frame = manifest.frame[["image_id", "path", "member", "frame"]].iloc[index]  # a copy: of no more than it needs
        return cls(
            root=manifest.root,
            index=index.astype(np.int64),
            image_ids=TextColumn.of(frame["image_id"].to_numpy(dtype=object)),
            paths=TextColumn.of(frame["path"].to_numpy(dtype=object)),
            members=TextColumn.of(frame["member"].fillna("").to_numpy(dtype=object)),
            frames=frame["frame"].fillna(-1).to_numpy(dtype=np.int32),
        )

    def __len__(self) -> int:
        return len(self.index)

    def image_id(self, row: int) -> str:
        """Pseudonymous id of one row."""
        return self.image_ids[row]

    def locate(self, row: int) -> SampleAddress:
        """Where the pixels of one row lie."""
        frame = int(self.frames[row])
        return SampleAddress(self.root / self.paths[row], self.members[row] or None, None if frame < 0 else frame)
