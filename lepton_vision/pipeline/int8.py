"""Quantisation of a bundle to 8 bits: calibrated on one split of a manifest, verified on another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lepton_vision.errors import BundleError, ConfigError
from lepton_vision.evaluation.classes.figures import measures_of
from lepton_vision.inference import predict
from lepton_vision.inference.runtimes.export import Int8, Runtime, check_request, export_bundle
from lepton_vision.manifest import Manifest
from lepton_vision.models import Bundle
from lepton_vision.predictions import Predictions
from lepton_vision.transforms.dataset import SampleDataset
from lepton_vision.types import Split, Target

AUROC_TOLERANCE = 0.002
CALIBRATION_IMAGES = 300


def export_int8(
    bundle: Bundle,
    path: str | Path,
    *,
    to: Runtime,
    manifest: Manifest,
    calibrate_on: Split = "train",
    judge_on: Split = "val",
    tolerance: float = AUROC_TOLERANCE,
    seed: int = 0,
) -> dict[str, Any]:
    """Write a bundle of images as an int8 network whose AUROC is that of float32, or write nothing.

    Ranges of the activations come from at most 300 images of one split. On the other the AUROC of each target (the
    macro average for several classes; of a number R²) must be within ``tolerance`` of that of torch in float32, up or
    down.

    Args:
        bundle: of images, with targets.
        path: file to write, see ``export_bundle``.
        to: "onnx" or "openvino".
        manifest: rows of both splits; labels of the second.
        calibrate_on: split that the ranges come from.
        judge_on: split that decides; a test split is for one look, not for this.
        tolerance: largest difference of an AUROC, or of R².
        seed: of the choice of images.

    Returns:
        What the file says too: ``auroc`` by target (``fp32``, ``int8``, ``n``; of a number R²), ``max_difference`` of a
        probability or value on
        the judging split, ``split``, ``calibrated_on`` and the number of ``images`` used; and ``difference``, that on
        synthetic images.

    Raises:
        BundleError: an AUROC differs by more, or cannot be told; see also ``export_bundle``.
        ConfigError: the same split for both.
        ManifestError: a split without usable rows.

    Example:
        >>> export_int8(bundle, "model.xml", to="openvino", manifest=manifest)["auroc"]  # doctest: +SKIP
        {'covid': {'fp32': 0.781, 'int8': 0.78, 'n': 104}}
    """
    if calibrate_on == judge_on:
        raise ConfigError(
            f"Expected one split for the ranges and another to judge on. Received: {judge_on!r} for both.",
            key="judge_on",
        )
    check_request(bundle, Path(path), to=to)
    dataset = SampleDataset(manifest.subset(calibrate_on), bundle.config)
    count = min(len(dataset), CALIBRATION_IMAGES)
    chosen = sorted(np.random.default_rng(seed).choice(len(dataset), count, replace=False).tolist())
    part, verdict = manifest.subset(judge_on), dict[str, Any]()

    def judge(draft: Path) -> dict[str, Any]:
        verdict.update(compare_int8(bundle, draft, part, tolerance=tolerance))
        verdict.update(split=judge_on, calibrated_on=calibrate_on, images=count)
        return verdict

    samples = [dataset.load_row(row) for row in chosen]
    difference = export_bundle(bundle, path, to=to, int8=Int8(samples, judge))
    return verdict | {"difference": difference}


def compare_int8(bundle: Bundle, file: Path, part: Manifest, *, tolerance: float) -> dict[str, Any]:
    """Return ``auroc`` and ``max_difference`` of an exported file and torch in float32 on labelled rows.

    Raises:
        BundleError: an AUROC differs by more than ``tolerance``, or rows of one class alone leave it undefined.
    """
    true = predict(bundle, part, device="cpu", precision="fp32", progress=None)
    found = predict(bundle, part, engine=str(file), progress=None)
    auroc = {
        target.name: {
            "fp32": _auroc(true, target),
            "int8": _auroc(found, target),
            "n": int(true.labelled(target).sum()),
        }
        for target in true.targets
    }
    for target in true.targets:
        name, pair = target.name, auroc[target.name]
        if not abs(pair["int8"] - pair["fp32"]) <= tolerance:
            raise BundleError(
                f"Expected an {'R²' if target.is_value else 'AUROC'} of {name} within {tolerance:g} of "
                f"{pair['fp32']:.4f}, that of float32. Received: {pair['int8']:.4f} with int8 (n {true.n}). Nothing "
                "was written; export without int8, or give more labelled rows to judge on.",
                key=name,
            )
    difference = max(float(np.abs(found.y_prob[name] - true.y_prob[name]).max()) for name in true.y_prob)
    return {"auroc": auroc, "max_difference": difference}


def _auroc(predictions: Predictions, target: Target) -> float:
    """R² of a number; NaN where rows of one class, or one value, alone leave it undefined."""
    part = predictions.select(predictions.labelled(target))
    if not part.n:
        return float("nan")
    measures = measures_of(part, target, thresholds=(0.5,) * target.thresholds)
    return float(measures.values(np.ones((1, measures.units)))[target.summed_up_by][0])
