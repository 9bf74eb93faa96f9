"""Transforms from image to tensor: deterministic preprocessing, random augmentation, loaders."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lepton_vision._lazy import resolver

if TYPE_CHECKING:
    from lepton_vision.transforms.dataset import make_loader as make_loader

_HOMES = {
    "make_loader": "dataset",
}
__all__ = sorted(_HOMES)
__getattr__ = resolver(__name__, _HOMES)
