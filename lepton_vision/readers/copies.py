"""Comparison of two files of one DICOM instance by their pixels."""

from __future__ import annotations

import filecmp
from pathlib import Path

import numpy as np

from lepton_vision.errors import ReadError
from lepton_vision.readers.content import open_content
from lepton_vision.readers.dicom.file import read_dicom_pixels
from lepton_vision.readers.limits import Limits
from lepton_vision.types import Image


def is_copy(first: Path, second: Path, *, limits: Limits) -> bool:
    """Whether two files are the same bytes, or have the same values in the same unit (another transfer syntax, say).

    A file that cannot be decoded is no copy.
    """
    if first == second:
        return False
    if filecmp.cmp(first, second, shallow=False):
        return True
    try:
        one, other = (_read(path, limits=limits) for path in (first, second))
    except ReadError:  # whoever reads the slices learns the reason
        return False
    return one.units == other.units and np.array_equal(one.pixels, other.pixels)


def _read(path: Path, *, limits: Limits) -> Image:
    with open_content(path, what="Cannot read the file") as content:
        return read_dicom_pixels(content.stream, head=content.head, frame=None, limits=limits)
