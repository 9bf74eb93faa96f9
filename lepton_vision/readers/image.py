"""Reading of an Image from a path, in a format recognised by the first bytes, never by the name."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import Any

from lepton_vision.config.sections import GapChoice, TiltChoice
from lepton_vision.errors import ReadError
from lepton_vision.readers import nifti as volume
from lepton_vision.readers import raster, series
from lepton_vision.readers.channels import read_case, suffixes_of
from lepton_vision.readers.content import Content, is_folder, open_content
from lepton_vision.readers.dicom import file as dicom
from lepton_vision.readers.facts import FileFacts, RawIds
from lepton_vision.readers.limits import DEFAULT_LIMITS, Limits
from lepton_vision.types import Image

__all__ = [
    "FileFacts",
    "Limits",
    "RawIds",
    "probe",
    "raw_ids",
    "read_image",
    "read_named",
    "read_pixels",
    "require_image",
]

_READ = "Cannot read the file"


def read_image(
    path: str | Path,
    *,
    frame: int | None = None,
    member: str | None = None,
    gaps: GapChoice = "refuse",
    tilt: TiltChoice = "refuse",
    limits: Limits = DEFAULT_LIMITS,
) -> Image:
    """Read a DICOM, NIfTI, PNG, JPEG, TIFF or npz file, or a folder with one DICOM series, into modality units.

    Args:
        path: the file, or the folder of a series (see ``series.read_series``).
        frame: number of one frame, page, slice or npz entry, from 0; the result is 2-D.
        member: name of the array in an npz file, e.g. "train_images", or pseudonymous id of a series in a folder;
            needed where there are several. Of NIfTI its channels with commas between them, see ``volume.channels``.
        gaps: of a series in a folder, see ``series.read_series``.
        tilt: the same.
        limits: what the file may cost, see ``Limits``.

    Returns:
        (C, H, W), or (C, D, H, W) for several frames read without ``frame``; float32 in HU for CT, rescaled values
        for other DICOM files and NIfTI, stored values for raster files.

    Raises:
        ReadError: whatever is wrong with the file or the series, with a reason code and the path.

    Example:
        >>> image = read_image("slice.dcm", frame=0)  # doctest: +SKIP
    """
    return _read(path, dicom.read_dicom, frame=frame, member=member, limits=limits, gaps=gaps, tilt=tilt)


def read_pixels(
    path: str | Path, *, frame: int | None = None, member: str | None = None, limits: Limits = DEFAULT_LIMITS
) -> Image:
    """Read what ``read_image`` reads, for those who know the file already and want its pixels alone (a loader).

    ``pixels``, ``units``, ``value_range``, ``modality`` and ``window`` are those of ``read_image``, to the bit. Ids,
    facts, spacing and geometry of a DICOM file are not looked up and left at their defaults: nearly half of the time.

    Args:
        path: the file.
        frame: as for ``read_image``.
        member: as for ``read_image``.
        limits: as for ``read_image``.

    Raises:
        ReadError: as ``read_image``.

    Example:
        >>> pixels = read_pixels("slice.dcm").pixels  # doctest: +SKIP
    """
    return _read(path, dicom.read_dicom_pixels, frame=frame, member=member, limits=limits, is_named=False)


def read_named(
    path: str | Path, *, frame: int | None = None, member: str | None = None, limits: Limits = DEFAULT_LIMITS
) -> Image:
    """Read what ``read_image`` reads, for those who want pixels and ids (scoring without masks).

    Pixels and ids are those of ``read_image``, to the bit. Facts, spacing and geometry of a DICOM file are not looked
    up.

    Args:
        path: the file.
        frame: as for ``read_image``.
        member: as for ``read_image``.
        limits: as for ``read_image``.

    Raises:
        ReadError: as ``read_image``.
    """
    return _read(path, dicom.read_named_dicom, frame=frame, member=member, limits=limits)


def _read(
    path: str | Path,
    read_dicom: Callable[..., Image],
    *,
    frame: int | None,
    member: str | None,
    limits: Limits,
    is_named: bool = True,
    **repairs: Any,
) -> Image:
    path = Path(path)
    if frame is None and is_folder(path):
        return series.read_series(path, series=member, limits=limits, **repairs)
    with open_content(path, what=_READ, limits=limits) as content:
        if content.kind == "dicom":
            return read_dicom(content.stream, head=content.head, frame=frame, limits=content.limits)
        return _read_other(content, path=path, frame=frame, member=member, is_named=is_named)


def require_image(image: Image, *, include: Collection[str]) -> Image:
    """Return an image that was read, unless it is of a kind that is no image to classify and is not included.

    Raises:
        ReadError: its kind as the reason, see ``config.ScanConfig.include``.
    """
    kind = image.facts.get("object_kind")
    if isinstance(kind, str) and kind not in include:
        raise ReadError(f"Expected an image. Received: a DICOM object of kind {kind}. Include it.", reason=kind)
    return image


def _read_other(content: Content, *, path: Path, frame: int | None, member: str | None, is_named: bool = True) -> Image:
    """Everything but DICOM; its ids take time, and are left out where nobody asks for them."""
    stream, kind, limits = content.stream, content.kind, content.limits
    if kind == "npz":
        return raster.read_npz(path, member=member, frame=frame, limits=limits, is_named=is_named)
    if kind in ("nifti", "gzip"):
        channels = tuple(member.split(",")) if member else ()
        if suffixes_of(channels):
            return read_case(path, channels, read=partial(read_image, frame=frame, limits=limits))
        return volume.read_nifti(stream, frame=frame, limits=limits, channels=channels, is_named=is_named)
    return raster.read_raster(stream, kind=kind, frame=frame, limits=limits, is_named=is_named)


def probe(path: str | Path, *, member: str | None = None, limits: Limits = DEFAULT_LIMITS) -> FileFacts:
    """Read what the header says, without decoding any pixel.

    Args:
        path: the file.
        member: name of the array in an npz file; needed where there are several.
        limits: caps on inflated bytes.

    Raises:
        ReadError: the file is no image, or its header is damaged, or (DICOM) the pixel data are not as long as it says
            or hold other frames. Pixels that cannot be decoded are not seen here.
    """
    path = Path(path)
    with open_content(path, what="Cannot read the header", limits=limits) as content:
        stream, kind, limits = content.stream, content.kind, content.limits
        if kind == "dicom":
            return dicom.probe_dicom(stream, head=content.head, limits=limits)
        if kind == "npz":
            return raster.probe_npz(path, member=member, limits=limits)
        if kind in ("nifti", "gzip"):
            channels = tuple(member.split(",")) if member else ()
            channels = () if suffixes_of(channels) else channels
            return volume.probe_nifti(stream, limits=limits, channels=channels)
        return raster.probe_raster(stream, kind=kind, limits=limits)


def raw_ids(path: str | Path, *, limits: Limits = DEFAULT_LIMITS) -> RawIds:
    """Identifiers of a DICOM header as they stand there, to join a label table in memory; never store or show them.

    Returns:
        All None for a file of another format.

    Raises:
        ReadError: the file is no image, or its header is damaged.
    """
    with open_content(Path(path), what="Cannot read the header", limits=limits) as content:
        if content.kind == "dicom":
            return dicom.raw_dicom_ids(content.stream, head=content.head, limits=content.limits)
        return RawIds()
