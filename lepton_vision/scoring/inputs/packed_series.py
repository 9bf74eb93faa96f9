"""DICOM series whose slices are members of archives or objects in a store."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from lepton_vision.config.sections import GapChoice, TiltChoice
from lepton_vision.errors import ReadError
from lepton_vision.readers.archives import Member, open_member
from lepton_vision.readers.copies import is_copy
from lepton_vision.readers.identity import pseudonym
from lepton_vision.readers.limits import Limits
from lepton_vision.readers.plane import Plane
from lepton_vision.readers.remote import fetch_object
from lepton_vision.readers.series_list import (
    FoundSeries,
    common_folder,
    may_be_slice,
    planes_of,
    read_found,
    warn_of_non_slices,
)
from lepton_vision.readers.series_parts import divide_series, volume_files
from lepton_vision.readers.temporary import MANY_FILES
from lepton_vision.scoring.inputs.locations import Location
from lepton_vision.types import Image


@dataclass(frozen=True, slots=True)
class PackedSeries:
    """One volume of a series; its slices are on disk only while it is read.

    Attributes:
        series_id: pseudonymous id of the series.
        locations: of its slices.
        damaged: locations beside them whose header cannot be read: slices of it, for all that is known.
        suffix: as ``FoundSeries.suffix``.
        frames: as ``FoundSeries.frames``.
        left_out: locations of the series that are no slices of any volume; told of its first volume.
    """

    series_id: str
    locations: tuple[Location, ...]
    damaged: tuple[Location, ...] = ()
    suffix: str = ""
    frames: Mapping[int, frozenset[int]] = field(default_factory=dict)
    left_out: tuple[Location, ...] = ()

    @property
    def member(self) -> str:
        """Pseudonymous id of the volume."""
        return self.series_id + self.suffix

    @property
    def image_id(self) -> str:
        """``Image.image_id`` of the volume."""
        return pseudonym("image", self.series_id) + self.suffix

    @property
    def folder(self) -> Path:
        """The first archive, or what stands for the store."""
        return Path(self.locations[0].path)

    @property
    def files(self) -> tuple[Path, ...]:
        """The archives that hold it; none where slices are objects."""
        if any(location.kind == "object" for location in self.locations):
            return ()
        return tuple(dict.fromkeys(Path(location.path) for location in self.locations))

    @contextmanager
    def unpacked(self, *, limits: Limits) -> Iterator[tuple[Path, ...]]:
        """Its slices as files, for the time being.

        Raises:
            ReadError: one cannot be fetched or unpacked, or all together are above ``limits.max_archive_bytes``.
        """
        with ExitStack() as held:
            held.enter_context(MANY_FILES)
            files, total = list[Path](), 0
            for location in self.locations:
                files.append(held.enter_context(open_location(location, limits=limits)))
                total += files[-1].stat().st_size
                if total > limits.max_archive_bytes:
                    raise ReadError(f"The series is larger than {limits.max_archive_bytes} bytes.", reason="too_large")
            yield tuple(files)

    def read(self, *, limits: Limits, gaps: GapChoice = "refuse", tilt: TiltChoice = "refuse") -> Image:
        """Read the volume; ``gaps`` and ``tilt`` as for ``read_series``.

        Raises:
            ReadError: as ``unpacked`` and ``read_series``; a damaged location beside the slices counts as one of them.
        """
        with self.unpacked(limits=limits) as files, ExitStack() as held:
            beside = [held.enter_context(open_location(location, limits=limits)) for location in self.damaged]
            found = FoundSeries(self.folder, self.series_id, files, tuple(beside), self.suffix, self.frames)
            return read_found(found, gaps=gaps, tilt=tilt, limits=limits)


@contextmanager
def open_location(location: Location, *, limits: Limits) -> Iterator[Path]:
    """A member of an archive or an object as a temporary file.

    Raises:
        ReadError: it cannot be fetched or unpacked.
    """
    if location.reason:
        raise ReadError("The input cannot be used.", reason=location.reason)
    if location.kind == "member":
        with open_member(location.path, Member(location.index, location.member, location.copy), limits=limits) as path:
            yield path
    else:
        with fetch_object(location.path, limits=limits) as path:
            yield path


def group_packed(
    locations: Iterable[Location], *, known: Iterable[str], limits: Limits
) -> tuple[list[PackedSeries], list[Location]]:
    """Sort members and objects into DICOM series and what belongs to none; each is fetched once, one at a time.

    Args:
        locations: members, objects, and others, which stay what they are.
        known: series that lie in plain files: they stay what they are, and their packed copies are passed over.
        limits: what a member or object may cost.

    Returns:
        The volumes of the series in the order of their first slice, each with what is damaged beside it, as
        ``group_series`` does it for files; and the other locations in the order given, damaged ones among them.
    """
    found: dict[str, list[tuple[Location, Plane]]] = {}
    others, damaged, on_disk = list[Location](), list[Location](), frozenset(known)
    for location in locations:
        planes = list[Plane]()
        if location.kind in ("member", "object"):
            try:
                with open_location(location, limits=limits) as path:
                    planes = planes_of(path, limits=limits)
            except ReadError as error:  # its row tells the reason
                if may_be_slice(error.reason):
                    damaged.append(location)
        name = planes[0].series_id if planes else None
        if name is None:
            others.append(location)
        elif name not in on_disk:
            found.setdefault(name, []).extend((location, plane) for plane in planes)
    series = []
    for name, slices in found.items():
        folder = common_folder({_path_of(location) for location, _ in slices})
        beside = tuple(location for location in damaged if _path_of(location).is_relative_to(folder))
        series += _volumes(slices, PackedSeries(name, (), beside), limits=limits)
    warn_of_non_slices(location.reason for one in series for location in one.left_out)
    return series, others


def _volumes(slices: list[tuple[Location, Plane]], series: PackedSeries, *, limits: Limits) -> list[PackedSeries]:
    """The volumes of one series, as ``series_list`` finds them among files; what may be a copy is fetched again."""

    def same(one: int, other: int) -> bool:
        with ExitStack() as held:
            first, second = (held.enter_context(open_location(slices[k][0], limits=limits)) for k in (one, other))
            return is_copy(first, second, limits=limits)

    division = divide_series([plane for _, plane in slices], is_copy=same)
    parts = []
    for suffix, files in volume_files(division, [(location, plane.frame) for location, plane in slices]):
        parts.append(replace(series, locations=files.files, suffix=suffix, frames=files.frames))
    strays = {slices[k][0]: reason for k, reason in division.left_out.items()}
    left_out = tuple(replace(location, reason=reason) for location, reason in strays.items())
    return [replace(parts[0], left_out=left_out), *parts[1:]]


def _path_of(location: Location) -> Path:
    """Path that a location would have if archives and stores were folders."""
    return Path(os.path.normpath(Path(location.path, location.member)))
