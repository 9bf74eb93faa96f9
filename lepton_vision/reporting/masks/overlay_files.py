"""Images of the best, the median and the worst case of each structure, read one at a time for overlays."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np

from lepton_vision.config.sections import PreprocessConfig
from lepton_vision.errors import LeptonError, ReadError
from lepton_vision.evaluation.masks.evaluation import SegmentationEvaluation, structure_mask
from lepton_vision.evaluation.masks.files import MaskRow, read_labels, read_masks
from lepton_vision.readers import read_image
from lepton_vision.reporting.classes.gallery import orientation_of
from lepton_vision.reporting.masks.overlays import MOST_STRUCTURES, NoOverlay, Overlay
from lepton_vision.transforms.preprocess import display_window, to_luma
from lepton_vision.types import Geometry, Image
from lepton_vision.types.geometry import grid_gap, is_same_spacing

_Read = TypeVar("_Read")
# Which way W and H shall grow on the page: to the patient's left, back and feet, as radiologists look at slices.
_SHOWN = "LPI"
_TURNED = {"R": "L", "A": "P", "S": "I"}


def read_overlays(rows: Sequence[MaskRow], evaluation: SegmentationEvaluation) -> Iterator[Overlay | NoOverlay]:
    """Yield the ranked cases of each structure (``MOST_STRUCTURES`` of them), best first, or a reason instead.

    An image is shown through its window as in the gallery of a classification: that of the header, else percentiles,
    or the full range of a raster file. Slices of a file that knows its place are flipped (never swapped or resampled)
    until left, back and feet of the patient are where radiologists expect them.

    Args:
        rows: what ``table.read_mask_table`` gave; those that are not ranked are not read.
        evaluation: of these rows.
    """
    by_id = {row.image_id: row for row in rows}
    dice = {(row.structure, row.image_id): row.figures.dice for row in evaluation.cases}
    for structure, ranked in islice(evaluation.ranked.items(), MOST_STRUCTURES):
        for image_id in dict.fromkeys(name for name in ranked if name is not None):
            value = evaluation.structures[structure]
            try:
                overlay = _read(by_id[image_id], structure, value=value)
                yield replace(overlay, dice=dice[structure, image_id])
            except _CannotDrawError as error:
                yield NoOverlay(structure, image_id, dice[structure, image_id], str(error))
            except LeptonError as error:  # a file that changed since it was evaluated
                reason = f"the case cannot be drawn ({type(error).__name__})"
                yield NoOverlay(structure, image_id, dice[structure, image_id], reason)


class _CannotDrawError(Exception):
    """Reason why a case is not drawn, in words that fit into a page."""


def _read(row: MaskRow, structure: str, *, value: int | tuple[int, ...]) -> Overlay:
    masks = _open(lambda: read_masks(row), "masks")
    truth, prediction = masks["truth"], masks["prediction"]
    image = None if row.image is None else _open_image(row.image)
    if image is not None:
        _check_grid(image, [truth, prediction])
    true, predicted = (structure_mask(read_labels(one, "mask"), value) for one in (truth, prediction))
    places = [one.geometry for one in (truth, prediction) if one.geometry is not None]
    spacing = truth.spacing_mm if image is None else truth.spacing_mm or prediction.spacing_mm
    overlay = Overlay(structure, row.image_id, true, predicted, spacing_mm=spacing)
    try:
        return overlay_masks(overlay, image, geometry=places[0] if places else None)
    except ReadError as error:
        raise _CannotDrawError(f"the image has no window to show it through ({error.reason})") from None


def overlay_masks(
    overlay: Overlay,
    image: Image | None,
    *,
    geometry: Geometry | None = None,
    preprocess: PreprocessConfig | None = None,
) -> Overlay:
    """Put masks over their image, as a radiologist looks at it.

    Args:
        overlay: without an image.
        image: on the grid of the masks, or None.
        geometry: of the masks; None takes that of the image.
        preprocess: of the model, whose first window the image is shown through; None takes the header's.

    Raises:
        ReadError: the image has no window and no range to show it through.
    """
    if image is not None:
        pixels = to_luma(image.pixels)[0] if image.channels == 3 else image.pixels[0]
        spacing = overlay.spacing_mm or image.spacing_mm
        overlay = replace(overlay, image=pixels, spacing_mm=spacing, window=display_window(image, preprocess))
        overlay = replace(overlay, orientation=orientation_of(image))
        geometry = geometry or image.geometry
    return overlay if geometry is None else _turn(overlay, geometry)


def _open_image(path: Path) -> Image:
    return _open(lambda: read_image(path), "image")


def _open(read: Callable[[], _Read], what: str) -> _Read:
    try:
        return read()
    except ReadError as error:
        raise _CannotDrawError(f"the {what} cannot be read ({error.reason})") from None
    except (LeptonError, OSError, ValueError) as error:  # the page must not fail for one picture
        raise _CannotDrawError(f"the {what} cannot be read ({type(error).__name__})") from None


def _check_grid(image: Image, masks: Sequence[Image]) -> None:
    shape, wanted = image.pixels.shape[1:], masks[0].pixels.shape[1:]
    if shape != wanted:
        shown = [" × ".join(map(str, one)) for one in (shape, wanted)]
        raise _CannotDrawError(f"the image has the shape {shown[0]}, its masks {shown[1]}")
    if image.channels not in (1, 3):
        raise _CannotDrawError(f"the image has {image.channels} channels, neither gray nor RGB")
    if not all(is_same_spacing(mask.spacing_mm, image.spacing_mm, shape=shape) for mask in masks):
        raise _CannotDrawError("the image has another spacing than its masks")
    if image.geometry is None:
        return
    for place in [mask.geometry for mask in masks if mask.geometry is not None]:
        gap = grid_gap(place, image.geometry, shape=shape)
        if gap is not None:
            raise _CannotDrawError(f"the image lies elsewhere in the patient than its masks ({gap.text})")


def _turn(overlay: Overlay, geometry: Geometry) -> Overlay:
    """Flip H and W of all arrays where they grow the other way than a reader expects."""
    way = geometry.orientation  # of W, H and D
    axes = tuple(axis for axis, letter in ((-1, way[0]), (-2, way[1])) if letter not in _SHOWN)
    image = None if overlay.image is None else np.flip(overlay.image, axes)
    turned = "".join(letter if letter in _SHOWN else _TURNED[letter] for letter in way[:2])
    truth, prediction = np.flip(overlay.truth, axes), np.flip(overlay.prediction, axes)
    return replace(overlay, truth=truth, prediction=prediction, image=image, orientation=turned)
