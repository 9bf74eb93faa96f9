"""Cached features of frozen stages: one pass over the images, then training of the stages above.

With all stages fixed that is a linear probe on pooled features; with fewer, a partly frozen network is fine-tuned
at the cost of its upper stages. Images are not augmented.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader

from lepton_vision.errors import ConfigError
from lepton_vision.models.device import autocast
from lepton_vision.models.encoders import check_chain
from lepton_vision.models.provenance import tensors_sha256
from lepton_vision.training.feature_store import FeatureStore
from lepton_vision.types import Batch, ModelOutput

if TYPE_CHECKING:
    from lepton_vision.config import Config
    from lepton_vision.config.sections import TrainConfig
    from lepton_vision.models.assemble import AnyNetwork
    from lepton_vision.models.device import Precision

_LARGEST_SHARE = 0.5  # of the machine's memory that features may take


class UpperPart(nn.Module):
    """The part of a network above its fixed stages: what they gave in, logits out.

    Args:
        model: the whole network; stays the owner of all weights.
        below: number of fixed stages.
    """

    def __init__(self, model: AnyNetwork, below: int) -> None:
        super().__init__()
        self.model, self.below = model, below

    def forward(self, maps: Tensor) -> ModelOutput:
        """Map (B, F, H, W), or (B, F) where all stages are fixed, to logits."""
        return self.model.upper(maps, below=self.below)


class FeatureLoader:
    """Samples as features, in the very order and batches of the loader they replace.

    Args:
        features: (N, F, H, W) or (N, F), one row per row of the data set.
        loader: its sampler, batch size and labels are used.
    """

    def __init__(self, features: Tensor, loader: DataLoader[Batch]) -> None:
        dataset: Any = loader.dataset
        self.features = features
        self.dataset = dataset
        self.sampler: Any = loader.sampler
        self.labels = {
            target.name: torch.from_numpy(np.asarray(dataset.labels(target.name))) for target in dataset.targets
        }
        self._batches: Any = BatchSampler(self.sampler, loader.batch_size or 1, loader.drop_last)

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Batch]:
        for keys in self._batches:
            numbers = [key[0] if isinstance(key, tuple) else key for key in keys]
            rows = torch.tensor(numbers)
            labels = {name: values[rows] for name, values in self.labels.items()}
            yield Batch(self.features[rows], labels, rows, tuple(str(number) for number in numbers))


class FixedStages:
    """What the fixed stages of a run make of images, computed at first need and kept.

    Args:
        config: ``train.freeze_stages`` says which stages, ``cache.max_gb`` bounds the file.
        device: where the network stands.
        precision: "fp32", "bf16" or "fp16".
        folder: features are kept there for further runs with the same stages; None keeps them in memory only.
    """

    def __init__(
        self, config: Config, *, device: torch.device, precision: Precision, folder: Path | None = None
    ) -> None:
        self.count = config.train.freeze_stages
        self._config, self._device, self._precision, self._folder = config, device, precision, folder
        self._loaders: dict[int, FeatureLoader] = {}

    @property
    def is_kept(self) -> bool:
        """Whether features are kept in a folder, from which a later look at the same images takes them."""
        return self._folder is not None and self._config.cache.max_gb > 0

    def loader(self, model: AnyNetwork, loader: DataLoader[Batch]) -> FeatureLoader:
        """Return the batches of ``loader`` as features; ``UpperPart(model, count)`` takes them.

        Raises:
            ConfigError: they do not fit into memory.
        """
        if id(loader) not in self._loaders:
            self._loaders[id(loader)] = FeatureLoader(self._features(model, loader), loader)
        return self._loaders[id(loader)]

    def _features(self, model: AnyNetwork, loader: DataLoader[Batch]) -> Tensor:
        """(N, …) one entry per row of the loader's data set, on the CPU."""
        dataset: Any = loader.dataset
        table = _Table(len(dataset), self.count)
        store = FeatureStore.open(self._folder, self._fingerprint(model), max_gb=self._config.cache.max_gb)
        if store is None:
            for rows, entries in self._compute(model, loader, list(range(len(dataset)))):
                table.put(rows, entries)
            return table.entries
        with contextlib.closing(store):
            keys = [dataset.source_key(row) for row in range(len(dataset))]
            missing = []
            for row, entry in enumerate(store.read(keys)):
                if entry is None:
                    missing.append(row)
                else:
                    table.put([row], entry[None])
            for rows, entries in self._compute(model, loader, missing):
                table.put(rows, entries)
                store.write([keys[row] for row in rows], entries)
        return table.entries

    def _fingerprint(self, model: AnyNetwork) -> str:
        """Name all that the features depend on beside the image."""
        fixed = list(model.encoder_stages().items())[: self.count]
        state = {f"{name}.{key}": tensor for name, stage in fixed for key, tensor in stage.state_dict().items()}
        preprocess = self._config.to_dict()["preprocess"]
        size, channels_last = self._config.train.batch_size, self._config.train.channels_last
        facts = [preprocess, self.count, self._precision, self._device.type, torch.__version__, size, channels_last]
        return f"{tensors_sha256(state)} {facts}"

    @torch.no_grad()
    def _compute(
        self, model: AnyNetwork, loader: DataLoader[Batch], rows: list[int]
    ) -> Iterator[tuple[list[int], Tensor]]:
        """Yield rows and their features. Rows asked for by number alone, without a seed, come un-augmented.

        Every step has the same number of images, so that a feature does not depend on what it was computed beside (see
        ``inference.engine``).
        """
        if not rows:
            return
        size = loader.batch_size or 1
        # Of the loader's own class, which may know how to raise what went wrong in a worker.
        plain: DataLoader[Batch] = type(loader)(
            loader.dataset,
            sampler=rows,
            batch_size=size,
            num_workers=loader.num_workers,
            collate_fn=loader.collate_fn,
            worker_init_fn=loader.worker_init_fn,
            pin_memory=loader.pin_memory,
            generator=torch.Generator(),
        )
        model.eval()
        for place, batch in enumerate(plain):
            images = batch.images
            if len(images) < size:
                images = torch.cat((images, images.new_zeros(size - len(images), *images.shape[1:])))
            images = images.to(self._device)
            if self._config.train.channels_last and images.ndim == 4:
                images = images.contiguous(memory_format=torch.channels_last)
            if place == 0:
                for member in model.members:
                    check_chain(member.encoder, images, self.count)
            with autocast(self._device, self._precision):
                maps = model.lower(images, self.count)
            yield rows[place * size : (place + 1) * size], maps[: len(batch.images)].cpu().contiguous()


class _Table:
    """One entry per row, in memory that is taken when the size of an entry is known."""

    def __init__(self, rows: int, count: int) -> None:
        self.entries = torch.empty(0)
        self._rows, self._count = rows, count

    def put(self, rows: list[int], entries: Tensor) -> None:
        """Fill some rows.

        Raises:
            ConfigError: all rows would take more than half of the machine's memory.
        """
        if not len(self.entries):
            self._check_memory(self._rows * entries[0].numel() * entries.element_size())
            self.entries = torch.empty((self._rows, *entries.shape[1:]), dtype=entries.dtype)
        self.entries[rows] = entries

    def _check_memory(self, needed: int) -> None:
        if needed > _LARGEST_SHARE * _memory_bytes():
            raise ConfigError(
                f"train.cache_features: what {self._count} fixed stages make of {self._rows} images would take "
                f"{needed / 1e9:.1f} GB. Expected at most half of this machine's memory ({_memory_bytes() / 1e9:.1f} "
                "GB). Fix more stages (train.freeze_stages), take a smaller preprocess.size, or turn it off.",
                key="train.cache_features",
            )


def _memory_bytes() -> float:
    """Memory of this machine; unlimited where the system does not say."""
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, ValueError, OSError):
        return float("inf")


def check_cached(config: TrainConfig) -> None:
    """Refuse ``cache_features`` where features change while training.

    Raises:
        ConfigError: no stage is fixed, or stages are freed on the way.
    """
    if config.cache_features and (config.freeze_stages == 0 or config.unfreeze_every):
        raise ConfigError(
            "train.cache_features needs stages that stay fixed: freeze_stages of at least 1 and unfreeze_every=0. "
            f"Received: freeze_stages={config.freeze_stages}, unfreeze_every={config.unfreeze_every}.",
            key="train.cache_features",
        )
