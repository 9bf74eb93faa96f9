"""Files in, Image out: DICOM, NIfTI, PNG, JPEG, TIFF and npz, decided by content."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lepton_vision._lazy import resolver

if TYPE_CHECKING:
    from lepton_vision.readers.image import read_image as read_image

_HOMES = {"read_image": "image"}
__all__ = sorted(_HOMES)
__getattr__ = resolver(__name__, _HOMES)
