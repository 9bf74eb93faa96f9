"""Transforms from image to tensor: deterministic preprocessing, random augmentation, loaders."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lepton_vision._lazy import resolver

if TYPE_CHECKING:
    from lepton_vision.transforms.loader import make_loader as make_loader

__getattr__ = resolver(__name__, __file__)
