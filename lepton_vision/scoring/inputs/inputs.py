"""Enumeration of scoring inputs: files, members of archives, objects, rows of manifests, and DICOM series."""

from __future__ import annotations

import hashlib
import os
import stat
from array import array
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lepton_vision.config import Config
from lepton_vision.config.sections import GapChoice, TiltChoice
from lepton_vision.errors import ReadError, ScoringError
from lepton_vision.readers.channels import agreed_channels, channel_files, first_files, named_channels
from lepton_vision.readers.identity import path_id
from lepton_vision.readers.image import read_image, read_named
from lepton_vision.readers.limits import DEFAULT_LIMITS, Limits, check_bytes
from lepton_vision.readers.series_list import FoundSeries, group_series, read_found
from lepton_vision.scoring.inputs.locations import Location, list_locations
from lepton_vision.scoring.inputs.packed_cases import group_cases, read_packed_case
from lepton_vision.scoring.inputs.packed_series import PackedSeries, group_packed, open_location
from lepton_vision.transforms.rows import TextColumn
from lepton_vision.types import Image, SampleAddress


@dataclass(frozen=True, slots=True)
class Input:
    """One file, or one series.

    Attributes:
        path_id: pseudonymous id that its rows are known by: of the location of a file; of a series by the series alone,
            so that it stays one input whichever of its folders is named.
        path: the file, or the smallest folder that holds the series; of a member of an archive, the archive.
        series: the series, or None.
        location: where the file lies; None for a series.
        channels: of NIfTI files, see ``config.VolumeConfig``; a row of a manifest names its own.
    """

    path_id: str
    path: Path
    series: FoundSeries | PackedSeries | None = None
    location: Location | None = None
    channels: tuple[str, ...] = ()

    @property
    def files(self) -> tuple[Path, ...]:
        """The file, those of its case, or those of the series; the archives of a packed one."""
        if self.series is not None:
            return self.series.files
        is_row = self.location is not None and self.location.kind == "row"
        names = self.location.member.split(",") if self.location is not None and is_row else self.channels
        return channel_files(self.path, names) or (self.path,)

    @property
    def frame(self) -> int | None:
        """The one frame that is asked for, or None."""
        return None if self.location is None else self.location.frame

    def version(self) -> str | None:
        """Size and time of its files, 16 hexadecimal digits; None where they are unknown (no such file, an object).

        Not the time of their inodes (ctime), which would tell a file that was rewritten with both kept: a backup by
        hard links, ``chmod -R`` or a restored archive changes it for every file, and nothing in the row of a DICOM
        file could tell that its content is the same.
        """
        if (self.location is not None and self.location.kind == "object") or not self.files:
            return None
        try:
            facts = [(one.st_size, one.st_mtime_ns) for one in map(os.stat, self.files)]
        except (OSError, ValueError):
            return None
        return hashlib.blake2b(repr(facts).encode(), digest_size=8).hexdigest()

    @contextmanager
    def on_disk(self, *, limits: Limits) -> Iterator[Path | tuple[Path, ...]]:
        """The file, or those of the series, where they can be opened: fetched or unpacked for the time being.

        Raises:
            ReadError: it cannot be fetched or unpacked.
        """
        if isinstance(self.series, PackedSeries):
            with self.series.unpacked(limits=limits) as files:
                yield files
            return
        if self.series is not None:
            yield self.files
            return
        with self._file(limits=limits) as path:
            yield path

    @contextmanager
    def _file(self, *, limits: Limits) -> Iterator[Path]:
        """The one file, fetched or unpacked where need be."""
        location = self.location or Location(self.path.as_posix())
        if location.reason:
            raise ReadError("The input cannot be used.", reason=location.reason, path=self.path)
        elif location.kind in ("member", "object"):
            with open_location(location, limits=limits) as path:
                yield path
        else:
            yield self.path

    def read(
        self,
        *,
        limits: Limits = DEFAULT_LIMITS,
        is_whole: bool = True,
        channels: Sequence[str] = (),
        gaps: GapChoice = "refuse",
        tilt: TiltChoice = "refuse",
    ) -> Image:
        """Read it.

        Args:
            limits: what it may cost.
            is_whole: False leaves out what only masks need, facts and geometry.
            channels: of the model; a row of a manifest names its own, and they must agree.
            gaps: of a series, see ``readers.read_series``.
            tilt: the same.

        Raises:
            ReadError: it is no image, no volume, or larger than ``limits`` allow.
        """
        if isinstance(self.series, PackedSeries):
            return self.series.read(limits=limits, gaps=gaps, tilt=tilt)
        if self.series is not None:
            return read_found(self.series, gaps=gaps, tilt=tilt, limits=limits)
        location = self.location or Location(self.path.as_posix())
        if location.case:
            return read_packed_case(location, channels, read=partial(read_image, limits=limits), limits=limits)
        with self._file(limits=limits) as path:
            if location.frame is None:
                _check_file(path, limits=limits)
            is_row = location.kind == "row"
            row = location.member or None
            member = agreed_channels(path, channels, row=row) if is_row else named_channels(location.name, channels)
            how: dict[str, Any] = {"frame": location.frame, "member": member, "limits": limits}
            repairs = SampleAddress(path, repair=location.repair).repairs
            image = read_image(path, **how, **repairs) if is_whole or repairs else read_named(path, **how)
        return replace(image, **location.ids) if location.ids else image  # type: ignore[arg-type]

    def ids(self) -> dict[str, Any]:
        """Columns of a row that can be told although nothing could be read."""
        if self.series is None:
            location = self.location
            return {"path_id": self.path_id} | ({} if location is None else {**location.ids, "frame": location.frame})
        return {"path_id": self.path_id, "series_id": self.series.series_id, "image_id": self.series.image_id}

    @property
    def is_left_out(self) -> bool:
        """Whether it is a file of a series that is no slice of it: a copy, a localizer, a picture of a screen."""
        return self.location is not None and self.location.kind == "left_out"


@dataclass(frozen=True, slots=True)
class Inputs:
    """Series, then files, each once; packed, since there may be millions.

    Attributes:
        path_ids: (N,) uint64, the hexadecimal digits of each ``Input.path_id`` as a number.
        locations: texts of ``Location``.
        series: where volumes are scored.
        channels: see ``Input``.
    """

    path_ids: npt.NDArray[np.uint64]
    locations: TextColumn
    series: Sequence[FoundSeries | PackedSeries] = ()
    channels: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        locations: Iterable[Location],
        series: Sequence[FoundSeries | PackedSeries] = (),
        *,
        channels: Sequence[str] = (),
    ) -> Inputs:
        """Pack them; a location that was named before is left out.

        Raises:
            ScoringError: two inputs of one path id.
        """
        words = array("Q", [int(path_id(one.member), 16) for one in series])

        def texts() -> Iterator[str]:
            for location in locations:
                words.append(int(path_id(location.identity), 16))
                yield location.text

        packed = TextColumn.of(texts())
        path_ids = np.frombuffer(words, np.uint64)
        kept = _first_of_each(path_ids, packed, first=len(series))
        if not kept.all():
            packed = TextColumn.of(packed[int(k)] for k in np.flatnonzero(kept[len(series) :]))
        return cls(path_ids[kept], packed, series, tuple(channels))

    def __len__(self) -> int:
        return len(self.path_ids)

    def keep(self, wanted: npt.NDArray[np.bool_]) -> Inputs:
        """Inputs that are marked, (N,) bool."""
        of_series, of_locations = wanted[: len(self.series)], wanted[len(self.series) :]
        series = [self.series[int(k)] for k in np.flatnonzero(of_series)]
        locations = TextColumn.of(self.locations[int(k)] for k in np.flatnonzero(of_locations))
        return Inputs(self.path_ids[wanted], locations, series, self.channels)

    def __iter__(self) -> Iterator[Input]:
        for number, word in enumerate(self.path_ids.tolist()):
            index = number - len(self.series)
            yield self._series(number, word) if index < 0 else self._location(index, word)

    def _series(self, number: int, word: int) -> Input:
        return Input(f"{word:016x}", self.series[number].folder, self.series[number])

    def _location(self, number: int, word: int) -> Input:
        location = Location.of_text(self.locations[number])
        return Input(f"{word:016x}", Path(location.path), None, location, self.channels)


def _check_file(path: Path, *, limits: Limits) -> None:
    """Refuse a file above the cap of bytes; what is no file, or not there, is for its reader to say."""
    with suppress(OSError, ValueError):
        facts = os.stat(path)  # noqa: PTH116  once for both questions
        if stat.S_ISREG(facts.st_mode):
            check_bytes(facts.st_size, limits=limits)


def _first_of_each(path_ids: npt.NDArray[np.uint64], locations: TextColumn, *, first: int) -> npt.NDArray[np.bool_]:
    """Mark the locations that were not named before, (N,) bool; equal ids alone do not make two locations one."""
    kept = np.ones(path_ids.size, np.bool_)
    order = np.argsort(path_ids, kind="stable")
    for one in np.flatnonzero(path_ids[order][1:] == path_ids[order][:-1]).tolist():
        before, after = int(order[one]) - first, int(order[one + 1]) - first
        if before < 0 or Location.of_text(locations[before]).identity != Location.of_text(locations[after]).identity:
            raise ScoringError(
                "Expected inputs with path ids of their own. Received: two with the same one, by chance (64 bits). "
                "Score them in two runs, into two folders.",
                key="inputs",
            )
        kept[order[one + 1]] = False
    return kept


def read_names(named: Iterable[str], stream: Iterable[bytes]) -> Iterator[str]:
    """Named inputs, with "-" replaced by the lines of a stream: one path or URL a line."""
    for name in named:
        if name == "-":
            yield from (os.fsdecode(line) for line in (raw.rstrip(b"\r\n") for raw in stream) if line)
        else:
            yield name


def list_inputs(
    named: str | Path | Iterable[str | Path],
    *,
    volumes: bool,
    channels: Sequence[str] = (),
    include: Collection[str] = (),
    leave_out: Sequence[Path] = (),
    limits: Limits = DEFAULT_LIMITS,
) -> Inputs:
    """Find the inputs below what is named; for volumes, the headers of all files are read to find the series.

    Args:
        named: files, folders, glob patterns, manifests, archives, DICOMDIRs and URLs, see ``list_locations``.
        volumes: files, members of archives and objects of one DICOM series are one input, or one for each volume in it;
            of a series that lies in plain files, only those are looked at. What is no slice of it is one by itself.
        channels: files of these endings that lie together are one input, see ``config.VolumeConfig.channels``.
        include: kinds of objects that are inputs of their own where they are no slices of the series they lie in, see
            ``config.ScanConfig``.
        leave_out: folders whose files are left out.
        limits: caps on archives.

    Raises:
        ScoringError: two inputs of one path id.
    """
    found = list_locations(named, leave_out=leave_out, limits=limits)
    if "mask_file" in include:
        found = (replace(location, reason="") if location.reason == "mask_file" else location for location in found)
    if not volumes:
        return Inputs.of(found)
    once = Inputs.of(found).locations  # a slice that is named twice must not stand twice in its series
    locations = [Location.of_text(once[number]) for number in range(len(once))]
    plain = [Path(location.path) for location in locations if location.kind == "file" and not location.reason]
    series, others = group_series(plain, limits=limits)
    rest = [location for location in locations if location.kind != "file" or location.reason]
    packed, rest = group_packed(group_cases(rest, channels), known=[one.series_id for one in series], limits=limits)
    strays = [Location(path.as_posix(), reason=reason) for one in series for path, reason in one.left_out]
    strays += [location for one in packed for location in one.left_out]
    strays = [replace(p, reason="") if p.reason in include else replace(p, kind="left_out") for p in strays]
    firsts = [Location(path.as_posix()) for path in first_files(others, channels)]
    return Inputs.of([*firsts, *rest, *strays], [*series, *packed], channels=channels)


def require_inputs(
    named: str | Path | Iterable[str | Path] | Inputs,
    *,
    config: Config,
    leave_out: Sequence[Path] = (),
    limits: Limits = DEFAULT_LIMITS,
) -> Inputs:
    """Find the inputs of a run, see ``list_inputs``; those that were found before are taken as they are.

    Raises:
        ScoringError: there are none.
    """
    if not isinstance(named, Inputs):
        volume = config.volume
        channels = () if volume is None else volume.channels
        how: dict[str, Any] = {"channels": channels, "include": config.scan.include, "leave_out": leave_out}
        named = list_inputs(named, volumes=volume is not None, limits=limits, **how)
    if not len(named):
        raise ScoringError(
            "Expected files to score. Received: none. Check the path; hidden files do not count.", key="inputs"
        )
    return named
