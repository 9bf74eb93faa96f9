"""Patches of a preprocessed volume: their positions, and their extraction by cutting or warping."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.nn import functional

from lepton_vision.readers.mask import LabelMap
from lepton_vision.transforms.preprocess import Points, StoredMask
from lepton_vision.transforms.resize import LEVELS, UInt16Pixels
from lepton_vision.types import UNKNOWN, FloatArray, Pixels

Shape = tuple[int, int, int]
_KEPT_POINTS = 2000  # voxels kept for each structure, to centre patches on


def find_points(mask: StoredMask, *, structures: int) -> Points:
    """Pick voxels of each structure that patches may be centred on: all of them, or 2000 spread evenly.

    Args:
        mask: (D, H, W) labels.
        structures: M.

    Returns:
        (N, 4) int32: structure (from 1), d, h, w.
    """
    parts = []
    for value in range(1, structures + 1):
        places = np.flatnonzero(mask == value)
        if len(places) > _KEPT_POINTS:
            places = places[np.linspace(0, len(places) - 1, _KEPT_POINTS).round().astype(np.int64)]
        rows = np.stack(np.unravel_index(places, mask.shape), axis=1)
        parts.append(np.column_stack((np.full(len(rows), value), rows)))
    return np.concatenate(parts).astype(np.int32) if parts else np.zeros((0, 4), np.int32)


def choose_center(
    size: Shape, patch: Shape, *, points: Points, foreground: float, rng: np.random.Generator
) -> FloatArray:
    """Draw the middle of a patch: on a voxel of a structure (each structure as often), or anywhere.

    The patch stays inside the volume along every axis that is longer than it, and is centred along the others.

    Args:
        size: of the volume.
        patch: of the patch.
        points: from ``find_points``.
        foreground: share of the patches on a structure, where there is one.
        rng: decides.

    Returns:
        (3,) float64 middle in voxels: voxel 0 has its middle at 0.
    """
    places, span = rng.random(3), np.maximum(np.asarray(size) - np.asarray(patch), 0)
    start = np.minimum(np.floor(places * (span + 1)), span)
    is_on_structure, structure, number = rng.random(3)
    if len(points) and is_on_structure < foreground:
        present = np.unique(points[:, 0])
        voxels = points[points[:, 0] == present[int(structure * len(present))], 1:]
        start = np.clip(voxels[int(number * len(voxels))] - np.asarray(patch) // 2, 0, span)
    middle: FloatArray = start + np.minimum(size, patch) / 2.0 - 0.5
    return middle


def cut_patch(
    pixels: UInt16Pixels, mask: StoredMask | None, *, middle: FloatArray, patch: Shape
) -> tuple[UInt16Pixels, LabelMap | None]:
    """Cut a patch without any interpolation; black and ``UNKNOWN`` where the volume does not reach.

    Args:
        pixels: (C, D, H, W) uint16.
        mask: (D, H, W) labels, or None.
        middle: of the patch in voxels.
        patch: its size.

    Returns:
        (C, *patch) uint16 and *patch uint8, in memory of their own.

    Example:
        >>> pixels = np.arange(8, dtype=np.uint16).reshape(1, 2, 2, 2)
        >>> cut_patch(pixels, None, middle=np.array([0.5, 0.5, 0.5]), patch=(2, 2, 4))[0][0, 0].tolist()
        [[0, 0, 1, 0], [0, 2, 3, 0]]
    """
    first = np.ceil(np.asarray(middle) - np.asarray(patch) / 2.0).astype(int)
    inside, outside = [], []
    for start, length, size in zip(first, patch, pixels.shape[1:], strict=True):
        low, high = max(0, int(start)), min(size, int(start) + length)
        inside.append(slice(low, max(low, high)))
        outside.append(slice(low - int(start), max(low, high) - int(start)))
    out = np.zeros((len(pixels), *patch), np.uint16)
    out[(slice(None), *outside)] = pixels[(slice(None), *inside)]
    if mask is None:
        return out, None
    labels = np.full(patch, UNKNOWN, np.uint8)
    labels[tuple(outside)] = mask[tuple(inside)]
    return out, labels


def warp_patch(
    pixels: UInt16Pixels, mask: StoredMask | None, *, middle: FloatArray, matrix: FloatArray, patch: Shape
) -> tuple[Pixels, LabelMap | None]:
    """Sample a patch that is turned, scaled or mirrored, straight from the volume: one interpolation.

    Voxel p of the patch shows what lies at ``middle + matrix @ (p - middle of the patch)``. Pixels are interpolated
    linearly; a voxel of the mask is the nearest one. Black and ``UNKNOWN`` where the volume does not reach.

    Args:
        pixels: (C, D, H, W) uint16.
        mask: (D, H, W) labels, or None.
        middle: (3,) in voxels of the volume.
        matrix: (3, 3) voxels to voxels.
        patch: size of the patch.

    Returns:
        (C, *patch) float32 in [0, 1], and *patch uint8.
    """
    half = np.asarray(patch) / 2.0
    reach = np.abs(matrix) @ half
    low = np.clip(np.floor(middle - reach).astype(int), 0, np.asarray(pixels.shape[1:]) - 1)
    high = np.clip(np.ceil(middle + reach).astype(int) + 1, low + 1, pixels.shape[1:])
    box = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    near = np.multiply(pixels[(slice(None), *box)], np.float32(1.0 / LEVELS), dtype=np.float32)
    # torch counts from -1 to 1 between the outer faces (align_corners=False), and axes from the last one.
    size = (high - low).astype(np.float64)
    theta = np.empty((3, 4))
    theta[:, :3] = (matrix * half / (size / 2.0)[:, None])[::-1, ::-1]
    theta[:, 3] = ((middle - low + 0.5) / (size / 2.0) - 1.0)[::-1]
    where = functional.affine_grid(torch.from_numpy(theta[None]).float(), [1, 1, *patch], align_corners=False)
    sampled = _sample(torch.from_numpy(near)[None], where, mode="bilinear")
    if mask is None:
        return sampled, None
    # One more, so that the zeros outside are UNKNOWN: 255 + 1 is 0 in uint8.
    labels = torch.from_numpy(mask[box].astype(np.uint8) + np.uint8(1))[None, None].float()
    found: LabelMap = _sample(labels, where, mode="nearest")[0].astype(np.uint8) - np.uint8(1)
    return sampled, found


def _sample(values: torch.Tensor, where: torch.Tensor, *, mode: str) -> Any:
    return functional.grid_sample(values, where, mode=mode, padding_mode="zeros", align_corners=False)[0].numpy()
