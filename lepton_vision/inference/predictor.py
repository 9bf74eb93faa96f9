"""Prediction of samples with a bundle: the one path from pixels to probabilities in validation and test."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import nn

from lepton_vision.config import Config
from lepton_vision.errors import ConfigError, EvaluationError
from lepton_vision.inference.engine import Engine
from lepton_vision.inference.prediction_inputs import Given, open_images, table_rows
from lepton_vision.inference.probabilities import to_probabilities
from lepton_vision.inference.samples import (
    Outcome,
    Sample,
    read_ahead,
    read_row,
    rejected_rows,
    warn_of_failures,
)
from lepton_vision.manifest.table import Manifest
from lepton_vision.models.bundle import Bundle
from lepton_vision.models.device import Precision, autocast, suited_format
from lepton_vision.predictions.cells import Failure, as_text
from lepton_vision.predictions.ledger import Ledger
from lepton_vision.predictions.predictions import Predictions
from lepton_vision.readers.identity import key_check
from lepton_vision.transforms.dataset import SampleDataset
from lepton_vision.transforms.masks import overlap_counts
from lepton_vision.types import Batch, Displayed, FloatArray, ModelOutput, Pixels, Target

Progress = Callable[[int, int], None]  # progress(done, total), in rows or files


def predict(
    bundle: Bundle | str | Path,
    images: Given,
    *,
    device: str = "auto",
    precision: str = "auto",
    engine: str = "torch",
    batch_size: int | None = None,
    workers: int = 0,
    progress: Progress | bool | None = True,
    cache_dir: str | Path | None = None,
) -> Predictions:
    """Predict every image with calibrated probabilities, in the order given.

    What cannot be read has no probability and stands in ``failures`` with a reason code; rejected rows of a manifest
    are there too. Of two files with one image id the second is a failure with the reason "duplicate". An ``Image``
    without an id is called by its place, from ``image_0``.

    Args:
        bundle: the model, or its folder.
        images: rows of a manifest (all of one split: ``manifest.subset("val")``), files and folders, one or several
            ``Image``, or a table with the column ``path``, and at will ``image_id``, ``patient_id``, ``frame``,
            ``member``, ``split`` and columns of labels. Each frame of a file that holds several is a sample; for a
            bundle of volumes such a file is one, and a DICOM series too.
        device: "auto", "cpu", "cuda" or "mps".
        precision: "auto", "fp32", "bf16" or "fp16".
        engine: "torch", or another that ``Engine`` knows.
        batch_size: images at once; None is that of the training. Another size may change a probability's last bits.
        workers: threads that read ahead while the model works; 0 reads in between.
        progress: called with (done, total) after each batch. True shows a bar in a terminal, lines in a notebook, and
            nothing elsewhere; False or None shows nothing.
        cache_dir: folder of the decoded cache of ``make_loader``, for a manifest; None decodes every file.

    Returns:
        Predictions with the labels of the manifest where it has the columns of a target, unknown otherwise. Of a test
        split they carry the ledger of the bundle's run, where ``evaluate`` and ``compare`` note a look if asked to.

    Raises:
        EvaluationError: a manifest of several splits, or probabilities that are not numbers.
        ManifestError: a manifest without usable rows.
        LabelError: a label that is none of the classes.
        ConfigError: batch_size or workers out of range, a device or precision that this machine lacks.

    Example:
        >>> predictions = predict(bundle, manifest.subset("val"))  # doctest: +SKIP
    """
    how: dict[str, Any] = {"batch_size": batch_size, "workers": workers, "progress": progress, "cache_dir": cache_dir}
    return predict_parts(bundle, images, PredictionParts(), device=device, precision=precision, engine=engine, **how)


def predict_parts(
    bundle: Bundle | str | Path,
    images: Given,
    parts: PredictionParts,
    *,
    device: str,
    precision: str,
    engine: str,
    batch_size: int | None,
    workers: int,
    progress: Progress | bool | None,
    cache_dir: str | Path | None,
) -> Predictions:
    """``predict``, with what is kept of each image in ``parts``."""
    bundle = bundle if isinstance(bundle, Bundle) else Bundle.load(bundle)
    images = table_rows(images) if isinstance(images, pd.DataFrame) else images
    size = bundle.config.train.batch_size if batch_size is None else batch_size
    if size < 1 or workers < 0:
        raise ConfigError(f"Expected batch_size >= 1 and workers >= 0. Received: {size} and {workers}.")
    config = bundle.config
    if isinstance(images, Manifest):
        split = None if parts.features is not None else require_one_split(images)
        dataset = open_dataset(images, config, cache_dir=cache_dir)
        total = len(dataset)
        outcomes = read_ahead(range(total), lambda row: read_row(dataset, row), workers=workers, depth=2 * size)
    else:
        outcomes, total = open_images(images, config, workers=workers, depth=2 * size)
    runtime = Engine(bundle, engine=engine, device=device, precision=precision, batch_size=size)
    with _shown(progress) as told:
        steps = runtime.samples_per_step
        found = run_steps(outcomes, runtime, batch_size=steps, total=total, progress=told, parts=parts)
    if not isinstance(images, Manifest):
        return _of_files(found, bundle)
    return of_manifest(found, bundle, manifest=images, index=dataset.rows.index, split=split)


@contextlib.contextmanager
def _shown(progress: Progress | bool | None) -> Iterator[Progress | None]:
    """What is called while images are predicted, for a person who looks."""
    from lepton_vision.progress.bars import show_progress  # rich: not for who only imports this

    with show_progress(progress is True) as told:
        shown = None if told is None else lambda done, total: told("predict", done, total, "")
        yield shown if isinstance(progress, bool) else progress


@dataclass
class PredictionParts:
    """Predictions so far, without the pixels; features where a list waits for them."""

    samples: list[Sample] = field(default_factory=list)
    prob: dict[str, list[FloatArray]] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    features: list[Pixels] | None = None

    def joined(self, target: Target) -> FloatArray:
        """(N,) or (N, K) probabilities of one target."""
        parts = self.prob.get(target.name)
        if not parts:
            return np.zeros(target.output_shape(0))
        return np.concatenate(parts)


def require_one_split(manifest: Manifest) -> str | None:
    """Return the split of all usable rows; a mixture is refused, as it would hide test rows from later checks."""
    splits = manifest.ok.frame["split"].unique()
    names = [None if pd.isna(split) else str(split) for split in splits]
    if len(names) > 1:
        raise EvaluationError(
            f"Expected rows of one split. Received: {', '.join(sorted(map(str, names)))}. "
            'Predict one at a time: manifest.subset("val").',
            key="split",
        )
    return names[0] if names else None


def open_dataset(manifest: Manifest, config: Config, *, cache_dir: str | Path | None) -> SampleDataset:
    """Rows of a manifest as the network sees them, from the decoded cache where there is one; no labels, no masks."""
    return SampleDataset(manifest, config.model_copy(update={"segmentation": None}), cache_dir=cache_dir)


def run_steps(
    outcomes: Iterator[Outcome],
    engine: Engine,
    *,
    batch_size: int,
    total: int,
    progress: Progress | None,
    parts: PredictionParts | None = None,
) -> PredictionParts:
    """Predict what is read, ``batch_size`` samples at a time; of two samples with one id the second is a failure."""
    found, waiting, seen = parts or PredictionParts(), list[Sample](), set[str]()
    for done, outcome in enumerate(outcomes, start=1):
        if isinstance(outcome, Failure):
            found.failures.append(outcome)
        else:
            for sample in outcome:
                if sample.image_id in seen:
                    found.failures.append(Failure(sample.image_id, "duplicate"))
                else:
                    waiting.append(sample)
                    seen.add(sample.image_id)
        while len(waiting) >= batch_size:
            _forward(waiting[:batch_size], engine, found=found)
            del waiting[:batch_size]
            if progress is not None and done < total:
                progress(done, total)
    if waiting:
        _forward(waiting, engine, found=found)
    if progress is not None:
        progress(total, total)
    return found


def _forward(samples: Sequence[Sample], engine: Engine, *, found: PredictionParts) -> None:
    examined = engine.examine_pixels(np.stack([sample.pixels for sample in samples]))
    prob = examined.probabilities
    _check_finite(prob)
    if found.features is not None and examined.features is not None:
        found.features.append(examined.features)
    for name, values in prob.items():
        found.prob.setdefault(name, []).append(values.astype(np.float64))
    nothing = np.zeros((0, 0, 0), np.uint16)
    found.samples.extend(replace(sample, pixels=nothing, image=None) for sample in samples)


def _check_finite(prob: dict[str, npt.NDArray[np.float32]]) -> None:
    for name, values in prob.items():
        bad = int((~np.isfinite(values)).sum())
        if bad:
            raise EvaluationError(
                f"The network gave {bad} probabilities of {name!r} that are not numbers. Use precision fp32; if it "
                "stays so, the weights are damaged: train again.",
                key=name,
            )


def of_manifest(
    found: PredictionParts, bundle: Bundle, *, manifest: Manifest, index: npt.NDArray[np.int64], split: str | None
) -> Predictions:
    """Predictions of the usable rows of a manifest, whose positions are ``index``."""
    rows = index[[sample.row for sample in found.samples]] if found.samples else index[:0]
    warn_of_failures(found.failures, manifest)
    table = manifest.frame
    labels = {target.name: _labels(manifest, target)[rows] for target in bundle.targets}
    return Predictions(
        bundle.targets,
        as_text([sample.image_id for sample in found.samples]),
        as_text(table["patient_id"].fillna("").to_numpy(dtype=object)[rows]),
        as_text(table["series_id"].fillna("").to_numpy(dtype=object)[rows]),
        labels,
        {target.name: found.joined(target) for target in bundle.targets},
        split=split,
        bundle_id=bundle.bundle_id,
        addresses=tuple(sample.address for sample in found.samples),
        preprocess=bundle.config.preprocess,
        failures=(*rejected_rows(manifest), *found.failures),
        study_id=as_text(table["study_id"].fillna("").to_numpy(dtype=object)[rows]) if "study_id" in table else None,
        ledger=_ledger(bundle, manifest) if split == "test" else None,
        patient_known=table["patient_known"].fillna(False).to_numpy(dtype=bool)[rows],
        id_key=manifest.id_key,
    )


def _ledger(bundle: Bundle, manifest: Manifest) -> Ledger | None:
    if bundle.run_dir is None:
        return None
    return Ledger(bundle.run_dir, manifest.fingerprint, "evaluate() in Python", id_key=manifest.id_key)


def _labels(manifest: Manifest, target: Target) -> FloatArray:
    if set(target.columns) <= set(manifest.frame.columns):
        labels = manifest.labels(target)
        # A number by its shortest digits: 63.2 of the table, which float32 holds, and not 63.20000076.
        return (labels.astype(np.str_) if target.is_value else labels).astype(np.float64)
    return _unknown(target, len(manifest))


def _of_files(found: PredictionParts, bundle: Bundle) -> Predictions:
    return Predictions(
        bundle.targets,
        as_text([sample.image_id for sample in found.samples]),
        as_text([sample.patient_id for sample in found.samples]),
        as_text([sample.series_id for sample in found.samples]),
        {target.name: _unknown(target, len(found.samples)) for target in bundle.targets},
        {target.name: found.joined(target) for target in bundle.targets},
        bundle_id=bundle.bundle_id,
        addresses=None if _are_held(found) else tuple(sample.address for sample in found.samples),
        preprocess=bundle.config.preprocess,
        failures=tuple(found.failures),
        study_id=as_text([sample.study_id for sample in found.samples]),
        id_key="" if _are_held(found) else key_check(),
    )


def _are_held(found: PredictionParts) -> bool:
    """Whether the images lie in memory alone."""
    return any(sample.address.path == Path() for sample in found.samples)


def _unknown(target: Target, n: int) -> FloatArray:
    return np.full(target.label_shape(n), np.nan)


@dataclass(frozen=True, eq=False)
class NetworkPredictions(Displayed):
    """Predictions of a network in training for the batches of a loader.

    Attributes:
        predictions: of the targets, without temperature and patient ids; None where there is no target.
        overlap: (N, M, 3) int64, for each image and structure the voxels in both masks, in the predicted and in the
            true one, unknown voxels left out; None where there are no masks.
    """

    predictions: Predictions | None
    overlap: npt.NDArray[np.int64] | None


def examine_network(
    network: nn.Module,
    loader: Iterable[Batch],
    *,
    targets: Sequence[Target],
    device: torch.device | str,
    precision: Precision,
) -> NetworkPredictions:
    """Predict the batches of an evaluation loader with a network in training.

    The network's modules are put in evaluation mode and each gets its own mode back, so that frozen norm layers stay
    as they were.

    Args:
        network: a Network, or what maps the batches to a ModelOutput; where it stands on ``device``.
        loader: labelled batches, each row once; masks are compared where they have any.
        targets: which heads to read.
        device: where to compute.
        precision: "fp32", "bf16" or "fp16".

    Raises:
        EvaluationError: probabilities that are not numbers, or a row that came twice.
    """
    ids: list[str] = []
    truth: dict[str, list[FloatArray]] = {target.name: [] for target in targets}
    overlap: list[npt.NDArray[np.int64]] = []
    found = PredictionParts()
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        with torch.inference_mode():
            for batch in loader:
                there = batch.to(device, memory_format=suited_format(batch.images.ndim))
                with autocast(device, precision):
                    output = network(there.images)
                prob = to_probabilities(output.logits, targets)
                _check_finite(prob)
                ids.extend(batch.image_ids)
                for target in targets:
                    truth[target.name].append(batch.labels[target.name].numpy().astype(np.float64))
                    found.prob.setdefault(target.name, []).append(prob[target.name].astype(np.float64))
                overlap.extend(_overlaps(output, batch))
    finally:
        for module, mode in modes.items():
            module.training = mode
    counts = np.stack(overlap) if overlap else None
    if not targets:
        return NetworkPredictions(None, counts)
    unknown = np.full(len(ids), "")
    y_true = {t.name: np.concatenate(truth[t.name]) if ids else _unknown(t, 0) for t in targets}
    y_prob = {target.name: found.joined(target) for target in targets}
    return NetworkPredictions(Predictions(tuple(targets), as_text(ids), unknown, unknown, y_true, y_prob), counts)


def _overlaps(output: ModelOutput, batch: Batch) -> list[npt.NDArray[np.int64]]:
    """One (M, 3) array for each image of a batch with masks."""
    if output.mask_logits is None or batch.masks is None:
        return []
    labels = output.mask_logits.argmax(dim=1).to(torch.uint8).cpu().numpy()
    structures = output.mask_logits.shape[1] - 1
    pairs = zip(labels, batch.masks.numpy(), strict=True)
    return [overlap_counts(one, truth, structures=structures) for one, truth in pairs]
