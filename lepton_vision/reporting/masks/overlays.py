"""Overlays of truth and prediction on an image, in colours safe for colour-blind readers."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image as Picture
from scipy import ndimage

from lepton_vision.errors import ReportError
from lepton_vision.evaluation.masks.surfaces import BoolArray, bounding_box, check_geometry
from lepton_vision.readers.window import apply_window, percentile_window
from lepton_vision.reporting.classes.gallery import Thumbnail, edge_marks, encode_picture
from lepton_vision.types import Displayed, Pixels, VoiLut, Window

HIT, MISSED, FALSE = (86, 180, 233), (240, 228, 66), (213, 94, 0)
"""sRGB of voxels in both masks, in the truth only, in the prediction only: sky blue, yellow and vermilion of Okabe and
Ito (2008), which differ in lightness too."""
AGREEMENT = (
    (HIT, "in both"),
    (MISSED, "missed: in the truth only"),
    (FALSE, "false positive: in the prediction only"),
)
OPACITY = 0.7
LARGEST_SIDE = 320
"""Pixels of the longer side of a picture."""

MOST_STRUCTURES = 24
"""Structures whose cases are drawn on one page; with more it would weigh tens of megabytes."""

_SMALLEST_PART = 0.25  # a picture never shows less of the slice than this share of its sides
_WHOLE_PART = 0.7  # …  and from here on it shows all of it
_AROUND = 2.5  # sides of a cut-out, in sides of the box around both masks
_THIN = 24  # pixels: the shorter side of a very long image
_CONTOUR = 2  # pixels
_WHITE, _BLACK = 255, 0

ByteArray = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Overlay(Displayed):
    """One structure in one case, to be drawn.

    Attributes:
        structure: name, as in the evaluation.
        image_id: pseudonymous id, as in the evaluation.
        truth: (H, W) or (D, H, W) bool.
        prediction: bool of the same shape.
        image: float32 of the same shape, in modality units or any other; None shows the masks alone.
        spacing_mm: distance of voxel centres along each axis, for the aspect ratio; None draws square voxels.
        dice: of the whole case, in [0, 1]; NaN where it is undefined.
        window: how the image is displayed; None is from its 0.5th to its 99.5th percentile.
        orientation: two letters, where W and H grow to in the patient ("LP"); "" where it is not known.

    Raises:
        ReportError: masks that are no booleans, or an image of another shape.
        EvaluationError: masks that differ in shape, or a spacing that does not fit.

    Example:
        >>> truth = np.eye(4, dtype=np.bool_)
        >>> Overlay("nodule", "a", truth, truth, image=np.zeros((4, 4), np.float32), dice=1.0).truth.shape
        (4, 4)
    """

    structure: str
    image_id: str
    truth: BoolArray
    prediction: BoolArray
    image: Pixels | None = None
    spacing_mm: tuple[float, ...] | None = None
    dice: float = math.nan
    window: Window | VoiLut | None = None
    orientation: str = ""

    def __post_init__(self) -> None:
        if self.truth.dtype != np.bool_ or self.prediction.dtype != np.bool_:
            raise ReportError(
                f"Expected two masks of booleans. Received: {self.truth.dtype} and {self.prediction.dtype}. Compare "
                "labels with the structure's value first.",
                key="truth",
            )
        check_geometry(self.truth.shape, self.prediction.shape, spacing_mm=self.spacing_mm)
        if self.image is not None and self.image.shape != self.truth.shape:
            raise ReportError(
                f"An image needs the shape of its masks, {self.truth.shape}. Received: {self.image.shape}.", key="image"
            )


class NoOverlay(NamedTuple):
    """A case that cannot be drawn, with its reason in plain words (no path)."""

    structure: str
    image_id: str
    dice: float
    reason: str


class Panel(NamedTuple):
    """One picture: what it shows, in words, and the picture."""

    title: str
    picture: Thumbnail


class Drawn(NamedTuple):
    """Result of ``draw_overlay``.

    Attributes:
        panels: image (where there is one), truth, agreement.
        number: of the slice, from 1; 0 for a 2-D case.
        depth: slices D; 0 for a 2-D case.
        share: side of the part shown, as a share of the slice's; 1 for all of it.
    """

    panels: tuple[Panel, ...]
    number: int
    depth: int
    share: float


def choose_slice(truth: BoolArray, prediction: BoolArray) -> int:
    """Return the slice of (D, H, W) masks with the largest true area, or predicted where there is no truth.

    The first of several; the middle one where both masks are empty.
    """
    for mask in (truth, prediction):
        areas = np.count_nonzero(mask, axis=(1, 2))
        if areas.any():
            return int(areas.argmax())
    return len(truth) // 2


def draw_overlay(overlay: Overlay, *, side: int = LARGEST_SIDE) -> Drawn:
    """Draw the slice that ``choose_slice`` names, cut to the structure where that is small.

    Args:
        overlay: what to draw.
        side: pixels of the longer side; a smaller slice is enlarged.
    """
    number = depth = 0
    masks, image, spacing = [overlay.truth, overlay.prediction], overlay.image, overlay.spacing_mm or (1.0, 1.0)
    window = overlay.window
    if overlay.truth.ndim == 3:
        number, depth = choose_slice(overlay.truth, overlay.prediction), len(overlay.truth)
        masks, spacing = [mask[number] for mask in masks], spacing[-2:]
        image = None if image is None else image[number]
        number += 1
    if overlay.image is not None and window is None:
        window = percentile_window(overlay.image)
    part, share = _choose_part(masks[0] | masks[1])
    size = _panel_size(masks[0][part].shape, spacing, side=side)
    truth, prediction = (_enlarge(mask[part], size) for mask in masks)
    base = np.zeros(size, np.uint8)
    if image is not None and window is not None:
        base = _show(image[part], window, size)
    pictures = {"Image": base} if image is not None else {}
    pictures |= {"Truth": _draw_contour(base, truth), "Prediction against truth": _paint(base, truth, prediction)}
    sides = edge_marks(overlay.orientation)
    panels = tuple(Panel(title, replace(_encode(pixels), sides=sides)) for title, pixels in pictures.items())
    return Drawn(panels, number, depth, share)


def _choose_part(mask: BoolArray) -> tuple[tuple[slice, slice], float]:
    """Return the part of a slice to show, of the same aspect as the whole, and its share of the sides."""
    if not mask.any():
        return (slice(0, mask.shape[0]), slice(0, mask.shape[1])), 1.0
    box = bounding_box(mask)
    lengths = [part.stop - part.start for part in box]
    share = max(_AROUND * length / whole for length, whole in zip(lengths, mask.shape, strict=True))
    share = max(share, _SMALLEST_PART)
    if share > _WHOLE_PART:
        return (slice(0, mask.shape[0]), slice(0, mask.shape[1])), 1.0
    parts = []
    for part, whole in zip(box, mask.shape, strict=True):
        length = min(whole, math.ceil(share * whole))
        start = min(max((part.start + part.stop - length) // 2, 0), whole - length)
        parts.append(slice(start, start + length))
    return (parts[0], parts[1]), share


def _panel_size(shape: tuple[int, ...], spacing_mm: tuple[float, ...], *, side: int) -> tuple[int, int]:
    """(height, width) in pixels, in proportion to the millimeters."""
    lengths = [count * step for count, step in zip(shape, spacing_mm, strict=True)]
    height, width = (min(side, max(_THIN, round(side * length / max(lengths)))) for length in lengths)
    return height, width


def _enlarge(mask: BoolArray, size: tuple[int, int]) -> BoolArray:
    """Nearest voxel for each pixel, so that no border is invented."""
    rows, columns = (
        ((np.arange(n) + 0.5) * have / n).astype(np.intp) for n, have in zip(size, mask.shape, strict=True)
    )
    shown: BoolArray = mask[rows][:, columns]
    return shown


def _show(image: Pixels, window: Window | VoiLut, size: tuple[int, int]) -> ByteArray:
    values = (apply_window(image, window) * _WHITE + 0.5).astype(np.uint8)
    is_larger = size[0] >= values.shape[0]
    method = Picture.Resampling.BICUBIC if is_larger else Picture.Resampling.LANCZOS
    return np.asarray(Picture.fromarray(values).resize(size[::-1], method))


def _draw_contour(base: ByteArray, mask: BoolArray) -> ByteArray:
    """White line inside the border of a mask, with a black one outside, so that it shows on any gray."""
    drawn = base.copy()
    drawn[ndimage.binary_dilation(mask, iterations=1) & ~mask] = _BLACK
    drawn[mask & ~ndimage.binary_erosion(mask, iterations=_CONTOUR)] = _WHITE
    return drawn


def _paint(base: ByteArray, truth: BoolArray, prediction: BoolArray) -> ByteArray:
    """(H, W, 3): hits, missed and false voxels in their colours, the border of each region opaque."""
    drawn = np.repeat(base[..., None], 3, axis=2).astype(np.float32)
    for mask, color in ((truth & prediction, HIT), (truth & ~prediction, MISSED), (prediction & ~truth, FALSE)):
        inside = ndimage.binary_erosion(mask)
        drawn[mask & ~inside] = color
        drawn[inside] = (1.0 - OPACITY) * drawn[inside] + OPACITY * np.asarray(color, np.float32)
    return (drawn + 0.5).astype(np.uint8)


def _encode(pixels: npt.NDArray[Any]) -> Thumbnail:
    return encode_picture(Picture.fromarray(pixels))
