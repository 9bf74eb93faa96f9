"""Label masks: whole numbers on the grid of their image, checked before anybody relies on them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from lepton_vision.errors import ReadError
from lepton_vision.geometry import grid_gap, is_same_spacing
from lepton_vision.readers.image import read_image
from lepton_vision.types import UNKNOWN, Image

LabelMap = npt.NDArray[np.uint8]


def read_mask(path: str | Path, *, member: str | None = None, frame: int | None = None) -> Image:
    """Read a mask as an Image, and make sure that it holds labels.

    Args:
        path: what ``read_image`` reads.
        member: array of an npz file; all of its entries where ``frame`` is None.
        frame: one frame of it; the result is 2-D.

    Returns:
        Image with pixels (1, H, W) or (1, D, H, W), whole numbers from 0 to 255; 255 is unknown.

    Raises:
        ReadError: as ``read_image``; reason ``mask_values`` where it holds colours, fractions, or other numbers.

    Example:
        >>> read_mask("labels/hippocampus_001.nii.gz").pixels.shape  # doctest: +SKIP
        (1, 35, 51, 35)
    """
    image = read_image(path, member=member, frame=frame)
    if image.channels != 1:
        raise ReadError(
            f"Expected one value per voxel in a mask. Received: {image.channels} channels. Save labels as grey "
            "values, not colours.",
            reason="mask_values",
        )
    labels_of(image)
    return image


def labels_of(image: Image) -> LabelMap:
    """Return the labels of a mask, (H, W) or (D, H, W) uint8.

    Raises:
        ReadError: reason ``mask_values``: fractions, or numbers outside 0 … 255.
    """
    values = image.pixels[0]
    labels: LabelMap = values.astype(np.uint8)
    is_wrong = labels != values
    if is_wrong.any():
        raise ReadError(
            f"Expected whole numbers from 0 to {UNKNOWN} in a mask. Received: {float(values[is_wrong][0]):g}, "
            f"{int(is_wrong.sum())} such voxels. Save labels, not probabilities or interpolated labels.",
            reason="mask_values",
        )
    return labels


def check_grid(mask: Image, image: Image) -> None:
    """Refuse a mask that does not lie on the voxels of its image.

    What one of the two does not know (a PNG has no spacing) is taken to be that of the other.

    Raises:
        ReadError: reason ``mask_size``, ``mask_spacing``, ``mask_orientation`` or ``mask_position``.
    """
    sizes = [" x ".join(map(str, one.pixels.shape[1:])) for one in (image, mask)]
    if sizes[0] != sizes[1]:
        raise ReadError(
            f"A mask needs the size of its image, {sizes[0]}. Received: {sizes[1]}. Resample the mask.",
            reason="mask_size",
        )
    if not is_same_spacing(mask.spacing_mm, image.spacing_mm, shape=image.pixels.shape[1:]):
        raise ReadError(
            f"A mask needs the spacing of its image, {image.spacing_mm} mm. Received: {mask.spacing_mm}. Save it with "
            "the affine of the image.",
            reason="mask_spacing",
        )
    if image.geometry is None or mask.geometry is None:
        return
    ways = [one.geometry.orientation for one in (image, mask) if one.geometry is not None]
    gap = grid_gap(mask.geometry, image.geometry, shape=image.pixels.shape[1:])
    if gap is None:
        return
    if ways[0] != ways[1]:
        raise ReadError(
            f"A mask needs the orientation of its image, {ways[0]}. Received: {ways[1]}. Reorient the mask, or save it "
            "with the affine of the image.",
            reason="mask_orientation",
        )
    raise ReadError(
        f"A mask needs the place of its image in the patient. Received: one that differs in {gap.text}. Save it with "
        "the affine of the image, or resample it to the grid of the image.",
        reason="mask_position",
    )
