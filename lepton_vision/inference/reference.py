"""Reference features for novelty detection: pooled features of sampled training images and of validation."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch import Tensor

from lepton_vision.inference.cached_outputs import CachedOutputs
from lepton_vision.inference.engine import Engine
from lepton_vision.inference.predictor import Progress, open_dataset
from lepton_vision.inference.samples import read_ahead, read_row
from lepton_vision.manifest.table import Manifest
from lepton_vision.models.bundle import Bundle
from lepton_vision.predictions.cells import Failure
from lepton_vision.predictions.novelty import Features, Novelty, fit_novelty
from lepton_vision.transforms.preprocess import to_input

MOST_ROWS = 1000  # of each split: 2 MB of a ResNet-18, and a tenth of a millisecond for each image that is compared


def measure_novelty(
    bundle: Bundle,
    train: Manifest,
    seen: CachedOutputs,
    *,
    rows: int,
    device: str = "auto",
    cache_dir: Path | None = None,
    pooled: Tensor | None = None,
    progress: Progress | None = None,
) -> Novelty | None:
    """Fit how far an image is from those of the training, see ``novelty``; at most ``MOST_ROWS`` rows of each split.

    Args:
        bundle: a trained model with targets.
        train: rows that it was trained on.
        seen: rows of validation, as its network saw them; their patients are others.
        rows: how many these are.
        device: of the network.
        cache_dir: folder of the decoded cache.
        pooled: (N, F) features of all usable rows of ``train``, where they are known; None runs the network.
        progress: called with (done, total).

    Returns:
        None where the configuration leaves it out (``evaluation.novelty_neighbours`` 0), or nothing could be read.
    """
    k, seed = bundle.config.evaluation.novelty_neighbours, bundle.config.train.seed
    if k == 0 or not bundle.targets:
        return None
    if pooled is None:
        found = _features(bundle, train, device=device, cache_dir=cache_dir, progress=progress)
    else:
        found = pooled.float().numpy()[_chosen(len(pooled), seed=seed)]
    return fit_novelty(found, seen.features(_chosen(rows, seed=seed).tolist()), k=k)


def _chosen(rows: int, *, seed: int) -> npt.NDArray[np.intp]:
    """A random sample of the rows, in their order."""
    every = np.arange(rows)
    return every if rows <= MOST_ROWS else np.sort(np.random.default_rng(seed).choice(every, MOST_ROWS, replace=False))


def _features(
    bundle: Bundle, manifest: Manifest, *, device: str, cache_dir: Path | None, progress: Progress | None
) -> Features:
    """(N, F) pooled features of a random sample of the rows that can be read."""
    config = bundle.config
    engine = Engine(bundle, device=device, batch_size=config.train.batch_size)
    step, dataset = engine.samples_per_step, open_dataset(manifest, config, cache_dir=cache_dir)
    rows = _chosen(len(dataset), seed=config.train.seed)
    outcomes = read_ahead(rows.tolist(), lambda row: read_row(dataset, row), workers=0, depth=2 * step)
    pixels = (sample.pixels for outcome in outcomes if not isinstance(outcome, Failure) for sample in outcome)
    parts = []
    while some := list(islice(pixels, step)):
        parts.append(_see(engine, some))
        if progress is not None:
            progress(min(len(parts) * step, rows.size), rows.size)
    return np.concatenate(parts) if parts else np.zeros((0, 0), np.float32)


def _see(engine: Engine, pixels: list[np.ndarray]) -> Features:
    stack = np.stack(pixels)
    features = engine.examine(to_input(stack, engine.bundle.config.preprocess, axes=stack.ndim - 2)).features
    return np.zeros((0, 0), np.float32) if features is None else features
