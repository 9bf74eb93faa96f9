"""Helpers of the GPU tests: reasons to skip, small configurations, and interruption of a run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from lepton_vision.config import Config

DEVICE = "cuda"
needs_gpu = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU: this machine has none"),
    # torch 2.9 to 2.11 say once that the setting of TF32 will have another name; tests read it under the old one.
    pytest.mark.filterwarnings("ignore:Please use the new API"),
    # Python 3.12 and later, of loaders' workers: the driver has threads of its own.
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]

IMAGES = Config().override(
    "preprocess.size=[32, 32]",
    "model.stem=standard",
    "train.epochs=4",
    "train.batch_size=16",
    "train.lr=0.003",
    "train.monitor=val_loss",
    "audit.near_duplicates=false",
)


class Killed(BaseException):
    """Ends a run in this process as suddenly as it can."""


def kill_at(step: int) -> Callable[[dict[str, Any]], None]:
    """For ``fit_model``, which tells of each step where each is written down."""

    def progress(row: dict[str, Any]) -> None:
        if row["step"] >= step:
            raise Killed

    return progress


def kill_study_at(step: int) -> Callable[[str, int, int, str], None]:
    """For ``fit``."""

    def progress(stage: str, done: int, total: int, note: str) -> None:
        if stage == "train" and done >= step:
            raise Killed

    return progress


def largest(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> float:
    """Largest difference of any weight; both hold the same tensors."""
    assert found.keys() == expected.keys()
    pairs = ((found[name], value) for name, value in expected.items() if value.is_floating_point())
    return max(float((one.cpu() - other.cpu()).abs().max()) for one, other in pairs)
