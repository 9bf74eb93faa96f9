"""Thumbnails of single cases and their heat maps, encoded as text inside the page."""

from __future__ import annotations

import base64
from dataclasses import dataclass, replace
from io import BytesIO

import numpy as np
from PIL import Image as Picture

from lepton_vision.config.sections import PreprocessConfig
from lepton_vision.errors import LeptonError, ReadError
from lepton_vision.readers.image import read_image
from lepton_vision.transforms.preprocess import preprocess_image
from lepton_vision.transforms.resize import UInt16Pixels
from lepton_vision.types import Image, Pixels, SampleAddress

LARGEST_SIDE = 192
"""Pixels: enough to recognise a case, and 12 of them stay far below a megabyte."""


_HEAT_SIDE = 56
_COLD, _HOT = np.array([230.0, 60.0, 0.0]), np.array([255.0, 225.0, 60.0])  # red to yellow: lighter where hotter
_HEAT_OPACITY = 0.65


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """One picture of a page.

    Attributes:
        uri: ``data:image/png;base64,…``, or "" where there is no picture.
        width: in pixels; 0 without a picture.
        height: in pixels; 0 without a picture.
        reason: why there is no picture, without a file name; "" otherwise.
        sides: letters of the patient's sides at the left, right, upper and lower edge; () where they are not known.
    """

    uri: str
    width: int = 0
    height: int = 0
    reason: str = ""
    sides: tuple[str, ...] = ()


_OPPOSITE = {"L": "R", "R": "L", "P": "A", "A": "P", "H": "F", "F": "H"}


def orientation_of(image: Image) -> str:
    """Two letters, where W and H grow to, as ``Geometry.orientation`` has them; "" where nobody says."""
    return str(image.facts.get("orientation") or "") if image.geometry is None else image.geometry.orientation[:2]


def edge_marks(orientation: str) -> tuple[str, ...]:
    """Letters at the left, right, upper and lower edge of a picture; H and F are head and feet.

    Example:
        >>> edge_marks("LP"), edge_marks("PI"), edge_marks("")
        (('R', 'L', 'A', 'P'), ('A', 'P', 'H', 'F'), ())
    """
    if not orientation:
        return ()
    right, lower = list(orientation.replace("S", "H").replace("I", "F"))
    return _OPPOSITE[right], right, _OPPOSITE[lower], lower


def make_thumbnail(
    address: SampleAddress | None, preprocess: PreprocessConfig | None, *, side: int = LARGEST_SIDE
) -> Thumbnail:
    """Read one image again and show it as the network saw it; a file that cannot be read gives a reason instead.

    Args:
        address: where the pixels lie, or None.
        preprocess: windows, colour and fit of the model; None uses the defaults.
        side: longest side in pixels; a smaller image is not enlarged.
    """
    if address is None:
        return Thumbnail("", reason="the predictions do not say where the image lies")
    try:
        image = read_image(address.path, frame=address.frame, member=address.member, **address.repairs)
        pixels = preprocess_image(image, preprocess or PreprocessConfig())
    except ReadError as error:
        return Thumbnail("", reason=f"the image cannot be read any more ({error.reason})")
    except (LeptonError, OSError, ValueError) as error:  # the page must not fail for one picture
        return Thumbnail("", reason=f"the image cannot be read any more ({type(error).__name__})")
    is_rgb = preprocess is not None and preprocess.color == "rgb"
    sides = edge_marks(orientation_of(image))
    return replace(_encode(pixels[:3] if is_rgb else pixels[:1], side), sides=sides)


def make_heat(heat: Pixels, *, largest: float) -> Thumbnail:
    """Turn a heat map into a see-through picture that is laid over the thumbnail of the same image.

    Args:
        heat: (H, W) float32, 0 or more, on the grid of the network's input.
        largest: what is shown in full; nothing is drawn where the map is 0.
    """
    share = (heat / largest if largest > 0 else np.zeros_like(heat)).clip(0.0, 1.0)
    colors = _COLD + share[..., None] * (_HOT - _COLD)
    alpha = 255.0 * _HEAT_OPACITY * share[..., None]
    picture = Picture.fromarray(np.concatenate([colors, alpha], axis=2).round().astype(np.uint8), "RGBA")
    picture.thumbnail((_HEAT_SIDE, _HEAT_SIDE), Picture.Resampling.BOX)  # a map of a network's last stage is coarse
    return encode_picture(picture)


def _encode(pixels: UInt16Pixels, side: int) -> Thumbnail:
    """(1 or 3, H, W) uint16 of the first window to a PNG of 8 bits."""
    shown = (pixels >> 8).astype(np.uint8)
    picture = Picture.fromarray(shown[0] if len(shown) == 1 else np.ascontiguousarray(shown.transpose(1, 2, 0)))
    if max(picture.size) > side:
        picture.thumbnail((side, side), Picture.Resampling.LANCZOS)
    return encode_picture(picture)


def encode_picture(picture: Picture.Image) -> Thumbnail:
    """Turn a picture into text that fits into a page."""
    buffer = BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    text = base64.b64encode(buffer.getvalue()).decode("ascii")
    return Thumbnail(f"data:image/png;base64,{text}", *picture.size)
