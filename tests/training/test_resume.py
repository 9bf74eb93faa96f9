"""Resumption of a killed training: bit-identical to an undisturbed run, at any step."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import RICH, TinyNetwork, run_tiny, tiny_config, tiny_ensemble, tiny_loader, validate

from lepton_vision.errors import ConfigError, TrainingError

SCRIPT = Path(__file__).with_name("tiny.py")
TIMES = ("seconds", "images_per_s")


class Killed(BaseException):
    """Ends a run in this process as suddenly as it can."""


def kill_at(step: int) -> Callable[[dict[str, Any]], None]:
    def progress(row: dict[str, Any]) -> None:
        if row["step"] == step:
            raise Killed

    return progress


def run_child(run_dir: Path, **options: object) -> subprocess.CompletedProcess[str]:
    run_dir.mkdir(exist_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(SCRIPT.parents[2])}
    command = [sys.executable, str(SCRIPT), str(run_dir), json.dumps(options)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


def without_times(rows: list[dict[str, Any]] | tuple[dict[str, Any], ...]) -> str:
    return json.dumps([{key: value for key, value in row.items() if key not in TIMES} for row in rows])


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_run_killed_mid_epoch_and_resumed_has_the_same_bits(tmp_path: Path) -> None:
    whole = TinyNetwork()
    expected = run_tiny(tmp_path / "whole", tiny_config(*RICH), model=whole)
    killed = run_child(tmp_path / "cut", overrides=RICH, kill_at=5, workers=2)
    assert killed.returncode == -9, killed.stderr
    position = torch.load(tmp_path / "cut/checkpoints/last.pt", weights_only=True)["position"]
    assert (position["epoch"], position["step"]) == (1, 1)
    resumed = run_child(tmp_path / "cut", overrides=RICH, resume=True)
    assert resumed.returncode == 0, resumed.stderr
    weights = torch.load(tmp_path / "cut/weights0.pt", weights_only=True)
    assert same(weights["state"], expected.state)
    assert same(weights["final"], whole.state_dict())
    rows = [json.loads(line) for line in (tmp_path / "cut/metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [0, 1, 2]
    assert [row["train_loss"] for row in rows] == [row["train_loss"] for row in expected.history]


@pytest.mark.parametrize("step", range(1, 10))
def test_killed_at_any_step(tmp_path: Path, step: int) -> None:
    expected = run_tiny(tmp_path / "whole", tiny_config(*RICH))
    with pytest.raises(Killed):
        run_tiny(tmp_path / "cut", tiny_config(*RICH), progress=kill_at(step))
    with pytest.raises(Killed):
        run_tiny(tmp_path / "cut", tiny_config(*RICH), resume=True, progress=kill_at(9))
    found = run_tiny(tmp_path / "cut", tiny_config(*RICH), resume=True)
    assert same(found.state, expected.state)
    assert without_times(found.history) == without_times(expected.history)
    assert len((tmp_path / "cut/metrics.jsonl").read_text().splitlines()) == 3


@pytest.mark.parametrize("step", [2, 7])
def test_an_ensemble_killed_and_resumed_has_the_same_bits(tmp_path: Path, step: int) -> None:
    expected = run_tiny(tmp_path / "whole", tiny_config(*RICH), model=tiny_ensemble(2))
    with pytest.raises(Killed):
        run_tiny(tmp_path / "cut", tiny_config(*RICH), model=tiny_ensemble(2), progress=kill_at(step))
    found = run_tiny(tmp_path / "cut", tiny_config(*RICH), model=tiny_ensemble(2), resume=True)
    assert any(name.startswith("members.1.") for name in found.state)
    assert same(found.state, expected.state)
    assert without_times(found.history) == without_times(expected.history)


@pytest.mark.parametrize("step", [2, 7, 9])
def test_a_run_that_keeps_its_last_epoch_is_resumed_too(tmp_path: Path, step: int) -> None:
    config, start = tiny_config(*RICH, "train.keep=last"), TinyNetwork()

    def distance(model: torch.nn.Module) -> dict[str, float]:
        pairs = zip(model.parameters(), start.parameters(), strict=True)
        return {
            "val_loss": sum((new - old).detach().abs().sum().item() for new, old in pairs)
        }  # the first epoch looks best

    expected = run_tiny(tmp_path / "whole", config, validate=distance)
    with pytest.raises(Killed):
        run_tiny(tmp_path / "cut", config, validate=distance, progress=kill_at(step))
    found = run_tiny(tmp_path / "cut", config, validate=distance, resume=True)
    best = run_tiny(tmp_path / "best", tiny_config(*RICH), validate=distance)
    assert (found.epoch, expected.epoch, best.epoch) == (2, 2, 0)
    assert same(found.state, expected.state)
    assert not same(found.state, best.state)


def test_killed_after_the_row_but_before_the_checkpoint_does_not_repeat_the_row(tmp_path: Path) -> None:
    """With the default period there is no checkpoint yet: the run starts again and its rows replace the old ones."""

    def die(row: dict[str, Any]) -> None:
        if row["epoch"] == 1:
            raise Killed

    with pytest.raises(Killed):
        run_tiny(tmp_path, log=die)
    assert not (tmp_path / "checkpoints/last.pt").exists()
    result = run_tiny(tmp_path, resume=True)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [0, 1, 2]
    assert same(result.state, run_tiny(tmp_path / "whole").state)


def test_ctrl_c_finishes_the_step_and_writes_it_down(tmp_path: Path) -> None:
    stopped = run_child(tmp_path / "cut", interrupt_at=8)
    assert "KeyboardInterrupt" in stopped.stderr
    assert stopped.returncode in (-2, 130, 1)  # 1: Python forgets what ended it if a package runs code at exit (3.11)
    position = torch.load(tmp_path / "cut/checkpoints/last.pt", weights_only=True)["position"]
    assert (position["epoch"], position["step"], position["samples"]) == (1, 2, 8)
    found = run_tiny(tmp_path / "cut", resume=True)
    assert same(found.state, run_tiny(tmp_path / "whole").state)


def test_resume_without_a_checkpoint_starts_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="lepton_vision"):
        found = run_tiny(tmp_path / "a", resume=True)
    assert "starts from the beginning" in caplog.text
    assert same(found.state, run_tiny(tmp_path / "b").state)


def test_finished_run_is_not_overwritten_and_resuming_it_gives_its_result(tmp_path: Path) -> None:
    first = run_tiny(tmp_path)
    rows = (tmp_path / "metrics.jsonl").read_text()
    with pytest.raises(ConfigError, match="holds a run already") as caught:
        run_tiny(tmp_path)
    assert caught.value.key == "run_dir"
    loader = tiny_loader()
    again = run_tiny(tmp_path, resume=True, loader=loader, model=TinyNetwork())
    assert same(again.state, first.state)
    assert (again.epoch, again.best["val_loss"]) == (first.epoch, first.best["val_loss"])
    assert not loader.dataset.seen  # type: ignore[attr-defined]
    assert (tmp_path / "metrics.jsonl").read_text() == rows


@pytest.fixture
def stopped(tmp_path: Path) -> Path:
    with pytest.raises(Killed):
        run_tiny(tmp_path, tiny_config("train.checkpoint_seconds=0"), progress=kill_at(4), data_fingerprint="abc")
    return tmp_path


def test_another_configuration_is_refused_by_key(stopped: Path) -> None:
    with pytest.raises(ConfigError, match=r"train\.lr \(was 0\.01, is 0\.02\), train\.weight_decay") as caught:
        run_tiny(stopped, tiny_config("train.lr=0.02", "train.weight_decay=0.1"), resume=True, data_fingerprint="abc")
    assert caught.value.key == "train.lr"


def test_another_order_of_the_structures_is_refused(tmp_path: Path) -> None:
    """Masks number structures in their order: the same weights would mean something else."""
    config = tiny_config("train.checkpoint_seconds=0", "segmentation.structures={liver: 1, lesion: 2}")
    with pytest.raises(Killed):
        run_tiny(tmp_path, config, progress=kill_at(3))
    swapped = config.override("segmentation.structures={lesion: 2, liver: 1}")
    with pytest.raises(
        ConfigError, match=r"structures \(was \['liver', 'lesion'\], is \['lesion', 'liver'\]\)"
    ) as caught:
        run_tiny(tmp_path, swapped, resume=True)
    assert caught.value.key == "segmentation.structures"
    run_tiny(tmp_path, config.override("segmentation.structures={liver: [1], lesion: [2]}"), resume=True)


def test_other_weights_are_refused_without_showing_their_path(stopped: Path) -> None:
    with pytest.raises(ConfigError, match=r"model\.weights") as caught:
        run_tiny(stopped, tiny_config("model.weights=/home/jane/w.pt"), resume=True, data_fingerprint="abc")
    assert "jane" not in str(caught.value)


def test_other_data_are_refused(stopped: Path) -> None:
    with pytest.raises(ConfigError, match="other data") as caught:
        run_tiny(stopped, tiny_config("train.checkpoint_seconds=0"), resume=True, data_fingerprint="xyz")
    assert caught.value.key == "data"


def test_what_does_not_change_the_weights_may_differ(stopped: Path) -> None:
    config = tiny_config("train.checkpoint_seconds=5", "train.workers=1", "cache.max_gb=0", "evaluation.seed=3")
    found = run_tiny(stopped, config, resume=True, data_fingerprint="abc")
    assert same(found.state, run_tiny(stopped / "whole").state)


def test_a_damaged_checkpoint_gives_way_to_the_one_before(stopped: Path, caplog: pytest.LogCaptureFixture) -> None:
    config, last = tiny_config("train.checkpoint_seconds=0"), stopped / "checkpoints/last.pt"
    damaged = bytearray(last.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    last.write_bytes(damaged)
    with pytest.raises(Killed):  # the damaged one is gone, not kept as the one before
        run_tiny(stopped, config, resume=True, data_fingerprint="abc", progress=kill_at(4))
    assert caplog.text.count("The last checkpoint is damaged: training goes on from the one before.") == 1
    steps = [torch.load(stopped / f"checkpoints/{name}.pt")["position"]["step"] for name in ("previous", "last")]
    assert steps == [2, 3]
    found = run_tiny(stopped, config, resume=True, data_fingerprint="abc")
    assert same(found.state, run_tiny(stopped / "whole").state)


def test_a_kill_between_the_two_names_of_a_checkpoint_loses_nothing(stopped: Path) -> None:
    last, previous = stopped / "checkpoints/last.pt", stopped / "checkpoints/previous.pt"
    last.replace(previous)
    with pytest.raises(ConfigError, match="holds a run already"):
        run_tiny(stopped, data_fingerprint="abc")
    found = run_tiny(stopped, tiny_config("train.checkpoint_seconds=0"), resume=True, data_fingerprint="abc")
    assert same(found.state, run_tiny(stopped / "whole").state)


def test_without_a_whole_checkpoint_the_last_one_is_named(stopped: Path) -> None:
    paths = [stopped / f"checkpoints/{name}.pt" for name in ("last", "previous")]
    for path in paths:
        path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(TrainingError, match="is damaged, or of an older version") as caught:
        run_tiny(stopped, tiny_config("train.checkpoint_seconds=0"), resume=True, data_fingerprint="abc")
    assert caught.value.path == paths[0]
    assert str(stopped) not in str(caught.value)


def test_checkpoint_loads_without_running_code(stopped: Path) -> None:
    content = torch.load(stopped / "checkpoints/last.pt", weights_only=True)
    assert {"model", "optimizer"} <= content["parts"].keys()
    assert content["config"]["train"]["epochs"] == 3


def test_leftover_of_a_killed_writer_is_removed(stopped: Path) -> None:
    leftover = stopped / "checkpoints/.last.pt.123.tmp"
    leftover.write_bytes(b"half")
    run_tiny(stopped, tiny_config("train.checkpoint_seconds=0"), resume=True, data_fingerprint="abc")
    assert not leftover.exists()


def test_interrupt_while_validating_is_kept_for_after_it(tmp_path: Path) -> None:
    def slow(model: torch.nn.Module) -> dict[str, float]:
        os.kill(os.getpid(), 2)
        return validate(model)

    with pytest.raises(KeyboardInterrupt):
        run_tiny(tmp_path, validate=slow)
    position = torch.load(tmp_path / "checkpoints/last.pt", weights_only=True)["position"]
    assert (position["epoch"], position["step"], len(position["history"])) == (1, 0, 1)


def test_interrupt_that_ends_the_loaders_of_validation_is_an_interrupt(tmp_path: Path) -> None:
    def broken(model: torch.nn.Module) -> dict[str, float]:
        os.kill(os.getpid(), 2)
        raise RuntimeError("DataLoader worker (pid 1) exited unexpectedly")

    with pytest.raises(KeyboardInterrupt):
        run_tiny(tmp_path, validate=broken)
    found = run_tiny(tmp_path, resume=True)
    assert same(found.state, run_tiny(tmp_path / "whole").state)
