"""Out-of-memory errors in terms of the configuration."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

from lepton_vision.errors import TrainingError
from lepton_vision.models.machine_errors import is_memory_full

if TYPE_CHECKING:
    from lepton_vision.config.sections import TrainConfig


@contextlib.contextmanager
def explain_full_memory(config: TrainConfig, device: torch.device) -> Iterator[None]:
    """Say in the terms of the configuration what torch says in those of its allocator.

    Raises:
        TrainingError: the memory of ``device`` is full.
    """
    try:
        yield
    except Exception as error:
        if not is_memory_full(error):
            raise
        size, steps = config.batch_size, config.accumulate_steps
        half, doubled = max(1, size // 2), 2 * steps
        same = f"train.batch_size={half} with train.accumulate_steps={doubled} learns from as many images in a step"
        raise TrainingError(
            f"The memory of {device} is full with train.batch_size={size}, train.accumulate_steps={steps}. Expected "
            f"steps that fit. {same if size > 1 else 'Images of one at a time are too large'}; smaller images "
            "(preprocess.size, volume.patch) or bf16 (train.precision) take less, and so does a GPU that nobody else "
            "uses. Start in a new run folder.",
            key="train.batch_size",
        ) from error
