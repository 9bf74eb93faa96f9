"""Disk cache of decoded images: one memory-mapped file shared by all workers and later runs."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import math
import mmap
import os
import shutil
import tempfile
import time
import weakref
import zlib
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from lepton_vision._version import __version__
from lepton_vision.config import Config, fingerprint
from lepton_vision.config.sections import PreprocessConfig
from lepton_vision.readers.mask import mask_files
from lepton_vision.transforms.preprocess import Prepared
from lepton_vision.transforms.resize import UInt16Pixels
from lepton_vision.transforms.rows import RowTable
from lepton_vision.types import UNKNOWN

_log = logging.getLogger(__name__)

_VERSION = 1  # raise it whenever the file's layout changes; the package's version stands for the pixels
_MAGIC = b"lepton_vision pixel cache\n"
_PAGE = 4096  # the header's size; pixels start on a page too
_AROUND = 2**16  # bytes that Linux maps at one fault (``fault_around_bytes``), however small the row that was asked for
_TOUCHED_LIMIT = 4 * 2**20  # bytes mapped, at most, before the mapping's pages are given back


class WarnOnce:
    """A warning that is given once by this process and those that it forks."""

    def __init__(self) -> None:
        self._said = mmap.mmap(-1, 1)  # shared with them

    def __reduce__(self) -> tuple[type[WarnOnce], tuple[()]]:
        return WarnOnce, ()

    def warn(self, logger: logging.Logger, message: str) -> None:
        """Say it, unless it was said."""
        if not self._said[0]:
            self._said[0] = 1
            logger.warning(message)


class PixelCache:
    """Output of ``preprocess_image`` for the first rows of one dataset, as many as fit.

    The file is a header page, one uint32 checksum for each row (0: not filled yet), and the pixels. A row is its
    checksum's word: written after the pixels, compared when a process first reads it. A row that was torn by a crash,
    or that another process is writing this moment, does not match and is decoded again; two processes that write the
    same row write the same bytes. The file's name holds a fingerprint of the preprocessing and of every source file's
    size and time, so that a changed file or setting never meets old pixels.

    Checksums and writes go through the mapping; a row is read by copying, since pages that were given back would have
    to be mapped anew for each row, which takes longer than the copy.

    Open it with ``PixelCache.open``. It survives fork and pickling: the copy maps the same file.
    """

    def __init__(self, path: Path, *, rows: int, shape: tuple[int, int, int]) -> None:
        self.path, self.rows, self.shape = path, rows, shape
        self._once = WarnOnce()
        self._map_file()

    @classmethod
    def open(
        cls, folder: str | Path, rows: RowTable, config: PreprocessConfig, *, max_gb: float, further: object = None
    ) -> PixelCache | None:
        """Open or create the cache of these rows; remove the one that a change has made stale.

        Args:
            folder: made if it does not exist.
            rows: the dataset's rows.
            config: preprocessing.
            max_gb: bound of the file in 10**9 bytes; it also never takes more than half of the free space.
            further: plain values that decide what is kept, beside files and preprocessing.

        Returns:
            The cache, or None where not even one row fits or the folder cannot be written: that costs time only, so
            it is logged as a warning and nothing fails.
        """
        folder = Path(folder)
        shape = (config.channels, *config.size)
        name, version = _names(rows, config, further=further)
        path = folder / f"{name}-{version}.pixels"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _remove_stale(folder, name=name, keep=path)
            count = _stored_rows(path, shape)
            if count is None:
                if path.exists():
                    _log.warning("The cache of decoded images is damaged: it is made anew.")
                count = _affordable_rows(folder, len(rows), shape=shape, max_gb=max_gb)
                if count:
                    _create(path, rows=count, shape=shape)
                    count = _stored_rows(path, shape)
            if count:
                return cls(path, rows=count, shape=shape)
            _log.warning("Decoded images are not cached: no room. Images are decoded in each epoch.")
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else str(error)
            _log.warning("Decoded images are not cached: %s. Images are decoded in each epoch.", reason)
        return None

    def get(self, row: int) -> UInt16Pixels | None:
        """Pixels (C, H, W) uint16 of a row, the caller's own; None where they are not there."""
        if row >= self.rows or not self._checksums[row]:
            return None
        pixels = self._read(row)
        if not self._is_whole[row]:
            if _checksum(pixels) != self._checksums[row]:
                self._once.warn(_log, "An image in the cache is damaged: it is decoded anew.")
                return None
            self._is_whole[row] = True  # whoever writes it again writes the same bytes
        return pixels

    def _read(self, row: int) -> UInt16Pixels:
        """Copy a row out of the kernel's pages, through the mapping where the system has no positioned reads."""
        pixels = np.empty(self.shape, np.uint16)
        at = _pixels_at(self.rows) + row * self._row_bytes
        if not hasattr(os, "preadv") or os.preadv(self._handle, [pixels.data], at) < self._row_bytes:
            pixels[:] = self._pixels[row]
            self._touch()
        return pixels

    def put(self, row: int, pixels: UInt16Pixels) -> None:
        """Keep the pixels of a row; rows beyond the bound are not kept."""
        if row >= self.rows:
            return
        self._pixels[row] = pixels
        self._checksums[row] = _checksum(self._pixels[row])
        self._touch()

    @property
    def filled(self) -> int:
        """Number of rows that are there."""
        return int(np.count_nonzero(self._checksums))

    def __getstate__(self) -> dict[str, object]:
        return {"path": self.path, "rows": self.rows, "shape": self.shape}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._once = WarnOnce()
        self._map_file()

    def _map_file(self) -> None:
        self._handle = os.open(self.path, os.O_RDWR | getattr(os, "O_CLOEXEC", 0))
        weakref.finalize(self, os.close, self._handle)
        self._map = mmap.mmap(self._handle, _file_size(self.rows, self.shape), mmap.MAP_SHARED)
        self._checksums: npt.NDArray[np.uint32] = np.frombuffer(self._map, np.uint32, self.rows, _PAGE)
        flat = np.frombuffer(self._map, np.uint16, self.rows * int(np.prod(self.shape)), _pixels_at(self.rows))
        self._pixels: UInt16Pixels = flat.reshape(self.rows, *self.shape)
        self._is_whole = np.zeros(self.rows, np.bool_)
        self._row_bytes, self._touched = 2 * math.prod(self.shape), 0

    def _touch(self) -> None:
        """Give mapped pages back now and then: they stay in the kernel's cache, but leave this process's memory."""
        self._touched += self._row_bytes + _AROUND
        if self._touched >= _TOUCHED_LIMIT and hasattr(self._map, "madvise"):
            self._map.madvise(mmap.MADV_DONTNEED)
            self._touched = 0


class SampleCache(Protocol):
    """Prepared images or volumes of the rows of a data set, kept on disk."""

    def get(self, row: int) -> Prepared | None:
        """Return what was kept of a row; None where it is not there or damaged."""

    def put(self, row: int, ready: Prepared, /) -> None:
        """Keep a row where there is room."""


class ImageCache:
    """Prepared images of a data set: their pixels in one file, their masks in another, so that each serves alone.

    Args:
        pixels: of the images.
        masks: (1, height, width) of each image; None where no masks are asked for.
    """

    def __init__(self, pixels: PixelCache, masks: PixelCache | None = None) -> None:
        self.pixels, self.masks = pixels, masks

    @classmethod
    def open(cls, folder: Path, rows: RowTable, config: Config, *, masks: RowTable | None) -> ImageCache | None:
        """Open or create both files, see ``PixelCache.open``; ``masks`` are those of the rows, None for no masks."""
        preprocess, segmentation, max_gb = config.preprocess, config.segmentation, config.cache.max_gb
        pixels = PixelCache.open(folder, rows, preprocess, max_gb=max_gb)
        if pixels is None or masks is None or segmentation is None:
            return None if pixels is None else cls(pixels)
        single = preprocess.model_copy(update={"windows": ("full",), "color": "gray", "mean": (0.5,), "std": (0.25,)})
        numbers = sorted(segmentation.numbers.items())
        kept = PixelCache.open(folder, masks, single, max_gb=max_gb, further=numbers)
        return None if kept is None else cls(pixels, kept)

    def get(self, row: int) -> Prepared | None:
        """Return an image with its mask, the caller's own; None where one of them is not there."""
        pixels = self.pixels.get(row)
        if pixels is None:
            return None
        if self.masks is None:
            return Prepared(pixels)
        mask = self.masks.get(row)
        return None if mask is None else Prepared(pixels, mask[0].astype(np.uint8))

    def put(self, row: int, image: Prepared) -> None:
        """Keep an image; a mask of which nothing is known is kept as ``UNKNOWN`` all over."""
        self.pixels.put(row, image.pixels)
        if self.masks is not None:
            shape = self.masks.shape
            mask = np.full(shape, UNKNOWN, np.uint16) if image.mask is None else image.mask[None].astype(np.uint16)
            self.masks.put(row, mask)


def _checksum(pixels: UInt16Pixels) -> int:
    """CRC-32, never 0."""
    return zlib.crc32(pixels.data) or 1


def _names(rows: RowTable, config: PreprocessConfig, *, further: object) -> tuple[str, str]:
    """Which rows these are, and which version of them: two times 16 hexadecimal digits."""
    which = hashlib.sha256(os.fsencode(rows.root.absolute()))
    for column in (rows.paths, rows.members):
        which.update(np.ascontiguousarray(column.data).data)
        which.update(np.ascontiguousarray(column.ends).data)
    which.update(np.ascontiguousarray(rows.frames).data)
    preprocess = {**config.model_dump(mode="json"), "mean": None, "std": None}  # applied after the cache
    facts = [_VERSION, __version__, preprocess] + ([] if further is None else [further])
    version = hashlib.sha256(fingerprint(facts).encode())
    last = None
    for row in range(len(rows)):
        text = rows.paths[row]
        if text in ("", last):  # no file, or a further frame of the last one
            continue
        last = text
        for path in mask_files(rows.root / text, rows.members[row]):
            try:
                status = path.stat()
                version.update(b"%d %d;" % (status.st_size, status.st_mtime_ns))
            except OSError:
                version.update(b"missing;")
    return which.hexdigest()[:16], version.hexdigest()[:16]


def _pixels_at(rows: int) -> int:
    """Offset of the first row's pixels: the next page after the checksums."""
    return _PAGE + -(-4 * rows // _PAGE) * _PAGE


def _file_size(rows: int, shape: tuple[int, int, int]) -> int:
    return _pixels_at(rows) + rows * 2 * int(np.prod(shape))


def _affordable_rows(folder: Path, rows: int, *, shape: tuple[int, int, int], max_gb: float) -> int:
    """Rows within the bound and within half of the free space: checkpoints need room too."""
    budget = min(max_gb * 1e9, shutil.disk_usage(folder).free / 2)
    fitting = int((budget - 2 * _PAGE) // (4 + 2 * int(np.prod(shape))))
    if 0 < fitting < rows:
        _log.info("The cache holds %d of %d images; the others are decoded in each epoch.", fitting, rows)
    return max(0, min(rows, fitting))


def _stored_rows(path: Path, shape: tuple[int, int, int]) -> int | None:
    """Number of rows of an existing cache; None where there is none, or it is damaged."""
    try:
        with path.open("rb") as file:
            words = file.read(_PAGE).removeprefix(_MAGIC).split()
            rows, size = int(words[0]), int(words[1])
            is_whole = size == os.fstat(file.fileno()).st_size == _file_size(rows, shape)
            return rows if is_whole else None
    except (FileNotFoundError, IndexError, ValueError):
        return None


def _create(path: Path, *, rows: int, shape: tuple[int, int, int]) -> None:
    """Write an empty cache under a temporary name, all its space reserved, then give it its name.

    Reserved space cannot run out later: a write into a mapping has no way to report a full disk but SIGBUS.
    """
    size = _file_size(rows, shape)
    handle, temporary = tempfile.mkstemp(prefix=".", suffix=".pixels.tmp", dir=path.parent)
    try:
        with os.fdopen(handle, "r+b") as file:
            _reserve(file.fileno(), size)
            file.write(_MAGIC + b"%d %d\n" % (rows, size))
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)  # unlike a rename it never replaces what another process has just made
        except FileExistsError:
            if _stored_rows(path, shape) is None:
                Path(temporary).replace(path)
        except OSError:  # a file system without hard links
            Path(temporary).replace(path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def _reserve(handle: int, size: int) -> None:
    """Allocate ``size`` bytes of zeros for good, or raise OSError ENOSPC."""
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(handle, 0, size)
            return
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                raise
    block = bytes(2**23)
    for start in range(0, size, len(block)):
        os.pwrite(handle, block[: size - start], start)


def _remove_stale(folder: Path, *, name: str, keep: Path) -> None:
    """Remove older versions of the same rows, and what an interrupted creation left a day ago.

    A process that still maps a removed file keeps its pixels until it ends.
    """
    for path in folder.glob(f"{name}-*.pixels"):
        if path != keep:
            path.unlink(missing_ok=True)
    for path in folder.glob(".*.pixels.tmp"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > 86400:
                path.unlink()
