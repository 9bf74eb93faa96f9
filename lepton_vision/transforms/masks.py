"""Masks of files and of the rows of a data set: from values to structures, at the size of the network's input."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from lepton_vision.config import SegmentationConfig
from lepton_vision.config.sections import PreprocessConfig
from lepton_vision.errors import ReadError
from lepton_vision.manifest.mask_values import stated_in_words
from lepton_vision.manifest.table import Manifest
from lepton_vision.readers.mask import LabelMap, labels_of, read_mask
from lepton_vision.transforms.grid import plane_grid, prepare_mask
from lepton_vision.transforms.rows import RowTable, TextColumn
from lepton_vision.types import UNKNOWN, Image, SampleAddress


def to_structures(values: LabelMap, segmentation: SegmentationConfig) -> LabelMap:
    """Turn values of a mask file into numbers of structures: 0 background, k the k-th one, ``UNKNOWN``.

    Args:
        values: (H, W) or (D, H, W) uint8.
        segmentation: which values stand for which structure.

    Raises:
        ReadError: reason ``mask_values``: a value of which nothing is stated.

    Example:
        >>> liver = SegmentationConfig(structures={"liver": (4, 6)})
        >>> to_structures(np.array([[0, 4, 6, 255]], np.uint8), liver)
        array([[  0,   1,   1, 255]], dtype=uint8)
    """
    table = np.zeros(256, np.uint8)
    for value, number in segmentation.numbers.items():
        table[value] = number
    strange = set(np.flatnonzero(np.bincount(values.ravel(), minlength=256)).tolist()) - set(segmentation.numbers)
    if strange:
        raise ReadError(
            f"The mask holds the value {min(strange)}, of which nothing is stated. {stated_in_words(segmentation)} "
            "Name it in segmentation.structures, unknown or background, or correct the mask.",
            reason="mask_values",
        )
    return table[values]


def read_structures(address: SampleAddress, segmentation: SegmentationConfig, *, on: Image | SampleAddress) -> LabelMap:
    """Read a mask on its own pixels, (H, W) or (D, H, W) uint8 numbers of structures.

    Args:
        address: of the mask.
        segmentation: which values stand for which structure.
        on: image that it belongs to; it is looked at where the mask is a DICOM Segmentation.

    Raises:
        ReadError: the file cannot be read, or holds what no structure stands for; ``path`` names it.
    """
    try:
        mask = read_mask(address.path, member=address.member, frame=address.frame, on=on)
        return to_structures(labels_of(mask), segmentation)
    except ReadError as error:
        error.path = error.path or address.path
        raise


def load_mask(
    address: SampleAddress, segmentation: SegmentationConfig, *, config: PreprocessConfig, on: SampleAddress
) -> LabelMap:
    """Read one 2-D mask at the size of the network's input; ``on`` as in ``read_structures``.

    Returns:
        (height, width) uint8 numbers of structures.

    Raises:
        ReadError: the file cannot be read, or holds what no structure stands for; ``path`` names it.
    """
    return fit_plane(read_structures(address, segmentation, on=on), config)


def fit_plane(labels: LabelMap, config: PreprocessConfig) -> LabelMap:
    """Bring a 2-D mask (H, W) to the size of the network's input, as its image.

    Raises:
        ReadError: reason ``volume``: it has a third axis.
    """
    if labels.ndim == 3:
        raise ReadError("Expected one 2-D mask. Received: a volume.", reason="volume")
    fitted: LabelMap = prepare_mask(labels[None], plane_grid(labels.shape, config))[0]
    return fitted


def overlap_counts(found: LabelMap, truth: LabelMap, *, structures: int) -> npt.NDArray[np.int64]:
    """Count for each structure the voxels in both, in the first, and in the second; unknown ones do not count.

    Args:
        found: (H, W) or (D, H, W) predicted numbers.
        truth: the same shape; ``UNKNOWN`` where not known.
        structures: M.

    Returns:
        (M, 3) int64.

    Example:
        >>> overlap_counts(np.array([[1, 1, 0]], np.uint8), np.array([[1, 255, 1]], np.uint8), structures=1)
        array([[1, 1, 2]])
    """
    is_known = truth != UNKNOWN
    pairs = truth[is_known].astype(np.int64) * (structures + 1) + found[is_known]
    table = np.bincount(pairs, minlength=(structures + 1) ** 2).reshape(structures + 1, structures + 1)
    return np.stack([np.diag(table), table.sum(axis=0), table.sum(axis=1)], axis=1)[1:]


def mask_table(manifest: Manifest) -> RowTable:
    """Addresses of the masks, "" where there is none; a mask has the frame of its image."""
    images = RowTable.of(manifest)
    return RowTable(
        root=images.root,
        index=images.index,
        image_ids=images.image_ids,
        paths=TextColumn.of_column(manifest.frame["mask_path"], images.index),
        members=TextColumn.of_column(manifest.frame["mask_member"], images.index),
        frames=images.frames,
        repairs=TextColumn.of("" for _ in range(len(images))),
        numbers=images.numbers,
    )
