"""Label masks: whole numbers on the grid of their image, validated on reading."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lepton_vision.errors import ReadError
from lepton_vision.readers.content import is_folder, open_content
from lepton_vision.readers.dicom.segmentations import open_segmentation, read_segmentation
from lepton_vision.readers.image import read_image
from lepton_vision.readers.label_raster import KINDS, one_channel, read_gif, stored_labels
from lepton_vision.readers.orient import reorient
from lepton_vision.types import Image, SampleAddress
from lepton_vision.types.geometry import grid_gap, is_same_spacing

LabelMap = npt.NDArray[np.uint8]
_LARGEST = 255
_FURTHER = "+/"  # before the name of each further file of a mask: no file's own name holds a slash
NOISE = 1e-3  # what a rescale in float32 adds to a whole number


def read_mask(
    path: str | Path,
    *,
    member: str | None = None,
    frame: int | None = None,
    on: Image | SampleAddress | None = None,
) -> Image:
    """Read a mask as an Image, and make sure that it holds labels.

    Args:
        path: what ``read_image`` reads, a DICOM Segmentation, or a GIF file of one picture.
        member: array of an npz file; all of its entries where ``frame`` is None. Or what ``united_member`` gives: a
            voxel has the value that any of these masks has.
        frame: one frame of it; the result is 2-D. Frames of a Segmentation are found by their place instead.
        on: image that the mask belongs to. A Segmentation is laid on its voxels; None takes the planes that its frames
            lie on. Other masks are turned to its axes where it is an Image, see ``reorient_mask``, and not compared
            with it, see ``check_grid``.

    Returns:
        Image with pixels (1, H, W) or (1, D, H, W), whole numbers from 0 to 255 as the file has them: indices of a
        palette, stored bits, segment numbers.

    Raises:
        ReadError: as ``read_image``; reason ``mask_values`` where it holds colours, fractions, or other numbers, or
            where two masks have different structures at one voxel; of a Segmentation as
            ``segmentations.read_segmentation``.

    Example:
        >>> read_mask("labels/hippocampus_001.nii.gz").pixels.shape  # doctest: +SKIP
        (1, 35, 51, 35)
    """
    first, *others = mask_files(path, member)
    if others:
        return _unite([read_mask(one, frame=frame, on=on) for one in (first, *others)])
    image = read_drawn(path, member=member, frame=frame, on=on)
    if image.channels != 1:
        raise ReadError(
            f"Expected one value per voxel in a mask. Received: {image.channels} channels that differ. Save labels as "
            "grey values or as indices of a palette, not as colours.",
            reason="mask_values",
        )
    return replace(image, pixels=labels_of(image)[None].astype(np.float32))


def united_member(names: Sequence[str]) -> str | None:
    """Member of a mask that is made up of several files of one folder, behind the first; None where there is none."""
    return "".join(f"{_FURTHER}{name}" for name in names) or None


def mask_files(path: str | Path, member: str | None) -> tuple[Path, ...]:
    """The files that a mask is made up of."""
    names = member.split(_FURTHER)[1:] if member and member.startswith(_FURTHER) else []
    return Path(path), *(Path(path).with_name(name) for name in names)


def _unite(masks: Sequence[Image]) -> Image:
    """One mask of several of one image: each voxel has the value that any of them has beside 0."""
    first = masks[0]
    pixels = first.pixels.copy()
    for mask in masks[1:]:
        check_grid(mask, first)
        if ((pixels != mask.pixels) & (pixels > 0) & (mask.pixels > 0)).any():
            raise ReadError(
                "Expected masks of one image that agree. Received: two structures at one voxel. Draw one mask of both.",
                reason="mask_values",
            )
        np.maximum(pixels, mask.pixels, out=pixels)
    return replace(first, pixels=pixels)


def read_drawn(
    path: str | Path,
    *,
    member: str | None = None,
    frame: int | None = None,
    on: Image | SampleAddress | None = None,
) -> Image:
    """Read the stored numbers of a mask, whatever they are; arguments as ``read_mask``.

    Raises:
        ReadError: as ``read_mask``, but for values that are no labels.
    """
    path = Path(path)
    if not is_folder(path):
        with open_content(path, what="Cannot read the mask", takes_gif=True) as content:
            found = None
            if content.kind == "gif":
                return read_gif(content.stream, path=path, limits=content.limits)
            if content.kind == "dicom":
                found = open_segmentation(content.stream, head=content.head, limits=content.limits)
            if found is not None:
                if on is None and frame is not None:
                    raise ReadError(
                        "Expected an image that the Segmentation belongs to. Received: the number of a frame, whose "
                        "order says nothing. Read the whole mask, or give the image.",
                        reason="no_position",
                    )
                if isinstance(on, SampleAddress):
                    on = read_image(on.path, member=on.member, frame=on.frame, **on.repairs)
                return read_segmentation(found, on=on, limits=content.limits)
    image = read_image(path, member=member, frame=frame)
    if image.source_format in KINDS:
        return stored_labels(image, path, frame=frame)
    if isinstance(on, Image):
        image = reorient_mask(image, on)
    if image.facts.get("photometric") == "MONOCHROME1" and image.units != "HU":  # was turned to be looked at
        image = replace(image, pixels=np.float32(sum(image.value_range)) - image.pixels)
    return one_channel(image)


def reorient_mask(mask: Image, image: Image) -> Image:
    """Turn a mask of the same voxels in another axis order to that of its image, exactly; any other stays as it is."""
    have, want = mask.geometry, image.geometry
    if have is None or want is None or not (mask.is_volume and image.is_volume) or have.orientation == want.orientation:
        return mask
    turned = reorient(mask, want.orientation)
    shape = image.pixels.shape[1:]
    if turned.geometry is None or turned.pixels.shape[1:] != shape or grid_gap(turned.geometry, want, shape=shape):
        return mask
    return turned


def is_laid(mask: Image) -> bool:
    """Whether a mask is a DICOM Segmentation, which ``read_mask`` has laid on the voxels of its image."""
    return "segments" in mask.facts


def labels_of(image: Image) -> LabelMap:
    """Return the labels of a mask, (H, W) or (D, H, W) uint8.

    Raises:
        ReadError: reason ``mask_values``: fractions, or numbers outside 0 … 255.
    """
    values = image.pixels[0]
    whole = np.rint(values)
    is_wrong = (np.abs(whole - values) > NOISE) | (whole < 0) | (whole > _LARGEST)
    if is_wrong.any():
        raise ReadError(
            f"Expected whole numbers from 0 to {_LARGEST} in a mask. Received: {float(values[is_wrong][0]):g}, "
            f"{int(is_wrong.sum())} such voxels. Save labels, not probabilities or interpolated labels.",
            reason="mask_values",
        )
    labels: LabelMap = whole.astype(np.uint8)
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
