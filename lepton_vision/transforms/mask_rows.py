"""Masks of a dataset's rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lepton_vision.config import SegmentationConfig
from lepton_vision.config.sections import PreprocessConfig
from lepton_vision.errors import ReadError
from lepton_vision.manifest.mask_values import check_mask_values
from lepton_vision.manifest.table import Manifest
from lepton_vision.readers.mask import LabelMap
from lepton_vision.transforms.cache import PixelCache
from lepton_vision.transforms.masks import load_mask
from lepton_vision.transforms.rows import RowTable, TextColumn
from lepton_vision.types import SampleAddress


class MaskRows:
    """Masks at the size of the network's input, from the cache where they are there.

    Args:
        manifest: with masks; row k here is the k-th usable row, as in the dataset.
        config: size and fit.
        segmentation: structures.

    Raises:
        LabelError: no mask at all, or a value of which nothing is stated.
    """

    def __init__(self, manifest: Manifest, config: PreprocessConfig, *, segmentation: SegmentationConfig) -> None:
        check_mask_values(manifest, segmentation)
        self.config, self.segmentation = config, segmentation
        self.rows, self.images = mask_table(manifest), RowTable.of(manifest)
        self.cache: PixelCache | None = None

    def open_cache(self, folder: str | Path, *, max_gb: float) -> None:
        """Keep masks in a file beside the one of the images."""
        single = self.config.model_copy(update={"windows": ("full",), "color": "gray", "mean": (0.5,), "std": (0.25,)})
        self.cache = PixelCache.open(
            folder, self.rows, single, max_gb=max_gb, further=sorted(self.segmentation.numbers.items())
        )

    def locate(self, row: int) -> SampleAddress | None:
        """Location of the mask of one row; None where nothing is known."""
        return self.rows.locate(row) if self.rows.paths[row] else None

    def load(self, row: int) -> LabelMap | None:
        """Mask (height, width) uint8 of one row, numbers of structures; None where nothing is known.

        Raises:
            ReadError: the file cannot be read any more, or holds other values.
        """
        address = self.locate(row)
        if address is None:
            return None
        kept = self.cache.get(row) if self.cache is not None else None
        if kept is not None:
            mask: LabelMap = kept[0].astype(np.uint8)
            return mask
        image = self.images.locate(row)
        try:
            mask = load_mask(address, self.segmentation, config=self.config, on=image)
        except ReadError as error:
            what = "" if error.path == image.path else ", its mask"
            raise self.rows.unreadable(row, error, what=what) from error
        if self.cache is not None:
            self.cache.put(row, mask[None].astype(np.uint16))
        return mask


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
