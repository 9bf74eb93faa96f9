"""MLflow tracking, through a stand-in that records the calls."""

from __future__ import annotations

import importlib.machinery
import logging
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from lepton_vision.config import Config
from lepton_vision.training.runlog import RunFolder, open_mlflow


class FakeMlflow(ModuleType):
    """The six calls that are used, with the names and arguments of mlflow 2 and 3."""

    def __init__(self) -> None:
        super().__init__("mlflow")
        self.__spec__ = importlib.machinery.ModuleSpec("mlflow", None)
        self.calls: list[tuple[Any, ...]] = []
        self.is_broken = False
        self.exceptions = SimpleNamespace(MlflowException=type("MlflowException", (Exception,), {}))

    def start_run(self, run_id: str | None = None, run_name: str | None = None) -> SimpleNamespace:
        self.calls.append(("start", run_id, run_name))
        return SimpleNamespace(info=SimpleNamespace(run_id=run_id or "id-1"))

    def log_params(self, params: dict[str, Any]) -> None:
        self.calls.append(("params", params))

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        if self.is_broken:
            raise self.exceptions.MlflowException("server is gone")
        self.calls.append(("metrics", metrics, step))

    def end_run(self, status: str = "FINISHED") -> None:
        self.calls.append(("end", status))


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch) -> FakeMlflow:
    fake = FakeMlflow()
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "file:unused")
    return fake


ROW = {"epoch": 0, "updates": 10, "val_auroc": 0.8, "val_loss": float("nan")}


def test_configuration_and_finite_figures_are_logged(tmp_path: Path, mlflow: FakeMlflow) -> None:
    config = Config().override("model.weights=/home/jane/weights.pt")
    with RunFolder(tmp_path / "ct-01", config, facts={}) as run:
        run.log(ROW)
    start, (_, params), metrics, end = mlflow.calls
    assert start == ("start", None, "ct-01")
    assert params["train.lr"] == "0.001"
    assert params["model.weights"] == "weights.pt"
    assert metrics == ("metrics", {"val_auroc": 0.8}, 10)
    assert end == ("end", "FINISHED")


def test_resumed_training_goes_on_with_the_same_run(tmp_path: Path, mlflow: FakeMlflow) -> None:
    with pytest.raises(KeyboardInterrupt), RunFolder(tmp_path, Config(), facts={}):
        raise KeyboardInterrupt
    with RunFolder(tmp_path, Config(), facts={}, resume=True):
        pass
    kinds = [call[:2] for call in mlflow.calls if call[0] != "params"]
    assert kinds == [("start", None), ("end", "KILLED"), ("start", "id-1"), ("end", "FINISHED")]


def test_server_that_fails_costs_figures_not_the_training(
    tmp_path: Path, mlflow: FakeMlflow, caplog: pytest.LogCaptureFixture
) -> None:
    with RunFolder(tmp_path, Config(), facts={}) as run:
        mlflow.is_broken = True
        run.log(ROW)
    assert "did not take the figures of step 10" in caplog.text


def test_nothing_is_tracked_where_nobody_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert open_mlflow(tmp_path, Config(), resume=False) is None


def test_missing_package_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "file:unused")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with caplog.at_level(logging.WARNING):
        assert open_mlflow(tmp_path, Config(), resume=False) is None
    assert "pip install -e '.[mlflow]'" in caplog.text
