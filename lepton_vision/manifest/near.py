"""Near-duplicates: pairs whose perceptual hashes are close, then compared pixel by pixel.

Thresholds were set on BreastMNIST, PneumoniaMNIST, COVID-CT and a brain MR set by looking at the pairs: all pairs of
at least ``CORRELATION`` and ``DETAIL_CORRELATION`` show one image twice (recompressed, resized, brightened, shifted by
a pixel) or two adjoining slices of one patient. Images of different patients that resemble each other, such as chest
X-rays in one position, stay below: among all pairs of PneumoniaMNIST with close hashes none reaches 0.98.
Mirrored, rotated or cropped copies are not found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from lepton_vision.manifest.hashes import THUMBNAIL
from lepton_vision.types import Pixels

CORRELATION: Final = 0.98  # of the thumbnails
DETAIL_CORRELATION: Final = 0.90  # of the thumbnails without their slow shading
_BLOCK: Final = 2**22  # hash pairs compared at once: bounds memory to some 50 MB
_BATCH: Final = 4096  # candidate pairs whose thumbnails are compared at once

Pairs = npt.NDArray[np.int64]


def candidate_pairs(hashes: npt.NDArray[np.uint64], parts: npt.NDArray[np.int64], *, distance: int) -> Iterator[Pairs]:
    """Pairs of rows of two different parts whose hashes differ in at most ``distance`` bits.

    Args:
        hashes: (N,) 64-bit hashes.
        parts: (N,) number of the part of each row; rows of a negative part are left out.
        distance: largest Hamming distance.

    Yields:
        (P, 2) int64 row numbers, block by block, the row of the lower part first.
    """
    numbers = np.unique(parts[parts >= 0])
    for first in numbers:
        left = np.flatnonzero(parts == first)
        right = np.flatnonzero(parts > first)
        step = max(1, _BLOCK // max(1, len(right)))
        for start in range(0, len(left), step):
            rows = left[start : start + step]
            differing = _bit_count(hashes[rows][:, None] ^ hashes[right][None, :])
            near_left, near_right = np.nonzero(differing <= distance)
            if len(near_left):
                yield np.stack([rows[near_left], right[near_right]], axis=1)


def _bit_count(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint8]:
    """Number of set bits; numpy 2 has it built in."""
    if hasattr(np, "bitwise_count"):
        counted: npt.NDArray[np.uint8] = np.bitwise_count(values)
        return counted
    table = np.array([bin(value).count("1") for value in range(2**16)], dtype=np.uint8)
    by_table: npt.NDArray[np.uint8] = table[values[..., None].view(np.uint16)].sum(axis=-1, dtype=np.uint8)
    return by_table


def verify_pairs(
    pairs: Iterator[Pairs], load: Callable[[int], Pixels | None]
) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Sort candidate pairs by what their images show.

    Args:
        pairs: what ``candidate_pairs`` yields.
        load: thumbnail (32, 32) of a row, or None where its image cannot be read any more.

    Returns:
        Pairs that show the same image, and pairs that could not be compared. Each row is loaded once; 1 KB per row
        with a candidate is kept.
    """
    kept: dict[int, npt.NDArray[np.uint8] | None] = {}
    same: list[tuple[int, int]] = []
    unread: list[tuple[int, int]] = []

    def small(row: int) -> npt.NDArray[np.uint8] | None:
        if row not in kept:
            image = load(row)
            kept[row] = None if image is None else np.rint(image * 255).astype(np.uint8)
        return kept[row]

    for block in pairs:
        for start in range(0, len(block), _BATCH):
            rows = [(int(a), int(b)) for a, b in block[start : start + _BATCH]]
            images = [(small(a), small(b)) for a, b in rows]
            unread += [pair for pair, (a, b) in zip(rows, images, strict=True) if a is None or b is None]
            known = [(pair, a, b) for pair, (a, b) in zip(rows, images, strict=True) if a is not None and b is not None]
            if known:
                is_same = are_same(np.stack([a for _, a, _ in known]), np.stack([b for _, _, b in known]))
                same += [pair for (pair, _, _), found in zip(known, is_same, strict=True) if found]
    return same, unread


def are_same(first: npt.NDArray[np.uint8], second: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """(P,) bool: whether thumbnails (P, 32, 32) of two images show the same, up to brightness and contrast."""
    whole = _correlation(first.astype(np.float32), second.astype(np.float32))
    detail = _correlation(_detail(first), _detail(second))
    return np.asarray((whole >= CORRELATION) & (detail >= DETAIL_CORRELATION), dtype=bool)


def _detail(images: npt.NDArray[np.uint8]) -> Pixels:
    """Images without what is wider than a few cells: bodies of one kind agree in that already."""
    sharp = images.astype(np.float32)
    return np.stack([image - cv2.GaussianBlur(image, (0, 0), THUMBNAIL / 16) for image in sharp])


def _correlation(first: Pixels, second: Pixels) -> Pixels:
    a, b = (images.reshape(len(images), -1) for images in (first, second))
    a, b = (images - images.mean(axis=1, keepdims=True) for images in (a, b))
    norm = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    correlation: Pixels = np.sum(a * b, axis=1) / np.maximum(norm, np.float32(1e-6))
    return correlation
