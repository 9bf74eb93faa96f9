"""Image hashes: exact, of the pixel values, and perceptual, of the visual impression."""

from __future__ import annotations

import hashlib
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from lepton_vision.types import Pixels

THUMBNAIL: Final = 32  # side of the small image that hash and comparison look at
_FREQUENCIES: Final = 64


def pixel_hash(pixels: Pixels) -> str:
    """Hash of shape and values of (C, [D,] H, W) pixels: 32 hexadecimal digits, equal only for equal images.

    Channels that are all equal count as one, so that a gray image stored as RGB is the same image.
    """
    plane = pixels[:1] if len(pixels) > 1 and all(np.array_equal(pixels[0], other) for other in pixels[1:]) else pixels
    # -0.0 equals 0.0, but not as bytes
    values = np.ascontiguousarray(plane + np.float32(0.0), dtype="<f4")
    digest = hashlib.blake2b(str(values.shape).encode(), digest_size=16)
    digest.update(values.data)
    return digest.hexdigest()


def thumbnail(pixels: Pixels) -> Pixels:
    """(32, 32) float32 gray image in [0, 1]: mean of the channels, middle slice of a volume, antialiased, full range.

    All zero where the image is constant.
    """
    volume = pixels if pixels.ndim == 3 else pixels[:, pixels.shape[1] // 2]
    gray = np.ascontiguousarray(volume.mean(axis=0, dtype=np.float32))
    # Shrinking by area averages every pixel that falls into a cell; that is the antialiasing.
    small = cv2.resize(gray, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)
    low, high = float(small.min()), float(small.max())
    if high - low <= 1e-6 * max(1.0, abs(low), abs(high)):
        return np.zeros((THUMBNAIL, THUMBNAIL), dtype=np.float32)
    scaled: Pixels = ((small - low) / (high - low)).astype(np.float32)
    return scaled


def perceptual_hash(pixels: Pixels) -> str | None:
    """64-bit hash that resizing, recompression and brightness hardly change; None for a constant image.

    The sign, against their median, of the 64 lowest frequencies of the cosine transform of the thumbnail (pHash:
    Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions", 2010), 16 hexadecimal digits.
    """
    small = thumbnail(pixels)
    if not small.any():
        return None
    rows, columns = _lowest_frequencies()
    values = cv2.dct(small)[rows, columns]
    bits = np.packbits(values > np.median(values))
    return bits.tobytes().hex()


def _lowest_frequencies() -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Rows and columns of the 64 lowest frequencies of a transform, the mean left out."""
    grid = np.indices((THUMBNAIL, THUMBNAIL)).reshape(2, -1)
    order = np.lexsort((grid[1], grid[0], (grid**2).sum(axis=0)))[1 : _FREQUENCIES + 1]
    return grid[0, order], grid[1, order]
