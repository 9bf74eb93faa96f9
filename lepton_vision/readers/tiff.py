"""TIFF files, BigTIFF included: selection of the image pages, and their stored values.

tifffile reads the directories and unpacks plain and deflated samples of any type. Pillow decodes 8 bits and less, in
all compressions and colour spaces, and OpenCV what is left of LZW, PackBits and deflate. What none of them reads is
refused by name. Each page is turned by its own polarity, so that larger is brighter: of whole numbers by their
complement, of real ones by their sign.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt

from lepton_vision.errors import ReadError
from lepton_vision.readers.dicom.child import decode_picture_isolated
from lepton_vision.readers.limits import Clock, Limits, check_size, raise_read_errors
from lepton_vision.readers.pages import Decoded, Samples, read_picture, wanted_pages
from lepton_vision.readers.tiff_bounds import check_directories
from lepton_vision.readers.versions import package_version

_ORIENTATION = 274
# Sizes, depth, compression, photometric, strips, samples, planes, predictor, palette, tiles, extra samples, format.
_LAYOUT = {256, 257, 258, 259, 262, 273, 277, 278, 279, 284, 317, 320, 322, 323, 324, 325, 338, 339}
_WHITE_ZERO, _BLACK_ZERO, _RGB, _PALETTE, _MASK = 0, 1, 2, 3, 4
_NONE, _LZW, _DEFLATE, _PACKBITS = 1, 5, (8, 32946), 32773
# By libtiff as Pillow ships it: also CCITT, both JPEG, LZMA, Zstandard.
_BY_PILLOW = (_NONE, 2, 3, 4, _LZW, 6, 7, *_DEFLATE, _PACKBITS, 34925, 50000)
_PLAIN = (_NONE, _LZW, *_DEFLATE, _PACKBITS)  # of the others, some can take any time or memory
_KINDS = {1: "unsigned", 2: "signed", 3: "real", 4: "unsigned"}  # SampleFormat; 4 is undefined, read as 1 (TIFF 6.0)
_MODES = {"unsigned": "u", "signed": "i", "real": "f"}


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a file: its directory, how its samples are to be understood, and how many planes lie behind it."""

    entry: Any
    kind: str
    planes: int = 1

    @property
    def bits(self) -> int:
        """Bits of each sample."""
        return int(self.entry.bitspersample)

    @property
    def samples(self) -> Samples:
        """Type of the samples once unpacked."""
        return Samples(max(self.bits, 8), self.kind)

    @property
    def item_bytes(self) -> int:
        """Bytes of an unpacked sample."""
        return -(-self.bits // 8)

    @property
    def is_color(self) -> bool:
        """Whether it is neither of the two kinds of gray."""
        return self.entry.photometric not in (_WHITE_ZERO, _BLACK_ZERO)


@dataclass(frozen=True, slots=True)
class TiffFacts:
    """Header of a TIFF file: its images (pages, or planes behind one page), and the first of them."""

    frames: int
    rows: int
    columns: int
    bits: int


def probe_tiff(data: bytes, *, limits: Limits) -> TiffFacts:
    """Count the images of a TIFF file; pages of a smaller copy or of a mask are none.

    Raises:
        ReadError: reason ``corrupt``, ``truncated`` or ``unsupported``, also of a page that could not be read.
    """
    pages = open_pages(data, limits=limits)
    for page in pages:
        _check_samples(page)
        if page.planes == 1:
            _check_segments(data, page)
            _decoder(page)
    return _facts(pages)


def read_tiff(data: bytes, pages: list[Page], *, frame: int | None, limits: Limits) -> Decoded:
    """Decode one image of a TIFF file, or all of them, of its pages as ``open_pages`` gave them.

    Raises:
        ReadError: reason ``geometry`` where all are asked for and differ in size or type; ``corrupt``, ``truncated``,
            ``unsupported``, ``no_frame`` or ``too_large``.
    """
    facts = _facts(pages)
    wanted = wanted_pages(facts.frames, frame=frame)
    chosen = [pages[0]] if pages[0].planes > 1 else [pages[number] for number in wanted]
    for page in chosen:
        rows, columns, samples = page.entry.imagelength, page.entry.imagewidth, page.entry.samplesperpixel
        check_size(int(rows), int(columns), len(wanted), int(samples), limits=limits, itemsize=2 * page.item_bytes)
        _check_samples(page)
        _check_chunk(page, limits=limits)
    if any(page.samples != chosen[0].samples for page in chosen):
        raise ReadError(
            "The pages of the file differ in the type of their samples. Read single pages (frame=i).", reason="geometry"
        )
    if pages[0].planes > 1:
        planes, decoder = _read_planes(data, pages[0], wanted=wanted), _name("tifffile")
    else:
        found, clock = [], Clock(limits, frames=len(chosen))
        for page in chosen:
            found.append(_read_page(data, page, limits=limits))
            clock.check()
        planes, decoder = [values for values, _ in found], found[0][1]
    return Decoded(planes, chosen[0].samples, frames=facts.frames, decoder=decoder)


def _name(package: str) -> str:
    return f"opencv {cv2.__version__}" if package == "opencv" else package_version(package)


def _facts(pages: Sequence[Page]) -> TiffFacts:
    first = pages[0]
    frames = first.planes if first.planes > 1 else len(pages)
    return TiffFacts(frames, int(first.entry.imagelength), int(first.entry.imagewidth), first.samples.bits)


def open_pages(data: bytes, *, limits: Limits) -> list[Page]:
    """Pages of a file that are images.

    Raises:
        ReadError: reason ``corrupt``, ``truncated``, ``unsupported`` or ``too_large``.
    """
    import tifffile  # takes a quarter of a second, and most runs read no TIFF

    check_directories(data, limits=limits)
    with raise_read_errors("The directory of the TIFF file is damaged", reason="corrupt"):
        file = tifffile.TiffFile(BytesIO(data))
        entries: list[Any] = list(file.pages)
        if not entries:
            raise ReadError("The TIFF file holds no page. Copy it again.", reason="corrupt")
        for entry in entries:
            _check_directory(data, entry)
        images = [one for one in entries if not (one.is_reduced or one.is_mask or one.photometric == _MASK)] or entries
        planes = _planes(file, data) if len(entries) == 1 else 1
        return [Page(entry, _kind(entry), planes) for entry in images]


def _check_directory(data: bytes, entry: Any) -> None:
    """Refuse a directory that the end of the file cuts, values included: tifffile leaves out what is not there."""
    order: Literal["big", "little"] = "big" if entry.parent.byteorder == ">" else "little"
    head, each = (8, 20) if entry.parent.is_bigtiff else (2, 12)
    first = entry.offset + head
    count = int.from_bytes(data[entry.offset : first], order)
    codes = [int.from_bytes(data[place : place + 2], order) for place in range(first, first + count * each, each)]
    if first + count * each > len(data) or any(code in _LAYOUT and code not in entry.tags for code in codes):
        raise ReadError("The TIFF file ends inside a directory. Copy it again.", reason="truncated")


def _kind(entry: Any) -> str:
    kind = _KINDS.get(int(np.atleast_1d(entry.sampleformat)[0]))
    depths = set(np.atleast_1d(entry.bitspersample).tolist())
    if kind is None or len(depths) > 1:
        what = "samples of different depth" if kind else "complex numbers"
        raise ReadError(f"A TIFF page of {what} cannot be read. Save one real number per sample.", reason="unsupported")
    return kind


def _planes(file: Any, data: bytes) -> int:
    """Images behind a single page: ImageJ above 4 GB, MetaMorph's stacks and tifffile write one directory for many."""
    page = file.pages.first
    if page.imagedepth > 1:
        raise ReadError("A TIFF page with a depth cannot be read. Save each slice as a page.", reason="unsupported")
    if not (file.is_stk or file.is_imagej or file.is_shaped) or page.nbytes == 0:
        return 1
    series = file.series[0]
    planes = int(np.prod(series.shape, dtype=np.int64)) // int(np.prod(page.shape, dtype=np.int64))
    announced = int((file.imagej_metadata or {}).get("images", 1)) if file.is_imagej else planes
    start, size = page.dataoffsets[0], page.nbytes
    is_cut = planes < announced and page.offset < start and len(data) > start + size  # data end the file, as ImageJ's
    if is_cut or (planes > 1 and start + planes * size > len(data)):
        raise ReadError(
            f"The TIFF file announces {max(planes, announced)} images of {size} bytes. Received: "
            f"{max(len(data) - start, 0)} bytes. Copy it again.",
            reason="truncated",
        )
    return max(planes, 1)


def _check_samples(page: Page) -> None:
    """Refuse samples that are neither one gray nor three of colour."""
    entry = page.entry
    extra = [int(one) for one in entry.extrasamples]
    colors = int(entry.samplesperpixel) - len(extra)
    if not page.is_color and (colors != 1 or any(one not in (1, 2) for one in extra)):
        raise ReadError(
            f"Expected one sample of gray per pixel, with or without alpha. Received: {int(entry.samplesperpixel)}. "
            "Save each channel as a page.",
            reason="unsupported",
        )


def _check_chunk(page: Page, *, limits: Limits) -> None:
    """Refuse tiles far larger than their page: decoders hold a whole one, whatever is seen of it."""
    size = int(np.prod(page.entry.chunks, dtype=np.int64)) * page.item_bytes
    if size > max(limits.memory // 8, 2 * page.entry.imagelength * page.entry.imagewidth * 4 * page.item_bytes):
        raise ReadError("The tiles of the TIFF page are far larger than the page.", reason="too_large")


def _read_page(data: bytes, page: Page, *, limits: Limits) -> tuple[npt.NDArray[Any], str]:
    """(H, W) or (H, W, 3) stored values of a page, larger is brighter, and the package that decoded them."""
    _check_segments(data, page)
    decoder = _decoder(page)
    if decoder == "pillow":
        values = _by_pillow(data, page, limits=limits)
        is_wide = page.bits == 32 and page.kind == "unsigned"
        return values.view(np.uint32) if is_wide else values, _name(decoder)
    values = _by_tifffile(data, page) if decoder == "tifffile" else _by_opencv(data, page)
    return _turn(values, page), _name(decoder)


def _decoder(page: Page) -> Literal["pillow", "tifffile", "opencv"]:
    """Package that decodes a page, by its kind alone.

    Raises:
        ReadError: reason ``unsupported``.
    """
    entry = page.entry
    is_whole = page.bits in (8, 16, 32, 64) and entry.photometric in (_WHITE_ZERO, _BLACK_ZERO, _RGB)
    is_gray = entry.photometric == _BLACK_ZERO and entry.samplesperpixel == 1
    is_known = entry.compression in _BY_PILLOW and not (entry.parent.is_bigtiff and entry.parent.byteorder == ">")
    if is_known and page.kind == "unsigned" and (page.bits <= 8 or (page.bits in (12, 16) and is_gray)):
        return "pillow"
    if is_whole and entry.predictor in (1, 2) and entry.compression in (_NONE, *_DEFLATE):
        return "tifffile"
    is_interleaved = entry.planarconfig == 1 or entry.samplesperpixel == 1  # OpenCV 5.0.0 leaves planes unwritten
    is_deep = page.bits >= (32 if page.kind == "real" else 16) or (page.bits == 8 and entry.photometric != _WHITE_ZERO)
    if is_whole and is_interleaved and is_deep and entry.compression in (_LZW, _PACKBITS, *_DEFLATE):
        return "opencv"
    if is_known and is_gray and page.bits in (16, 32) and entry.parent.byteorder == "<":
        return "pillow"
    raise _unsupported(page)


def _unsupported(page: Page) -> ReadError:
    kinds = (page.entry.photometric, page.entry.compression)
    color, compression = (str(getattr(kind, "name", kind)) for kind in kinds)
    return ReadError(
        f"A TIFF page of {page.bits} bits ({page.kind}, {color}, compression {compression}) cannot be read. Save it as "
        "gray or RGB of 8 or 16 bits, uncompressed or deflated.",
        reason="unsupported",
    )


def _check_segments(data: bytes, page: Page) -> None:
    """Refuse strips and tiles that lie outside the file: some decoders would leave them black."""
    ends = [start + count for start, count in zip(page.entry.dataoffsets, page.entry.databytecounts, strict=True)]
    if not ends or max(ends) > len(data):
        raise ReadError("The TIFF file ends too early. Copy it again.", reason="truncated")


def _by_pillow(data: bytes, page: Page, *, limits: Limits) -> npt.NDArray[Any]:
    entry, alone = page.entry, _alone(data, page)
    try:
        if entry.compression in _PLAIN:
            return read_picture(alone, kind="tiff")
        most = 4 * int(entry.imagelength) * int(entry.imagewidth) * page.item_bytes
        return decode_picture_isolated(alone, kind="tiff", most=most, limits=limits)
    except ReadError as error:
        raise _unsupported(page) if error.reason == "unsupported" else error from None


def _by_opencv(data: bytes, page: Page) -> npt.NDArray[Any]:
    values = cv2.imdecode(np.frombuffer(_alone(data, page), np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None or values.dtype != np.dtype(f"{_MODES[page.kind]}{page.bits // 8}"):
        raise _unsupported(page)
    if values.ndim == 2:
        return np.asarray(values)
    return np.asarray(values[..., 2::-1] if page.is_color else values[..., 0])


def _by_tifffile(data: bytes, page: Page) -> npt.NDArray[Any]:
    entry = page.entry
    _check_content(data, entry)
    values = np.asarray(entry.asarray(maxworkers=1)).reshape(entry.shaped)[
        :, 0
    ]  # planes of samples, then their samples
    values = values[..., 0] if entry.planarconfig == 2 else values[0].transpose(2, 0, 1)
    return np.moveaxis(values[:3], 0, 2) if page.is_color else values[0]


def _check_content(data: bytes, entry: Any) -> None:
    """Refuse strips and tiles that hold more or less than the page: tifffile would pad, and inflate any size."""
    total, pieces = 0, zip(entry.dataoffsets, entry.databytecounts, strict=True)
    if len(entry.dataoffsets) > int(np.prod(entry.chunked, dtype=np.int64)):
        raise ReadError("The TIFF page lists more strips or tiles than it has.", reason="corrupt")
    largest = int(np.prod(entry.chunks, dtype=np.int64)) * entry.dtype.itemsize
    for start, count in pieces:
        if entry.compression == _NONE:
            total += count
            continue
        engine = zlib.decompressobj()
        length = len(engine.decompress(data[start : start + count], largest + 1))
        if length > largest:
            raise ReadError("A strip of the TIFF file is larger than its header says.", reason="corrupt")
        total += length
    if total < entry.nbytes:
        raise ReadError("The TIFF file ends too early. Copy it again.", reason="truncated")


def _read_planes(data: bytes, page: Page, *, wanted: range) -> list[npt.NDArray[Any]]:
    """Planes that lie one behind the other, uncompressed, where the only page begins."""
    entry = page.entry
    is_simple = entry.compression == _NONE and entry.is_contiguous and entry.planarconfig == 1
    if not (is_simple and page.bits in (8, 16, 32, 64) and entry.photometric in (_WHITE_ZERO, _BLACK_ZERO, _RGB)):
        raise _unsupported(page)
    kind = entry.dtype.newbyteorder(entry.parent.byteorder)
    count = entry.nbytes // kind.itemsize
    result = []
    for number in wanted:
        values = np.frombuffer(data, kind, count=count, offset=entry.dataoffsets[0] + number * entry.nbytes)
        values = values.reshape(entry.imagelength, entry.imagewidth, entry.samplesperpixel)
        result.append(_turn(values[..., :3] if page.is_color else values[..., 0], page))
    return result


def _turn(values: npt.NDArray[Any], page: Page) -> npt.NDArray[Any]:
    if page.entry.photometric != _WHITE_ZERO:
        return values
    return -values if page.kind == "real" else ~values


def _alone(data: bytes, page: Page) -> bytes:
    """The file with this page as its first, upright: Pillow and OpenCV would walk to it, and turn it by its tag."""
    entry, order = page.entry, page.entry.parent.byteorder
    tag = entry.tags.get(_ORIENTATION)
    is_turned = tag is not None and tag.value != 1
    if entry.index == 0 and not is_turned:
        return data
    copy = bytearray(data)
    is_big = entry.parent.is_bigtiff
    struct.pack_into(order + ("Q" if is_big else "I"), copy, 8 if is_big else 4, entry.offset)
    if is_turned:
        struct.pack_into(f"{order}H", copy, tag.valueoffset, 1)
    return bytes(copy)
