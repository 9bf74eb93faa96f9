"""Slabs of neighbouring slices as channels of a 2-D network ("2.5-D", arXiv:1704.07239), and their masks.

Slices lie across the patient, as with ``preprocess_slices``. A slab is what is stacked: the slice in the middle, which
mask and prediction belong to, and ``volume.context`` neighbours towards the feet and towards the head.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from lepton_vision.config import SegmentationConfig
from lepton_vision.config.sections import PreprocessConfig, VolumeConfig
from lepton_vision.readers.mask import LabelMap
from lepton_vision.transforms.grid import Grid, prepare_mask, restore_shares
from lepton_vision.transforms.masks import fit_mask
from lepton_vision.transforms.preprocess import fit_boxes, resize_plane
from lepton_vision.types import Pixels, Target


def slab_slices(place: npt.ArrayLike, depth: int, *, volume: VolumeConfig) -> npt.NDArray[np.int64]:
    """Slices that stand for a slice and its neighbours; beyond the border the last slice is repeated.

    Args:
        place: (…) positions of the slices in the middle.
        depth: slices of the volume.
        volume: ``context`` and ``context_step`` count.

    Returns:
        (…, S) int64 positions from the feet to the head, S = ``volume.slab``.

    Example:
        >>> slab_slices([0, 2], 4, volume=VolumeConfig(view="2.5d", context=1)).tolist()
        [[0, 0, 1], [1, 2, 3]]
    """
    away = np.arange(-volume.context, volume.context + 1) * volume.context_step
    places: npt.NDArray[np.int64] = np.clip(np.asarray(place, np.int64)[..., None] + away, 0, depth - 1)
    return places


def fold_slabs(slabs: torch.Tensor) -> torch.Tensor:
    """Make channels of the slices: all of the first slice, then all of the second, so that R, G, B stay together.

    Args:
        slabs: (B, C, S, H, W).

    Returns:
        (B, S * C, H, W), the channels that a network with ``Config.channels`` takes.

    Example:
        >>> fold_slabs(torch.arange(4.0).reshape(1, 2, 2, 1, 1)).flatten().tolist()
        [0.0, 2.0, 1.0, 3.0]
    """
    return slabs.movedim(2, 1).flatten(1, 2)


def prepare_slice_mask(labels: LabelMap, grid: Grid, *, config: PreprocessConfig) -> LabelMap:
    """Bring a mask to the network's slices: as ``prepare_mask``, then each slice as ``fit_mask``.

    Args:
        labels: (D, H, W) uint8 on the grid of the file.
        grid: of the image.
        config: size and fit.

    Returns:
        (D, height, width) uint8.

    Raises:
        ReadError: reason ``mask_size``: another shape than the image.
    """
    return np.stack([fit_mask(plane, config) for plane in prepare_mask(labels, grid)])


def structure_numbers(target: Target, segmentation: SegmentationConfig | None) -> tuple[int, ...]:
    """Numbers of the structures that make a target positive; none where its ``mask_values`` are no whole structures.

    Example:
        >>> sick = Target("sick", "binary", ("no", "yes"), mask_values=(1, 2))
        >>> structure_numbers(sick, SegmentationConfig(structures={"lung": 5, "infection": (1, 2)}))
        (2,)
    """
    if segmentation is None:
        return ()
    numbers, groups = segmentation.holding(target.mask_values), list(segmentation.structures.values())
    held = {value for number in numbers for value in groups[number - 1]}
    return numbers if held == set(target.mask_values) else ()


def labels_of_slices(masks: torch.Tensor, numbers: Sequence[int], *, is_known: torch.Tensor) -> torch.Tensor:
    """Label of each slice from its own mask.

    Args:
        masks: (B, H, W) uint8 numbers of structures.
        numbers: of the structures that make a slice positive.
        is_known: (B,) bool, whether the mask of the slice is known all over. Moved masks do not say: they are unknown
            beyond the image too.

    Returns:
        (B,) float32: 1 where a voxel of them is seen, 0 where none is and the mask is known, else NaN: they may lie
        where it is not.

    Example:
        >>> masks = torch.tensor([[[255, 2]], [[0, 1]], [[255, 1]]], dtype=torch.uint8)
        >>> labels_of_slices(masks, [2], is_known=torch.tensor([False, True, False]))
        tensor([1., 0., nan])
    """
    shown = torch.isin(masks, torch.tensor(numbers, dtype=masks.dtype)).flatten(1).any(dim=1)
    return torch.where(shown | is_known, shown.float(), torch.nan)


def restore_slice_mask(prob: Pixels, grid: Grid, *, config: PreprocessConfig) -> LabelMap:
    """Stack the predicted masks of slices on the voxels of their file: the inverse of ``prepare_slice_mask``.

    Args:
        prob: (1 + M, D, height, width) float32 probabilities at the network's size, background first.
        grid: of the image.
        config: size and fit that the slices went through.

    Returns:
        (D, H, W) uint8 of shape ``grid.shape``: number of the most probable structure; what the network did not see is
        background.
    """
    shares = (unfit_share(share, grid, config=config, outside=float(k == 0)) for k, share in enumerate(prob))
    return restore_shares(shares, grid)


def unfit_share(share: Pixels, grid: Grid, *, config: PreprocessConfig, outside: float = 0.0) -> Pixels:
    """Bring the probability of one structure, (D, height, width), to the network's grid before slices were fitted.

    Returns:
        (D, H, W) float32 of shape ``grid.size``; ``outside`` where the network did not see the slices.
    """
    seen, shown = fit_boxes((grid.size[1], grid.size[2]), config.size, fit=config.fit)
    size = (seen[0].stop - seen[0].start, seen[1].stop - seen[1].start)
    out = np.full(grid.size, outside, np.float32)
    for place, part in enumerate(share):
        out[(place, *seen)] = resize_plane(np.ascontiguousarray(part[shown]), size=size)
    return out
