"""Open a file and name its format by its first bytes, never by its name."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from lepton_vision.errors import ReadError
from lepton_vision.readers import volume
from lepton_vision.readers.dicom_header import is_dicom
from lepton_vision.readers.limits import guard, quiet

_HEAD_BYTES = 1024
_GIF = (b"GIF87a", b"GIF89a")


@dataclass(frozen=True, slots=True)
class Content:
    """An open file.

    Attributes:
        stream: the file, at its start.
        head: its first 1024 bytes, or all of them.
        kind: format, see ``sniff``.
    """

    stream: BinaryIO
    head: bytes
    kind: str


@contextmanager
def open_content(path: Path, *, what: str, takes_gif: bool = False) -> Iterator[Content]:
    """Open a file; whatever fails inside becomes a ReadError that carries the path and quotes no header.

    Args:
        path: the file.
        what: first words of the message of an unforeseen failure, e.g. "Cannot read the file".
        takes_gif: whether "gif" is a format too, as it is of masks.
    """
    try:
        with quiet, guard(what, reason="corrupt"), _open(path) as stream:
            head = stream.read(_HEAD_BYTES)
            stream.seek(0)
            yield Content(stream, head, "gif" if takes_gif and head.startswith(_GIF) else sniff(head))
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
    (b"PK\x03\x04", "npz"),
)


def is_folder(path: Path) -> bool:
    """Whether the path is a folder; a path that no file can have is none."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def _open(path: Path) -> BinaryIO:
    try:
        kind = stat.S_IFMT(path.stat().st_mode)
        if kind == stat.S_IFDIR:
            raise ReadError(
                "Expected a file. Received: a folder. A series is read as a whole: read_image(folder).",
                reason="missing",
            )
        if kind != stat.S_IFREG:
            raise ReadError("Expected a regular file. Received: a device, pipe or socket.", reason="not_an_image")
        return path.open("rb")
    except (OSError, ValueError) as error:
        text = error.strerror if isinstance(error, OSError) else "not a valid path"
        raise ReadError(f"Cannot open the file: {text}.", reason="missing") from None
