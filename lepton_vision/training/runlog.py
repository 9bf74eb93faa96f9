"""Run folder: configuration, environment, one row of figures per epoch, TensorBoard events; optional MLflow tracking.

The doorway to mlflow, which ``MLFLOW_TRACKING_URI`` asks for.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import logging
import math
import os
import platform
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from lepton_vision._version import __version__
from lepton_vision.config import Config
from lepton_vision.errors import MissingExtraError, TrainingError
from lepton_vision.files import HeldFolder, append_whole, write_atomic
from lepton_vision.training.distributed import is_main_process

_LOGGER = logging.getLogger(__name__)
_LONGEST_PARAM = 500  # characters that every tracking server takes
_PACKAGES = ("torch", "torchvision", "numpy", "pandas", "pydicom", "albumentations", "opencv-python-headless")


def hold_run(run_dir: str | Path, *, is_shared: bool = False) -> contextlib.AbstractContextManager[object]:
    """Hold the folder of a run, where no caller holds it already; of several processes of one run the first does.

    Args:
        run_dir: the folder.
        is_shared: beside others that share it, each with runs in folders of their own below.
    """
    if not is_main_process():
        return contextlib.nullcontext()
    return HeldFolder(run_dir, what="run folder", is_shared=is_shared, may_hold=True)


class RunFolder:
    """Writes what a run says about itself; only the first process of a run opens one.

    ``metrics.jsonl`` holds one JSON object per finished epoch, a figure that is not finite as null. A row of an epoch
    that is there already (an epoch that a resumed run repeats) replaces it and what follows.

    Args:
        path: the folder; made if it is not there.
        config: written as ``config.yaml``.
        facts: device, precision and the like, for ``environment.json``.
        resume: keep the rows that are there; otherwise they are removed.

    Example:
        >>> with RunFolder(Path("runs/ct-01"), Config(), facts={}) as run:  # doctest: +SKIP
        ...     run.log({"epoch": 0, "updates": 10, "train_loss": 0.7})
    """

    def __init__(self, path: Path, config: Config, *, facts: Mapping[str, Any], resume: bool = False) -> None:
        self.path = path
        self._events: EventFile | None = None
        try:
            path.mkdir(parents=True, exist_ok=True)
            config.to_yaml(path / "config.yaml")
            write_atomic(path / "environment.json", json.dumps(environment() | dict(facts), indent=1) + "\n")
            if not resume:
                self.metrics.unlink(missing_ok=True)
        except OSError as error:
            raise TrainingError(
                f"Cannot write into the run folder: {error.strerror}. Make room, or choose another folder.", path=path
            ) from error
        self._mlflow: MlflowRun | None = open_mlflow(path, config, resume=resume)

    @property
    def metrics(self) -> Path:
        """One row per epoch."""
        return self.path / "metrics.jsonl"

    def log(self, row: Mapping[str, Any]) -> None:
        """Append one epoch's figures everywhere.

        Args:
            row: plain values with ``epoch`` (from 0) and ``updates`` (optimiser steps of the whole run so far).

        Raises:
            TrainingError: the disk is full or not writable.
        """
        try:
            self._drop_rows_from(row["epoch"])
            append_whole(self.metrics, (json.dumps(finite_or_none(row)) + "\n").encode())
            if self._events is None:
                self._events = EventFile(self.path / "tensorboard", first_step=row["updates"])
            self._events.write(numbers(row), step=row["updates"])
        except OSError as error:
            raise TrainingError(
                f"Cannot write the figures of epoch {row['epoch']}: {error.strerror}. "
                "Make room in the run folder and go on with resume.",
                path=self.metrics,
            ) from error
        if self._mlflow is not None:
            self._mlflow.log(numbers(row), step=row["updates"])

    def close(self, *, is_complete: bool) -> None:
        """End the MLflow run, if there is one."""
        if self._mlflow is not None:
            self._mlflow.close(is_complete=is_complete)

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(is_complete=kind is None)

    def _drop_rows_from(self, epoch: int) -> None:
        """Remove the rows of this and later epochs, and a line that a kill left incomplete."""
        if not self.metrics.is_file():
            return
        text = self.metrics.read_text(encoding="utf-8")
        kept = [line for line in text.splitlines() if _epoch_of(line) < epoch]
        wanted = "".join(f"{line}\n" for line in kept)
        if wanted != text:
            write_atomic(self.metrics, wanted)


def _epoch_of(line: str) -> float:
    """Epoch of a line of ``metrics.jsonl``; infinity for a line that is not whole."""
    try:
        return float(json.loads(line)["epoch"])
    except (ValueError, KeyError, TypeError):
        return math.inf


def finite_or_none(row: Mapping[str, Any]) -> dict[str, Any]:
    """Values for JSON, which knows neither NaN nor infinity."""
    return {key: None if isinstance(x, float) and not math.isfinite(x) else x for key, x in row.items()}


def numbers(row: Mapping[str, Any]) -> dict[str, float]:
    """The finite figures of a row, without its counters."""
    figures = {key: x for key, x in row.items() if key not in ("epoch", "updates")}
    return {key: float(x) for key, x in figures.items() if isinstance(x, int | float) and math.isfinite(x)}


def environment() -> dict[str, Any]:
    """Versions and machine kind that figures may depend on: no host name, user or path."""
    versions: dict[str, str | None] = {}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return {
        "lepton_vision": __version__,
        "python": platform.python_version(),
        "system": platform.system(),
        "machine": platform.machine(),
        "packages": versions,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "cuda": torch.version.cuda if torch.cuda.is_available() else None,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


class EventFile:
    """TensorBoard scalars, one file per attempt.

    The writer of ``torch.utils.tensorboard`` is not used: it starts a thread and puts the host name into the file name.

    Args:
        folder: a new file is started there; files of an earlier attempt stay.
        first_step: TensorBoard forgets what earlier files of the folder say about this and later steps.
    """

    def __init__(self, folder: Path, *, first_step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog

        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / f"events.out.tfevents.{time.time_ns() // 1000:017d}.{os.getpid()}"
        start = SessionLog(status=SessionLog.START)
        self._append(Event(wall_time=time.time(), file_version="brain.Event:2"))
        self._append(Event(wall_time=time.time(), step=first_step, session_log=start))

    def write(self, figures: Mapping[str, float], *, step: int) -> None:
        """Append one value per figure at ``step``."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=_tag(name), simple_value=value) for name, value in figures.items()]
        self._append(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))

    def _append(self, event: Any) -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter

        record = io.BytesIO()
        RecordWriter(record).write(event.SerializeToString())
        append_whole(self._path, record.getvalue())


def _tag(name: str) -> str:
    """TensorBoard groups charts by what stands before a slash: val_auroc → val/auroc."""
    group, underscore, rest = name.partition("_")
    return f"{group}/{rest}" if underscore and group in ("train", "val") else name


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
    for key in ("model.weights", "model.init_from", "augment.pipeline", "cache.folder"):
        params[key] = Path(params[key]).name
    return params
