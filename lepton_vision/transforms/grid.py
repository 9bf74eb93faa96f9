"""Deterministic preprocessing of volumes for the network, and of all masks there and back; no torch.

A volume that lies in the patient is turned so that W grows to the left, H to the back and D to the head ("LPS"), by
flips and swaps alone: an oblique one to its nearest axes. A volume without geometry stays as it is stored. Then its
values become display values (windows see the whole volume), and last it is resampled where ``volume.spacing_mm`` asks
for that, rounded once to uint16. Everything follows from the file and the configuration, which the bundle keeps.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from lepton_vision.config.sections import PreprocessConfig, VolumeConfig
from lepton_vision.errors import ReadError
from lepton_vision.readers.mask import LabelMap
from lepton_vision.readers.orient import axis_turns
from lepton_vision.transforms.preprocess import display_planes
from lepton_vision.transforms.resize import LEVELS, Fit, UInt16Pixels, fit_boxes, fit_mask, place_plane, resize_plane
from lepton_vision.types import Image, Pixels

AXES = "LPS"
"""Where W, H and D of the network's input grow."""

Shape = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Grid:
    """Mapping from the voxels of a file to those of the network.

    Attributes:
        shape: (D, H, W) of the file.
        order: which axis of the file the network's D, H and W are.
        flipped: axes of the file that are reversed first.
        size: (D, H, W) that the network sees. The outer faces of the volume stay where they are: a size is rounded to
            whole voxels, so that the spacing is that asked for to within half a voxel over the whole axis.
        spacing_mm: true distance of the voxels that the network sees, or None where the file does not say.
        fit: place of each plane (H, W) of ``size`` in the input of a network on planes; None for one on volumes.
    """

    shape: Shape
    order: Shape
    flipped: tuple[int, ...]
    size: Shape
    spacing_mm: tuple[float, float, float] | None = None
    fit: Fit | None = None


def plane_grid(shape: tuple[int, ...], config: PreprocessConfig) -> Grid:
    """Grid of a 2-D image (H, W), a volume of one slice that lies as it is stored.

    Example:
        >>> plane_grid((40, 20), PreprocessConfig(size=(8, 8))).size
        (1, 40, 20)
    """
    size = _three((1, *shape))
    return Grid(size, (0, 1, 2), (), size, fit=fit_boxes(shape, config.size, fit=config.fit))


def grid_of(image: Image, volume: VolumeConfig, *, planes: PreprocessConfig | None = None) -> Grid:
    """Decide how a volume is turned and resampled.

    Args:
        image: a volume; its pixels are not read.
        volume: ``spacing_mm`` counts.
        planes: size and fit of its slices for a network on planes; None for one on volumes.

    Raises:
        ReadError: reason ``volume`` (a 2-D image), or ``no_spacing`` (a spacing is asked for, and the file says none).
    """
    if not image.is_volume:
        raise ReadError(
            "Expected a volume. Received: a 2-D image. Give NIfTI volumes or DICOM series, or leave the section "
            "'volume' out of the configuration.",
            reason="volume",
        )
    shape = _three(image.pixels.shape[1:])
    sources, flipped = ([0, 1, 2], []) if image.geometry is None else axis_turns(image.geometry, AXES)
    size = _three([shape[k] for k in sources])
    spacing = None if image.spacing_mm is None else [image.spacing_mm[k] for k in sources]
    if volume.spacing_mm is not None:
        if spacing is None:
            raise ReadError(
                "Expected a volume that states the distance of its voxels, since volume.spacing_mm is set. Received: "
                "none. Correct its header, or leave out volume.spacing_mm.",
                reason="no_spacing",
            )
        whole = [step * count for step, count in zip(spacing, size, strict=True)]
        size = _three([max(1, round(mm / step)) for mm, step in zip(whole, volume.spacing_mm, strict=True)])
        spacing = [mm / count for mm, count in zip(whole, size, strict=True)]
    return Grid(
        shape=shape,
        order=_three(sources),
        flipped=tuple(flipped),
        size=size,
        spacing_mm=None if spacing is None else (spacing[0], spacing[1], spacing[2]),
        fit=None if planes is None else fit_boxes(size[1:], planes.size, fit=planes.fit),
    )


def preprocess_volume(image: Image, config: PreprocessConfig, volume: VolumeConfig) -> UInt16Pixels:
    """Turn, window and resample one volume; the result is what the cache keeps.

    Args:
        image: pixels (C, D, H, W) float32 in modality units, C = 1 (gray), 3 (RGB) or those of ``volume.channels``.
        config: windows and colour.
        volume: spacing.

    Returns:
        (C', D, H, W) uint16 on ``grid_of(image, volume)``, 0 black to 65535 white; C' = ``config.channels``:
        the windows of the first channel of the file, then those of the next.

    Raises:
        ReadError: as ``grid_of``, and ``channels``, ``units`` or ``no_window`` as for ``preprocess_image``.

    Example:
        >>> image = Image(np.full((1, 2, 3, 4), 255, np.float32), units="display", value_range=(0, 255))
        >>> preprocess_volume(image, PreprocessConfig(), VolumeConfig()).shape
        (1, 2, 3, 4)
    """
    grid = grid_of(image, volume)
    copies = 3 if config.color == "rgb" and image.channels == 1 else 1
    out = np.empty((config.channels, *grid.size), np.uint16)
    planes = (plane for part in _channels(image, config) for plane in display_planes(part, config))
    for number, whole in enumerate(planes):
        scaled = resize_volume(turn(whole, grid), size=grid.size) * np.float32(LEVELS)
        scaled += np.float32(0.5)  # truncation on assignment then rounds to nearest
        out[number * copies : (number + 1) * copies] = scaled
    return out


def _channels(image: Image, config: PreprocessConfig) -> list[Image]:
    """Each channel that the configuration names as an image of its own: its window depends on no other."""
    if config.components == 1 and not (image.source_format == "nifti" and image.channels > 1):
        return [image]
    if image.channels != config.components:
        raise ReadError(
            f"Expected a volume of {config.components} channels (volume.channels). Received: {image.channels}. Scan "
            "with these channels, or name those that the files have.",
            reason="channels",
        )
    return [replace(image, pixels=image.pixels[number : number + 1]) for number in range(image.channels)]


def preprocess_slices(image: Image, config: PreprocessConfig, volume: VolumeConfig) -> UInt16Pixels:
    """Turn and window one volume, resample it, and fit each slice as ``preprocess_image`` fits an image.

    Slices lie across the patient (along D of ``AXES``), however the volume was scanned.

    Args:
        image: pixels (C, D, H, W) float32 in modality units, C = 1 (gray) or 3 (RGB).
        config: windows, colour, size and fit.
        volume: spacing.

    Returns:
        (C', D, height, width) uint16, 0 black to 65535 white, feet first.

    Raises:
        ReadError: as ``preprocess_volume``.
    """
    whole = preprocess_volume(image, config, volume)
    out = np.zeros((*whole.shape[:2], *config.size), np.uint16)
    for channel, place in np.ndindex(whole.shape[:2]):
        plane = np.multiply(whole[channel, place], np.float32(1.0 / LEVELS), dtype=np.float32)
        place_plane(plane, out=out[channel, place], fit=config.fit)
    return out


def choose_slices(depth: int, count: int, *, rng: np.random.Generator | None = None) -> npt.NDArray[np.int64]:
    """Choose slices of a volume that has more than a bag holds: spread evenly, one from each of ``count`` equal parts.

    Args:
        depth: slices of the volume.
        count: most that are wanted.
        rng: draws where in its part each one lies; None takes the middle.

    Returns:
        (min(depth, count),) rising positions.

    Example:
        >>> choose_slices(9, 3).tolist()
        [1, 4, 7]
    """
    if depth <= count:
        return np.arange(depth)
    within = np.full(count, 0.5) if rng is None else rng.random(count)
    return np.floor((np.arange(count) + within) * depth / count).astype(np.int64)


def turn(array: npt.NDArray[np.generic], grid: Grid) -> npt.NDArray[np.generic]:
    """View of an array (D, H, W) of the file along the network's axes."""
    return np.flip(array, axis=grid.flipped).transpose(grid.order)


def turn_back(array: npt.NDArray[np.generic], grid: Grid) -> npt.NDArray[np.generic]:
    """View of an array (D, H, W) along the network's axes with the axes of the file; undoes ``turn``."""
    return np.flip(array.transpose(np.argsort(grid.order)), axis=grid.flipped)


def resize_volume(array: npt.NDArray[np.generic], *, size: Shape) -> Pixels:
    """Resample along each axis: area average where it shrinks (no aliasing), linear where it grows.

    The outer faces stay where they are, so that resizing back undoes the places, if not the smoothing.

    Args:
        array: (D, H, W) real numbers.
        size: the new one.

    Returns:
        float32 of shape ``size``, never beyond the range of ``array``.
    """
    source = np.ascontiguousarray(array, dtype=np.float32)
    if source.shape[1:] != size[1:]:
        source = np.stack([resize_plane(plane, size=(size[1], size[2])) for plane in source])
    if source.shape[0] != size[0]:
        flat = source.reshape(len(source), -1)
        source = resize_plane(flat, size=(size[0], flat.shape[1])).reshape(size)
    return source


def prepare_mask(labels: LabelMap, grid: Grid) -> LabelMap:
    """Bring a mask to the network's grid: a voxel is what covers most of it, and then each plane is fitted.

    Each value is resampled as the image is, and the largest share wins (of equal ones the smaller value). Taking the
    nearest voxel would shift surfaces by up to half a voxel and lose what is thinner than one. ``UNKNOWN`` takes part
    as a value of its own.

    Args:
        labels: (D, H, W) uint8 on the grid of the file.
        grid: of the image.

    Returns:
        (D, H, W) uint8 of shape ``grid.size``, or (D, height, width) where planes are fitted.

    Raises:
        ReadError: reason ``mask_size``: another shape than the image.

    Example:
        >>> grid = Grid((1, 1, 4), (0, 1, 2), (), (1, 1, 2))
        >>> prepare_mask(np.array([[[1, 1, 0, 2]]], np.uint8), grid)
        array([[[1, 0]]], dtype=uint8)
    """
    if labels.shape != grid.shape:
        raise ReadError(
            f"Expected a mask of {grid.shape} voxels, as its image has. Received: {labels.shape}. Resample the mask.",
            reason="mask_size",
        )
    turned = turn(labels, grid)
    found = np.ascontiguousarray(turned, dtype=np.uint8)
    if turned.shape != grid.size:
        values = np.flatnonzero(np.bincount(labels.ravel(), minlength=256)).astype(np.uint8)
        shares = ((int(value), resize_volume(turned == value, size=grid.size)) for value in values)
        found = _largest(shares, grid.size)
    return found if grid.fit is None else np.stack([fit_mask(plane, grid.fit) for plane in found])


def restore_mask(prob: Iterable[Pixels], grid: Grid) -> LabelMap:
    """Bring a predicted mask back to the voxels of its file: the inverse of ``prepare_mask``.

    Args:
        prob: (1 + M, D, H, W) float32 probabilities on the network's grid, background first.
        grid: of the image.

    Returns:
        (D, H, W) uint8 of shape ``grid.shape``: number of the most probable structure, 0 background; what the network
        did not see is background.

    Example:
        >>> grid = Grid((1, 1, 4), (0, 1, 2), (2,), (1, 1, 2))
        >>> restore_mask(np.array([[[[0.2, 0.9]]], [[[0.8, 0.1]]]], np.float32), grid)
        array([[[0, 0, 1, 1]]], dtype=uint8)
    """
    turned = _three([grid.shape[k] for k in grid.order])
    own = (_unfit(share, grid, outside=float(number == 0)) for number, share in enumerate(prob))
    labels = _largest(enumerate(resize_volume(share, size=turned) for share in own), turned)
    return np.ascontiguousarray(turn_back(labels, grid), dtype=np.uint8)


def restore_share(share: Pixels, grid: Grid) -> Pixels:
    """Bring the probability of one structure, (D, H, W) on the network's grid, back to the voxels of its file.

    Returns:
        float32 in [0, 1] of shape ``grid.shape``; 0 where the network did not see the image.
    """
    resized = resize_volume(_unfit(share, grid), size=_three([grid.shape[k] for k in grid.order]))
    return np.ascontiguousarray(turn_back(np.clip(resized, 0.0, 1.0), grid), dtype=np.float32)


def _unfit(share: Pixels, grid: Grid, *, outside: float = 0.0) -> Pixels:
    """(D, H, W) float32 of shape ``grid.size``, before its planes were fitted; ``outside`` where they were not seen."""
    if grid.fit is None:
        return share
    seen, shown, _ = grid.fit
    size = (seen[0].stop - seen[0].start, seen[1].stop - seen[1].start)
    out = np.full(grid.size, outside, np.float32)
    for place, part in enumerate(share):
        out[(place, *seen)] = resize_plane(np.ascontiguousarray(part[shown]), size=size)
    return out


def _largest(shares: Iterable[tuple[int, Pixels]], size: Shape) -> LabelMap:
    """The value with the largest share at each voxel, one share at a time; the first of equal ones."""
    found, best = np.zeros(size, np.uint8), np.full(size, -np.inf, np.float32)
    for value, share in shares:
        is_larger = share > best
        found[is_larger] = value
        np.maximum(best, share, out=best)
    return found


def _three(values: Sequence[int]) -> Shape:
    first, second, third = values
    return int(first), int(second), int(third)
