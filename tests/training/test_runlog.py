"""Run folder: its files, and the data that it never holds."""

from __future__ import annotations

import getpass
import json
import math
import socket
from pathlib import Path

import pytest

from lepton_vision.config import Config
from lepton_vision.training.runlog import RunFolder


def row(epoch: int, **figures: float) -> dict[str, float]:
    return {"epoch": epoch, "updates": 10 * (epoch + 1), "train_loss": 1.0 / (epoch + 1), **figures}


def rows_of(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def scalars(folder: Path, tag: str) -> list[tuple[int, float]]:
    """What TensorBoard itself reads."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder / "tensorboard"))
    found.Reload()
    return [(event.step, round(event.value, 4)) for event in found.Scalars(tag)]


def test_configuration_and_environment_are_complete_and_impersonal(tmp_path: Path) -> None:
    config = Config().override("train.epochs=7")
    with RunFolder(tmp_path / "run", config, facts={"device": "cpu"}):
        pass
    assert Config.from_yaml(tmp_path / "run/config.yaml") == config
    text = (tmp_path / "run/environment.json").read_text()
    facts = json.loads(text)
    assert facts["device"] == "cpu"
    assert facts["packages"]["torch"].startswith("2.")
    assert socket.gethostname() not in text
    assert getpass.getuser() not in text.replace("root", "") or getpass.getuser() == "root"
    assert str(Path.home()) not in text


def test_rows_are_json_without_nan(tmp_path: Path) -> None:
    with RunFolder(tmp_path, Config(), facts={}) as run:
        run.log(row(0, val_auroc=math.nan))
        run.log(row(1, val_auroc=0.75))
    assert rows_of(tmp_path) == [row(0) | {"val_auroc": None}, row(1, val_auroc=0.75)]


def test_repeated_epoch_replaces_its_row_and_a_broken_line_goes(tmp_path: Path) -> None:
    with RunFolder(tmp_path, Config(), facts={}) as run:
        for epoch in range(3):
            run.log(row(epoch))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 3, "upd')
    with RunFolder(tmp_path, Config(), facts={}, resume=True) as run:
        run.log(row(1, again=1.0))
        run.log(row(2, again=1.0))
    assert [(r["epoch"], r.get("again")) for r in rows_of(tmp_path)] == [(0, None), (1, 1.0), (2, 1.0)]


def test_fresh_run_drops_the_rows_of_one_that_never_wrote_a_checkpoint(tmp_path: Path) -> None:
    for _ in range(2):
        with RunFolder(tmp_path, Config(), facts={}) as run:
            run.log(row(0))
            run.log(row(1))
    assert len(rows_of(tmp_path)) == 2


def test_tensorboard_shows_each_step_once_after_a_resume(tmp_path: Path) -> None:
    with RunFolder(tmp_path, Config(), facts={}) as run:
        for epoch in range(3):
            run.log(row(epoch, val_auroc=0.5))
    with RunFolder(tmp_path, Config(), facts={}, resume=True) as run:
        run.log(row(2, val_auroc=0.9))
    assert scalars(tmp_path, "val/auroc") == [(10, 0.5), (20, 0.5), (30, 0.9)]
    assert scalars(tmp_path, "train/loss") == [(10, 1.0), (20, 0.5), (30, 0.3333)]
    names = [path.name for path in (tmp_path / "tensorboard").iterdir()]
    assert not any(socket.gethostname() in name for name in names)


def test_nothing_is_left_under_a_temporary_name(tmp_path: Path) -> None:
    with RunFolder(tmp_path, Config(), facts={}) as run:
        run.log(row(0))
        run.log(row(0))
    assert not list(tmp_path.rglob("*.tmp"))


def test_rows_that_cannot_be_written_are_one_error(tmp_path: Path) -> None:
    from lepton_vision.errors import TrainingError

    with RunFolder(tmp_path, Config(), facts={}) as run:
        (tmp_path / "metrics.jsonl").mkdir()
        with pytest.raises(TrainingError, match="Cannot write the figures of epoch 0") as caught:
            run.log(row(0))
    assert str(tmp_path) not in str(caught.value)
