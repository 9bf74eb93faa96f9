"""One path in, one Image out: the format is decided by the first bytes of the file, never by its name."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from lepton_vision.errors import ReadError
from lepton_vision.readers import dicom, raster, volume
from lepton_vision.readers.dicom_header import is_dicom
from lepton_vision.readers.facts import FileFacts, RawIds
from lepton_vision.readers.limits import DEFAULT_LIMITS, Limits, guard, quiet
from lepton_vision.types import Image

__all__ = ["FileFacts", "Limits", "RawIds", "probe", "raw_ids", "read_image"]

_HEAD_BYTES = 1024


def read_image(
    path: str | Path,
    *,
    frame: int | None = None,
    member: str | None = None,
    name: str | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> Image:
    """Read a DICOM, NIfTI, PNG, JPEG, TIFF or npz file into modality units.

    Args:
        path: the file.
        frame: number of one frame, page, slice or npz entry, from 0; the result is 2-D.
        member: name of the array in an npz file, e.g. "train_images"; needed where there are several.
        name: stands for the path in the image id of a file without identifiers of its own.
        limits: caps on pixels, inflated bytes and decoder time.

    Returns:
        (C, H, W), or (C, D, H, W) for several frames read without ``frame``; float32 in HU for CT, rescaled values
        for other DICOM files and NIfTI, stored values for raster files.

    Raises:
        ReadError: whatever is wrong with the file, with a reason code and the path.

    Example:
        >>> image = read_image("slice.dcm", frame=0)  # doctest: +SKIP
    """
    path = Path(path)
    try:
        with quiet, guard("Cannot read the file", reason="corrupt"), _open(path) as stream:
            head = _read_head(stream)
            kind = sniff(head)
            if kind == "dicom":
                return dicom.read_dicom(stream, head=head, path=path, name=name, frame=frame, limits=limits)
            if kind == "npz":
                return raster.read_npz(path, member=member, frame=frame, name=name, limits=limits)
            if kind in ("nifti", "gzip"):
                return volume.read_nifti(stream, path=path, name=name, frame=frame, limits=limits)
            return raster.read_raster(stream, kind=kind, path=path, name=name, frame=frame, limits=limits)
    except ReadError as error:
        raise _at(path, error) from None


def probe(path: str | Path, *, member: str | None = None, limits: Limits = DEFAULT_LIMITS) -> FileFacts:
    """Read what the header says, without decoding any pixel.

    Args:
        path: the file.
        member: name of the array in an npz file; needed where there are several.
        limits: caps on inflated bytes.

    Raises:
        ReadError: the file is no image, or its header is damaged. Pixels that cannot be decoded are not seen here.
    """
    path = Path(path)
    try:
        with quiet, guard("Cannot read the header", reason="corrupt"), _open(path) as stream:
            head = _read_head(stream)
            kind = sniff(head)
            if kind == "dicom":
                return dicom.probe_dicom(stream, head=head, path=path, limits=limits)
            if kind == "npz":
                return raster.probe_npz(path, member=member, limits=limits)
            if kind in ("nifti", "gzip"):
                return volume.probe_nifti(stream, path=path, limits=limits)
            return raster.probe_raster(stream, kind=kind, path=path, limits=limits)
    except ReadError as error:
        raise _at(path, error) from None


def raw_ids(path: str | Path, *, limits: Limits = DEFAULT_LIMITS) -> RawIds:
    """Identifiers of a DICOM header as they stand there, to join a label table in memory; never store or show them.

    Returns:
        All None for a file of another format.

    Raises:
        ReadError: the file is no image, or its header is damaged.
    """
    path = Path(path)
    try:
        with quiet, guard("Cannot read the header", reason="corrupt"), _open(path) as stream:
            head = _read_head(stream)
            if sniff(head) == "dicom":
                return dicom.raw_dicom_ids(stream, head=head, limits=limits)
            return RawIds()
    except ReadError as error:
        raise _at(path, error) from None


def sniff(head: bytes) -> str:
    """Name the format that the first bytes of a file announce.

    Returns:
        "dicom", "nifti", "gzip", "png", "jpeg", "tiff" or "npz".

    Raises:
        ReadError: reason ``empty`` or ``not_an_image``.
    """
    if not head:
        raise ReadError("The file is empty. Copy it again.", reason="empty")
    # DICOM first: a part-10 file may carry the magic of TIFF in its preamble, as a dual file.
    if head[128:132] == b"DICM":
        return "dicom"
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    if volume.is_nifti(head):
        return "nifti"
    if is_dicom(head):
        return "dicom"
    raise ReadError(
        "The file is none of DICOM, NIfTI, PNG, JPEG, TIFF and npz by its content.",
        reason="not_an_image",
    )


_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"\xff\xd8\xff", "jpeg"),
    (b"II*\0", "tiff"),
    (b"MM\0*", "tiff"),
    (b"\x1f\x8b", "gzip"),
    (b"PK\x03\x04", "npz"),
)


def _open(path: Path) -> BinaryIO:
    try:
        if path.is_dir():
            raise ReadError("Expected a file. Received: a folder. Use Manifest.scan for folders.", reason="missing")
        if path.exists() and not path.is_file():
            raise ReadError("Expected a regular file. Received: a device, pipe or socket.", reason="not_an_image")
        return path.open("rb")
    except (OSError, ValueError) as error:
        text = error.strerror if isinstance(error, OSError) else "not a valid path"
        raise ReadError(f"Cannot open the file: {text}.", reason="missing") from None


def _read_head(stream: BinaryIO) -> bytes:
    head = stream.read(_HEAD_BYTES)
    stream.seek(0)
    return head


def _at(path: Path, error: ReadError) -> ReadError:
    """The same error, with the place and without a chain that could quote a header."""
    return ReadError(str(error), reason=error.reason, path=path)
