"""Distributed training: two processes of torchrun equal one process with the double batch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny import TinyDataset, TinyNetwork, plain_descent, run_tiny, tiny_config, tiny_ensemble, tiny_loader
from torch import distributed

from lepton_vision.errors import ConfigError, TrainingError
from lepton_vision.training.distributed import join_world, local_device

SCRIPT = Path(__file__).with_name("tiny.py")
UNKNOWN = (1, 4, 5, 6, 17)  # so that the processes know different numbers of labels
OPTIONS = (
    "train.accumulate_steps=2",
    "train.freeze_stages=2",
    "train.unfreeze_every=1",
    "train.epochs=2",
    "train.clip_norm=0.3",
)


def torchrun(run_dir: Path, **options: object) -> subprocess.CompletedProcess[str]:
    run_dir.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(SCRIPT)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(SCRIPT.parents[2])}
    command += [str(run_dir), json.dumps(options)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=180)


@pytest.mark.parametrize("members", [1, 2])
def test_two_processes_equal_one_with_the_double_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, members: int
) -> None:
    monkeypatch.setattr("lepton_vision.training.loop.make_optimizer", plain_descent)
    shared = {
        "plain_descent": True,
        "overrides": OPTIONS,
        "dropout": 0.0,
        "norms": False,
        "unknown": UNKNOWN,
        "batch_size": 4,
    } | ({"members": members} if members > 1 else {})
    done = torchrun(tmp_path / "two", **shared)
    assert done.returncode == 0, done.stderr[-3000:]
    plain = {"dropout": 0.0, "norms": False}
    model = TinyNetwork(**plain) if members == 1 else tiny_ensemble(members, **plain)
    loader = tiny_loader(TinyDataset(unknown=UNKNOWN), batch_size=8)
    expected = run_tiny(tmp_path / "one", tiny_config(*OPTIONS), model=model, loader=loader)
    first, second = (torch.load(tmp_path / f"two/weights{rank}.pt", weights_only=True) for rank in (0, 1))
    for name, value in expected.state.items():
        torch.testing.assert_close(first["state"][name], value, rtol=1e-5, atol=1e-6)
        assert torch.equal(first["final"][name], second["final"][name])
        assert torch.equal(first["state"][name], second["state"][name])
    two, one = (
        [json.loads(row) for row in (tmp_path / f"{name}/metrics.jsonl").read_text().splitlines()]
        for name in ("two", "one")
    )
    assert [row["epoch"] for row in two] == [0, 1], "process 0 alone writes"
    assert [row["train_loss"] for row in two] == pytest.approx([row["train_loss"] for row in one], rel=1e-5)


@pytest.mark.parametrize("rank", [0, 1])
def test_where_one_process_fails_the_others_end_without_a_word_of_gloo(tmp_path: Path, rank: int) -> None:
    done = torchrun(tmp_path / "two", batch_size=4, fails_in=rank)
    assert done.returncode != 0
    assert "IndexError" in done.stderr, "the reason, of the process that failed"
    other = f"[rank{1 - rank}]: "  # which torchrun may end before it hears of it
    assert other not in done.stderr or "TrainingError: Another process of this training has ended" in done.stderr


def test_a_killed_process_ends_the_others(tmp_path: Path) -> None:
    done = torchrun(tmp_path / "two", batch_size=4, kill_at=1)
    assert done.returncode != 0
    assert "Signal 9" in done.stderr


def test_processes_that_cannot_meet_are_told_how(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(TrainingError, match=r"Start it with torchrun"), join_world(torch.device("cpu")):
        pass


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ConfigError, match=r"--nproc-per-node 1"), join_world(torch.device("cuda")):
        pass


def test_norm_layers_that_saw_other_images_end_alike_in_all_processes(tmp_path: Path) -> None:
    done = torchrun(tmp_path / "two", overrides=("train.epochs=2", "train.ema_decay=0.5"), norms=True, batch_size=4)
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (torch.load(tmp_path / f"two/weights{rank}.pt", weights_only=True) for rank in (0, 1))
    assert any("running_mean" in name for name in first["state"])
    for name, value in first["state"].items():
        assert torch.equal(second["state"][name], value), name


def test_what_is_heard_of_a_process_that_ended_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"WORLD_SIZE": "1", "RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29677"}.items():
        monkeypatch.setenv(name, value)
    distributed.init_process_group("gloo")
    try:
        said = pytest.raises(TrainingError, match="Another process of this training has ended")
        with said, join_world(torch.device("cpu")):
            raise RuntimeError("[gloo/transport/tcp/pair.cc:561] Connection closed by peer [127.0.0.1]:27360.")
        with pytest.raises(ZeroDivisionError), join_world(torch.device("cpu")):
            raise ZeroDivisionError
    finally:
        distributed.destroy_process_group()


def test_one_process_is_a_world_of_its_own() -> None:
    with join_world(torch.device("cpu")) as world:
        assert (world.rank, world.size, world.is_main) == (0, 1, True)
        assert world.share("figures") == "figures"
        assert world.total(torch.tensor(3.0)).item() == 3.0
        assert world.any(True)
        assert not world.any(False)


def test_each_process_takes_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert local_device(torch.device("cuda")) == torch.device("cuda", 1)
    assert local_device(torch.device("cuda", 0)) == torch.device("cuda", 0)
    assert local_device(torch.device("cpu")) == torch.device("cpu")


def test_a_process_outside_torchrun_keeps_its_current_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    assert local_device(torch.device("cuda")) == torch.device("cuda", 3)
