"""DICOM series among a set of files, found by reading headers only."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from lepton_vision.config.sections import GapChoice, TiltChoice
from lepton_vision.errors import ReadError
from lepton_vision.readers.content import open_content
from lepton_vision.readers.dicom.file import dicom_planes
from lepton_vision.readers.identity import pseudonym
from lepton_vision.readers.limits import DEFAULT_LIMITS, Limits, raise_read_errors
from lepton_vision.readers.plane import Plane
from lepton_vision.readers.series import NO_SLICE, Slice, divide_slices, list_slices, read_slices
from lepton_vision.readers.series_parts import volume_files
from lepton_vision.readers.stack import stack_planes
from lepton_vision.types import Image

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FoundSeries:
    """One volume of a series, nearly always all of it; ``read_found`` reads it, or ``read_image(folder, member=…)``.

    Attributes:
        folder: the smallest folder that holds all files of the series.
        series_id: pseudonymous id of the series.
        files: its files, in the order in which a walk through the folder meets them.
        damaged: files below the folder whose header cannot be read: slices of it, for all that is known.
        suffix: what the id of the volume has behind that of the series, "-echo1" (see ``series_parts.Part``); empty
            where the series is one volume.
        frames: by number of a file of which only some frames belong to the volume, which do.
        left_out: files of the series that are no slices of any volume, with a reason code; told of its first volume.
    """

    folder: Path
    series_id: str
    files: tuple[Path, ...]
    damaged: tuple[Path, ...] = ()
    suffix: str = ""
    frames: Mapping[int, frozenset[int]] = field(default_factory=dict)
    left_out: tuple[tuple[Path, str], ...] = ()

    @property
    def member(self) -> str:
        """Pseudonymous id of the volume."""
        return self.series_id + self.suffix

    @property
    def image_id(self) -> str:
        """``Image.image_id`` of the volume."""
        return pseudonym("image", self.series_id) + self.suffix


@dataclass(frozen=True, slots=True)
class SeriesFacts:
    """Facts from the headers of a series, without patient data.

    Attributes:
        series_id: pseudonymous id of the series, and of the volume in it.
        modality: DICOM Modality, or None where the header does not say.
        slices: files or frames that belong to it; None where a header cannot be read.
        shape: (D, H, W), or None where it is no volume.
        spacing_mm: of D, H and W, or None where it is no volume.
        reason: code why it is no volume (see ``ReadError``); empty where it is one, as far as headers tell.
    """

    series_id: str
    modality: str | None
    slices: int | None
    shape: tuple[int, int, int] | None = None
    spacing_mm: tuple[float, ...] | None = None
    reason: str = ""


def group_series(paths: Iterable[Path], *, limits: Limits = DEFAULT_LIMITS) -> tuple[list[FoundSeries], list[Path]]:
    """Sort files into DICOM series and what belongs to none.

    Args:
        paths: files.
        limits: caps on inflated bytes.

    Returns:
        The volumes of the series in the order of their first file, and the other files in the order given: other
        formats, DICOM files that cannot be read, that have no place in the patient, or whose header names no series.

    Example:
        >>> series, others = group_series(Path("study").rglob("*.dcm"))  # doctest: +SKIP
    """
    members: dict[str, list[Slice]] = {}
    others: list[Path] = []
    damaged: list[Path] = []
    for path in paths:
        try:
            planes = planes_of(path, limits=limits)
        except ReadError as error:  # whoever reads the file by itself learns the reason
            planes = []
            if may_be_slice(error.reason):
                damaged.append(path)
        name = planes[0].series_id if planes else None
        if name is None:
            others.append(path)
        else:
            members.setdefault(name, []).extend(Slice(path, plane) for plane in planes)
    found = []
    for name, slices in members.items():
        folder = common_folder({one.path for one in slices})
        beside = sorted((path for path in damaged if path.is_relative_to(folder)), key=_walk_order)
        found += _volumes(slices, FoundSeries(folder, name, (), tuple(beside)), limits=limits)
    warn_of_non_slices(reason for one in found for _, reason in one.left_out)
    return found, others


def warn_of_non_slices(reasons: Iterable[str]) -> None:
    """Warn of files of series that are no slices of them."""
    counts = Counter(reasons)
    if counts:
        shown = ", ".join(f"{reason}: {count}" for reason, count in counts.most_common())
        _LOGGER.warning("Left out of the series that they lie in: %s.", shown)


def _volumes(slices: list[Slice], series: FoundSeries, *, limits: Limits) -> list[FoundSeries]:
    """The volumes of one series; all have its folder and what is damaged beside it."""
    slices = sorted(slices, key=lambda one: _walk_order(one.path))
    division = divide_slices(slices, limits=limits)
    left_out = dict[Path, str]()
    for k, reason in division.left_out.items():
        left_out.setdefault(slices[k].path, reason)
    parts = [
        replace(series, files=own.files, suffix=suffix, frames=own.frames)
        for suffix, own in volume_files(division, [(one.path, one.plane.frame) for one in slices])
    ]
    return [replace(parts[0], left_out=tuple(left_out.items())), *parts[1:]]


def may_be_slice(reason: str) -> bool:
    """Whether a file that cannot be read, for this reason, counts as a slice of the series it lies beside."""
    return reason not in NO_SLICE


def common_folder(files: Iterable[Path]) -> Path:
    """The smallest folder that holds all files of a series; what is damaged below it may be a slice of it."""
    return Path(os.path.commonpath([path.parent for path in files]))


def planes_of(path: Path, *, limits: Limits = DEFAULT_LIMITS) -> list[Plane]:
    """Read where the frames of a DICOM file lie; none of a file of another format.

    Raises:
        ReadError: its header cannot be read.
    """
    with open_content(path, what="Cannot read the header", limits=limits) as content:
        if content.kind != "dicom":
            return []
        return dicom_planes(content.stream, head=content.head, limits=content.limits)


def _walk_order(path: Path) -> tuple[tuple[bool, str], ...]:
    """Files of a folder before the folders in it: the slices of a folder that is read as a whole have this order."""
    parts = path.parts
    return tuple((number < len(parts) - 1, part) for number, part in enumerate(parts))


def read_found(
    found: FoundSeries, *, gaps: GapChoice = "refuse", tilt: TiltChoice = "refuse", limits: Limits = DEFAULT_LIMITS
) -> Image:
    """Read a volume of a series from its own files, however many other series lie in its folder.

    Raises:
        ReadError: as ``read_series``; a damaged file beside the slices counts as one of them.
    """
    slices = _slices_of(found, (*found.files, *found.damaged), limits=limits)
    try:
        return read_slices(slices, suffix=found.suffix, gaps=gaps, tilt=tilt, limits=limits)
    except ReadError as error:
        raise ReadError(str(error), reason=error.reason, path=error.path or found.folder) from None


def _slices_of(found: FoundSeries, files: Sequence[Path], *, limits: Limits) -> list[Slice]:
    frames = {found.files[number]: held for number, held in found.frames.items()}
    return [
        one
        for one in list_slices(files, limits=limits)
        if one.plane.series_id == found.series_id and (one.path not in frames or one.plane.frame in frames[one.path])
    ]


def describe_found(found: FoundSeries, *, limits: Limits = DEFAULT_LIMITS) -> SeriesFacts:
    """Say what the headers of a series say, or why it is no volume; pixels are not looked at, and nothing is raised."""
    modality, slices = None, None
    try:
        planes = [one.plane for one in _slices_of(found, found.files, limits=limits)]
        modality, slices = planes[0].modality, len(planes)
        if found.damaged:
            _slices_of(found, found.damaged, limits=limits)
        with raise_read_errors("The slices form no volume", reason="geometry"):
            stack = stack_planes(planes)
    except ReadError as error:
        return SeriesFacts(found.member, modality, slices, reason=error.reason)
    shape = (stack.depth, planes[0].rows, planes[0].columns)
    return SeriesFacts(found.member, modality, slices, shape, stack.geometry.spacing_mm)
