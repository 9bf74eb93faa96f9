"""The training images that new ones are compared with: pooled features of a sample of them, and of validation."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np

from lepton_vision.inference.engine import Engine
from lepton_vision.inference.predictions import Failure
from lepton_vision.inference.predictor import open_dataset
from lepton_vision.inference.samples import read_ahead, read_row
from lepton_vision.manifest.table import Manifest
from lepton_vision.models.bundle import Bundle
from lepton_vision.novelty import Features, Novelty, fit_novelty
from lepton_vision.transforms.preprocess import to_input

MOST_ROWS = 1000  # of each split: 2 MB of a ResNet-18, and a tenth of a millisecond for each image that is compared


def measure_novelty(
    bundle: Bundle, train: Manifest, val: Manifest, *, device: str = "auto", cache_dir: Path | None = None
) -> Novelty | None:
    """Fit how far an image is from those of the training, see ``novelty``; at most ``MOST_ROWS`` rows of each split.

    Args:
        bundle: a trained model with targets.
        train: rows that it was trained on.
        val: rows of validation; their patients are others.
        device: of the network.
        cache_dir: folder of the decoded cache.

    Returns:
        None where the configuration leaves it out (``evaluation.novelty_neighbours`` 0), or nothing could be read.
    """
    k = bundle.config.evaluation.novelty_neighbours
    if k == 0 or not bundle.targets:
        return None
    engine = Engine(bundle, device=device, batch_size=bundle.config.train.batch_size)
    found = [_features(engine, part, cache_dir=cache_dir) for part in (train, val)]
    return fit_novelty(*found, k=k)


def _features(engine: Engine, manifest: Manifest, *, cache_dir: Path | None) -> Features:
    """(N, F) pooled features of a random sample of the rows that can be read."""
    config, step = engine.bundle.config, engine.samples_per_step
    dataset = open_dataset(manifest, config, cache_dir=cache_dir)
    rows = np.arange(len(dataset))
    if rows.size > MOST_ROWS:
        rows = np.sort(np.random.default_rng(config.train.seed).choice(rows, MOST_ROWS, replace=False))
    outcomes = read_ahead(rows.tolist(), lambda row: read_row(dataset, row), workers=0, depth=2 * step)
    pixels = (sample.pixels for outcome in outcomes if not isinstance(outcome, Failure) for sample in outcome)
    parts = []
    while some := list(islice(pixels, step)):
        parts.append(_see(engine, some))
    return np.concatenate(parts) if parts else np.zeros((0, 0), np.float32)


def _see(engine: Engine, pixels: list[np.ndarray]) -> Features:
    stack = np.stack(pixels)
    features = engine.examine(to_input(stack, engine.bundle.config.preprocess, axes=stack.ndim - 2)).features
    return np.zeros((0, 0), np.float32) if features is None else features
