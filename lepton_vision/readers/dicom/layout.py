"""Pixel layout of a DICOM file: the image pixel module (PS3.3 C.7.6.3), checked."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from lepton_vision.errors import ReadError
from lepton_vision.readers.dicom.header import DicomFile, number, text
from lepton_vision.readers.dicom.kinds import is_document

_GRAY = frozenset({"MONOCHROME1", "MONOCHROME2", "PALETTE COLOR"})
_COLOR = frozenset({"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT"})
_FLOAT_BITS = {"FloatPixelData": 32, "DoubleFloatPixelData": 64}


@dataclass(frozen=True, slots=True)
class PixelLayout:
    """Image pixel module of one file; sizes in pixels, ``keyword`` names the element that holds the pixels."""

    rows: int
    columns: int
    frames: int
    samples: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    is_signed: bool
    is_planar: bool
    photometric: str
    keyword: str = "PixelData"

    @property
    def is_float(self) -> bool:
        """Whether the stored values are real numbers."""
        return self.keyword != "PixelData"

    @property
    def dtype(self) -> np.dtype[Any]:
        """Little-endian type of one stored value, unpacked."""
        kind = "f" if self.is_float else "i" if self.is_signed else "u"
        return np.dtype(f"<{kind}{-(-self.bits_allocated // 8)}")

    @property
    def stored_range(self) -> tuple[int, int]:
        """Smallest and largest stored integer."""
        if self.is_signed:
            return -(1 << (self.bits_stored - 1)), (1 << (self.bits_stored - 1)) - 1
        return 0, (1 << self.bits_stored) - 1

    def holding(self, values: npt.NDArray[Any]) -> PixelLayout:
        """The layout whose range holds the values of decoders, which may use more bits than the header says."""
        low, high = self.stored_range
        if self.is_float or not values.size or (low <= values.min() and values.max() <= high):
            return self
        return replace(self, bits_stored=self.bits_allocated, high_bit=self.bits_allocated - 1)

    def mask(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Keep the stored bits, in place, and extend the sign; overlays may lie in the others."""
        if self.is_float or self.bits_allocated < 8:
            return values
        width = values.dtype.itemsize * 8
        unused = width - self.high_bit - 1
        if unused > 0:
            np.left_shift(values, unused, out=values)
        if width > self.bits_stored:
            np.right_shift(values, width - self.bits_stored, out=values)
        return values

    def options(self) -> dict[str, Any]:
        """The same as pydicom's decoders want it, for a single frame."""
        return {
            "rows": self.rows,
            "columns": self.columns,
            "number_of_frames": 1,
            "samples_per_pixel": self.samples,
            "bits_allocated": self.bits_allocated,
            "bits_stored": self.bits_stored,
            "pixel_representation": int(self.is_signed),
            "photometric_interpretation": self.photometric,
            # Meaningless for a codestream (PS3.5 8.2); of decoders that give planes, pydicom's plugins know it.
            "planar_configuration": 0,
            "pixel_keyword": self.keyword,
        }


def read_layout(file: DicomFile) -> PixelLayout:
    """Read and check the image pixel module.

    Raises:
        ReadError: reason ``no_pixels`` of what holds none by its class, ``truncated`` of an image without them,
            ``corrupt`` or ``unsupported``.
    """
    dataset = file.dataset
    rows, columns = number(dataset, "Rows"), number(dataset, "Columns")
    if file.pixels is None and is_document(dataset):
        raise ReadError("The DICOM object is of a kind that holds no pixels.", reason="no_pixels")
    if file.pixels is None:
        raise ReadError(
            "Expected the pixel data of an image, which the header promises. Received: a file that ends before them, "
            "or one they were taken out of. Export it again.",
            reason="truncated",
        )
    if not rows or not columns:
        raise ReadError("Expected Rows and Columns above 0 beside pixel data. Received: none.", reason="corrupt")
    keyword = file.pixels.keyword
    samples = _integer(dataset, "SamplesPerPixel", default=1)
    bits_allocated = _FLOAT_BITS.get(keyword) or _integer(dataset, "BitsAllocated", default=0)
    bits_stored = bits_allocated
    if keyword == "PixelData":
        bits_stored = _integer(dataset, "BitsStored", default=0) or bits_allocated
    high_bit = _integer(dataset, "HighBit", default=bits_stored - 1)
    # A high bit that leaves no room for the stored bits is a slip of the writer; pydicom does not look at it either.
    if not bits_stored - 1 <= high_bit < bits_allocated:
        high_bit = bits_stored - 1
    layout = PixelLayout(
        rows=int(rows),
        columns=int(columns),
        frames=max(1, _integer(dataset, "NumberOfFrames", default=1)),
        samples=samples,
        bits_allocated=bits_allocated,
        bits_stored=bits_stored,
        high_bit=high_bit,
        is_signed=_integer(dataset, "PixelRepresentation", default=0) == 1,
        is_planar=samples > 1 and _integer(dataset, "PlanarConfiguration", default=0) == 1,
        photometric=text(dataset, "PhotometricInterpretation") or ("MONOCHROME2" if samples == 1 else "RGB"),
        keyword=keyword,
    )
    _check(layout)
    return layout


def _integer(dataset: Any, keyword: str, *, default: int) -> int:
    found = number(dataset, keyword)
    return default if found is None else int(found)


def _check(layout: PixelLayout) -> None:
    if layout.bits_allocated not in (1, 8, 12, 16, 32, 64) or (layout.is_planar and layout.bits_allocated % 8):
        raise ReadError(
            f"Expected 1, 8, 12, 16, 32 or 64 bits allocated. Received: {layout.bits_allocated}.", reason="unsupported"
        )
    if not 1 <= layout.bits_stored <= layout.bits_allocated:
        raise ReadError(
            f"Bits Stored must be 1 to Bits Allocated ({layout.bits_allocated}). Received: {layout.bits_stored}.",
            reason="corrupt",
        )
    is_byte = (layout.bits_allocated, layout.bits_stored, layout.is_signed) == (8, 8, False)
    if (layout.photometric.startswith("YBR_FULL") and not is_byte) or (
        layout.samples > 1 and layout.bits_allocated % 8
    ):
        raise ReadError(
            "Expected color in whole bytes, and YBR_FULL in 8 unsigned bits. Received: "
            f"{layout.photometric if layout.photometric in _COLOR else 'color'} in {layout.bits_stored} of "
            f"{layout.bits_allocated} bits.",
            reason="unsupported",
        )
    known = _GRAY if layout.samples == 1 else _COLOR
    if layout.samples not in (1, 3) or layout.photometric not in known:
        is_standard = layout.photometric in _GRAY | _COLOR
        name = layout.photometric if is_standard else "another photometric interpretation"
        raise ReadError(
            f"Expected a gray, palette, RGB or YBR image. Received: {name} with {layout.samples} sample(s) per pixel.",
            reason="corrupt" if is_standard and layout.samples in (1, 3) else "unsupported",
        )
