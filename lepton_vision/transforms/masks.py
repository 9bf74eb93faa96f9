"""Mask transforms: file values to structures, to the network's size with their image, and back again."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from lepton_vision.config import SegmentationConfig
from lepton_vision.config.sections import PreprocessConfig
from lepton_vision.errors import ReadError
from lepton_vision.manifest.mask_values import stated_in_words
from lepton_vision.readers.mask import LabelMap, labels_of, read_mask
from lepton_vision.transforms.preprocess import fit_boxes, resize_plane
from lepton_vision.types import UNKNOWN, Image, Pixels, SampleAddress


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
    labels = read_structures(address, segmentation, on=on)
    if labels.ndim == 3:
        raise ReadError("Expected one 2-D mask. Received: a volume.", reason="volume", path=address.path)
    return fit_mask(labels, config)


def fit_mask(labels: LabelMap, config: PreprocessConfig) -> LabelMap:
    """Fit and resize a mask as ``preprocess_image`` does its image: a pixel is what covers most of it.

    Where padding leaves room there is background, as the image is black there.

    Args:
        labels: (H, W) uint8 numbers of structures.
        config: size and fit.

    Returns:
        (height, width) uint8.

    Example:
        >>> fit_mask(np.array([[1, 1, 0, 0], [1, 0, 0, 0]], np.uint8), PreprocessConfig(size=(1, 2)))
        array([[1, 0]], dtype=uint8)
    """
    out = np.zeros(config.size, np.uint8)
    seen, shown = fit_boxes(labels.shape, config.size, fit=config.fit)
    part, size = labels[seen], out[shown].shape
    values = np.unique(part)
    if len(values) == 1:
        out[shown] = values[0]
    else:
        shares = np.stack([resize_plane((part == value).astype(np.float32), size=size) for value in values])
        out[shown] = values[shares.argmax(axis=0)]
    return out


def restore_mask(prob: Pixels, shape: tuple[int, int], *, config: PreprocessConfig) -> LabelMap:
    """Bring a predicted mask back to the pixels of its image.

    Args:
        prob: (1 + M, height, width) float32 probabilities at the network's size, background first.
        shape: H and W of the image.
        config: size and fit that the image went through.

    Returns:
        (H, W) uint8 number of the most probable structure, 0 background; what the network did not see is background.

    Example:
        >>> prob = np.zeros((2, 2, 2), np.float32)
        >>> prob[0], prob[1, :, 0] = 0.4, 0.9
        >>> restore_mask(prob, (2, 4), config=PreprocessConfig(size=(2, 2), fit="stretch"))
        array([[1, 1, 0, 0],
               [1, 1, 0, 0]], dtype=uint8)
    """
    shares = np.stack([restore_share(plane, shape, config=config) for plane in prob])
    return np.asarray(shares.argmax(axis=0), np.uint8)


def restore_share(share: Pixels, shape: tuple[int, int], *, config: PreprocessConfig) -> Pixels:
    """Bring the probability of one structure back to the pixels of its image.

    Args:
        share: (height, width) float32 at the network's size.
        shape: H and W of the image.
        config: size and fit that the image went through.

    Returns:
        (H, W) float32 in [0, 1]; 0 where the network did not see the image.
    """
    out = np.zeros(shape, np.float32)
    seen, shown = fit_boxes(shape, config.size, fit=config.fit)
    out[seen] = resize_plane(np.ascontiguousarray(share[shown]), size=out[seen].shape)
    return np.clip(out, 0.0, 1.0, out=out)


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
