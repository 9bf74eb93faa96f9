"""Masks predicted for images, each on the pixels of its own image."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from lepton_vision.readers.mask import LabelMap
from lepton_vision.types import Image, Pixels, SampleAddress, short_repr


@dataclass(frozen=True, slots=True, eq=False)
class MaskPrediction:
    """One predicted mask.

    Attributes:
        image_id: pseudonymous id, that of the manifest where there is one.
        address: where the image lies.
        image: the image as it was read, with its geometry.
        labels: (H, W) or (D, H, W) uint8 on the pixels of ``image``: 0 background, k the k-th structure.
        share: gives the probability of the k-th structure (0: background) on the same pixels, float32 in [0, 1].
        row: row of the manifest; -1 for a plain file.
        probabilities: by target, what the same pass gave: () for a binary one, (K,) otherwise; empty for volumes.
    """

    image_id: str
    address: SampleAddress
    image: Image
    labels: LabelMap
    share: Callable[[int], Pixels]
    row: int = -1
    probabilities: Mapping[str, npt.NDArray[np.float32]] = field(default_factory=dict)

    __repr__ = short_repr
