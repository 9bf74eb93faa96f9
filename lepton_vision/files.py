"""Files that are there whole or not at all, under names that stay in their folder."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_NAME_SIGNS = frozenset("._-+=,() ")  # beside letters and digits
_NAME_BYTES = 160  # file systems take 255, and suffixes follow
_RESERVED = {"CON", "PRN", "AUX", "NUL", *(f"{port}{n}" for port in ("COM", "LPT") for n in range(1, 10))}  # Windows

# A spreadsheet computes a cell that begins so (OWASP, "CSV Injection"), and hides an apostrophe before it.
_FORMULA = re.compile(r"'*[=+\-@\t\r\n]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def guarded(text: str) -> str:
    """Text of a CSV cell that a spreadsheet shows as it is; what is a number stays one.

    Example:
        >>> guarded("=1+1"), guarded("-1.5"), guarded("'-x")
        ("'=1+1", '-1.5', "''-x")
    """
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def unguarded(text: str) -> str:
    """What ``guarded`` was given."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


def csv_bytes(text: str) -> bytes:
    """UTF-8, with a mark where a spreadsheet would otherwise take letters beyond ASCII for others."""
    return text.encode("utf-8" if text.isascii() else "utf-8-sig")


def sidecar(path: str | Path) -> Path:
    """Where what is known of a whole CSV file stands: ``predictions.csv.json`` beside ``predictions.csv``."""
    path = Path(path)
    return path.with_name(f"{path.name}.json")


@contextlib.contextmanager
def atomic_file(path: str | Path, *, private: bool = False) -> Iterator[BinaryIO]:
    """Open a hidden temporary file beside ``path`` for writing; on success it is synced and takes that name.

    A ``private`` file can be read by its owner alone, from its first byte on (mode 0600).

    On any error the temporary file is removed and what stood at ``path`` before stays as it was.

    Example:
        >>> with atomic_file("figures.json") as file:  # doctest: +SKIP
        ...     file.write(b"{}")
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0)
        with os.fdopen(os.open(temporary, flags, 0o600 if private else 0o666), "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    sync_folder(path.parent)


def write_atomic(path: str | Path, data: bytes | str, *, private: bool = False) -> None:
    """Write ``data`` (text as UTF-8) to ``path``: whole and on disk, or not at all; see ``atomic_file``."""
    with atomic_file(path, private=private) as file:
        file.write(data.encode("utf-8") if isinstance(data, str) else data)


def sync_folder(folder: str | Path) -> None:
    """Make a rename in ``folder`` last (some file systems cannot sync a folder: they need not)."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def file_name(identifier: str) -> str:
    """Name of a file, without suffix, for an id or name from a table or bundle: it never leads out of its folder.

    A plain identifier is its own name. Any other (with a slash, a leading dot, a control character, too long …) gets a
    name made of its hash, so that two of them never share one.

    Example:
        >>> file_name("case-7"), file_name("../../etc/passwd")
        ('case-7', 'id-3754d6cb3a38e118')
    """
    is_plain = all(sign.isalnum() or sign in _NAME_SIGNS for sign in identifier)
    is_usual = identifier[:1] not in ("", ".", "-", " ") and identifier[-1] not in (".", " ")
    is_short = len(identifier.encode("utf-8", "replace")) <= _NAME_BYTES
    if is_plain and is_usual and is_short and identifier.partition(".")[0].upper() not in _RESERVED:
        return identifier
    return f"id-{hashlib.sha256(identifier.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}"
