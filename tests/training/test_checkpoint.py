"""The checkpoint on a full disk."""

from __future__ import annotations

import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import run_tiny, tiny_config

from lepton_vision.errors import TrainingError


def limit_file_size(at: int) -> Callable[[dict[str, Any]], None]:
    """From step ``at`` on, the system refuses to write a file beyond 4 kB, as a full disk would."""

    def progress(row: dict[str, Any]) -> None:
        if row["step"] == at:
            hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))

    return progress


def test_full_disk_is_one_error_and_the_checkpoint_before_is_intact(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    config = tiny_config("train.checkpoint_seconds=0")
    try:
        with pytest.raises(TrainingError, match=r"Cannot write the checkpoint of epoch 1, step 3: File too large") as e:
            run_tiny(tmp_path, config, progress=limit_file_size(9))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    last = tmp_path / "checkpoints/last.pt"
    assert e.value.path == last
    assert [path.name for path in last.parent.iterdir()] == ["last.pt"]
    assert torch.load(last, weights_only=True)["position"]["step"] == 2
    found = run_tiny(tmp_path, config, resume=True)
    expected = run_tiny(tmp_path / "whole")
    assert all(torch.equal(found.state[name], expected.state[name]) for name in expected.state)


def test_run_folder_that_cannot_be_made_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainingError, match="Cannot write into the run folder"):
        run_tiny(tmp_path / "file" / "run")
