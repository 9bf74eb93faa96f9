"""What a scoring run is asked to score: files, members of archives, objects, rows of manifests, and DICOM series."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lepton_vision.errors import ReadError
from lepton_vision.readers.archives import Member, open_member
from lepton_vision.readers.identity import pseudonym
from lepton_vision.readers.image import read_image
from lepton_vision.readers.limits import DEFAULT_LIMITS, Limits, check_bytes
from lepton_vision.readers.remote import fetch_object
from lepton_vision.readers.series_list import FoundSeries, group_series, read_found
from lepton_vision.scoring.places import Place, list_places
from lepton_vision.transforms.rows import TextColumn
from lepton_vision.types import Image


@dataclass(frozen=True, slots=True)
class Input:
    """One file, or one series.

    Attributes:
        path_id: pseudonymous id that its rows are known by: of the place of a file; of a series by the series alone, so
            that it stays one input whichever of its folders is named.
        path: the file, or the smallest folder that holds the series; of a member of an archive, the archive.
        series: the series, or None.
        place: where the file lies; None for a series.
    """

    path_id: str
    path: Path
    series: FoundSeries | None = None
    place: Place | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """The file, or those of the series."""
        return (self.path,) if self.series is None else self.series.files

    @property
    def frame(self) -> int | None:
        """The one frame that is asked for, or None."""
        return None if self.place is None else self.place.frame

    @contextmanager
    def on_disk(self, *, limits: Limits) -> Iterator[Path | tuple[Path, ...]]:
        """The file, or those of the series, where they can be opened: fetched or unpacked for the time being.

        Raises:
            ReadError: it cannot be fetched or unpacked.
        """
        if self.series is not None:
            yield self.files
            return
        with self._file(limits=limits) as path:
            yield path

    @contextmanager
    def _file(self, *, limits: Limits) -> Iterator[Path]:
        """The one file, fetched or unpacked where need be."""
        place = self.place or Place(self.path.as_posix())
        if place.reason:
            raise ReadError("The input cannot be used.", reason=place.reason, path=self.path)
        elif place.kind == "member":
            member = Member(place.index, place.member, place.copy)
            with open_member(place.path, member, limits=limits) as path:
                yield path
        elif place.kind == "object":
            with fetch_object(place.path, limits=limits) as path:
                yield path
        else:
            yield self.path

    def read(self, *, limits: Limits = DEFAULT_LIMITS) -> Image:
        """Read it.

        Raises:
            ReadError: it is no image, no volume, or larger than ``limits`` allow.
        """
        if self.series is not None:
            return read_found(self.series, limits=limits)
        place = self.place or Place(self.path.as_posix())
        with self._file(limits=limits) as path:
            if place.frame is None and path.is_file():
                check_bytes(path.stat().st_size, limits=limits)
            member = place.member or None if place.kind == "row" else None
            name = None if place.kind in ("file", "row") else place.identity
            image = read_image(path, frame=place.frame, member=member, name=name, limits=limits)
        return replace(image, **place.ids) if place.ids else image  # type: ignore[arg-type]

    def ids(self) -> dict[str, Any]:
        """Columns of a row that can be told although nothing could be read."""
        if self.series is None:
            place = self.place
            return {"path_id": self.path_id} | ({} if place is None else {**place.ids, "frame": place.frame})
        series_id = self.series.series_id
        return {"path_id": self.path_id, "series_id": series_id, "image_id": pseudonym("image", series_id)}


@dataclass(frozen=True, slots=True)
class Inputs:
    """Series, then files; ids are made as they are asked for.

    Attributes:
        places: texts of ``Place``, packed, since there may be millions.
        series: where volumes are scored.
    """

    places: TextColumn
    series: Sequence[FoundSeries] = ()

    def __len__(self) -> int:
        return len(self.places) + len(self.series)

    def __iter__(self) -> Iterator[Input]:
        for one in self.series:
            yield Input(pseudonym("path", one.series_id), one.folder, one)
        for number in range(len(self.places)):
            place = Place.of_text(self.places[number])
            yield Input(pseudonym("path", place.identity), Path(place.path), None, place)


def read_names(named: Iterable[str], stream: Iterable[bytes]) -> Iterator[str]:
    """What is named, with "-" replaced by the lines of a stream: one path or URL a line."""
    for name in named:
        if name == "-":
            yield from (os.fsdecode(line) for line in (raw.rstrip(b"\r\n") for raw in stream) if line)
        else:
            yield name


def list_inputs(
    named: str | Path | Iterable[str | Path],
    *,
    volumes: bool,
    leave_out: Sequence[Path] = (),
    limits: Limits = DEFAULT_LIMITS,
) -> Inputs:
    """Find the inputs below what is named; for volumes, the headers of all files are read to find the series.

    Args:
        named: files, folders, glob patterns, manifests, archives, DICOMDIRs and URLs, see ``list_places``.
        volumes: files of one DICOM series are one input; members of archives and objects stay single files.
        leave_out: folders whose files are left out.
        limits: caps on archives.
    """
    found = list_places(named, leave_out=leave_out, limits=limits)
    if not volumes:
        return Inputs(TextColumn.of(place.text for place in found))
    places = list(found)
    plain = [Path(place.path) for place in places if place.kind == "file" and not place.reason]
    series, others = group_series(plain, limits=limits)
    rest = [place for place in places if place.kind != "file" or place.reason]
    return Inputs(TextColumn.of(place.text for place in [*(Place(path.as_posix()) for path in others), *rest]), series)
