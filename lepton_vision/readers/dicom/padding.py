"""Padding pixels without tissue, as declared by the header: part of the doorway to pydicom."""

from __future__ import annotations

from typing import BinaryIO

import numpy as np

from lepton_vision.readers.dicom.header import number, open_dicom
from lepton_vision.readers.dicom.layout import read_layout
from lepton_vision.readers.dicom.lut import modality_values
from lepton_vision.readers.limits import Limits, raise_read_errors
from lepton_vision.types import Image, Pixels

_LOWEST_HU = -1024.0  # air has -1000: scanners mark what lies outside of the field of view with less, often undeclared


def mark_padding(image: Image, stream: BinaryIO, *, head: bytes, limits: Limits) -> tuple[Pixels, float | None]:
    """Make padding NaN: Pixel Padding Value and Range Limit (PS3.3 C.7.5.1.1.2), and what lies below any air in HU.

    Args:
        image: what was read from the file, (C, H, W) or (C, D, H, W).
        stream: the file, at its start.
        head: its first bytes.
        limits: caps.

    Returns:
        The pixels, in their own memory, and the value that stands for padding, in their unit; None where none is
        declared.
    """
    pixels, value = image.pixels, None
    with raise_read_errors("Cannot parse the DICOM header", reason="corrupt"):
        found = _range(stream, head=head, limits=limits)
    is_padding = np.zeros(pixels.shape, np.bool_)
    for frame, (first, last) in enumerate(found):
        part = (slice(None), frame) if image.is_volume else (slice(None),)
        is_padding[part] = (pixels[part] >= min(first, last)) & (pixels[part] <= max(first, last))
        value = first if value is None else value
    if image.units == "HU":
        is_padding |= pixels < _LOWEST_HU
    return np.where(is_padding, np.float32(np.nan), pixels), value


def _range(stream: BinaryIO, *, head: bytes, limits: Limits) -> list[tuple[float, float]]:
    """Padding value and range limit of each frame, as ``read_dicom`` gives pixels; empty where none is declared."""
    file = open_dicom(stream, head=head, limits=limits)
    declared = number(file.dataset, "PixelPaddingValue")
    if declared is None:
        return []
    layout = read_layout(file)
    limit = number(file.dataset, "PixelPaddingRangeLimit")
    ends = np.array([declared, declared if limit is None else limit])
    if layout.is_signed:  # some write the bits of a negative value as a positive one
        ends = np.where(ends > layout.stored_range[1], ends - 2.0**layout.bits_allocated, ends)
    stored = np.broadcast_to(ends, (layout.frames, 1, 2)).copy()
    values, (low, high), kind = modality_values(stored, file.dataset, layout=layout, wanted=range(layout.frames))
    if layout.photometric == "MONOCHROME1" and kind != "HU":
        values = np.float32(low + high) - values
    return [(float(one[0, 0]), float(one[0, 1])) for one in values]
