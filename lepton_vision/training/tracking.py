"""Optional MLflow tracking, enabled by ``MLFLOW_TRACKING_URI``: the doorway to mlflow."""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lepton_vision.config import Config
from lepton_vision.errors import MissingExtraError
from lepton_vision.files import write_atomic

_LOGGER = logging.getLogger(__name__)
_LONGEST_PARAM = 500  # characters that every tracking server takes


class MlflowRun:
    """One run on a tracking server; a server that fails later on costs figures there, never the training.

    Args:
        run_dir: keeps the run's id, so that a resumed training goes on with the same run.
        config: logged as parameters with dotted names.
        resume: go on with the run of ``run_dir``, if there is one.
    """

    def __init__(self, run_dir: Path, config: Config, *, resume: bool) -> None:
        import mlflow

        self._mlflow: Any = mlflow
        note = run_dir / "mlflow_run_id"
        run_id = note.read_text(encoding="utf-8").strip() if resume and note.is_file() else None
        if run_id is not None:
            mlflow.start_run(run_id=run_id)
            return
        started = mlflow.start_run(run_name=run_dir.name)
        write_atomic(note, started.info.run_id)
        mlflow.log_params(_params(config))

    def log(self, figures: Mapping[str, float], *, step: int) -> None:
        """Log figures at an optimiser step."""
        try:
            self._mlflow.log_metrics(dict(figures), step=step)
        except self._mlflow.exceptions.MlflowException as error:
            _LOGGER.warning("MLflow did not take the figures of step %d: %s", step, type(error).__name__)

    def close(self, *, is_complete: bool) -> None:
        """End the run."""
        try:
            self._mlflow.end_run("FINISHED" if is_complete else "KILLED")
        except self._mlflow.exceptions.MlflowException as error:
            _LOGGER.warning("MLflow did not end the run: %s", type(error).__name__)


def open_mlflow(run_dir: Path, config: Config, *, resume: bool) -> MlflowRun | None:
    """Start tracking where the environment asks for it; None where it does not."""
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        return None
    if importlib.util.find_spec("mlflow") is None:
        missing = MissingExtraError("mlflow", extra="mlflow", key="MLFLOW_TRACKING_URI")
        _LOGGER.warning("MLFLOW_TRACKING_URI is set, but nothing is tracked. %s", missing)
        return None
    return MlflowRun(run_dir, config, resume=resume)


def _params(config: Config) -> dict[str, str]:
    """Configuration values by dotted name; local paths are left out."""
    params: dict[str, str] = {}
    for section, values in config.to_dict().items():
        if not isinstance(values, dict):
            params[section] = str(values)[:_LONGEST_PARAM]
            continue
        params |= {f"{section}.{key}": str(value)[:_LONGEST_PARAM] for key, value in values.items()}
    for key in ("model.weights", "model.init_from", "cache.folder"):
        params[key] = Path(params[key]).name
    return params
