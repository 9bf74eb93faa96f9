"""Loaders over the rows of a manifest: data set, cache and augmentation by the configuration, sampler, workers."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch.utils.data import DataLoader, Sampler

from lepton_vision.config import Config
from lepton_vision.errors import ConfigError, LeptonError
from lepton_vision.manifest.labels import infer_targets
from lepton_vision.manifest.mask_values import check_structures
from lepton_vision.manifest.table import Manifest
from lepton_vision.transforms.dataset import Key, SampleDataset
from lepton_vision.transforms.sampler import EpochSampler, class_weights, patient_weights
from lepton_vision.types import Batch, Target


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
    augment: Any = None,
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
        augment: in training, a pipeline of albumentations for images, or of monai.transforms for volumes (arrays, or
            dictionaries with ``image`` and ``mask``), in place of ``config.augment``. It sees values in [0, 1] and
            keeps the size; masks are moved along.

    Returns:
        DataLoader of Batch; in training its ``sampler`` is the EpochSampler (call ``set_epoch`` before each epoch).

    Raises:
        ManifestError: no usable row. LabelError: labels missing or outside the classes, masks that do not fit the
            structures, or that never hold one in training. ConfigError: training without a target, or a batch size
            below 1.
    """
    if targets is None:
        is_told = config.targets or config.segmentation is not None or not manifest.label_columns
        targets = config.targets if is_told else infer_targets(manifest)
    if training:
        _check_training(manifest, config, targets)
    folder = config.cache.folder if cache_dir is None else cache_dir
    dataset = SampleDataset(manifest, config, targets=targets, training=training, cache_dir=folder, augment=augment)
    size = config.train.batch_size if batch_size is None else batch_size
    if dataset.view.gives_wholes:
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


def _check_training(manifest: Manifest, config: Config, targets: Sequence[Target]) -> None:
    if not targets and config.segmentation is None:
        raise ConfigError(
            "Training needs at least one target or segmentation. Received: neither, and the manifest has no label "
            "column. Scan with a label table, or name targets in the configuration.",
            key="targets",
        )
    if config.segmentation is not None:
        check_structures(manifest, config.segmentation)


def _training_sampler(dataset: SampleDataset, config: Config, *, patients: npt.NDArray[np.int64]) -> EpochSampler:
    train, weights = config.train, None
    if train.sampling == "balanced" and dataset.targets:
        classes = [target for target in dataset.targets if not target.is_value]
        if not classes:
            raise ConfigError(
                "train.sampling balanced draws each class as often, and no target has classes. Use another sampling.",
                key="train.sampling",
            )
        weights = class_weights(dataset.labels(classes[0].name))
    elif train.sampling == "patients":
        weights = np.tile(patient_weights(patients[dataset.rows.index]), dataset.view.copies)
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
