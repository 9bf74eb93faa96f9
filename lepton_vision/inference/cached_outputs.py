"""Cached network outputs of manifest rows: features, and probabilities under any calibration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lepton_vision.inference.engine import Engine, EngineOutput
from lepton_vision.inference.predictor import (
    PredictionParts,
    Progress,
    of_manifest,
    open_dataset,
    require_one_split,
    run_steps,
)
from lepton_vision.inference.samples import Sample, read_ahead, read_row
from lepton_vision.manifest.table import Manifest
from lepton_vision.models.bundle import Bundle
from lepton_vision.models.device import autocast
from lepton_vision.predictions.predictions import Predictions
from lepton_vision.types import ModelOutput

Features = npt.NDArray[np.float32]


class _Recorder(Engine):
    """An engine that keeps what the network said of each step: logits and features, no masks."""

    steps: list[tuple[ModelOutput, int]]

    def _examined(self, output: ModelOutput, *, count: int) -> EngineOutput:
        features = None if output.features is None else output.features.float().cpu()
        self.steps.append((ModelOutput(output.logits, None, features), count))
        return super()._examined(output, count=count)

    def again(self, bundle: Bundle) -> list[EngineOutput]:
        """What was seen with the calibration of another bundle of the same weights, to the bit."""
        self.bundle = bundle
        return [super(_Recorder, self)._examined(output, count=count) for output, count in self.steps]


class CachedOutputs:
    """One pass of a bundle's network over the rows of a split, in the steps that ``predict`` takes.

    Args:
        bundle: the model.
        manifest: rows of one split.
        device: of the network.
        cache_dir: folder of the decoded cache.
        pooled: (N, F) float32 features of all usable rows, where the encoder was fixed and has seen them before: the
            heads alone are run.
        progress: called with (done, total).
    """

    def __init__(
        self,
        bundle: Bundle,
        manifest: Manifest,
        *,
        device: str = "auto",
        cache_dir: Path | None = None,
        pooled: Tensor | None = None,
        progress: Progress | None = None,
    ) -> None:
        self._manifest, self._split = manifest, require_one_split(manifest)
        dataset = open_dataset(manifest, bundle.config, cache_dir=cache_dir)
        self._index, rows = dataset.rows.index, range(len(dataset))
        self._engine = _Recorder(bundle, device=device, batch_size=bundle.config.train.batch_size)
        self._engine.steps = []
        step = self._engine.samples_per_step
        if pooled is None:
            outcomes = read_ahead(rows, lambda row: read_row(dataset, row), workers=0, depth=2 * step)
            self._found = run_steps(outcomes, self._engine, batch_size=step, total=len(rows), progress=progress)
            return
        _run_heads(bundle, pooled, self._engine)
        nothing = np.zeros((0, 0, 0), np.uint16)
        samples = [Sample(dataset.rows.image_id(row), dataset.locate(row), nothing, row) for row in rows]
        self._found = PredictionParts(samples)

    def predictions(self, bundle: Bundle) -> Predictions:
        """What ``predict`` gives for a bundle of the same weights, whatever its calibration is."""
        prob: dict[str, list[npt.NDArray[np.float64]]] = {}
        for one in self._engine.again(bundle):
            for name, values in one.probabilities.items():
                prob.setdefault(name, []).append(values.astype(np.float64))
        found = replace(self._found, prob=prob)
        return of_manifest(found, bundle, manifest=self._manifest, index=self._index, split=self._split)

    def features(self, rows: Sequence[int]) -> Features:
        """(M, F) pooled features of those of the rows that could be read; (0, 0) where the network gives none."""
        steps = [(output.features, count) for output, count in self._engine.steps]
        parts = [features[:count].numpy() for features, count in steps if features is not None]
        if not parts:
            return np.zeros((0, 0), np.float32)
        wanted = set(rows)
        return np.concatenate(parts)[[sample.row in wanted for sample in self._found.samples]]


def _run_heads(bundle: Bundle, pooled: Tensor, engine: _Recorder) -> None:
    """Take the steps that the whole network would have taken, from the features of its fixed encoder."""
    network, step = bundle.network().to(engine.device), engine.samples_per_step
    with torch.inference_mode(), autocast(engine.device, engine.precision):
        for start in range(0, len(pooled), step):
            part = pooled[start : start + step]
            filled = torch.cat((part, part.new_zeros(step - len(part), part.shape[1])))
            output = network.upper(filled.to(engine.device), below=len(network.encoder_stages()))
            engine.steps.append((ModelOutput(output.logits, None, filled.float()), len(part)))
