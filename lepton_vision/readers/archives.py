"""Zip and tar archives as lists of files: members are read one by one, and nothing is unpacked under its own name.

Whoever packs an archive decides what it says, so sizes are bounded before and while anything is inflated. Links,
devices and names that lead out of the archive are listed with a reason and never followed.
"""

from __future__ import annotations

import gzip
import io
import os
import stat
import tarfile
import threading
import weakref
import zipfile
import zlib
from collections import Counter, OrderedDict
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from lepton_vision.errors import ReadError
from lepton_vision.readers.limits import DEFAULT_LIMITS, Limits, check_bytes, raise_read_errors
from lepton_vision.readers.temporary import copy_bounded, temporary_file

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz")
_KEPT = 2  # archives per process: a run that reads ahead in order stands in two
_UNSUSPICIOUS = 2**28  # bytes that an archive may always become
_DIRECTORY = 2**26  # bytes of a zip directory: some 500,000 members; Python holds ten times as much
_CHUNK = 2**20
_DAMAGED = "The archive is damaged"
_LINK_BITS = 16  # a zip made on Unix keeps the mode of a file above these bits


@dataclass(frozen=True, slots=True)
class Member:
    """One file in an archive.

    Attributes:
        index: number among the members.
        name: as the archive has it: it may hold a patient's name.
        copy: number among the members of the same name.
        reason: code why it will not be read; empty where it can be tried.
    """

    index: int
    name: str
    copy: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class _Entry:
    """A member and where its bytes lie: in a zip by its ``info``, in a tar by ``offset`` [bytes]."""

    member: Member
    size: int
    info: zipfile.ZipInfo | None = None
    offset: int = 0


class _Archive:
    """An open archive: its entries, and one file that threads may read from at once."""

    def __init__(self, stream: IO[bytes], entries: list[_Entry], zipped: zipfile.ZipFile | None) -> None:
        self.entries, self._stream, self._zip = entries, stream, zipped
        weakref.finalize(self, stream.close)  # once the last thread that reads from it is done

    def open(self, entry: _Entry) -> IO[bytes]:
        if self._zip is not None and entry.info is not None:
            return self._zip.open(entry.info)
        return io.BufferedReader(_Part(self._stream.fileno(), entry.offset, entry.size))


class _Part(io.RawIOBase):
    """Some bytes of a file, read without moving the file's own position."""

    def __init__(self, descriptor: int, start: int, size: int) -> None:
        self._descriptor, self._place, self._end = descriptor, start, start + size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = os.pread(self._descriptor, min(len(buffer), self._end - self._place), self._place)
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)


class _Cautious:
    """A file for tarfile, which would read a header of any announced length into memory."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.seek, self.tell = stream.seek, stream.tell

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _CHUNK:
            raise ReadError("The archive announces a header of more than 1 MiB.", reason="too_large")
        return self._stream.read(size)


_open: OrderedDict[tuple[str, int, int, Limits], _Archive] = OrderedDict()
_lock = threading.Lock()


def is_archive(path: str) -> bool:
    """Whether a file is listed as an archive: by its suffix, as opening a million files to find out takes minutes."""
    return path.lower().endswith(SUFFIXES)


def list_members(path: str | Path, *, limits: Limits = DEFAULT_LIMITS) -> list[Member]:
    """List the files in an archive, in its order; folders, hidden files and ``__MACOSX`` do not count.

    Args:
        path: a .zip, .tar, .tar.gz or .tgz file.
        limits: caps on what it may become.

    Raises:
        ReadError: the archive as a whole cannot be used: reason ``missing``, ``empty`` (no file in it), ``corrupt``,
            ``truncated``, ``encrypted`` (every file in it) or ``too_large``.

    Example:
        >>> names = [member.name for member in list_members("study.zip")]  # doctest: +SKIP
    """
    members = [entry.member for entry in _get(Path(path), limits=limits).entries]
    if not members:
        raise ReadError("The archive holds no file.", reason="empty", path=path)
    if all(member.reason == "encrypted" for member in members):
        raise ReadError("The archive is encrypted. Unpack it first.", reason="encrypted", path=path)
    return members


@contextmanager
def open_member(path: str | Path, member: Member, *, limits: Limits = DEFAULT_LIMITS) -> Iterator[Path]:
    """Give one member as a temporary file, which is gone afterwards, whatever happens to the process.

    Args:
        path: the archive.
        member: as ``list_members`` gave it.
        limits: caps; ``max_bytes`` holds for the member.

    Raises:
        ReadError: the member has a ``reason``, is damaged, or is larger than it may be or than it says.
    """
    if member.reason:
        raise ReadError("The member of the archive cannot be read.", reason=member.reason, path=path)
    archive = _get(Path(path), limits=limits)
    entry = archive.entries[member.index] if member.index < len(archive.entries) else None
    if entry is None or entry.member.name != member.name:
        raise ReadError("The archive has changed since it was listed. Score again.", reason="missing", path=path)
    check_bytes(entry.size, limits=limits)
    with temporary_file() as (file, place):
        with _translated(), archive.open(entry) as source:
            copied = copy_bounded(source, file, limits=limits)
            if copied < entry.size:
                raise ReadError("The member of the archive ends too early.", reason="truncated")
        yield place


def forget_archives() -> None:
    """Let go of the archives that are kept open, and of the space that unpacked ones take."""
    with _lock:
        _open.clear()


@contextmanager
def _translated() -> Iterator[None]:
    """Damage as a ReadError; text of the archive is not quoted."""
    with raise_read_errors(_DAMAGED, reason="corrupt"):
        try:
            yield
        except NotImplementedError:
            raise ReadError("The archive is compressed in a way that is not supported.", reason="unsupported") from None
        except (zipfile.BadZipFile, zlib.error, tarfile.TarError, gzip.BadGzipFile):
            raise ReadError(f"{_DAMAGED}. Copy it again.", reason="corrupt") from None


def _get(path: Path, *, limits: Limits) -> _Archive:
    with _lock:
        try:
            with _translated():
                state = path.stat()
                key = (path.as_posix(), state.st_mtime_ns, state.st_size, limits)
                if key not in _open:
                    if not stat.S_ISREG(state.st_mode):
                        raise ReadError("Expected a regular file.", reason="not_an_image")
                    _open[key] = _open_archive(path, size=state.st_size, limits=limits)
        except ReadError as error:
            raise ReadError(str(error), reason=error.reason, path=path) from None
        _open.move_to_end(key)
        while len(_open) > _KEPT:
            _open.popitem(last=False)
        return _open[key]


def _open_archive(path: Path, *, size: int, limits: Limits) -> _Archive:
    if not size:
        raise ReadError("The archive is empty. Copy it again.", reason="empty")
    stream: IO[bytes] = path.open("rb")
    try:
        if path.name.lower().endswith(".zip"):
            check_directory(stream)
            zipped = zipfile.ZipFile(stream)
            return _Archive(stream, _zip_entries(zipped, size=size, limits=limits), zipped)
        if path.name.lower().endswith(("gz", "tgz")):
            with closing(stream):
                stream = _inflate(stream, size=size, limits=limits)
        return _Archive(stream, _tar_entries(stream, limits=limits), None)
    except BaseException:
        stream.close()
        raise


def _inflate(packed: IO[bytes], *, size: int, limits: Limits) -> IO[bytes]:
    """A gzipped tar as a plain one in a file without a name: members are then read without all before them."""
    import tempfile

    plain: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  kept with the archive
    try:
        total = 0
        with gzip.open(packed) as source:
            while chunk := source.read(_CHUNK):
                total += len(chunk)
                _check_total(total, size=size, limits=limits)
                plain.write(chunk)
        plain.flush()
        plain.seek(0)
        return plain
    except BaseException:
        plain.close()
        raise


def _check_total(total: int, *, size: int, limits: Limits) -> None:
    if total > limits.max_archive_bytes or total > max(_UNSUSPICIOUS, limits.max_ratio * size):
        raise ReadError(
            f"The archive of {size} bytes would become more than {min(total, limits.max_archive_bytes)} bytes. "
            "Unpack it first, or raise the limit (score: --max-archive-gb, --max-ratio), if it can be trusted.",
            reason="too_large",
        )


def check_directory(stream: IO[bytes]) -> None:
    """Refuse a zip whose directory would fill the memory: zipfile reads it as a whole (APPNOTE 4.3.16, 4.3.14)."""
    end = stream.seek(0, os.SEEK_END)
    stream.seek(max(0, end - 2**16 - 22))
    tail = stream.read()
    stream.seek(0)
    place = tail.rfind(b"PK\5\6")
    length = int.from_bytes(tail[place + 12 : place + 16], "little") if place >= 0 else 0
    if length == 0xFFFFFFFF:  # zip64
        place = tail.rfind(b"PK\6\6")
        length = int.from_bytes(tail[place + 40 : place + 48], "little") if place >= 0 else end
    if length > _DIRECTORY:
        raise ReadError("The directory of the zip archive is larger than 64 MiB. Pack fewer files.", reason="too_large")


def _zip_entries(zipped: zipfile.ZipFile, *, size: int, limits: Limits) -> list[_Entry]:
    entries: list[_Entry] = []
    seen: Counter[str] = Counter()
    for info in zipped.infolist():
        if info.is_dir() or _is_hidden(info.filename):
            continue
        reason = _refuse_zip(info)
        member = Member(len(entries), info.filename, seen[info.filename], reason)
        seen[info.filename] += 1
        entries.append(_Entry(member, info.file_size, info))
    # Directories of bombs name the same bytes many times: what counts is what all members would become.
    _check_total(sum(entry.size for entry in entries), size=size, limits=limits)
    return entries


def _refuse_zip(info: zipfile.ZipInfo) -> str:
    mode = info.external_attr >> _LINK_BITS
    if _leads_out(info.filename) or stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        return "unsafe_member"
    if info.flag_bits & 1:
        return "encrypted"
    return "" if info.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) else "unsupported"


def _tar_entries(stream: IO[bytes], *, limits: Limits) -> list[_Entry]:
    entries: list[_Entry] = []
    seen: Counter[str] = Counter()
    size, total = os.fstat(stream.fileno()).st_size, 0
    source: Any = _Cautious(stream)
    with tarfile.open(fileobj=source, mode="r:") as archive:
        while (info := archive.next()) is not None:
            setattr(archive, "members", [])  # noqa: B010 - tarfile keeps every member otherwise; unknown to mypy
            if info.isdir() or _is_hidden(info.name):
                continue
            is_plain = info.isreg() and not info.issparse()
            if is_plain and info.offset_data + info.size > size:
                raise ReadError("The archive ends too early. Copy it again.", reason="truncated")
            reason = "" if is_plain and not _leads_out(info.name) else "unsafe_member"
            member = Member(len(entries), info.name, seen[info.name], reason)
            seen[info.name] += 1
            entries.append(_Entry(member, info.size, offset=info.offset_data))
            total += info.size if is_plain else 0
            _check_total(total, size=size, limits=limits)
        # tarfile takes a damaged header for the end of the archive: at the true end there is nothing, or zeros.
        stream.seek(archive.offset)
        if any(stream.read(tarfile.BLOCKSIZE)):
            raise ReadError(f"{_DAMAGED}. Copy it again.", reason="corrupt")
    return entries


def _parts(name: str) -> list[str]:
    return name.replace("\\", "/").split("/")


def _is_hidden(name: str) -> bool:
    """As in a folder: a leading dot, and what macOS adds, are no scans."""
    return any(part == "__MACOSX" or (part.startswith(".") and part not in (".", "..")) for part in _parts(name))


def _leads_out(name: str) -> bool:
    parts = _parts(name)
    return parts[0] == "" or ".." in parts or parts[0].endswith(":")
