"""Unnamed temporary files, which vanish with the process even when it is killed."""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from lepton_vision.errors import ReadError
from lepton_vision.readers.limits import Limits
from lepton_vision.types.held import Held

_CHUNK = 2**20
_OPEN_FILES = 65536
_DESCRIPTORS = Path("/proc/self/fd")
_numbers = itertools.count(1)


def _allow_many_files() -> Callable[[], None]:
    try:
        import resource
    except ImportError:  # not on Windows
        return lambda: None
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _OPEN_FILES)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return lambda: None
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


MANY_FILES = Held(_allow_many_files)
"""As many open files as the system lets the process have, while any thread is inside: a temporary one is held open."""


@contextmanager
def temporary_file() -> Iterator[tuple[IO[bytes], Path]]:
    """An empty file, open for writing, and a path that any process of the user can read it at until the end.

    On Linux it has no name in any folder: patient data stay nowhere when the process is killed. Elsewhere it has a
    random name in the folder for temporary files.
    """
    if _DESCRIPTORS.is_dir():
        with tempfile.TemporaryFile() as file:
            yield file, Path(f"/proc/{os.getpid()}/fd/{file.fileno()}")
    else:
        with tempfile.NamedTemporaryFile() as named:
            yield named, Path(named.name)


def copy_bounded(source: IO[bytes], target: IO[bytes], *, limits: Limits) -> int:
    """Copy all bytes, at most ``limits.max_bytes`` of them, and return how many they are.

    Raises:
        ReadError: reason ``too_large`` as soon as there are more.
    """
    total = 0
    while chunk := source.read(_CHUNK):
        total += len(chunk)
        if total > limits.max_bytes:
            raise ReadError(f"The file is larger than {limits.max_bytes} bytes.", reason="too_large")
        target.write(chunk)
    target.flush()
    # Descriptors are used again: readers that keep what they read by path, time and size must see another file.
    os.utime(target.fileno(), ns=(0, next(_numbers)))
    return total
