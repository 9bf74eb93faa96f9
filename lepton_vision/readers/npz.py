"""MedMNIST-style ``.npz`` files: one array of many images, each addressed by member and position."""

from __future__ import annotations

import math
import struct
import threading
import zipfile
from collections import OrderedDict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lepton_vision.errors import ReadError
from lepton_vision.readers.archives import check_directory
from lepton_vision.readers.dicom.header import stored_path
from lepton_vision.readers.facts import FileFacts, no_facts
from lepton_vision.readers.identity import content_id
from lepton_vision.readers.limits import DEFAULT_LIMITS, Limits, check_size, raise_read_errors
from lepton_vision.readers.versions import package_version
from lepton_vision.types import Image

_MOST_RATIO = 1032
_MOST_MEMBERS = 4096
_TABLE_BYTES = 2**28
_CHUNK = 2**24
_KEPT = 4  # arrays per process: the parts of one data set
_loaded: OrderedDict[tuple[str, str, int, int], npt.NDArray[Any]] = OrderedDict()
_lock = threading.Lock()


def npz_members(path: str | Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the arrays in an npz file, without reading them.

    Raises:
        ReadError: reason ``not_an_image`` or ``corrupt``.
    """
    with raise_read_errors("The npz file cannot be read", reason="corrupt"), _open(Path(path)) as archive:
        shapes = {}
        for info in archive.infolist():
            if info.filename.endswith(".npy"):
                shapes[info.filename.removesuffix(".npy")] = _header(archive, info).shape
        return shapes


def read_npz_table(path: str | Path, member: str, *, limits: Limits = DEFAULT_LIMITS) -> npt.NDArray[Any]:
    """A small array of any shape, as of labels.

    Raises:
        ReadError: reason ``no_frame``, ``too_large``, ``corrupt`` …
    """
    path = Path(path)
    with raise_read_errors("The npz file cannot be read", reason="corrupt"):
        capped = replace(limits, memory=min(limits.memory, _TABLE_BYTES))
        return _read_array(path, member=member, limits=capped, is_table=True)


def read_npz_frame(path: str | Path, member: str, *, frame: int, limits: Limits = DEFAULT_LIMITS) -> npt.NDArray[Any]:
    """One image of an array as it is stored: (H, W), (H, W, 3) or (D, H, W).

    The array is inflated once per process, or mapped into memory where it is stored without compression.

    Raises:
        ReadError: reason ``no_frame``, ``too_large``, ``corrupt`` …
    """
    array = _load(Path(path), member=member, limits=limits)
    if not 0 <= frame < len(array):
        raise ReadError(f"Expected an entry from 0 to {len(array) - 1}. Received: {frame}.", reason="no_frame")
    return np.asarray(array[frame])


def read_npz(path: Path, *, member: str | None, frame: int | None, limits: Limits, is_named: bool = True) -> Image:
    """Read one image of an npz file; see ``image.read_image``. Without ``is_named`` it has no id."""
    member = _choose(path, member)
    with raise_read_errors("The npz file cannot be read", reason="corrupt"):
        count = len(_load(path, member=member, limits=limits))
        if frame is None and count > 1:
            raise ReadError(f"The array holds {count} images: name one by frame=0 to {count - 1}.", reason="no_frame")
        values = read_npz_frame(path, member, frame=frame or 0, limits=limits)
        check_size(*values.shape, limits=limits)
    is_color = values.ndim == 3 and values.shape[2] in (1, 3)
    pixels = np.moveaxis(values, 2, 0) if is_color else values[None]
    with np.errstate(over="ignore"):  # float64 beyond float32: refused below
        result = np.ascontiguousarray(pixels, dtype=np.float32)
    if values.dtype.kind == "f" and not np.isfinite(result).all():
        raise ReadError("The image holds NaN or infinite pixels. Remove or replace them.", reason="non_finite")
    return Image(
        pixels=result,
        value_range=_value_range(values),
        image_id=content_id(f"{values.dtype.str} {values.shape} ".encode(), values.tobytes()) if is_named else "",
        source_format="npz",
        decoder=package_version("numpy"),
        facts=no_facts(),
    )


def probe_npz(path: Path, *, member: str | None, limits: Limits) -> FileFacts:
    """Header facts of one array; see ``image.probe``."""
    member = _choose(path, member)
    with raise_read_errors("The npz file cannot be read", reason="corrupt"), _open(path) as archive:
        shape = _check_member(archive, f"{member}.npy", size=path.stat().st_size, limits=limits).shape
    rows, columns = _sizes(shape)
    return FileFacts(
        source_format="npz",
        frames=shape[0],
        rows=rows,
        columns=columns,
        image_id=_file_id(path),
        facts=no_facts(),
    )


def _file_id(path: Path) -> str:
    """Id of a file, by the checksums of its arrays; each entry has one of its own, by its values."""
    with _open(path) as archive:
        return content_id(repr([(one.filename, one.file_size, one.CRC) for one in archive.infolist()]).encode())


def _sizes(shape: tuple[int, ...]) -> tuple[int, int]:
    """H and W of an array of images (N, H, W), (N, H, W, C) or (N, D, H, W)."""
    if len(shape) == 3 or (len(shape) == 4 and shape[3] in (1, 3)):
        return shape[1], shape[2]
    if len(shape) == 4 and shape[3] not in (2, 4):  # with alpha: no volume is 2 or 4 voxels wide
        return shape[2], shape[3]
    raise ReadError(
        f"Expected an array of images (N, H, W[, 3]) or volumes (N, D, H, W). Received shape: {shape}. Drop an alpha "
        "channel, and give a single image an axis of its own.",
        reason="unsupported",
    )


def _choose(path: Path, member: str | None) -> str:
    shapes = npz_members(path)
    images = [key for key in shapes if key.endswith("_images")]
    images = images or [key for key in shapes if key in ("image", "images")]  # masks may lie beside them
    images = images or [key for key, shape in shapes.items() if len(shape) >= 3]
    if member is None and len(images) == 1:
        return images[0]
    if member not in shapes:
        received = "none" if member is None else repr(member)
        raise ReadError(
            f"Name one array of the npz file by member=. Expected one of: {', '.join(images) or 'none there'}. "
            f"Received: {received}.",
            reason="no_frame" if images else "not_an_image",
        )
    return member


def _value_range(values: npt.NDArray[Any]) -> tuple[float, float]:
    if values.dtype.kind == "b":
        return 0.0, 1.0
    if values.dtype.kind == "f":
        return float(values.min()), float(values.max())
    limits = np.iinfo(values.dtype)
    return float(np.float32(limits.min)), float(np.float32(limits.max))  # as the pixels are rounded


def _open(path: Path) -> zipfile.ZipFile:
    try:
        with path.open("rb") as stream:
            check_directory(stream)
        archive = zipfile.ZipFile(path)
    except zipfile.BadZipFile:
        raise ReadError("The npz file is damaged or cut off. Copy it again.", reason="corrupt") from None
    if len(archive.namelist()) > _MOST_MEMBERS:
        archive.close()
        raise ReadError(f"Expected at most {_MOST_MEMBERS} arrays in an npz file.", reason="too_large")
    if not any(name.endswith(".npy") for name in archive.namelist()):
        archive.close()
        raise ReadError("The zip file holds no numpy arrays.", reason="not_an_image")
    return archive


@dataclass(frozen=True, slots=True)
class _Array:
    """Header of an array: ``start`` is the first byte of its values in the member."""

    info: zipfile.ZipInfo
    shape: tuple[int, ...]
    is_fortran: bool
    dtype: np.dtype[Any]
    start: int

    @property
    def bytes(self) -> int:
        """Bytes of all values."""
        return math.prod(self.shape) * self.dtype.itemsize


def _header(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Array:
    with archive.open(info) as stream:
        major, minor = np.lib.format.read_magic(stream)
        if (major, minor) == (1, 0):
            shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(stream)
        elif (major, minor) == (2, 0):
            shape, is_fortran, dtype = np.lib.format.read_array_header_2_0(stream)
        else:
            raise ReadError("Expected version 1 or 2 of the npy format.", reason="unsupported")
        return _Array(info, shape, is_fortran, dtype, stream.tell())


def _check_member(archive: zipfile.ZipFile, name: str, *, size: int, limits: Limits, is_table: bool = False) -> _Array:
    """Header of one array of an archive of ``size`` bytes, once it is clear that the file can hold it."""
    try:
        info = archive.getinfo(name)
    except KeyError:
        raise ReadError("The npz file has no array of that name.", reason="no_frame") from None
    array = _header(archive, info)
    if not is_table:
        _sizes(array.shape)
    if array.dtype.kind not in "buif" or array.dtype.itemsize > 8:
        raise ReadError("Expected an array of numbers.", reason="unsupported")
    if not array.shape or min(array.shape) < 1:
        raise ReadError("Expected an array with values. Received: an empty one.", reason="corrupt")
    is_mapped = info.compress_type == zipfile.ZIP_STORED and not array.is_fortran
    most = limits.max_bytes if is_mapped else min(limits.max_bytes, limits.memory)
    if array.bytes > most:
        raise ReadError(f"The array is larger than {most} bytes.", reason="too_large")
    # Deflate makes at best 1,032 bytes of one: a header that says more lies, and nothing is set aside for it.
    held = info.compress_size * (1 if info.compress_type == zipfile.ZIP_STORED else _MOST_RATIO)
    if array.start + array.bytes > min(info.file_size, held):
        raise ReadError("The array ends too early. Copy the file again.", reason="truncated")
    limits.check_frames(array.shape[0], size=size)
    return array


def _load(path: Path, *, member: str, limits: Limits) -> npt.NDArray[Any]:
    state = path.stat()
    key = (stored_path(path), member, state.st_mtime_ns, state.st_size)
    with _lock:
        if key in _loaded:
            _loaded.move_to_end(key)
            return _loaded[key]
        with raise_read_errors("The npz file cannot be read", reason="corrupt"):
            array = _read_array(path, member=member, limits=limits)
        _loaded[key] = array
        while len(_loaded) > _KEPT:
            _loaded.popitem(last=False)
        return array


def _read_array(path: Path, *, member: str, limits: Limits, is_table: bool = False) -> npt.NDArray[Any]:
    with _open(path) as archive:
        array = _check_member(archive, f"{member}.npy", size=path.stat().st_size, limits=limits, is_table=is_table)
        if array.info.compress_type == zipfile.ZIP_STORED and not array.is_fortran:
            _check_sum(archive, array.info)
            offset = _data_offset(path, array.info) + array.start
            return np.memmap(path, dtype=array.dtype, mode="r", offset=offset, shape=array.shape)
        values = np.empty(math.prod(array.shape), dtype=array.dtype)
        with archive.open(array.info) as stream:
            stream.read(array.start)
            target = values.view(np.uint8)
            for place in range(0, array.bytes, _CHUNK):  # by pieces: zipfile would hold all of it twice
                piece = stream.read(min(_CHUNK, array.bytes - place))
                if len(piece) < min(_CHUNK, array.bytes - place):
                    raise ReadError("The array ends too early. Copy the file again.", reason="truncated")
                target[place : place + _CHUNK] = np.frombuffer(piece, np.uint8)
            stream.read(1)  # at the end the checksum is compared
        return values.reshape(array.shape, order="F" if array.is_fortran else "C")


def _check_sum(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> None:
    """Read a member to its end, where its checksum is compared: what is mapped into memory never passes zipfile."""
    with archive.open(info) as stream:
        while stream.read(_CHUNK):
            pass


def _data_offset(path: Path, info: zipfile.ZipInfo) -> int:
    """First byte of a stored member: behind its local header, whose extra field has a length of its own."""
    with path.open("rb") as stream:
        stream.seek(info.header_offset + 26)
        name, extra = struct.unpack("<HH", stream.read(4))
    return info.header_offset + 30 + int(name) + int(extra)
