"""NIfTI-1 and NIfTI-2 files (``.nii``, ``.nii.gz``), two- or three-dimensional.

Axes keep their stored order: the first NIfTI axis becomes W, the second H, the third D. Nothing is flipped or
resampled; the fact ``orientation`` says where the stored axes point (e.g. "RAS": W to the right, H to the front, D up).
"""

from __future__ import annotations

import hashlib
import io
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from lepton_vision.errors import ReadError
from lepton_vision.readers.facts import FileFacts, no_facts
from lepton_vision.readers.identity import Digest, id_of_digest
from lepton_vision.readers.limits import Clock, Limits, check_size, raise_read_errors
from lepton_vision.readers.quiet import quiet
from lepton_vision.readers.versions import package_version
from lepton_vision.types import Geometry, Image, Pixels, Window

_GZIP = b"\x1f\x8b"
_HEADER_BYTES = 540  # of NIfTI-2; NIfTI-1 has 348
_CHUNK = 1 << 20
_BLOCK = 1 << 20  # bytes of voxels that are converted at once
_BLOCK_HELD = 20 * _BLOCK  # what that takes: as stored, and two float64 of each
_PIECE = 1 << 16  # bytes of a gzip stream that are taken at once: what follows the end of a part is copied
_FEW_PARTS, _PART_BYTES = 1 << 12, 256
_UNIT_MM = {1: 1000.0, 2: 1.0, 3: 0.001}  # xyzt_units: meter, millimeter, micrometer; 0 unknown is taken as mm


@dataclass(frozen=True, slots=True)
class _Grid:
    """Header of a NIfTI file: (D, H, W) sizes, type, first byte of the voxels, rescale, spacing."""

    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    offset: int
    slope: float
    intercept: float
    spacing_mm: tuple[float, float, float] | None
    geometry: Geometry | None
    window: Window | None
    components: int = 1

    @property
    def step(self) -> int:
        """Bytes from one component to the next; those of a component lie together."""
        depth, rows, columns = self.shape
        return depth * rows * columns * self.dtype.itemsize

    @property
    def end(self) -> int:
        return self.offset + self.components * self.step


def is_nifti(head: bytes) -> bool:
    """Whether these bytes (348 of them or more) begin a NIfTI file, two-file NIfTI included."""
    if len(head) < 348:
        return False
    first, second = (348).to_bytes(4, "little"), (540).to_bytes(4, "little")
    if head[:4] in (first, first[::-1]):
        return head[344:348] in (b"n+1\0", b"ni1\0")
    return head[:4] in (second, second[::-1]) and head[4:8] in (b"n+2\0", b"ni2\0")


def read_nifti(
    stream: BinaryIO, *, frame: int | None, limits: Limits, channels: Sequence[str] = (), is_named: bool = True
) -> Image:
    """Read an open NIfTI file, gzipped or not; see ``image.read_image``. A frame is a slice along the third axis.

    Its id is of header and voxels, the same with and without gzip; without ``is_named`` it has none.
    """
    grid = _check_components(_read_grid(stream), channels)
    depth, rows, columns = grid.shape
    if frame is not None and not 0 <= frame < depth:
        raise ReadError(f"Expected a slice from 0 to {depth - 1}. Received: {frame}.", reason="no_frame")
    check_size(grid.components, depth if frame is None else 1, rows, columns, limits=limits, held=_BLOCK_HELD)
    if grid.end > limits.max_bytes or grid.offset > limits.memory:
        raise ReadError(f"The file holds more than {limits.max_bytes} bytes of voxels.", reason="too_large")
    wanted = range(depth) if frame is None else range(frame, frame + 1)
    clock = Clock(limits)
    digest = hashlib.sha256(repr(grid).encode())
    is_whole = len(wanted) == depth
    pixels = _read_voxels(stream, grid, wanted=wanted, clock=clock, digest=digest if is_named and is_whole else None)
    if is_named and not is_whole:
        _digest_voxels(stream, grid, digest=digest, clock=clock)
    image_id = id_of_digest(digest) if is_named else ""
    is_volume = len(wanted) > 1
    spacing, geometry = grid.spacing_mm, grid.geometry
    if geometry is not None and not is_volume:
        geometry = geometry.plane(wanted.start)
    return Image(
        pixels=pixels if is_volume else pixels[:, 0],
        spacing_mm=spacing if is_volume or spacing is None else spacing[1:],
        geometry=geometry,
        units="US",
        value_range=_value_range(pixels, grid),
        window=grid.window,
        image_id=f"{image_id}-{frame}" if is_named and frame is not None and depth > 1 else image_id,
        source_format="nifti",
        decoder=package_version("nibabel"),
        facts={**_facts(grid), "frames": depth, "orientation": None if geometry is None else geometry.orientation},
    )


def probe_nifti(stream: BinaryIO, *, limits: Limits, channels: Sequence[str] = ()) -> FileFacts:
    """Header facts of an open NIfTI file; see ``image.probe``."""
    del limits  # only the header is inflated
    grid = _check_components(_read_grid(stream), channels)
    depth, rows, columns = grid.shape
    return FileFacts(
        source_format="nifti",
        frames=depth,
        rows=rows,
        columns=columns,
        image_id="",
        facts=_facts(grid),
    )


@dataclass(frozen=True, slots=True)
class NiftiHeader:
    """Header of a NIfTI file: what a mask needs to come back on the very same grid.

    Attributes:
        header: nibabel's header object (NIfTI-1 or NIfTI-2).
        shape: (D, H, W).
        geometry: place of the voxels, or None where the header does not say, or says a sheared one.
    """

    header: Any
    shape: tuple[int, int, int]
    geometry: Geometry | None


def read_nifti_header(path: Path) -> NiftiHeader:
    """Header of a NIfTI file, gzipped or not; no voxel is read.

    Raises:
        ReadError: as ``image.probe``.
    """
    with quiet, raise_read_errors("Cannot read the header", reason="corrupt"), path.open("rb") as stream:
        header = _read_header(stream)
        grid = _parse(header)
        return NiftiHeader(header, grid.shape, grid.geometry)


def _check_components(grid: _Grid, channels: Sequence[str]) -> _Grid:
    """Refuse components (a fourth axis) that nobody has named, or another number of them."""
    if grid.components == max(1, len(channels)):
        return grid
    size = (*reversed(grid.shape), *([grid.components] if grid.components > 1 else []))
    if not channels:
        raise ReadError(
            f"Expected a NIfTI image of 2 or 3 axes with one number per voxel. Received shape {size}. Name its "
            "components by volume.channels (scan and inspect: --channels), e.g. [flair, t1w, t1gd, t2w], or split it "
            "into volumes.",
            reason="unsupported",
        )
    raise ReadError(
        f"Expected a NIfTI image with the {len(channels)} components {', '.join(channels)} (volume.channels). Received "
        f"shape {size}. Name as many channels as there are components.",
        reason="channels",
    )


def _facts(grid: _Grid) -> dict[str, str | int | float | None]:
    spacing = grid.spacing_mm or (None, None, None)
    return {**no_facts(), "spacing_row_mm": spacing[1], "spacing_column_mm": spacing[2]}


def _read_grid(stream: BinaryIO) -> _Grid:
    """Parse the header and leave the stream at its start."""
    header = _read_header(stream)
    with raise_read_errors("The NIfTI header is damaged", reason="corrupt"):
        return _parse(header)


def _read_header(stream: BinaryIO) -> Any:
    """Header, by nibabel, of an open file; the stream is left at its start."""
    head = _read_head(stream)
    if not is_nifti(head):
        raise ReadError("The compressed file is no NIfTI image.", reason="not_an_image")
    is_second = head[4:7] in (b"n+2", b"ni2")
    if (head[4:7] if is_second else head[344:347]) in (b"ni1", b"ni2"):
        raise ReadError("NIfTI in two files (.hdr, .img) is not supported. Convert it to .nii.", reason="unsupported")
    with raise_read_errors("The NIfTI header is damaged", reason="corrupt"):
        # nibabel takes a while to import, and most runs read no NIfTI
        from nibabel.nifti1 import Nifti1Header
        from nibabel.nifti2 import Nifti2Header

        kind = Nifti2Header if is_second else Nifti1Header
        parse: Any = kind.from_fileobj
        return parse(io.BytesIO(head[: 540 if is_second else 348]), check=False)


def _parse(header: Any) -> _Grid:
    shape = tuple(int(size) for size in header.get_data_shape())
    dtype = np.dtype(header.get_data_dtype())
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    components = 1
    if len(shape) == 4 or (len(shape) == 5 and shape[3] == 1):  # in the fifth axis a vector (nifti1.h, dim[5])
        shape, components = shape[:3], shape[-1]
    if not 2 <= len(shape) <= 3 or dtype.kind not in "uif" or dtype.itemsize > 8:
        raise ReadError(
            f"Expected a NIfTI image of 2 or 3 axes with one number per voxel. Received shape {shape}, type {dtype}. "
            "Split it into volumes.",
            reason="unsupported",
        )
    if min(*shape, components) < 1:
        raise ReadError("The NIfTI header announces an empty image.", reason="corrupt")
    columns, rows, depth = (*shape, 1)[:3]
    slope, intercept = header.get_slope_inter()
    geometry = _geometry(header)
    return _Grid(
        shape=(depth, rows, columns),
        dtype=dtype,
        offset=int(header.get_data_offset()),
        slope=1.0 if slope is None else float(slope),
        intercept=0.0 if intercept is None else float(intercept),
        spacing_mm=_spacing(header) if geometry is None else _three(geometry.spacing_mm),
        geometry=geometry,
        window=_window(header),
        components=components,
    )


def _spacing(header: Any) -> tuple[float, float, float] | None:
    zooms = [float(step) * _millimeters(header) for step in header.get_zooms()[:3]]
    zooms += [1.0] * (3 - len(zooms))
    if not all(np.isfinite(step) and step > 0.0 for step in zooms):
        return None
    return _three(zooms[::-1])


def _millimeters(header: Any) -> float:
    return _UNIT_MM.get(int(header["xyzt_units"]) & 7, 1.0)


def _three(values: Sequence[float]) -> tuple[float, float, float]:
    first, second, third = values
    return first, second, third


def _geometry(header: Any) -> Geometry | None:
    """Place of the voxels in DICOM's coordinates; None without a usable affine, or where its axes are sheared.

    The affine takes (i, j, k) = (w, h, d) to x right, y front, z head; DICOM's x and y are the other way round. A
    header whose sform and qform codes are both 0 says nothing about the patient (nifti1.h, method 1).
    """
    if int(header["sform_code"]) <= 0 and int(header["qform_code"]) <= 0:
        return None
    try:
        affine = np.asarray(header.get_best_affine(), dtype=np.float64)
        axes = np.diag([-1.0, -1.0, 1.0]) @ affine[:3] * _millimeters(header)
        lengths = np.linalg.norm(axes[:, :3], axis=0)
        if not (np.isfinite(axes).all() and lengths.min() > 0.0):
            return None
        d, h, w = ((axes[:, k] / lengths[k]).tolist() for k in (2, 1, 0))
        return Geometry(_three(axes[:, 3].tolist()), (_three(d), _three(h), _three(w)), _three(lengths[::-1].tolist()))
    except (ValueError, np.linalg.LinAlgError):
        return None


def _window(header: Any) -> Window | None:
    low, high = float(header["cal_min"]), float(header["cal_max"])
    if not (np.isfinite(low) and np.isfinite(high) and high > low):
        return None
    return Window((low + high) / 2.0, high - low, "LINEAR_EXACT")


def _digest_voxels(stream: BinaryIO, grid: _Grid, *, digest: Digest, clock: Clock) -> None:
    """Look at the stored voxels of all slices, by blocks: of an image whose id they are, and of which one is read."""
    source, left = _Source(stream), grid.end - grid.offset
    source.skip_to(grid.offset)
    room = memoryview(bytearray(min(left, _BLOCK)))
    while left and (found := source.fill(room[:left])):
        digest.update(room[:found])
        left -= found
        clock.check()
    stream.seek(0)


def _read_voxels(stream: BinaryIO, grid: _Grid, *, wanted: range, clock: Clock, digest: Digest | None) -> Pixels:
    """(C, F, H, W) values, by blocks: stored values and a float64 of them all would take three times the room."""
    depth, rows, columns = grid.shape
    size = rows * columns * grid.dtype.itemsize
    pixels = np.empty((grid.components, len(wanted), rows, columns), dtype=np.float32)
    source, block = _Source(stream), max(1, _BLOCK // size)
    room = memoryview(bytearray(min(block, len(wanted)) * size))  # used again: fresh memory costs more than reading
    for number in range(grid.components):
        source.skip_to(grid.offset + number * grid.step + wanted.start * size)
        for place in range(0, len(wanted), block):
            target = pixels[number, place : place + block]
            data = room[: len(target) * size]
            found = source.fill(data)
            if found < len(data):
                expected, received = pixels.size * grid.dtype.itemsize, (number * depth + place) * size + found
                raise ReadError(
                    f"Expected {expected} bytes of voxels. Received: {received}. Copy it again.", reason="truncated"
                )
            if digest is not None:
                digest.update(data)
            _convert(np.frombuffer(data, dtype=grid.dtype).reshape(target.shape), grid, result=target)
            clock.check()
    stream.seek(0)
    return pixels


def _convert(voxels: npt.NDArray[Any], grid: _Grid, *, result: Pixels) -> None:
    is_scaled = grid.slope != 1.0 or grid.intercept != 0.0
    if is_scaled:
        voxels = voxels.astype(np.float64) * grid.slope + grid.intercept
    np.copyto(result, voxels, casting="unsafe")
    if (is_scaled or grid.dtype.kind == "f") and not np.isfinite(result).all():
        raise ReadError("The image holds NaN or infinite voxels. Remove or replace them.", reason="non_finite")


class _Source:
    """Bytes of the file, inflated if it is gzipped, from the first to the last; nothing beyond those is inflated."""

    def __init__(self, stream: BinaryIO) -> None:
        stream.seek(0)
        self._is_packed = stream.read(2) == _GZIP
        stream.seek(0)
        self._stream, self._place = stream, 0
        self._engine, self._rest, self._parts = zlib.decompressobj(31), b"", 0

    def skip_to(self, place: int) -> None:
        """Go on to a place; a file that ends before it has no more bytes."""
        if not self._is_packed:
            self._stream.seek(place)
            return
        room = memoryview(bytearray(min(_CHUNK, max(0, place - self._place))))
        while self._place < place and self.fill(room[: place - self._place]):
            pass

    def fill(self, room: memoryview) -> int:
        """Take the next bytes into ``room``, and return how many they are: fewer at the end."""
        if not self._is_packed:
            return int(self._stream.readinto(room))  # type: ignore[attr-defined]
        count = 0
        try:
            while count < len(room) and self._has_more():
                piece = self._engine.decompress(self._rest, len(room) - count)
                room[count : count + len(piece)] = piece
                count += len(piece)
                self._rest = self._engine.unconsumed_tail
                if self._engine.eof:  # gzip files may follow each other (bgzip)
                    self._rest, self._engine = self._engine.unused_data, zlib.decompressobj(31)
                    self._count_part()
        except zlib.error:
            raise ReadError("The gzip stream is damaged. Copy the file again.", reason="corrupt") from None
        self._place += count
        return count

    def _has_more(self) -> bool:
        self._rest = self._rest or self._stream.read(_PIECE)
        return bool(self._rest)

    def _count_part(self) -> None:
        """Refuse a chain of gzip files that hold next to nothing: each costs time."""
        self._parts += 1
        if self._parts > _FEW_PARTS + self._place // _PART_BYTES:
            raise ReadError("The gzip stream consists of too many parts. Pack it as one.", reason="too_large")


def _read_head(stream: BinaryIO) -> bytes:
    """First bytes of the file, for its header."""
    head = bytearray(_HEADER_BYTES)
    found = _Source(stream).fill(memoryview(head))
    stream.seek(0)
    return bytes(head[:found])


def _value_range(pixels: Pixels, grid: _Grid) -> tuple[float, float]:
    """Range that integers of this type can have; of real numbers, the range that they have."""
    if grid.dtype.kind == "f":
        return float(pixels.min()), float(pixels.max())
    limits = np.iinfo(grid.dtype)
    low, high = sorted(end * grid.slope + grid.intercept for end in (int(limits.min), int(limits.max)))
    return float(np.float32(low)), float(np.float32(high))  # as the voxels are rounded
