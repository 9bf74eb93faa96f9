"""The arithmetic of each random change, on one plane: what ``augment`` draws with albumentations is applied here.

Every function but ``add_noise`` gives, bit for bit, what albumentations 2.0.8 gives for the same drawn values (tested
for each of them), in half of the time: an image in training needs neither its checks, nor keys for masks, boxes and key
points, nor a fresh float64 array for a constant. Noise is float32 from a table, see ``augment``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np

from lepton_vision.readers.mask import LabelMap
from lepton_vision.types import Pixels

# All take a plane (H, W) float32 in [0, 1], which they leave as it is, and the drawn values by albumentations' names;
# all return (H, W) float32.


def mirror(plane: Pixels, _: Mapping[str, Any]) -> Pixels:
    """Left to right."""
    return np.asarray(cv2.flip(plane, 1), np.float32)


def turn_over(plane: Pixels, _: Mapping[str, Any]) -> Pixels:
    """Upside down."""
    return np.asarray(cv2.flip(plane, 0), np.float32)


def warp(plane: Pixels, drawn: Mapping[str, Any]) -> Pixels:
    """Move by ``matrix`` (3, 3), linearly interpolated; what comes in from outside is black."""
    matrix = drawn["matrix"]
    # The shift is compared first: it tells nearly every other matrix from the identity, for a tenth of the time.
    if abs(matrix[0, 2]) < 1e-6 and np.allclose(matrix, np.eye(3)):
        return plane
    moved = cv2.warpAffine(
        plane,
        matrix[:2],
        plane.shape[::-1],
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=0.0,
    )
    return np.asarray(moved, np.float32)


def mirror_mask(mask: LabelMap, _: Mapping[str, Any]) -> LabelMap:
    """Left to right, (H, W) uint8."""
    return np.asarray(cv2.flip(mask, 1), np.uint8)


def turn_over_mask(mask: LabelMap, _: Mapping[str, Any]) -> LabelMap:
    """Upside down, (H, W) uint8."""
    return np.asarray(cv2.flip(mask, 0), np.uint8)


def warp_mask(mask: LabelMap, drawn: Mapping[str, Any]) -> LabelMap:
    """Move by the ``matrix`` of the image, (H, W) uint8: labels are not interpolated, outside is background."""
    moved = cv2.warpAffine(
        mask,
        drawn["matrix"][:2],
        mask.shape[::-1],
        flags=cv2.INTER_NEAREST,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=0.0,
    )
    return np.asarray(moved, np.uint8)


def blur(plane: Pixels, drawn: Mapping[str, Any]) -> Pixels:
    """Convolve with ``kernel`` (K,) along both axes."""
    smooth = np.asarray(cv2.sepFilter2D(plane, -1, drawn["kernel"], drawn["kernel"]), np.float32)
    return np.clip(smooth, 0.0, 1.0, out=smooth)


def punch(plane: Pixels, drawn: Mapping[str, Any]) -> Pixels:
    """Black out ``holes`` (N, 4): left, top, right, bottom."""
    pierced = plane.copy()
    for left, top, right, bottom in drawn["holes"].tolist():
        pierced[top:bottom, left:right] = 0.0
    return pierced


def stretch(plane: Pixels, drawn: Mapping[str, Any]) -> Pixels:
    """``alpha`` times the value plus ``beta``, rounded once, clipped to [0, 1]."""
    exact = plane.astype(np.float64)
    exact *= float(np.float32(drawn["alpha"]))
    exact += drawn["beta"]
    result = exact.astype(np.float32)
    return np.clip(result, 0.0, 1.0, out=result)


def bend(plane: Pixels, drawn: Mapping[str, Any]) -> Pixels:
    """Raise to the power ``gamma``."""
    bent: Pixels = np.power(plane, drawn["gamma"])
    return bent


def add_noise(plane: Pixels, drawn: Mapping[str, Any]) -> Pixels:
    """Add ``scale`` times ``noise`` (H, W) float32, clipped to [0, 1]."""
    noisy = np.asarray(cv2.scaleAdd(drawn["noise"], drawn["scale"], plane), np.float32)
    return np.clip(noisy, 0.0, 1.0, out=noisy)
