"""Dataset of manifest rows: decode (or take from the cache), augment, normalise, collate to a Batch."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from lepton_vision.config import Config, SegmentationConfig
from lepton_vision.config.sections import PreprocessConfig
from lepton_vision.errors import ConfigError, LeptonError, ReadError
from lepton_vision.manifest.labels import infer_targets
from lepton_vision.manifest.mask_values import check_structures
from lepton_vision.manifest.table import Manifest
from lepton_vision.readers.image import read_pixels
from lepton_vision.readers.mask import LabelMap
from lepton_vision.readers.quiet import quiet
from lepton_vision.transforms.cache import PixelCache
from lepton_vision.transforms.mask_rows import MaskRows
from lepton_vision.transforms.preprocess import UInt16Pixels, preprocess_image, to_input
from lepton_vision.transforms.rows import usable_rows
from lepton_vision.transforms.sampler import EpochSampler, class_weights, patient_weights
from lepton_vision.transforms.volume_dataset import VolumeDataset, make_volume_dataset
from lepton_vision.types import UNKNOWN, Batch, Pixels, SampleAddress, Target

if TYPE_CHECKING:
    from lepton_vision.transforms.augment import Augment

Key = int | tuple[int, int]
"""Row of a dataset, or (row, augmentation seed)."""


class ImageDataset(Dataset[Batch]):
    """The usable rows of a manifest as normalised images with labels.

    ``dataset[row]`` is a Batch of one, ``batch`` gives several rows as one Batch; both give the same numbers. What a
    row needs is kept in a few arrays, so that forked workers share it instead of copying.

    Args:
        manifest: rows whose status is not "ok" are left out; ``Batch.index`` counts rows of this manifest.
        config: preprocessing; kept in the bundle.
        targets: whose labels are given; empty for unlabelled images.
        segmentation: structures of the masks that are given; None gives none.
        augment: applied to rows that are asked for with a seed, never to others; None for validation and scoring.
        cache: decoded images are kept there; None decodes each time.

    Raises:
        ManifestError: no usable row.
        LabelError: the column of a target is missing, a label is none of its classes, or a mask holds a value that
            stands for no structure.
    """

    def __init__(
        self,
        manifest: Manifest,
        config: PreprocessConfig,
        *,
        targets: Sequence[Target] = (),
        segmentation: SegmentationConfig | None = None,
        augment: Augment | None = None,
        cache: PixelCache | None = None,
    ) -> None:
        self.rows = usable_rows(manifest, what="image")
        self.config, self.augment, self.cache = config, augment, cache
        self.targets = tuple(targets)
        self.masks = None if segmentation is None else MaskRows(manifest, config, segmentation=segmentation)
        self._labels = {target.name: manifest.labels(target)[self.rows.index] for target in self.targets}

    def __len__(self) -> int:
        return len(self.rows)

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
        """One Batch of all rows asked for.

        Raises:
            ReadError: a file that could be read when the folder was scanned cannot be read now.
            IndexError: no such row.
        """
        rows = np.asarray([key[0] if isinstance(key, tuple) else key for key in keys], np.int64)
        seeds = [key[1] if isinstance(key, tuple) and self.augment is not None else None for key in keys]
        if len(rows) and not 0 <= rows.min() <= rows.max() < len(self):
            raise IndexError(f"Expected rows from 0 to {len(self) - 1}. Received: {rows.min()} to {rows.max()}.")
        images = _empty_images((len(rows), self.config.channels, *self.config.size))
        masks = self._load_masks(rows)
        self._fill(images.numpy(), rows, seeds, masks=masks)
        labels = {name: torch.from_numpy(values[rows]) for name, values in self._labels.items()}
        index = torch.from_numpy(self.rows.index[rows])
        ids = tuple(self.rows.image_id(int(row)) for row in rows)
        return Batch(images, labels, index, ids, None if masks is None else torch.from_numpy(masks))

    def _load_masks(self, rows: npt.NDArray[np.int64]) -> LabelMap | None:
        """(B, H, W) uint8, ``UNKNOWN`` for rows without a mask."""
        if self.masks is None:
            return None
        found = np.full((len(rows), *self.config.size), UNKNOWN, np.uint8)
        for place, row in enumerate(rows):
            mask = self.masks.load(int(row))
            if mask is not None:
                found[place] = mask
        return found

    def load_row(self, row: int) -> UInt16Pixels:
        """Preprocessed pixels (C, H, W) uint16 of one row, from the cache where they are there.

        Raises:
            ReadError: the file cannot become an image of the size and channels asked for; ``path`` names it.
        """
        cached = self.cache.get(row) if self.cache is not None else None
        if cached is not None:
            return cached
        address = self.locate(row)
        try:
            image = read_pixels(address.path, frame=address.frame, member=address.member)
            pixels = preprocess_image(image, self.config)
        except ReadError as error:
            raise self.rows.unreadable(row, error) from error
        if self.cache is not None:
            self.cache.put(row, pixels)
        return pixels

    def locate(self, row: int) -> SampleAddress:
        """Where the pixels of one row lie."""
        return self.rows.locate(row)

    def source_key(self, row: int) -> str:
        """Name the pixels of one row and their version, 32 hexadecimal digits: file, place in it, size and time."""
        place = self.locate(row)
        try:
            facts = place.path.stat()
            version = (facts.st_size, facts.st_mtime_ns)
        except OSError:
            version = (-1, -1)
        text = f"{place.path.absolute()}\n{place.member}\n{place.frame}\n{version}"
        return hashlib.sha256(os.fsencode(text)).hexdigest()[:32]

    def labels(self, target: str) -> npt.NDArray[np.float32]:
        """(N,) or (N, K) labels of the rows, NaN where unknown."""
        return self._labels[target]

    def _fill(
        self, out: Pixels, rows: npt.NDArray[np.int64], seeds: Sequence[int | None], *, masks: LabelMap | None
    ) -> None:
        """Fill ``out`` (B, C, H, W) with normalised rows, augmented where there is a seed; their masks move along.

        Image by image to the end: a whole batch would leave the processor's cache between two steps.
        """
        augment = self.augment
        # Once for all: if each file enters it, that takes a third of the time of reading one. Filled caches need none.
        with quiet if self.cache is None else nullcontext():
            # Drawn all at once: between two images, that code would have to come back into the processor's cache.
            drawn = [None if seed is None or augment is None else augment.draw(out.shape[2:], seed) for seed in seeds]
            for place, (row, changes) in enumerate(zip(rows.tolist(), drawn, strict=True)):
                pixels, image = self.load_row(row), out[place]
                if changes is None or augment is None:
                    to_input(pixels, self.config, out=image)
                    continue
                moved = None if masks is None or masks[place].min() == UNKNOWN else masks[place]
                augment.apply(pixels, changes, out=image, mask=moved, norm=self.config)


def _empty_images(shape: tuple[int, ...]) -> torch.Tensor:
    """Float32 memory for a batch: in a loader's worker shared at once, as ``default_collate`` does it.

    Otherwise the queue to the training process would copy the batch there, and freshly mapped pages are slow.
    """
    if get_worker_info() is None:
        return torch.empty(shape)
    shared: Any = torch.UntypedStorage
    return torch.empty(0).set_(shared._new_shared(4 * math.prod(shape))).view(shape)


def make_loader(
    manifest: Manifest,
    config: Config,
    *,
    training: bool = False,
    targets: Sequence[Target] | None = None,
    batch_size: int | None = None,
    workers: int | None = None,
    cache_dir: str | Path | None = None,
    sampler: Sampler[Key] | None = None,
) -> DataLoader[Batch]:
    """Loader over the usable rows of a manifest (choose the split first: ``manifest.subset("train")``).

    In training, rows are shuffled, or drawn by class or patient (``config.train.sampling``), by an ``EpochSampler``,
    sharded over the processes of ``torchrun``, augmented, and an incomplete last batch is left out. Otherwise they come
    in manifest order, unchanged. What is seen depends on seed and epoch, never on the number of workers, and no global
    random state is touched.

    Args:
        manifest: rows; rejected ones are left out.
        config: preprocess, augment, train (batch size, workers, sampling, seed) and cache sections are used.
        training: shuffle and augment.
        targets: None takes ``config.targets``, or what the manifest's label columns leave no doubt about.
        batch_size: of this process; None takes ``config.train.batch_size``.
        workers: loader processes; None takes ``config.train.workers``; 0 loads in this process.
        cache_dir: folder of the decoded cache; None takes ``config.cache.folder``; without either, no cache.
        sampler: replaces the order above; yields rows or (row, seed).

    Returns:
        DataLoader of Batch; in training its ``sampler`` is the EpochSampler (call ``set_epoch`` before each epoch).

    Raises:
        ManifestError: no usable row. LabelError: labels missing or outside the classes, masks that do not fit the
            structures, or that never hold one in training. ConfigError: training without a target, or a batch size
            below 1.
    """
    dataset = _make_dataset(manifest, config, training=training, targets=targets, cache_dir=cache_dir)
    size = config.train.batch_size if batch_size is None else batch_size
    if isinstance(dataset, VolumeDataset) and dataset.gives_wholes:
        size = min(size, 1)  # whole volumes differ in size
    count = config.train.workers if workers is None else workers
    if size < 1 or count < 0:
        raise ConfigError(f"Expected batch_size >= 1 and workers >= 0. Received: {size} and {count}.")
    if training and sampler is None:
        sampler = _training_sampler(dataset, config, patients=_patients(manifest))
    per_process = len(sampler) if isinstance(sampler, EpochSampler) else len(dataset)
    return _Loader(
        dataset,
        batch_size=size,
        sampler=sampler,
        num_workers=count,
        collate_fn=_as_batch,
        pin_memory=torch.cuda.is_available(),
        drop_last=training and per_process >= size,
        worker_init_fn=_start_worker,
        persistent_workers=count > 0,
        generator=torch.Generator().manual_seed(config.train.seed),  # else each epoch would draw from the global one
    )


class _Loader(DataLoader[Batch]):
    """DataLoader whose workers' errors arrive as they were raised, with reason and path."""

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]  # torch promises its own iterator class
        for batch in super().__iter__():
            if isinstance(batch, LeptonError):
                raise batch
            yield batch


def _make_dataset(
    manifest: Manifest,
    config: Config,
    *,
    training: bool,
    targets: Sequence[Target] | None,
    cache_dir: str | Path | None,
) -> ImageDataset | VolumeDataset:
    if targets is None:
        is_told = config.targets or config.segmentation is not None or not manifest.label_columns
        targets = config.targets if is_told else infer_targets(manifest)
    if training and not targets and config.segmentation is None:
        raise ConfigError(
            "Training needs at least one target or segmentation. Received: neither, and the manifest has no label "
            "column. Scan with a label table, or name targets in the configuration.",
            key="targets",
        )
    if training and config.segmentation is not None:
        check_structures(manifest, config.segmentation)
    if config.volume is not None:
        return make_volume_dataset(manifest, config, training=training, targets=targets, cache_dir=cache_dir)
    augment = None
    if training and config.augment.preset != "none" and config.augment.strength > 0:
        from lepton_vision.transforms.augment import build_augment  # scoring and validation never load albumentations

        augment = build_augment(config.augment, targets=targets, segmentation=config.segmentation)
    dataset = ImageDataset(
        manifest, config.preprocess, targets=targets, segmentation=config.segmentation, augment=augment
    )
    folder = cache_dir if cache_dir is not None else config.cache.folder
    if folder is not None and config.cache.max_gb > 0:
        dataset.cache = PixelCache.open(folder, dataset.rows, config.preprocess, max_gb=config.cache.max_gb)
        if dataset.masks is not None:
            dataset.masks.open_cache(folder, max_gb=config.cache.max_gb)
    return dataset


def _training_sampler(
    dataset: ImageDataset | VolumeDataset, config: Config, *, patients: npt.NDArray[np.int64]
) -> EpochSampler:
    train, weights = config.train, None
    if train.sampling == "balanced" and dataset.targets:
        weights = class_weights(dataset.labels(dataset.targets[0].name))
    elif train.sampling == "patients":
        copies = len(dataset) // len(dataset.rows)  # sample k + c N is a further patch of volume k
        weights = np.tile(patient_weights(patients[dataset.rows.index]), copies)
    rank, world = _place_in_world()
    return EpochSampler(
        len(dataset),
        seed=train.seed,
        rank=rank,
        world=world,
        weights=weights,
        samples=train.epoch_samples or None,
    )


def _patients(manifest: Manifest) -> npt.NDArray[np.int64]:
    """(N,) number of each row's patient; a row without one is a patient of its own."""
    frame = manifest.frame
    return pd.factorize(frame["patient_id"].fillna(frame["image_id"]))[0].astype(np.int64)


def _place_in_world() -> tuple[int, int]:
    """Rank and number of processes; before the process group stands, what ``torchrun`` wrote for it."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def _as_batch(batch: Any) -> Any:
    """The dataset has already collated."""
    return batch


def _start_worker(_: int) -> None:
    """One worker, one core: libraries that start a thread per core would only disturb each other."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
