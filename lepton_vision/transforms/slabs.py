"""Slabs of neighbouring slices as channels of a 2-D network ("2.5-D", arXiv:1704.07239), and their masks.

Slices lie across the patient, as with ``preprocess_slices``. A slab is what is stacked: the slice in the middle, which
mask and prediction belong to, and ``volume.context`` neighbours towards the feet and towards the head.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from lepton_vision.config import SegmentationConfig
from lepton_vision.config.sections import VolumeConfig
from lepton_vision.readers.mask import LabelMap
from lepton_vision.types import Target


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


def label_of_slice(mask: LabelMap, numbers: Sequence[int], *, is_known: bool) -> float:
    """Label of a slice from its own mask.

    Args:
        mask: (H, W) uint8 numbers of structures.
        numbers: of the structures that make a slice positive.
        is_known: whether the mask of the slice is known all over. A moved mask does not say: it is unknown beyond the
            image too.

    Returns:
        1 where a voxel of them is seen, 0 where none is and the mask is known, else NaN: they may lie where it is not.

    Example:
        >>> label_of_slice(np.array([[255, 2]], np.uint8), [2], is_known=False)
        1.0
    """
    if np.isin(mask, numbers).any():
        return 1.0
    return 0.0 if is_known else math.nan
