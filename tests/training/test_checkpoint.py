"""Checkpoints on a full disk."""

from __future__ import annotations

import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import run_tiny, tiny_config

from lepton_vision.config import Config
from lepton_vision.errors import OutputError, TrainingError
from lepton_vision.training.checkpoint import CheckpointFolder, Origin, Position


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
    assert sorted(path.name for path in last.parent.iterdir()) == ["last.pt", "previous.pt"]
    assert torch.load(last, weights_only=True)["position"]["step"] == 2
    found = run_tiny(tmp_path, config, resume=True)
    expected = run_tiny(tmp_path / "whole")
    assert all(torch.equal(found.state[name], expected.state[name]) for name in expected.state)


def test_run_folder_that_cannot_be_made_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="Cannot write into the run folder: Not a directory"):
        run_tiny(tmp_path / "file" / "run")


def test_no_flipped_bit_and_no_cut_is_read(tmp_path: Path) -> None:
    folder, origin = CheckpointFolder(tmp_path), Origin(Config(), "abc", 1)
    weights = {"weight": torch.arange(600, dtype=torch.float32)}
    for step in (1, 2):
        folder.write(Position(step=step), origin, parts={"model": weights, "optimizer": weights})
    whole = folder.last.read_bytes()
    bits = torch.randperm(8 * len(whole), generator=torch.Generator().manual_seed(0))[:96].tolist()
    for bit in (*bits, 0, 8 * len(whole) - 1):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        folder.last.write_bytes(damaged)
        found = folder.read(origin)
        assert found is not None
        assert found[0].step == 1
    for size in (0, 10, 40, len(whole) - 1):
        folder.last.write_bytes(whole[:size])
        found = folder.read(origin)
        assert found is not None
        assert found[0].step == 1
    folder.last.write_bytes(whole)
    found = folder.read(origin)
    assert found is not None
    assert found[0].step == 2
    assert torch.equal(found[1]["optimizer"]["weight"], weights["weight"])
