"""Synthetic predictions and evaluations, with pictures on disk whose names hold a patient's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image as Picture

from lepton_vision.config.sections import EvaluationConfig, PreprocessConfig
from lepton_vision.evaluation.classes.evaluation import Evaluation, evaluate
from lepton_vision.predictions.cells import Failure
from lepton_vision.predictions.operating_point import OperatingPoint
from lepton_vision.predictions.predictions import Predictions
from lepton_vision.types import FloatArray, SampleAddress, Target

BINARY = Target("covid", "binary", ("NonCOVID", "COVID"))
GRADE = Target("grade", "multiclass", ("none", "mild", "moderate", "severe"))
SIGNS = Target("signs", "multilabel", ("nodule", "effusion", "ground glass"))

FLOW = {
    "rows": 1213,
    "rejected": {"truncated": 7, "not_an_image": 5, "decoder_failed": 1},
    "splits": {
        "test": {"images": 240, "patients": 80, "classes": {"covid": {"NonCOVID": 130, "COVID": 110, "unknown": 0}}},
        "train": {"images": 720, "patients": 240, "classes": {"covid": {"NonCOVID": 390, "COVID": 325, "unknown": 5}}},
        "val": {"images": 240, "patients": 80, "classes": {"covid": {"NonCOVID": 129, "COVID": 111, "unknown": 0}}},
    },
}
PROVENANCE = {
    "bundle": "3f9a2c7d11e04b58",
    "configuration": "9be01a2233cd",
    "backbone": "resnet18",
    "data_fingerprint": "c0ffee1234567890",
    "versions": {"python": "3.11.2", "lepton_vision": "0.1.0", "torch": "2.14.0"},
    "seed": 0,
    "validation": {"val_auroc": 0.93412, "val_loss": None},
}


def draw_picture(path: Path, *, seed: int, bright: bool, side: int = 160) -> None:
    """A round, noisy 'slice' with an optional bright spot."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    body = ((x / 0.9) ** 2 + (y / 0.75) ** 2 < 1) * 0.55
    for center in (-0.38, 0.38):
        body -= (((x - center) / 0.3) ** 2 + (y / 0.52) ** 2 < 1) * 0.42
    if bright:
        spot = rng.uniform(-0.3, 0.3, 2)
        body += 0.5 * np.exp(-(((x - 0.38 - spot[0] / 3) ** 2 + (y - spot[1]) ** 2) / 0.01))
    pixels = np.clip(body + rng.normal(0, 0.04, body.shape), 0, 1)
    Picture.fromarray((pixels * 255).astype(np.uint8)).save(path)


def make_scores(truth: FloatArray, rng: np.random.Generator, *, strength: float = 2.2) -> FloatArray:
    return 1 / (1 + np.exp(-(strength * (truth - 0.5) + rng.normal(0, 1.0, truth.shape))))


def make_predictions(
    targets: tuple[Target, ...], folder: Path | None, *, n: int = 240, seed: int = 0, side: int = 160
) -> Predictions:
    rng = np.random.default_rng(seed)
    truth: dict[str, FloatArray] = {}
    prob: dict[str, FloatArray] = {}
    for target in targets:
        k = len(target.classes)
        if target.kind == "binary":
            truth[target.name] = (rng.random(n) < 0.45).astype(float)
            prob[target.name] = make_scores(truth[target.name], rng)
        elif target.kind == "multiclass":
            label = rng.choice(k, n, p=np.linspace(2, 1, k) / np.linspace(2, 1, k).sum())
            raw = np.exp(rng.normal(0, 1, (n, k)) + 1.8 * np.eye(k)[label])
            truth[target.name], prob[target.name] = label.astype(float), raw / raw.sum(axis=1, keepdims=True)
        else:
            truth[target.name] = (rng.random((n, k)) < np.linspace(0.4, 0.12, k)).astype(float)
            prob[target.name] = make_scores(truth[target.name], rng)
            truth[target.name][rng.random((n, k)) < 0.05] = np.nan
    addresses = None
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / f"DOE^JANE_{i}.png" for i in range(n)]
        first = truth[targets[0].name].reshape(n, -1)[:, 0]
        for i, path in enumerate(paths):
            draw_picture(path, seed=i, bright=bool(first[i] > 0), side=side)
        addresses = tuple(SampleAddress(path) for path in paths)
    ids = np.array([f"{i * 2654435761 % 2**64:016x}" for i in range(n)])
    patients = np.array([f"p{i // 3}" for i in range(n)])
    return Predictions(
        targets, ids, patients, patients, truth, prob, split="test", bundle_id="3f9a2c7d11e04b58",
        addresses=addresses, preprocess=PreprocessConfig(), failures=(Failure("ff00", "truncated"),),
    )  # fmt: skip


def make_point(targets: tuple[Target, ...], threshold: float = 0.4) -> OperatingPoint:
    thresholds = {t.name: () if t.kind == "multiclass" else (threshold,) * t.outputs for t in targets}
    return OperatingPoint(thresholds, "sensitivity >= 0.9", "val", 240)


def make_evaluation(
    targets: tuple[Target, ...], folder: Path | None = None, *, n: int = 240, seed: int = 0, side: int = 160
) -> Evaluation:
    predictions = make_predictions(targets, folder, n=n, seed=seed, side=side)
    return evaluate(predictions, operating_point=make_point(targets), config=EvaluationConfig(replicates=100))
