"""Atomic file writes, safe file names, checksums and folder locks."""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import json
import logging
import os
import re
import secrets
import shutil
import socket
import tempfile
import zlib
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import BinaryIO

from lepton_vision.errors import LeptonError, OutputError

_LOGGER = logging.getLogger(__name__)
_LOCK = ".lock"
_LEFT_OVER = re.compile(r"\..+\.(\d+|[0-9a-f]{8})\.tmp")  # of atomic_file, staged_folder and bundles
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
_SEAL = b"lepton_vision crc32 "  # and 8 hexadecimal digits, behind the content
_SEAL_BYTES, _BLOCK = len(_SEAL) + 8, 2**20
_held: ContextVar[frozenset[tuple[int, str]]] = ContextVar("_held", default=frozenset())  # (process, folder)
_descriptors: set[int] = set()  # of locks; a forked child lets go of them, or it would hold them after our death

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
    """Text that ``guarded`` made a cell of."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


def csv_bytes(text: str) -> bytes:
    """UTF-8, with a mark where a spreadsheet would otherwise take letters beyond ASCII for others."""
    return text.encode("utf-8" if text.isascii() else "utf-8-sig")


def sidecar(path: str | Path) -> Path:
    """Path of the metadata file of a CSV file: ``predictions.csv.json`` beside ``predictions.csv``."""
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


def append_whole(path: str | Path, data: bytes) -> None:
    """Append to a file, on disk; where the disk is full, what stood there before stays as it was."""
    with Path(path).open("ab", buffering=0) as file:
        before = file.tell()
        try:
            while data:
                data = data[file.write(data) :]
            os.fsync(file.fileno())
        except OSError:
            file.truncate(before)
            raise


def seal_of(checksum: int) -> bytes:
    """Checksum trailer of content with this CRC-32, for ``is_whole``."""
    return _SEAL + b"%08x" % checksum


def sealed(content: bytes) -> bytes:
    """Content with its seal behind it."""
    return content + seal_of(zlib.crc32(content))


def unsealed(data: bytes) -> bytes | None:
    """Content without its seal; None where it is damaged or has none."""
    content = data[:-_SEAL_BYTES]
    return content if data[-_SEAL_BYTES:] == seal_of(zlib.crc32(content)) else None


def is_whole(path: str | Path) -> bool:
    """Whether a file ends in the seal of what stands before it; it is read a block at a time."""
    with Path(path).open("rb") as file:
        left, checksum = os.fstat(file.fileno()).st_size - _SEAL_BYTES, 0
        while left > 0 and (block := file.read(min(left, _BLOCK))):
            checksum, left = zlib.crc32(block, checksum), left - len(block)
        return left == 0 and file.read() == seal_of(checksum)


def check_place(path: str | Path, *, what: str, error: type[LeptonError] = OutputError) -> None:
    """Find out before any work that a file cannot be written; what stands there, and its folder, stay as they are.

    Args:
        path: of the file; folders above it that are missing will be made.
        what: names it in the message.
        error: to raise.

    Raises:
        LeptonError: of that type: a folder stands there, or above it is no folder that can be written and has room.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise error(f"Expected a file for the {what}. Received: a folder. Add a file name.", path=path)
        _is_there(path.with_name(f".{path.name}.{os.getpid()}.tmp"))  # a name that is too long
        _probe(path.absolute().parent)
    except (OSError, ValueError) as reason:  # ValueError: a name with a null character
        why = getattr(reason, "strerror", None) or type(reason).__name__
        raise error(f"Cannot write the {what}: {why}. Choose another place.", path=path) from None


def check_folder(folder: str | Path, *, what: str, error: type[LeptonError] = OutputError) -> None:
    """As ``check_place``, for a folder of files, which is not made."""
    try:
        _probe(Path(folder).absolute())
    except (OSError, ValueError) as reason:
        raise _unwritable(Path(folder), reason, what=what, error=error) from None


def _probe(folder: Path) -> None:
    """Write a file into a folder, or the one above it in which it would be made, and remove it again."""
    while not _is_there(folder):
        folder = folder.parent
    handle, name = tempfile.mkstemp(prefix=".", suffix=".tmp", dir=folder)
    try:
        os.write(handle, bytes(4096))  # for which there must be room
        os.fsync(handle)
    finally:
        os.close(handle)
        Path(name).unlink()


def _is_there(path: Path) -> bool:
    """Whether anything has this name, a link to nothing too; a name that cannot be is an OSError or ValueError."""
    with contextlib.suppress(FileNotFoundError):
        return bool(path.lstat())
    return False


def _unwritable(folder: Path, reason: Exception, *, what: str, error: type[LeptonError]) -> LeptonError:
    why = getattr(reason, "strerror", None) or type(reason).__name__
    return error(f"Cannot write into the {what}: {why}. Make room, or name a folder that can be written.", path=folder)


class HeldFolder:
    """A folder that this process alone writes to, from here on until ``close``; made if it is missing.

    The system lets go of the lock of a process that was killed. What such a process left half-written is removed. A
    folder that was made and is empty in the end is removed too.

    Args:
        folder: to hold.
        what: names it in messages: "run folder".
        error: raised where the folder cannot be had.
        is_shared: hold it beside others that share it; who wants it alone is refused.
        may_hold: do nothing where a caller of ours holds it already.
        waits: until another process lets go.

    Raises:
        LeptonError: of the type ``error``: another process holds it, with its number and host; or it cannot be written.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        what: str,
        error: type[LeptonError] = OutputError,
        is_shared: bool = False,
        may_hold: bool = False,
        waits: bool = False,
    ) -> None:
        self._folder, self._descriptor = Path(folder).absolute(), -1
        self._key, self._made = (os.getpid(), str(self._folder)), list[Path]()
        if may_hold and self._key in _held.get():
            return
        try:
            self._make()
            self._lock(is_shared=is_shared, waits=waits)
            _held.set(_held.get() | {self._key})
        except BlockingIOError:
            found = _read_owner(self._folder / _LOCK)
            who = f" (process {found['process']} on host {found['host']})" if found else ""
            message = f"Another process is writing to the {what}{who}. Wait for it, or name another folder."
            raise error(message, path=folder) from None
        except (OSError, ValueError) as reason:
            self.close()
            raise _unwritable(Path(folder), reason, what=what, error=error) from None

    def _make(self) -> None:
        place = self._folder
        while not _is_there(place):
            self._made.append(place)
            place = place.parent
        self._folder.mkdir(parents=True, exist_ok=True)

    def _lock(self, *, is_shared: bool, waits: bool) -> None:
        path = self._folder / _LOCK
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                _flock(descriptor, is_shared=is_shared, waits=waits)
                if _is_same(descriptor, path):
                    break
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)  # whoever held it has removed it
        self._descriptor = descriptor
        _let_go_in_children()
        _descriptors.add(descriptor)
        before, here = _read_owner(path), socket.gethostname()
        if before.get("host", here) != here:
            _LOGGER.warning(
                "A process on host %s wrote to a folder that is written to now, and did not end its work there. If it "
                "still runs, stop one of the two: the file system may not share locks between machines.",
                before["host"],
            )
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps({"host": here, "process": os.getpid()}).encode(), 0)
        if not is_shared:
            _remove_left_over(self._folder)

    def close(self) -> None:
        """Let go of the folder."""
        is_ours = self._key[0] == os.getpid()  # not in a forked child
        if is_ours and self._descriptor >= 0:
            with contextlib.suppress(OSError):  # another one that shares it removes the lock
                _flock(self._descriptor)
                (self._folder / _LOCK).unlink()
            _descriptors.discard(self._descriptor)
            os.close(self._descriptor)
            _held.set(_held.get() - {self._key})
        self._descriptor = -1
        for folder in self._made if is_ours else ():
            with contextlib.suppress(OSError):  # it holds what was written
                folder.rmdir()

    def __enter__(self) -> HeldFolder:
        return self

    def __exit__(self, *ending: object) -> None:
        self.close()


@contextlib.contextmanager
def new_results(folder: str | Path, *, what: str = "results folder") -> Iterator[Path]:
    """Hold a folder while results are computed; give a hidden one in it, whose files move up together at the end.

    On any error it is removed, and what stood in the folder before stays as it was.

    Raises:
        OutputError: the folder cannot be written, or is in use (on entry, before any work), or the disk is full.
    """
    folder = Path(folder)
    with HeldFolder(folder, what=what):
        stage = folder / f".results.{secrets.token_hex(4)}.tmp"
        try:
            stage.mkdir()
            yield stage
            for path in sorted(stage.rglob("*")):
                place = folder / path.relative_to(stage)
                place.mkdir(exist_ok=True) if path.is_dir() else path.replace(place)
            sync_folder(folder)
        except OSError as reason:
            if reason.errno in _FULL:
                raise _unwritable(folder, reason, what=what, error=OutputError) from reason
            raise
        finally:
            shutil.rmtree(stage, ignore_errors=True)


def _flock(descriptor: int, *, is_shared: bool = False, waits: bool = False) -> None:
    """Lock; a system that cannot lock says so.

    Raises:
        BlockingIOError: another process has it.
    """
    try:
        import fcntl  # not on Windows

        kind = fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX
        fcntl.flock(descriptor, kind | (0 if waits else fcntl.LOCK_NB))
    except BlockingIOError:
        raise
    except (ImportError, OSError):
        _LOGGER.warning("Folders cannot be locked here. See to it that one process at a time writes to a folder.")


def _is_same(descriptor: int, path: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), path.stat())
    return False


def _read_owner(lock: Path) -> dict[str, object]:
    try:
        found = json.loads(lock.read_text(encoding="utf-8"))
        return {"host": str(found["host"]), "process": int(found["process"])}
    except (OSError, ValueError, KeyError, TypeError):  # a process that has just begun, or ended
        return {}


def _remove_left_over(folder: Path) -> None:
    """Remove what a process that was killed left half-written."""
    for path in folder.glob(".*.tmp"):
        if _LEFT_OVER.fullmatch(path.name):
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


@functools.cache
def _let_go_in_children() -> None:
    """Have a forked child close the locks of its parent; once for all of them."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_forget)


def _forget() -> None:
    while _descriptors:
        os.close(_descriptors.pop())
