"""Score files with a bundle: one row for every input, whatever happens to it.

Threads read and preprocess ahead while the model runs; a file that cannot be read becomes a row with a reason. Whole
shards of rows reach the disk at once, so a killed run goes on where it stopped.
"""

from __future__ import annotations

import csv
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from lepton_vision.config import PreprocessConfig
from lepton_vision.errors import ReadError, ScoringError, TooManyFailuresError
from lepton_vision.inference.engine import Engine
from lepton_vision.inference.samples import frames_of, list_files, read_ahead
from lepton_vision.models.bundle import Bundle
from lepton_vision.readers.identity import pseudonym
from lepton_vision.readers.image import read_image
from lepton_vision.scoring.sink import ShardFormat, ShardSink, output_stems, row_schema
from lepton_vision.transforms.preprocess import preprocess_image, to_input
from lepton_vision.types import Image, OperatingPoint, Target

SHARD_ROWS = 2048

# progress(inputs done, all inputs, failed inputs)
Progress = Callable[[int, int, int], None]


@dataclass(frozen=True, slots=True)
class ScoreSummary:
    """What a scoring run left in its output folder.

    Attributes:
        output: the folder of shards.
        rows: rows in the folder, those of earlier runs included.
        scored: rows with probabilities.
        failed: rows without, counted by reason code.
        new_rows: rows that this run added.
        seconds: wall time of this run.
    """

    output: Path
    rows: int
    scored: int
    failed: dict[str, int]
    new_rows: int
    seconds: float

    @property
    def images_per_s(self) -> float:
        """Rows that this run added per second of wall time."""
        return self.new_rows / self.seconds if self.seconds > 0 else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        counts = {"rows": self.rows, "scored": self.scored, "failed": self.failed, "new_rows": self.new_rows}
        return counts | {"seconds": round(self.seconds, 3), "images_per_s": round(self.images_per_s, 2)}

    def _repr_html_(self) -> str:
        cells = "".join(f"<tr><th>{key}</th><td>{value}</td></tr>" for key, value in self.to_dict().items())
        return f"<table><caption>Scoring</caption>{cells}</table>"


@dataclass(frozen=True, slots=True)
class _Read:
    """One input after reading: its images preprocessed to (C, H, W) uint16, or the reason why not."""

    path_id: str
    seconds: float
    images: tuple[Image, ...] = ()
    pixels: tuple[npt.NDArray[np.uint16], ...] = ()
    reason: str = ""


def score(
    bundle: Bundle | str | Path,
    inputs: str | Path | Sequence[str | Path],
    output: str | Path,
    *,
    resume: bool = True,
    workers: int = 2,
    batch_size: int = 32,
    device: str = "auto",
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto",
    file_format: ShardFormat = "parquet",
    max_failures: float = 1.0,
    progress: Progress | None = None,
) -> ScoreSummary:
    """Score files and folders into a folder of shards, one row for every image and one for every file that failed.

    Args:
        bundle: a Bundle with an operating point, or the folder of one.
        inputs: files and folders; folders are walked, hidden files left out. A multi-frame file gives a row per frame.
        output: folder of the shards (``part-000000.parquet`` …); pandas, polars and DuckDB read it as one table.
        resume: keep what is there and score only the inputs that have no row yet; False starts over.
        workers: threads that read ahead.
        batch_size: images per step of the model.
        device: "auto", "cpu", "cuda", "mps".
        precision: number format of the model; "auto" is the fastest that the device does well.
        file_format: "parquet" or "csv".
        max_failures: largest tolerated share of failed rows.
        progress: called with (inputs done, all inputs, failed inputs).

    Returns:
        Counts over the whole folder, and time and rows of this run.

    Raises:
        ScoringError: no inputs, no operating point, or an output folder that cannot be used.
        TooManyFailuresError: more than ``max_failures`` of the rows failed; every row is on disk.

    Example:
        >>> summary = score("runs/ct-01/bundle", "inbox", "scores")  # doctest: +SKIP
    """
    started = time.perf_counter()
    bundle = bundle if isinstance(bundle, Bundle) else Bundle.load(bundle)
    if bundle.operating_point is None:
        raise ScoringError(
            "Expected a bundle with an operating point. Received: one without. Use bundle.with_operating_point first."
        )
    if bundle.config.volume is not None:
        raise ScoringError(
            "Expected a bundle of images. Received: one of volumes. Use predict or predict_masks for it."
        )
    if not 0.0 <= max_failures <= 1.0 or workers < 1 or batch_size < 1:
        raise ScoringError("Expected max_failures from 0 to 1, workers and batch_size of at least 1.")
    output = Path(output)
    paths = list_files(inputs, leave_out=output)
    if not paths:
        raise ScoringError(
            "Expected files to score. Received: an empty folder. Check the path; hidden files do not count.",
            key="inputs",
        )
    engine = Engine(bundle, device=device, precision=precision, batch_size=batch_size)
    job = {"format": file_format, "bundle_id": bundle.bundle_id, "engine": engine.name}
    sink = ShardSink(output, row_schema(bundle.targets), job=job, resume=resume)
    before = sink.scored + sink.failed.total()
    try:
        _run(paths, sink, engine, workers=workers, batch_size=batch_size, progress=progress)
    finally:
        sink.close()
    failed, rows = dict(sorted(sink.failed.items())), sink.scored + sink.failed.total()
    summary = ScoreSummary(output, rows, sink.scored, failed, rows - before, time.perf_counter() - started)
    check_failures(summary, max_failures)
    return summary


def check_failures(summary: ScoreSummary, max_failures: float) -> None:
    """Raise TooManyFailuresError where more than ``max_failures`` of the rows failed."""
    share = sum(summary.failed.values()) / max(summary.rows, 1)
    if share > max_failures:
        counts = ", ".join(f"{reason} {count}" for reason, count in summary.failed.items())
        raise TooManyFailuresError(
            f"Expected at most {max_failures:.1%} failed rows. Received: {share:.1%} ({counts}). "
            "All rows are written; look at their reasons, or raise max_failures."
        )


def write_path_map(
    inputs: str | Path | Sequence[str | Path], target: str | Path, *, leave_out: Path | None = None
) -> None:
    """Write a CSV from ``path_id`` to path, readable by its owner alone (mode 0600): paths may hold patient names.

    Raises:
        ScoringError: the file cannot be written.
    """
    target = Path(target)
    try:
        with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", newline="") as file:
            target.chmod(0o600)
            writer = csv.writer(file)
            writer.writerow(["path_id", "path"])
            for path in list_files(inputs, leave_out=leave_out):
                writer.writerow([pseudonym("path", path.as_posix()), path.as_posix()])
    except OSError as error:
        raise ScoringError(f"Cannot write the path map: {error.strerror}. Name another file.", path=target) from None


def _run(
    paths: Sequence[Path], sink: ShardSink, engine: Engine, *, workers: int, batch_size: int, progress: Progress | None
) -> None:
    """Read ahead in threads, score whole inputs in batches, write shards."""
    config = engine.bundle.config.preprocess
    named = ((path, pseudonym("path", path.as_posix())) for path in paths)
    pending = (entry for entry in named if entry[1] not in sink.done)  # not a list: it would double that of the inputs
    done = sum(pseudonym("path", path.as_posix()) in sink.done for path in paths) if sink.done else 0
    failures = 0
    group: list[_Read] = []
    try:
        for item in read_ahead(pending, lambda entry: _read(*entry, config), workers=workers, depth=2 * batch_size):
            group.append(item)
            failures, done = failures + bool(item.reason), done + 1
            if sum(len(entry.pixels) for entry in group) >= batch_size or len(group) >= 4 * batch_size:
                _score_group(group, sink, engine)
                group = []
            if progress is not None:
                progress(done, len(paths), failures)
        _score_group(group, sink, engine)
    finally:
        sink.flush()  # also when interrupted: what is in the sink are finished rows


def _read(path: Path, path_id: str, config: PreprocessConfig) -> _Read:
    """Read and preprocess one input; every failure becomes a reason."""
    started = time.perf_counter()
    try:
        images = frames_of(read_image(path))
        pixels = tuple(preprocess_image(image, config) for image in images)
    except ReadError as error:
        return _Read(path_id, time.perf_counter() - started, reason=error.reason)
    except MemoryError:
        return _Read(path_id, time.perf_counter() - started, reason="too_large")
    except Exception as error:  # the one place that swallows: an input must end as a row, and it carries the type
        return _Read(path_id, time.perf_counter() - started, reason=f"unexpected:{type(error).__name__}")
    slim = tuple(replace(image, pixels=image.pixels[:, :0, :0]) for image in images)
    return _Read(path_id, time.perf_counter() - started, images=slim, pixels=pixels)


def _score_group(group: list[_Read], sink: ShardSink, engine: Engine) -> None:
    """Run the model on all images of the inputs in ``group`` and hand their rows to the sink."""
    if not group:
        return
    started = time.perf_counter()
    pixels = [array for item in group for array in item.pixels]
    inputs = to_input(np.stack(pixels), engine.bundle.config.preprocess) if pixels else None
    outputs = {} if inputs is None else engine.probabilities(inputs)
    share = (time.perf_counter() - started) / max(len(pixels), 1)
    position = 0
    for item in group:
        facts = {"path_id": item.path_id, "bundle_id": engine.bundle.bundle_id, "engine": engine.name}
        if item.reason:
            sink.append([facts | {"status": "failed", "reason": item.reason, "seconds": item.seconds}])
            continue
        rows = []
        for frame, image in enumerate(item.images):
            values = {name: np.atleast_1d(array[position]) for name, array in outputs.items()}
            row = facts | _ids(image, frame if len(item.images) > 1 else None)
            rows.append(row | _decide(values, engine.bundle) | {"seconds": item.seconds / len(item.images) + share})
            position += 1
        sink.append(rows)
    if len(sink) >= SHARD_ROWS:
        sink.flush()


def _ids(image: Image, frame: int | None) -> dict[str, Any]:
    return {
        "image_id": image.image_id,
        "series_id": image.series_id,
        "study_id": image.study_id,
        "patient_id": image.patient_id,
        "frame": frame,
    }


def _decide(values: dict[str, npt.NDArray[np.floating[Any]]], bundle: Bundle) -> dict[str, Any]:
    """Turn the probabilities of one image into columns; one that is not finite fails the row."""
    if not all(np.isfinite(array).all() for array in values.values()):
        return {"status": "failed", "reason": "non_finite_output"}
    point = bundle.operating_point
    if point is None:
        raise ScoringError("Expected a bundle with an operating point. Received: one without.")
    row: dict[str, Any] = {"status": "ok", "reason": None}
    for position, target in enumerate(bundle.targets):
        row |= _target_columns(target, values[target.name], point, is_first=position == 0)
    return row


def _target_columns(
    target: Target, values: npt.NDArray[np.floating[Any]], point: OperatingPoint, *, is_first: bool
) -> dict[str, Any]:
    if target.is_exclusive:
        columns: dict[str, Any] = {
            f"{target.name}_{name}_probability": float(value)
            for name, value in zip(target.classes, values, strict=True)
        }
        return columns | {f"{target.name}_class": target.classes[int(values.argmax())]}
    thresholds = point.thresholds[target.name]
    columns = {}
    for stem, value, threshold in zip(output_stems(target), values, thresholds, strict=True):
        columns |= {f"{stem}_probability": float(value), f"{stem}_positive": bool(value >= threshold)}
        if not is_first or target.kind == "multilabel":
            columns[f"{stem}_threshold"] = threshold
    if is_first and target.kind == "binary":
        columns["threshold"] = thresholds[0]
    return columns
