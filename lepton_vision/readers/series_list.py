"""Which DICOM series lie among some files: one header each is read, no pixel."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lepton_vision.errors import ReadError
from lepton_vision.readers.content import open_content
from lepton_vision.readers.dicom import dicom_planes
from lepton_vision.readers.limits import DEFAULT_LIMITS, Limits


@dataclass(frozen=True, slots=True)
class FoundSeries:
    """One series; ``read_image(folder, member=series_id)`` reads it.

    Attributes:
        folder: the smallest folder that holds all of its files.
        series_id: pseudonymous id.
        files: its files, sorted.
    """

    folder: Path
    series_id: str
    files: tuple[Path, ...]


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
    for path in paths:
        name = _series_of(path, limits=limits)
        if name is None:
            others.append(path)
        else:
            members.setdefault(name, []).append(path)
    found = [
        FoundSeries(Path(os.path.commonpath([path.parent for path in files])), name, tuple(sorted(files)))
        for name, files in members.items()
    ]
    return found, others


def _series_of(path: Path, *, limits: Limits) -> str | None:
    try:
        with open_content(path, what="Cannot read the header") as content:
            if content.kind != "dicom":
                return None
            planes = dicom_planes(content.stream, head=content.head, limits=limits)
    except ReadError:
        return None  # whoever reads the file by itself learns the reason
    return planes[0].series_id if planes else None
