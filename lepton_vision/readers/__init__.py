"""Image readers for DICOM, NIfTI, PNG, JPEG, TIFF and npz; the format is recognised by content."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lepton_vision._lazy import resolver

if TYPE_CHECKING:
    from lepton_vision.readers.image import read_image as read_image
    from lepton_vision.readers.orient import reorient as reorient
    from lepton_vision.readers.series import read_series as read_series

__getattr__ = resolver(__name__, __file__)
