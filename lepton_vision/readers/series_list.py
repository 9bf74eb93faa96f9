"""Which DICOM series lie among some files: one header each is read, no pixel."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lepton_vision.errors import ReadError
from lepton_vision.readers.content import open_content
from lepton_vision.readers.dicom import dicom_planes
from lepton_vision.readers.geometry import stack_planes
from lepton_vision.readers.limits import DEFAULT_LIMITS, Limits, guard
from lepton_vision.readers.series import NO_SLICE, find_series, read_series
from lepton_vision.types import Image


@dataclass(frozen=True, slots=True)
class FoundSeries:
    """One series; ``read_found`` reads it, and so does ``read_image(folder, member=series_id)``.

    Attributes:
        folder: the smallest folder that holds all of its files.
        series_id: pseudonymous id.
        files: its files, in the order in which a walk through the folder meets them.
        damaged: files below the folder whose header cannot be read: slices of it, for all that is known.
    """

    folder: Path
    series_id: str
    files: tuple[Path, ...]
    damaged: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class SeriesFacts:
    """What the headers of a series say, without patient data.

    Attributes:
        series_id: pseudonymous id.
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
        The series in the order of their first file, and the other files in the order given: other formats, DICOM files
        that cannot be read, that have no place in the patient, or whose header names no series.

    Example:
        >>> series, others = group_series(Path("study").rglob("*.dcm"))  # doctest: +SKIP
    """
    members: dict[str, list[Path]] = {}
    others: list[Path] = []
    damaged: list[Path] = []
    for path in paths:
        try:
            name = series_of(path, limits=limits)
        except ReadError as error:  # whoever reads the file by itself learns the reason
            name = None
            if may_be_slice(error.reason):
                damaged.append(path)
        if name is None:
            others.append(path)
        else:
            members.setdefault(name, []).append(path)
    found = []
    for name, files in members.items():
        folder = common_folder(files)
        beside = sorted((path for path in damaged if path.is_relative_to(folder)), key=_walk_order)
        found.append(FoundSeries(folder, name, tuple(sorted(files, key=_walk_order)), tuple(beside)))
    return found, others


def may_be_slice(reason: str) -> bool:
    """Whether a file that cannot be read, for this reason, counts as a slice of the series it lies beside."""
    return reason not in NO_SLICE


def common_folder(files: Iterable[Path]) -> Path:
    """The smallest folder that holds all files of a series; what is damaged below it may be a slice of it."""
    return Path(os.path.commonpath([path.parent for path in files]))


def series_of(path: Path, *, limits: Limits = DEFAULT_LIMITS) -> str | None:
    """Read the id of the DICOM series that a file belongs to; None where it belongs to none.

    Raises:
        ReadError: its header cannot be read.
    """
    with open_content(path, what="Cannot read the header") as content:
        if content.kind != "dicom":
            return None
        planes = dicom_planes(content.stream, head=content.head, limits=limits)
    return planes[0].series_id if planes else None


def _walk_order(path: Path) -> tuple[tuple[bool, str], ...]:
    """Files of a folder before the folders in it: the slices of a folder that is read as a whole have this order."""
    parts = path.parts
    return tuple((number < len(parts) - 1, part) for number, part in enumerate(parts))


def read_found(found: FoundSeries, *, limits: Limits = DEFAULT_LIMITS) -> Image:
    """Read the volume of a series from its own files, however many other series lie in its folder.

    Raises:
        ReadError: as ``read_series``; a damaged file beside the slices counts as one of them.
    """
    return read_series((*found.files, *found.damaged), series=found.series_id, limits=limits)


def describe_found(found: FoundSeries, *, limits: Limits = DEFAULT_LIMITS) -> SeriesFacts:
    """Say what the headers of a series say, or why it is no volume; pixels are not looked at, and nothing is raised."""
    modality, slices = None, None
    try:
        planes = [one.plane for one in find_series(found.files, series=found.series_id, limits=limits)]
        modality, slices = planes[0].modality, len(planes)
        if found.damaged:
            find_series(found.damaged, series=found.series_id, limits=limits)
        with guard("The slices form no volume", reason="geometry"):
            stack = stack_planes(planes)
    except ReadError as error:
        return SeriesFacts(found.series_id, modality, slices, reason=error.reason)
    shape = (stack.depth, planes[0].rows, planes[0].columns)
    return SeriesFacts(found.series_id, modality, slices, shape, stack.geometry.spacing_mm)
