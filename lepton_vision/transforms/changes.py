"""Pixel operations of the augmentations on one plane, with the values that ``augment`` draws by albumentations.

Every function but ``add_noise`` gives what albumentations 2.0.8 gives for the same drawn values (tested for each of
them), in a third of the time: an image in training needs neither its checks, nor keys for masks, boxes and key points,
nor fresh memory for each step, which costs more than most of the steps themselves.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from lepton_vision.readers.mask import LabelMap
from lepton_vision.types import Pixels


@dataclass(frozen=True, slots=True)
class Levels:
    """Values of a plane that stand for 0 and 1: an image stays in the units of the cache, as long as it can.

    Bringing it to [0, 1] first, and giving it more contrast or brightness, would take a pass over the image each; the
    multiplication at the end, which normalises, does all of it.
    """

    black: float = 0.0
    white: float = 1.0

    @property
    def span(self) -> float:
        """Distance from the value of 0 to the value of 1."""
        return self.white - self.black

    def stretched(self, drawn: Mapping[str, Any]) -> Levels:
        """Levels that ``alpha`` times the value plus ``beta`` brings to 0 and 1."""
        alpha, beta = drawn["alpha"], drawn["beta"]
        return Levels(self.black - beta / alpha * self.span, self.black + (1.0 - beta) / alpha * self.span)


UNIT = Levels()

# All take a plane (H, W) float32 between its levels, the drawn values by albumentations' names, a contiguous array of
# the same kind, where the result goes (``stretch``, ``apply_gamma`` and ``add_noise`` may be given the plane itself),
# and the levels. They return that array, or the plane where nothing changes. Black is 0 for all but these three.


def mirror(plane: Pixels, _: Mapping[str, Any], out: Pixels, _levels: Levels = UNIT) -> Pixels:
    """Left to right."""
    cv2.flip(plane, 1, dst=out)
    return out


def flip_vertical(plane: Pixels, _: Mapping[str, Any], out: Pixels, _levels: Levels = UNIT) -> Pixels:
    """Upside down."""
    cv2.flip(plane, 0, dst=out)
    return out


def warp(plane: Pixels, drawn: Mapping[str, Any], out: Pixels, _levels: Levels = UNIT) -> Pixels:
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


def flip_vertical_mask(mask: LabelMap, _: Mapping[str, Any]) -> LabelMap:
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


def blur(plane: Pixels, drawn: Mapping[str, Any], out: Pixels, _levels: Levels = UNIT) -> Pixels:
    """Convolve with ``kernel`` (K,) along both axes."""
    cv2.sepFilter2D(plane, -1, drawn["kernel"], drawn["kernel"], dst=out)
    return out


def cut_holes(plane: Pixels, drawn: Mapping[str, Any], out: Pixels, _levels: Levels = UNIT) -> Pixels:
    """Black out ``holes``: left, top, right and bottom of each."""
    np.copyto(out, plane)
    for left, top, right, bottom in drawn["holes"]:
        out[top:bottom, left:right] = 0.0
    return out


def stretch(plane: Pixels, _: Mapping[str, Any], out: Pixels, levels: Levels = UNIT) -> Pixels:
    """Clip to levels that are ``stretched`` already, which is all that is left to do."""
    return plane.clip(levels.black, levels.white, out=out)


def apply_gamma(plane: Pixels, drawn: Mapping[str, Any], out: Pixels, levels: Levels = UNIT) -> Pixels:
    """Raise to the power ``gamma``, by way of the logarithm: ``np.power`` takes more than twice as long."""
    gamma = drawn["gamma"]
    np.subtract(plane, levels.black, out=out)
    with np.errstate(divide="ignore"):  # the logarithm of black is minus infinity, which becomes black again
        np.log(out, out=out)
    np.multiply(out, gamma, out=out)
    np.add(out, (1.0 - gamma) * math.log(levels.span), out=out)
    np.exp(out, out=out)
    return np.add(out, levels.black, out=out)


def add_noise(plane: Pixels, drawn: Mapping[str, Any], out: Pixels, levels: Levels = UNIT) -> Pixels:
    """Add ``scale`` times ``noise`` (H, W) float32, clipped."""
    cv2.scaleAdd(drawn["noise"], drawn["scale"] * levels.span, plane, dst=out)
    return out.clip(levels.black, levels.white, out=out)
