"""A linear probe's short cut: the fixed encoder sees every training image once, the heads are trained on the result."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader

from lepton_vision.errors import ConfigError
from lepton_vision.models.device import autocast
from lepton_vision.types import Batch, ModelOutput

if TYPE_CHECKING:
    from lepton_vision.config import TrainConfig
    from lepton_vision.models.device import Precision
    from lepton_vision.models.network import Network


class HeadsOnly(nn.Module):
    """The part of a network that a linear probe trains: features in, logits out."""

    def __init__(self, model: Network) -> None:
        super().__init__()
        self.heads = model.heads

    def forward(self, features: Tensor) -> ModelOutput:
        """Map features (B, F) to logits."""
        return ModelOutput(self.heads(features))


class FeatureLoader:
    """Training samples as features, in the very order and batches of the loader they replace.

    Args:
        features: (N, F) float32, one row per row of the data set.
        loader: the training loader: its sampler, batch size and labels are used.
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
            rows = torch.tensor([key[0] for key in keys])
            labels = {name: values[rows] for name, values in self.labels.items()}
            yield Batch(self.features[rows], labels, rows, ("",) * len(rows))


class FeatureBatches:
    """Validation batches as features of a fixed encoder, computed once, when they are first asked for.

    Args:
        loader: labelled batches without augmentation.
        device: where the encoder stands.
        precision: "fp32", "bf16" or "fp16".
    """

    def __init__(self, loader: DataLoader[Batch], *, device: torch.device, precision: Precision) -> None:
        self._loader, self._device, self._precision = loader, device, precision
        self._batches: list[Batch] = []

    def of(self, model: Network) -> list[Batch]:
        """Batches whose images are (B, F) float32 features; ``HeadsOnly(model)`` takes them."""
        if not self._batches:
            self._batches = list(self._compute(model))
        return self._batches

    @torch.no_grad()
    def _compute(self, model: Network) -> Iterator[Batch]:
        model.eval()
        for batch in self._loader:
            moved = batch.to(self._device, memory_format=torch.channels_last)
            with autocast(self._device, self._precision):
                features = model.features(moved.images)
            yield replace(batch, images=features.float().cpu())


def check_probe(config: TrainConfig) -> None:
    """Refuse ``cache_features`` where features change while training.

    Raises:
        ConfigError: the encoder is not wholly fixed.
    """
    if config.cache_features and (config.freeze_stages < 5 or config.unfreeze_every):
        raise ConfigError(
            "train.cache_features needs a fixed encoder: freeze_stages=5 and unfreeze_every=0. "
            f"Received: freeze_stages={config.freeze_stages}, unfreeze_every={config.unfreeze_every}.",
            key="train.cache_features",
        )


@torch.no_grad()
def extract_features(
    model: Network, loader: DataLoader[Batch], *, device: torch.device, precision: Precision, channels_last: bool
) -> Tensor:
    """(N, F) float32 features of the un-augmented rows of a training loader's data set, on the CPU.

    Rows asked for by number alone, without a seed, come un-augmented. Features of 100,000 images and a ResNet-50 take
    0.8 GB.
    """
    # Of the loader's own class, which may know how to raise what went wrong in a worker.
    plain: DataLoader[Batch] = type(loader)(
        loader.dataset,
        batch_size=loader.batch_size,
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        worker_init_fn=loader.worker_init_fn,
        pin_memory=loader.pin_memory,
        generator=torch.Generator(),
    )
    memory_format = torch.channels_last if channels_last else None
    model.eval()
    parts = []
    for batch in plain:
        moved = batch.to(device, memory_format=memory_format)
        with autocast(device, precision):
            features = model.features(moved.images)
        parts.append(features.float().cpu())
    return torch.cat(parts)
