"""Out-of-memory errors of a GPU in terms of the configuration."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import TinyNetwork, run_tiny, tiny_config

from lepton_vision.errors import TrainingError
from lepton_vision.types import ModelOutput


class Greedy(TinyNetwork):
    def forward(self, images: torch.Tensor) -> ModelOutput:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")


@pytest.mark.parametrize(
    ("options", "advice"),
    [
        ((), r"train\.batch_size=16 with train\.accumulate_steps=2 learns from as many"),
        (("train.batch_size=8", "train.accumulate_steps=3"), r"batch_size=4 with train\.accumulate_steps=6"),
        (("train.batch_size=1",), "one at a time are too large"),
    ],
)
def test_full_memory_is_told_with_what_to_do(tmp_path: Path, options: tuple[str, ...], advice: str) -> None:
    with pytest.raises(TrainingError, match=advice) as caught:
        run_tiny(tmp_path, tiny_config(*options), model=Greedy())
    assert "The memory of cpu is full with train.batch_size=" in str(caught.value)
    assert caught.value.key == "train.batch_size"
    assert isinstance(caught.value.__cause__, torch.OutOfMemoryError)


def test_full_memory_while_validating_is_told_too(tmp_path: Path) -> None:
    def validate(network: torch.nn.Module) -> dict[str, float]:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    with pytest.raises(TrainingError, match="memory of cpu is full"):
        run_tiny(tmp_path, validate=validate)
