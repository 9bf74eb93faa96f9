"""Files that are there whole or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


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
