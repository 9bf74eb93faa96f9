"""Data set of manifest rows: decode (or take from the cache), sample, normalise, collate to a Batch."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset, get_worker_info

from lepton_vision.config import Config
from lepton_vision.errors import LeptonError, ReadError
from lepton_vision.manifest.mask_values import check_mask_values
from lepton_vision.manifest.table import Manifest
from lepton_vision.readers.quiet import quiet
from lepton_vision.transforms.cache import SampleCache
from lepton_vision.transforms.masks import mask_table, read_structures
from lepton_vision.transforms.preprocess import Prepared
from lepton_vision.transforms.resize import UInt16Pixels
from lepton_vision.transforms.rows import usable_rows
from lepton_vision.transforms.store import row_sources
from lepton_vision.transforms.views import view_of
from lepton_vision.types import UNKNOWN, Batch, SampleAddress, Target

Key = int | tuple[int, int]
"""Sample of a data set, or (sample, seed of what is drawn)."""


class SampleDataset(Dataset[Batch]):
    """The usable rows of a manifest as normalised samples with labels, as ``view_of(config)`` sees them.

    ``dataset[k]`` is a Batch of one, ``batch`` gives several samples as one Batch; both give the same numbers. Each row
    is there ``view.copies`` times, in a row of samples k, k + N, k + 2 N …. What a row needs is kept in a few arrays,
    so that forked workers share it instead of copying.

    Args:
        manifest: rows whose status is not "ok" are left out; ``Batch.index`` counts rows of this manifest.
        config: preprocess, volume, augment and segmentation sections; masks are given where there is the last.
        targets: whose labels are given; empty for unlabelled images.
        training: samples that are asked for with a seed are drawn at random and augmented.
        cache_dir: decoded images are kept there; None decodes each time.
        augment: as of ``make_loader``.

    Raises:
        ManifestError: no usable row.
        LabelError: the column of a target is missing, a label is none of its classes, or a mask holds a value that
            stands for no structure.
    """

    def __init__(
        self,
        manifest: Manifest,
        config: Config,
        *,
        targets: Sequence[Target] = (),
        training: bool = False,
        cache_dir: str | Path | None = None,
        augment: Any = None,
    ) -> None:
        self.config, self.targets = config, tuple(targets)
        self.view = view_of(config, targets=targets, training=training, augment=augment)
        self.rows = usable_rows(manifest, what="volume" if self.view.is_volume else "image")
        self.masks = None
        if config.segmentation is not None:
            check_mask_values(manifest, config.segmentation)
            self.masks = mask_table(manifest)
        self._labels = {target.name: manifest.labels(target)[self.rows.index] for target in self.targets}
        self.cache: SampleCache | None = None
        if cache_dir is not None and config.cache.max_gb > 0:
            self.cache = self.view.open_cache(Path(cache_dir), self.rows, masks=self.masks)

    def __len__(self) -> int:
        return len(self.rows) * self.view.copies

    def __getitem__(self, key: Key) -> Batch:
        return self.batch([key])

    def __getitems__(self, keys: Sequence[Key]) -> Batch | LeptonError:
        """What a DataLoader calls; ``make_loader``'s raises the error that comes as a value.

        Raised inside a worker it would reach the training process as a RuntimeError, its reason and path lost.
        """
        try:
            return self.batch(keys)
        except LeptonError as error:
            return error

    def batch(self, keys: Sequence[Key]) -> Batch:
        """One Batch of all samples asked for; whole volumes are padded to the largest of them.

        Raises:
            ReadError: a file that could be read when the folder was scanned cannot be read now.
            IndexError: no such sample.
        """
        pairs = [key if isinstance(key, tuple) else (key, None) for key in keys]
        places = np.asarray([place for place, _ in pairs], np.int64)
        if len(places) and not 0 <= places.min() <= places.max() < len(self):
            raise IndexError(f"Expected rows from 0 to {len(self) - 1}. Received: {places.min()} to {places.max()}.")
        # Drawn all at once: between two images, that code would have to come back into the processor's cache.
        drawn = [None if seed is None else self.view.draw(seed) for _, seed in pairs]
        rows = places % len(self.rows)
        labels = {name: torch.from_numpy(values[rows]) for name, values in self._labels.items()}
        # Once for all: if each file enters it, that takes a third of the time of reading one. Filled caches need none.
        with quiet if self.cache is None else nullcontext():
            images, masks = self._fill(rows.tolist(), drawn, labels=labels)
        ids = tuple(self.rows.image_id(int(row)) for row in rows)
        return Batch(images, labels, torch.from_numpy(self.rows.index[rows]), ids, masks)

    def _fill(
        self, rows: Sequence[int], drawn: Sequence[Any], *, labels: dict[str, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(B, C, …) float32 and (B, …) uint8, ``UNKNOWN`` for rows without a mask; samples may change labels.

        Sample by sample to the end: a whole batch would leave the processor's cache between two steps.
        """
        shape, wholes = self.view.shape, list[Prepared]()
        if shape is None:
            wholes = [self.load(row) for row in rows]
            shape = tuple(np.max([one.pixels.shape for one in wholes], axis=0).tolist())
        images = _empty_images((len(rows), *shape))
        masks = None if self.masks is None else np.full((len(rows), *shape[1:]), UNKNOWN, np.uint8)
        for place, (out, row, changes) in enumerate(zip(images.numpy(), rows, drawn, strict=True)):
            one = wholes[place] if wholes else self.load(row)
            own = self.view.sample(one, changes, out=out, mask=None if masks is None else masks[place])
            for name, value in own.items():
                labels[name][place] = value
        return images, None if masks is None else torch.from_numpy(masks)

    def load(self, row: int) -> Prepared:
        """One row's prepared image or volume with its mask, from the cache where it is there.

        Raises:
            ReadError: a file cannot be prepared, or its mask does not fit; ``path`` names it.
        """
        if self.cache is None:
            return self._prepare(row)
        kept = self.cache.get(row)
        if kept is None:
            kept = self._prepare(row)
            self.cache.put(row, kept)
        return kept

    def load_row(self, row: int) -> UInt16Pixels:
        """Input of a network for its targets of one row: (C, H, W) or (C, D, H, W) uint16.

        Raises:
            ReadError: as ``load``.
        """
        return self.view.plain(self.load(row).pixels)

    def _prepare(self, row: int) -> Prepared:
        address = self.locate(row)
        try:
            image = self.view.read(address)
            ready = self.view.prepare(image)
        except ReadError as error:
            raise self.rows.unreadable(row, error) from error
        if self.masks is None or self.config.segmentation is None or not self.masks.paths[row]:
            return ready
        place = self.masks.locate(row)
        try:  # a Segmentation is laid on the geometry, which an image that was read for its pixels alone does not have
            on = address if image.geometry is None else image
            return self.view.with_mask(ready, read_structures(place, self.config.segmentation, on=on), image=image)
        except ReadError as error:
            error.path = error.path or place.path
            raise self.rows.unreadable(row, error, what="" if error.path == address.path else ", its mask") from error

    def locate(self, row: int) -> SampleAddress:
        """Where the pixels of one row lie."""
        return self.rows.locate(row)

    def source_key(self, place: int) -> str:
        """Name what one sample is read from, with size and time of the files: 32 hexadecimal digits."""
        text = "\n".join(row_sources(self.rows, place % len(self.rows), masks=self.masks))
        return hashlib.sha256(os.fsencode(text)).hexdigest()[:32]

    def labels(self, target: str) -> npt.NDArray[np.float32]:
        """(N,) or (N, K) labels of the samples, NaN where unknown."""
        return np.concatenate([self._labels[target]] * self.view.copies)


def _empty_images(shape: tuple[int, ...]) -> torch.Tensor:
    """Float32 memory for a batch: in a loader's worker shared at once, as ``default_collate`` does it.

    Otherwise the queue to the training process would copy the batch there, and freshly mapped pages are slow.
    """
    if get_worker_info() is None:
        return torch.empty(shape)
    shared: Any = torch.UntypedStorage
    return torch.empty(0).set_(shared._new_shared(4 * math.prod(shape))).view(shape)
