"""Figures of the training labels that shape a training: factors of classes, and the scale of numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from lepton_vision.config import Config
from lepton_vision.models.heads import value_scales
from lepton_vision.training.losses import balanced_weights, require_known

if TYPE_CHECKING:
    from torch import Tensor
    from torch.utils.data import DataLoader

    from lepton_vision.models.assemble import AnyNetwork
    from lepton_vision.types import Batch, Target


def class_weights(loader: DataLoader[Batch], config: Config, targets: Sequence[Target]) -> dict[str, Tensor]:
    """Return the factor of each class from the training labels, where the configuration asks for it."""
    if config.train.class_weights == "none":
        return {}
    dataset: Any = loader.dataset
    classes = [target for target in targets if not target.is_value]
    return {target.name: balanced_weights(dataset.labels(target.name), target) for target in classes}


def set_scales(model: AnyNetwork, loader: DataLoader[Batch]) -> None:
    """Give each head of a number the figures of its training labels, unless it has some: those of a head that is kept.

    Raises:
        TrainingError: no label is known.
    """
    dataset: Any = loader.dataset
    for name, scale in value_scales(model):
        labels = dataset.labels(name)
        require_known(labels, name)
        if not scale.is_set:
            scale.set_from(torch.as_tensor(labels))
