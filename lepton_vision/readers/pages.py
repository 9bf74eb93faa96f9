"""Decoded pages of a raster file: value range of their samples, and conversion to the pixels of an Image."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image as Pillow
from PIL import UnidentifiedImageError

from lepton_vision.errors import ReadError
from lepton_vision.types import Pixels


@dataclass(frozen=True, slots=True)
class Samples:
    """Type of the samples: bits of each, and "unsigned", "signed" or "real"."""

    bits: int = 8
    kind: str = "unsigned"

    def limits(self, pixels: Pixels) -> tuple[float, float]:
        """Smallest and largest value that such samples can hold, in float32; of real ones, what they do hold."""
        if self.kind == "real":
            return float(pixels.min()), float(pixels.max())
        low = -(1 << (self.bits - 1)) if self.kind == "signed" else 0
        return float(np.float32(low)), float(np.float32(low + (1 << self.bits) - 1))


@dataclass(frozen=True, slots=True)
class Decoded:
    """Pages (H, W) or (H, W, 3) of one type, how many images the file has in all, and what decoded them."""

    pages: list[npt.NDArray[Any]]
    samples: Samples
    frames: int
    decoder: str


def wanted_pages(frames: int, *, frame: int | None) -> range:
    """Numbers of the pages to decode.

    Raises:
        ReadError: reason ``no_frame``.
    """
    if frame is None:
        return range(frames)
    if not 0 <= frame < frames:
        raise ReadError(f"Expected a frame from 0 to {frames - 1}. Received: {frame}.", reason="no_frame")
    return range(frame, frame + 1)


def arrange(decoded: Decoded) -> tuple[Pixels, tuple[float, float]]:
    """(C, H, W) float32 of one page, (C, D, H, W) of several, and the value range.

    Raises:
        ReadError: reason ``geometry`` (pages of different size) or ``non_finite``.
    """
    pages = decoded.pages
    if any(page.shape != pages[0].shape for page in pages):
        raise ReadError("The pages of the file differ in size. Read single pages (frame=i).", reason="geometry")
    stack = np.stack(pages) if len(pages) > 1 else pages[0][None]
    pixels = stack[None] if stack.ndim == 3 else np.moveaxis(stack, 3, 0)
    with np.errstate(over="ignore"):  # float64 beyond float32: refused below
        result: Pixels = np.ascontiguousarray(pixels, dtype=np.float32)
    if decoded.samples.kind == "real" and not np.isfinite(result).all():
        raise ReadError(
            "The image holds NaN or infinite pixels, or some beyond the range of float32. Remove or replace them.",
            reason="non_finite",
        )
    return (result if len(pages) > 1 else result[:, 0]), decoded.samples.limits(result)


def open_picture(data: bytes, *, kind: str) -> Pillow.Image:
    """Open a file by Pillow as the format ``kind``, without decoding it.

    Raises:
        ReadError: reason ``too_large``.
        UnidentifiedImageError: Pillow finds no image in it.
    """
    try:
        return Pillow.open(BytesIO(data), formats=(kind.upper(),))
    except Pillow.DecompressionBombError:
        raise ReadError("The image is larger than Pillow accepts.", reason="too_large") from None


def read_picture(data: bytes, *, kind: str) -> npt.NDArray[Any]:
    """(H, W) or (H, W, 3) of the first picture of a file, see ``decode_picture``.

    Raises:
        ReadError: as there; reason ``unsupported`` where Pillow finds no picture.
    """
    try:
        with open_picture(data, kind=kind) as picture:
            return decode_picture(picture, kind=kind)
    except UnidentifiedImageError:
        raise ReadError(f"The {kind.upper()} file is of a kind that cannot be read.", reason="unsupported") from None


def decode_picture(picture: Pillow.Image, *, kind: str) -> npt.NDArray[Any]:
    """(H, W) or (H, W, 3) of an open picture: alpha is dropped, palettes and other colour spaces become RGB.

    Raises:
        ReadError: reason ``truncated`` or ``corrupt``.
    """
    try:
        picture.load()
    except (OSError, SyntaxError) as error:
        is_short = "truncated" in str(error)
        raise ReadError(
            f"The {kind.upper()} file {'ends too early' if is_short else 'is damaged'}. Copy it again.",
            reason="truncated" if is_short else "corrupt",
        ) from None
    mode = picture.mode
    if mode in ("LA", "RGBA", "RGBX", "RGBa", "La"):
        values = np.asarray(picture)[..., :-1]
        return values[..., 0] if values.shape[2] == 1 else values
    if mode == "1":
        return np.asarray(picture.convert("L"))
    if mode in ("P", "PA", "CMYK", "YCbCr", "LAB", "HSV"):
        return np.asarray(picture.convert("RGB"))
    return np.asarray(picture)
