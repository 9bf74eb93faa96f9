"""File format detection by the first bytes, never by the name."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from lepton_vision.errors import ReadError
from lepton_vision.readers import nifti as volume
from lepton_vision.readers.dicom.header import is_dicom
from lepton_vision.readers.limits import DEFAULT_LIMITS, Limits, raise_read_errors
from lepton_vision.readers.quiet import quiet

_HEAD_BYTES = 1024
_AT_ONCE = getattr(os, "O_NONBLOCK", 0)
_NPZ = b"PK\x03\x04"
_GIF = (b"GIF87a", b"GIF89a")


@dataclass(frozen=True, slots=True)
class Content:
    """An open file.

    Attributes:
        stream: the file, at its start.
        head: its first 1024 bytes, or all of them.
        kind: format, see ``sniff``.
        size: bytes in the file.
        limits: what this file may cost, by its size.
    """

    stream: BinaryIO
    head: bytes
    kind: str
    size: int
    limits: Limits


@contextmanager
def open_content(
    path: Path, *, what: str, limits: Limits = DEFAULT_LIMITS, takes_gif: bool = False
) -> Iterator[Content]:
    """Open a file; whatever fails inside becomes a ReadError that carries the path and quotes no header.

    Args:
        path: the file.
        what: first words of the message of an unforeseen failure, e.g. "Cannot read the file".
        limits: caps, for a file of usual size.
        takes_gif: whether "gif" is a format too, as it is of masks.
    """
    try:
        size = _size_of(path)
        with quiet, raise_read_errors(what, reason="corrupt"), _open(path) as stream:
            head = stream.read(_HEAD_BYTES)
            stream.seek(0)
            kind = "gif" if takes_gif and head.startswith(_GIF) else sniff(head)
            yield Content(stream, head, kind, size, limits.for_file(size))
    except ReadError as error:
        # The same error, with the place and without a chain that could quote a header.
        raise ReadError(str(error), reason=error.reason, path=path) from None


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
    (b"II+\0\x08\0\0\0", "tiff"),  # BigTIFF
    (b"MM\0+\0\x08\0\0", "tiff"),
    (b"\x1f\x8b", "gzip"),
    (_NPZ, "npz"),
)


def begins_like_npz(path: Path) -> bool:
    """Whether a file may be an npz file, by its first bytes.

    Raises:
        ReadError: it cannot be opened, or is no file.
    """
    _size_of(path)
    with _open(path) as stream:
        return stream.read(len(_NPZ)) == _NPZ


def is_folder(path: Path) -> bool:
    """Whether the path is a folder; a path that no file can have is none."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def _size_of(path: Path) -> int:
    """Bytes of a regular file."""
    try:
        facts = path.stat()
    except (OSError, ValueError) as error:
        raise _cannot_open(error) from None
    if stat.S_ISDIR(facts.st_mode):
        raise ReadError(
            "Expected a file. Received: a folder. A series is read as a whole: read_image(folder).",
            reason="missing",
        )
    if not stat.S_ISREG(facts.st_mode):
        raise ReadError("Expected a regular file. Received: a device, pipe or socket.", reason="not_an_image")
    if not facts.st_size:  # some files of the kernel are regular, empty, and never end
        raise ReadError("The file is empty. Copy it again.", reason="empty")
    return facts.st_size


def _open(path: Path) -> BinaryIO:
    try:
        return open(path, "rb", opener=_open_at_once)
    except (OSError, ValueError) as error:
        raise _cannot_open(error) from None


def _open_at_once(path: str, flags: int) -> int:
    """Open without waiting: a pipe that took the place of the file meanwhile would never open."""
    return os.open(path, flags | _AT_ONCE)


def _cannot_open(error: OSError | ValueError) -> ReadError:
    text = error.strerror if isinstance(error, OSError) else "not a valid path"
    return ReadError(f"Cannot open the file: {text}.", reason="missing")
