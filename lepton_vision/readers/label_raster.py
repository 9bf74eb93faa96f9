"""Label masks in PNG, JPEG, TIFF and GIF files: the stored numbers, not the displayed colours.

A palette's index is the label, whatever its colour; 1, 2 and 4 bits are 0 to 1, 3 and 15 and not stretched to 255; a
TIFF file of 8 bits in which white is zero is not turned. Of 1 bit, white is 1 and black 0, since programs disagree on
which of the two they store as zero, and never on which is drawn.
"""

from __future__ import annotations

import os
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image as Pillow

from lepton_vision.errors import ReadError
from lepton_vision.readers.content import open_content
from lepton_vision.readers.limits import Limits, check_bytes, check_size
from lepton_vision.readers.pages import open_picture
from lepton_vision.types import Image

KINDS = ("png", "jpeg", "tiff")
_TIFF_BITS, _TIFF_COMPRESSION, _TIFF_PHOTOMETRIC = 258, 259, 262
_TIFF_JPEG = (6, 7)
_MOST_OF_JPEG = 2  # values of a mask that no block of the compression has changed: background and one structure


def stored_labels(image: Image, path: Path, *, frame: int | None) -> Image:
    """The labels of a raster file that was read as an image.

    Args:
        image: what ``read_image`` gave.
        path: the file.
        frame: page that was read, or None for all.

    Returns:
        ``image`` with the stored numbers, one channel where the channels were equal.

    Raises:
        ReadError: reason ``mask_values``: values that JPEG has changed, or a transparency that hides some.
    """
    with open_content(path, what="Cannot read the mask") as content:
        kind, data = content.kind, content.stream.read()
        with Pillow.open(BytesIO(data), formats=(kind.upper(),)) as picture:
            pages = range(getattr(picture, "n_frames", 1)) if frame is None else range(frame, frame + 1)
            found = [_stored(picture, data, kind=kind, page=page) for page in pages]
            is_lossy = kind == "jpeg" or _tag(picture, _TIFF_COMPRESSION) in _TIFF_JPEG
    planes = [plane for plane in found if plane is not None]
    if planes and len(planes) == len(found):
        stack = np.stack(planes).astype(np.float32)
        if stack[0].shape != image.pixels.shape[-2:] or len(stack) != (image.pixels.shape[1] if image.is_volume else 1):
            raise ReadError(
                "Expected pages of labels alone. Received: thumbnails or copies among them. Save the mask alone.",
                reason="unsupported",
            )
        image = replace(image, pixels=stack[None] if len(stack) > 1 else stack)
    image = one_channel(image)
    if is_lossy:
        _check_lossy(image)
    return image


def read_gif(stream: BinaryIO, *, path: Path, limits: Limits) -> Image:
    """The indices of a GIF file of one picture.

    Raises:
        ReadError: as ``image.read_image``; reason ``unsupported`` where it moves.
    """
    check_bytes(stream.seek(0, os.SEEK_END), limits=limits)
    stream.seek(0)
    with open_picture(stream.read(limits.max_bytes), kind="gif") as picture:
        check_size(picture.height, picture.width, limits=limits, itemsize=2)
        if getattr(picture, "is_animated", False):  # counting its frames would go through all of them
            raise ReadError("Expected a mask of one picture. Received: a GIF file that moves.", reason="unsupported")
        values = np.asarray(picture)
    if values.ndim != 2:
        raise ReadError("Expected a GIF file of indices. Received: colours.", reason="mask_values")
    return Image(
        pixels=values[None].astype(np.float32),
        value_range=(0.0, 255.0),
        source_format="gif",
    )


def one_channel(image: Image) -> Image:
    """An image whose channels are equal, with one of them; any other as it is."""
    first = image.pixels[:1]
    if image.channels > 1 and (image.pixels[1:] == first).all():
        return replace(image, pixels=np.ascontiguousarray(first))
    return image


def _stored(picture: Pillow.Image, data: bytes, *, kind: str, page: int) -> npt.NDArray[Any] | None:
    """(H, W) stored numbers of one page, or None where they are what is shown."""
    if page:
        picture.seek(page)
    bits = data[24] if kind == "png" else _tag(picture, _TIFF_BITS) or (1 if kind == "tiff" else 8)
    values: npt.NDArray[Any] = np.asarray(picture)
    if picture.mode in ("LA", "PA", "RGBA"):
        _check_alpha(values)
        return values[..., 0] if picture.mode == "PA" else None
    if picture.mode in ("P", "1"):
        return values
    if picture.mode == "L" and bits <= 8:
        is_turned = kind == "tiff" and _tag(picture, _TIFF_PHOTOMETRIC) == 0
        shown: npt.NDArray[Any] = 255 - values if is_turned else values
        stored: npt.NDArray[Any] = shown // (255 // (2**bits - 1))
        return stored
    return None


def _tag(picture: Pillow.Image, number: int) -> int:
    tags: Any = getattr(picture, "tag_v2", {})
    return int(np.atleast_1d(tags.get(number, 0))[0])


def _check_alpha(values: npt.NDArray[Any]) -> None:
    """Refuse what is drawn in the transparency: where pixels cannot be seen, only background is without doubt."""
    hidden = values[values[..., -1] < 255][..., :-1]
    if hidden.any():
        raise ReadError(
            f"Expected an opaque mask, or one that is transparent on its background alone. Received: {len(hidden)} "
            "transparent pixels that hold other values. Save it without an alpha channel.",
            reason="mask_values",
        )


def _check_lossy(image: Image) -> None:
    values = np.unique(image.pixels)
    if len(values) > _MOST_OF_JPEG:
        shown = ", ".join(f"{value:g}" for value in values[:8])
        raise ReadError(
            f"Expected labels. Received: a mask that JPEG compression has changed, with {len(values)} different values "
            f"({shown}{', …' if len(values) > 8 else ''}). Save the labels themselves as PNG, from before the "
            "compression.",
            reason="mask_values",
        )
