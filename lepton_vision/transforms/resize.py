"""Resizing of planes: area average or linear, fitted into the size of the network's input; no torch."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from lepton_vision.types import Pixels

LEVELS = 65535
"""uint16 value of white."""

UInt16Pixels = npt.NDArray[np.uint16]


def place_plane(plane: Pixels, *, out: UInt16Pixels, fit: str) -> None:
    """Resize one display plane into ``out`` (black where padding leaves room)."""
    seen, shown, _ = fit_boxes(plane.shape, out.shape, fit=fit)
    scaled = resize_plane(plane[seen], size=out[shown].shape) * np.float32(LEVELS)
    scaled += np.float32(0.5)  # truncation on assignment then rounds to nearest
    out[shown] = scaled


Box = tuple[slice, slice]


class Fit(NamedTuple):
    """Place of a plane in the network's input.

    Attributes:
        seen: part of the plane that is seen.
        shown: where that lies in the input.
        size: H and W of the input.
    """

    seen: Box
    shown: Box
    size: tuple[int, int]


def fit_boxes(source: tuple[int, ...], target: tuple[int, ...], *, fit: str) -> Fit:
    """Return which part of an image is seen, and where it lies in the network's input.

    Args:
        source: H and W of the image.
        target: H and W of the input.
        fit: "pad", "stretch" or "crop", see ``PreprocessConfig.fit``.

    Example:
        >>> fit_boxes((40, 20), (8, 8), fit="pad").shown
        (slice(0, 8, None), slice(2, 6, None))
    """
    (height, width), (rows, columns) = source, target
    seen, shown = (height, width), (rows, columns)
    if fit == "pad":
        scale = min(rows / height, columns / width)
        shown = (min(rows, max(1, round(height * scale))), min(columns, max(1, round(width * scale))))
    if fit == "crop":  # the longer side is cut so that width / height is that of the input
        aspect = columns / rows
        seen = (min(height, max(1, round(width / aspect))), min(width, max(1, round(height * aspect))))
    return Fit(_middle(source, seen), _middle(target, shown), (rows, columns))


def _middle(whole: tuple[int, ...], part: tuple[int, int]) -> Box:
    top, left = (whole[0] - part[0]) // 2, (whole[1] - part[1]) // 2
    return slice(top, top + part[0]), slice(left, left + part[1])


def fit_mask(labels: npt.NDArray[np.uint8], fit: Fit) -> npt.NDArray[np.uint8]:
    """Fit and resize a mask as ``place_plane`` does its image: a pixel is what covers most of it.

    Where padding leaves room there is background, as the image is black there.

    Args:
        labels: (H, W) uint8 numbers of structures.
        fit: from ``fit_boxes``.

    Returns:
        (height, width) uint8.

    Example:
        >>> fit_mask(np.array([[1, 1, 0, 0], [1, 0, 0, 0]], np.uint8), fit_boxes((2, 4), (1, 2), fit="pad"))
        array([[1, 0]], dtype=uint8)
    """
    out = np.zeros(fit.size, np.uint8)
    part, size = labels[fit.seen], out[fit.shown].shape
    values = np.unique(part)
    if len(values) == 1:
        out[fit.shown] = values[0]
    else:
        shares = np.stack([resize_plane((part == value).astype(np.float32), size=size) for value in values])
        out[fit.shown] = values[shares.argmax(axis=0)]
    return out


def resize_plane(plane: Pixels, *, size: tuple[int, int]) -> Pixels:
    """Area average where an axis shrinks (no aliasing), linear where it grows; never beyond the input's range.

    One sparse product for each axis: 3.5 times as fast as ``cv2.resize(..., INTER_AREA)`` on 512 to 224 pixels, and
    right where one axis shrinks and the other grows, where OpenCV stops averaging.
    """
    if plane.shape[0] != size[0]:
        plane = _weights(plane.shape[0], size[0]) @ plane
    if plane.shape[1] != size[1]:
        turned: Any = _weights(plane.shape[1], size[1]) @ cv2.transpose(np.ascontiguousarray(plane))
        plane = cv2.transpose(turned).reshape(size)
    return plane


@functools.lru_cache(maxsize=512)
def _weights(source: int, target: int) -> Any:
    """(target, source) sparse float32: what each input pixel adds to each output pixel along one axis."""
    from scipy.sparse import csr_array  # an exported model is described without it

    step = source / target
    if step > 1:  # output i covers the input from i * step to (i + 1) * step, the outer pixels in part
        low = np.arange(target)[:, None] * step
        columns = np.floor(low).astype(np.int64) + np.arange(int(np.ceil(step)) + 1)
        values = np.minimum(columns + 1, low + step) - np.maximum(columns, low)
        values = np.where(columns < source, values.clip(min=0), 0)
    else:  # between the centers of the two nearest input pixels; the outermost ones go on beyond their centers
        center = ((np.arange(target) + 0.5) * step - 0.5).clip(0, source - 1)[:, None]
        columns = np.floor(center).astype(np.int64) + np.arange(2)
        values = 1 - abs(columns - center)
    values = (values / values.sum(axis=1, keepdims=True)).astype(np.float32)
    ends = np.arange(0, values.size + 1, values.shape[1])
    columns = columns.clip(max=source - 1).astype(np.int32)
    return csr_array((values.ravel(), columns.ravel(), ends.astype(np.int32)), shape=(target, source))
