"""What a scoring run is asked to score: files, and DICOM series where volumes are scored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lepton_vision.inference.samples import list_files
from lepton_vision.readers.identity import pseudonym
from lepton_vision.readers.image import read_image
from lepton_vision.readers.series_list import FoundSeries, group_series, read_found
from lepton_vision.types import Image


@dataclass(frozen=True, slots=True)
class Input:
    """One file, or one series.

    Attributes:
        path_id: pseudonymous id that its rows are known by: of the path of a file; of a series by the series alone, so
            that it stays one input whichever of its folders is named.
        path: the file, or the smallest folder that holds the series.
        series: the series, or None.
    """

    path_id: str
    path: Path
    series: FoundSeries | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """The file, or those of the series."""
        return (self.path,) if self.series is None else self.series.files

    def read(self) -> Image:
        """Read it.

        Raises:
            ReadError: it is no image, or no volume.
        """
        return read_image(self.path) if self.series is None else read_found(self.series)

    def ids(self) -> dict[str, str]:
        """Columns of a row that can be told although nothing could be read."""
        if self.series is None:
            return {"path_id": self.path_id}
        series_id = self.series.series_id
        return {"path_id": self.path_id, "series_id": series_id, "image_id": pseudonym("image", series_id)}


@dataclass(frozen=True, slots=True)
class Inputs:
    """Series, then files; ids are made as they are asked for.

    Attributes:
        files: packed, since there may be millions.
        series: where volumes are scored.
    """

    files: Sequence[Path]
    series: Sequence[FoundSeries] = ()

    def __len__(self) -> int:
        return len(self.files) + len(self.series)

    def __iter__(self) -> Iterator[Input]:
        for one in self.series:
            yield Input(pseudonym("path", one.series_id), one.folder, one)
        for path in self.files:
            yield Input(pseudonym("path", path.as_posix()), path)


def list_inputs(named: str | Path | Sequence[str | Path], *, volumes: bool, leave_out: Sequence[Path] = ()) -> Inputs:
    """Find the inputs below what is named; for volumes, the headers of all files are read to find the series.

    Args:
        named: a file, a folder, or several of both.
        volumes: files of one DICOM series are one input.
        leave_out: folders whose files are left out.
    """
    files = list_files(named, leave_out=leave_out)
    if not volumes:
        return Inputs(files)
    series, others = group_series(files)
    return Inputs(others, series)
