"""The arithmetic of each random change, on one plane: what ``augment`` draws with albumentations is applied here.

Every function but ``add_noise`` gives what albumentations 2.0.8 gives for the same drawn values (tested for each of
them), in a third of the time: an image in training needs neither its checks, nor keys for masks, boxes and key points,
nor fresh memory for each step, which costs more than most of the steps themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np

from lepton_vision.readers.mask import LabelMap
from lepton_vision.types import Pixels

# All take a plane (H, W) float32 in [0, 1], which they leave as it is, the drawn values by albumentations' names, and
# another contiguous array of the same kind, where the result goes. They return that array, or the plane itself where
# nothing changes.


def mirror(plane: Pixels, _: Mapping[str, Any], out: Pixels) -> Pixels:
    """Left to right."""
    cv2.flip(plane, 1, dst=out)
    return out


def turn_over(plane: Pixels, _: Mapping[str, Any], out: Pixels) -> Pixels:
    """Upside down."""
    cv2.flip(plane, 0, dst=out)
    return out


def warp(plane: Pixels, drawn: Mapping[str, Any], out: Pixels) -> Pixels:
    """Move by ``matrix`` (3, 3), linearly interpolated; what comes in from outside is black."""
    matrix = drawn["matrix"]
    # The shift is compared first: it tells nearly every other matrix from the identity, for a tenth of the time.
    if abs(matrix[0, 2]) < 1e-6 and np.allclose(matrix, np.eye(3)):
        return plane
    cv2.warpAffine(
        plane,
        matrix[:2],
        plane.shape[::-1],
        dst=out,
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=0.0,
    )
    return out


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


def blur(plane: Pixels, drawn: Mapping[str, Any], out: Pixels) -> Pixels:
    """Convolve with ``kernel`` (K,) along both axes."""
    cv2.sepFilter2D(plane, -1, drawn["kernel"], drawn["kernel"], dst=out)
    return np.clip(out, 0.0, 1.0, out=out)


def punch(plane: Pixels, drawn: Mapping[str, Any], out: Pixels) -> Pixels:
    """Black out ``holes``: left, top, right and bottom of each."""
    np.copyto(out, plane)
    for left, top, right, bottom in drawn["holes"]:
        out[top:bottom, left:right] = 0.0
    return out


def stretch(plane: Pixels, drawn: Mapping[str, Any], out: Pixels) -> Pixels:
    """``alpha`` times the value plus ``beta``, clipped to [0, 1]."""
    cv2.addWeighted(plane, float(drawn["alpha"]), plane, 0.0, float(drawn["beta"]), dst=out)
    return np.clip(out, 0.0, 1.0, out=out)


def bend(plane: Pixels, drawn: Mapping[str, Any], out: Pixels) -> Pixels:
    """Raise to the power ``gamma``."""
    np.power(plane, drawn["gamma"], out=out)
    return out


def add_noise(plane: Pixels, drawn: Mapping[str, Any], out: Pixels) -> Pixels:
    """Add ``scale`` times ``noise`` (H, W) float32, clipped to [0, 1]."""
    cv2.scaleAdd(drawn["noise"], drawn["scale"], plane, dst=out)
    return np.clip(out, 0.0, 1.0, out=out)
