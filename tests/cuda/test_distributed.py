"""Distributed training on GPUs: all calls pass NCCL, and two processes equal one with the double batch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lepton_vision.training.loop import fit_model
from tests.cuda.gpu import DEVICE, largest, needs_gpu
from tests.training.tiny import TinyNetwork, plain_descent, tiny_config, tiny_loader

pytestmark = needs_gpu
ROOT = Path(__file__).resolve().parents[2]


def torchrun(*arguments: str, processes: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
    return subprocess.run(
        [*command, str(Path(__file__).with_name("nccl.py")), *arguments],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_what_processes_ask_of_each_other_passes_nccl() -> None:
    done = torchrun("nccl", processes=1)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "using the device under current context" not in done.stderr, "NCCL was told which GPU is whose"


def test_two_processes_on_one_gpu_equal_one_with_the_double_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = torchrun("train", str(tmp_path), processes=2)
    assert done.returncode == 0, done.stderr[-3000:]
    monkeypatch.setattr("lepton_vision.training.loop.make_optimizer", plain_descent)
    model = TinyNetwork(dropout=0.0, norms=False)
    options = ("train.epochs=2", "train.accumulate_steps=2", "train.freeze_stages=2", "train.unfreeze_every=1")
    expected = fit_model(
        model,
        tiny_loader(batch_size=8),
        tiny_config(*options, "train.keep=last"),
        validate=lambda _: {},
        run_dir=tmp_path / "one",
        device=DEVICE,
    )
    first, second = (torch.load(tmp_path / f"weights{rank}.pt", weights_only=True) for rank in (0, 1))
    assert largest(first["state"], expected.state) < 1e-4
    assert largest(first["final"], second["final"]) == 0.0
