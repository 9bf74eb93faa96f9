"""Modality transformation of stored values, and the header's VOI window (PS3.3 C.11.1, C.11.2, C.7.6.16.2.9)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from lepton_vision.errors import ReadError
from lepton_vision.readers.dicom.header import items, number, text, value
from lepton_vision.readers.dicom.layout import PixelLayout
from lepton_vision.readers.dicom.palette import table_bytes
from lepton_vision.readers.limits import raise_read_errors
from lepton_vision.types import Pixels, VoiLut, Window, WindowFunction

_PARTS = ("LUTDescriptor", "LUTData")
_FUNCTIONS: dict[str, WindowFunction] = {"LINEAR_EXACT": "LINEAR_EXACT", "SIGMOID": "SIGMOID"}


@dataclass(frozen=True, slots=True)
class Rescale:
    """Modality value = slope x stored value + intercept; ``kind`` is Rescale Type, or None."""

    slope: float = 1.0
    intercept: float = 0.0
    kind: str | None = None


@dataclass(frozen=True, slots=True)
class LookupTable:
    """A modality or VOI lookup table: stored or modality value ``first`` has entry 0."""

    entries: npt.NDArray[Any]
    first: int
    bits: int


def functional_groups(dataset: Dataset, *, frame: int) -> Iterator[Dataset]:
    """Per-frame groups of one frame, then the shared ones: the first that holds a macro wins (PS3.3 C.7.6.16)."""
    yield from items(dataset, "PerFrameFunctionalGroupsSequence")[frame : frame + 1]
    yield from items(dataset, "SharedFunctionalGroupsSequence")[:1]


def macro(dataset: Dataset, keyword: str, *, frame: int) -> Dataset | None:
    """Item of a functional group macro for one frame, or None."""
    for group in functional_groups(dataset, frame=frame):
        found = items(group, keyword)
        if found:
            return found[0]
    return None


def modality_values(
    stored: npt.NDArray[Any], dataset: Dataset, *, layout: PixelLayout, wanted: range
) -> tuple[Pixels, tuple[float, float], str | None]:
    """Apply the modality transformation to gray frames.

    Args:
        stored: (F, H, W) stored values of the frames ``wanted``; not used afterwards.
        dataset: the header.
        layout: image pixel module.
        wanted: numbers of the frames in ``stored``.

    Returns:
        (F, H, W) float32, the smallest and largest value that the file could hold (of float pixel data: that it
        does hold), and Rescale Type or None.

    Raises:
        ReadError: reason ``corrupt`` or ``non_finite``.
    """
    if layout.is_float and not np.isfinite(stored).all():
        raise ReadError("The image holds NaN or infinite pixels. Remove or replace them.", reason="non_finite")
    tables = _tables(dataset, "ModalityLUTSequence")
    if tables:
        table = read_table(tables[0], is_signed=layout.is_signed)
        index = np.clip(stored.astype(np.int64) - table.first, 0, len(table.entries) - 1)
        entries = table.entries.astype(np.float32)
        return entries[index], (float(entries.min()), float(entries.max())), text(tables[0], "ModalityLUTType")
    rescales = [_rescale(dataset, frame=frame) for frame in wanted]
    pixels = np.empty(stored.shape, dtype=np.float32)
    for place, rescale in enumerate(rescales):
        _apply_rescale(stored[place], rescale, result=pixels[place])
    if layout.is_float:
        value_range = (float(pixels.min()), float(pixels.max()))
    else:
        value_range = _value_range(layout, set(rescales), dtype=stored.dtype)
    if not np.isfinite(np.asarray(value_range, dtype=np.float32)).all():
        raise ReadError("The rescaled pixels do not fit 32-bit floats.", reason="non_finite")
    return pixels, value_range, rescales[0].kind


def _value_range(layout: PixelLayout, rescales: set[Rescale], *, dtype: np.dtype[Any]) -> tuple[float, float]:
    """Smallest and largest value, rounded as the pixels are: no pixel is outside."""
    ends = np.empty((len(rescales), 2), dtype=np.float32)
    for place, rescale in enumerate(rescales):
        _apply_rescale(np.array(layout.stored_range, dtype=dtype), rescale, result=ends[place])
    return float(ends.min()), float(ends.max())


def _apply_rescale(stored: npt.NDArray[Any], rescale: Rescale, *, result: Pixels) -> None:
    if stored.dtype.itemsize > 2:  # 32-bit values lose digits as float32: round once, at the end
        np.copyto(result, stored.astype(np.float64) * rescale.slope + rescale.intercept, casting="same_kind")
        return
    np.copyto(result, stored, casting="unsafe")
    if rescale.slope != 1.0:
        np.multiply(result, np.float32(rescale.slope), out=result)
    if rescale.intercept:
        np.add(result, np.float32(rescale.intercept), out=result)


def _rescale(dataset: Dataset, *, frame: int) -> Rescale:
    """Rescale of one frame: of its functional groups (enhanced objects), else of the data set."""
    source = macro(dataset, "PixelValueTransformationSequence", frame=frame) or dataset
    slope = _strict_number(source, "RescaleSlope", default=1.0)
    if slope == 0.0:
        raise ReadError("Rescale Slope is 0: all pixels would be equal. Correct the header.", reason="corrupt")
    return Rescale(slope, _strict_number(source, "RescaleIntercept", default=0.0), text(source, "RescaleType"))


def _strict_number(dataset: Dataset, keyword: str, *, default: float) -> float:
    """A rescale that is there but cannot be read must not silently become none."""
    if keyword not in dataset:
        return default
    found = number(dataset, keyword)
    if found is None:
        with raise_read_errors(f"{keyword} is not a number", reason="corrupt"):
            if dataset[keyword].is_empty or not str(dataset[keyword].value).strip():
                return default
        raise ReadError(f"{keyword} is not a finite number. Correct the header.", reason="corrupt")
    return found


def _tables(dataset: Dataset, keyword: str) -> list[Dataset]:
    """Items of a sequence of lookup tables, without those that hold no part of one: writers leave empty items."""
    return [item for item in items(dataset, keyword) if any(_is_filled(item, part) for part in _PARTS)]


def _is_filled(item: Dataset, keyword: str) -> bool:
    """Whether an element is there with a value, of whatever kind."""
    return keyword in item and not item[keyword].is_empty


def read_table(item: Dataset, *, is_signed: bool) -> LookupTable:
    """Parse LUT Descriptor and LUT Data (PS3.3 C.11.1.1.1).

    Raises:
        ReadError: reason ``corrupt``.
    """
    with raise_read_errors("The lookup table of the header cannot be read", reason="corrupt"):
        count, first, bits = (int(part) for part in item["LUTDescriptor"].value)
        count = count % 65536 or 65536
        data = table_bytes(item, "LUTData")
        width = 1 if len(data) in (count, count + 1) and bits <= 8 else 2
        entries = np.frombuffer(data[: len(data) // width * width], dtype=f"<u{width}")[:count]
        if len(entries) < count or not 1 <= bits <= 16:
            raise ReadError(f"Expected {count} entries in a lookup table. Received: {len(entries)}.", reason="corrupt")
    # The descriptor's second value has the sign of the pixels, whatever VR the writer gave it.
    if is_signed and first > 32767:
        first -= 65536
    return LookupTable(entries, first, bits)


def read_window(dataset: Dataset, *, frame: int, smallest: float) -> Window | VoiLut | None:
    """First VOI of the header: the lookup table where there is one, else the first window that is valid.

    Args:
        dataset: the header.
        frame: number of the frame whose functional groups count.
        smallest: smallest modality value; below zero, table positions are signed.
    """
    source = macro(dataset, "FrameVOILUTSequence", frame=frame) or dataset
    tables = _tables(source, "VOILUTSequence") or _tables(dataset, "VOILUTSequence")
    if tables:
        table = read_table(tables[0], is_signed=smallest < 0)
        values = table.entries.astype(np.float32) / np.float32((1 << table.bits) - 1)
        return VoiLut(np.minimum(values, np.float32(1.0)), float(table.first))
    center, width = number(source, "WindowCenter"), number(source, "WindowWidth")
    if center is None or width is None:
        return None
    function = _FUNCTIONS.get(str(value(source, "VOILUTFunction")), "LINEAR")
    try:
        return Window(center, width, function)
    except ValueError:  # width 0 and the like: the header names no usable window
        return None
