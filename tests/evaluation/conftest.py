"""Random predictions for the tests of this folder."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from lepton_vision.predictions import Predictions
from lepton_vision.types import Target

BINARY = Target("sick", "binary", ("no", "yes"))
MULTICLASS = Target("organ", "multiclass", ("liver", "lung", "brain"))
MULTILABEL = Target("signs", "multilabel", ("edema", "mass", "air"))


@pytest.fixture
def random_predictions() -> Callable[..., Predictions]:
    """Three targets with signal, ties (two digits), several images for a patient and unknown labels."""

    def make(n: int = 400, *, seed: int = 0, unknown: float = 0.1, patients: int = 100, **more: Any) -> Predictions:
        rng = np.random.default_rng(seed)
        sick, signs = rng.integers(0, 2, n).astype(float), rng.integers(0, 2, (n, 3)).astype(float)
        organ = rng.integers(0, 3, n)
        logits = rng.normal(size=(n, 3)) + 1.5 * np.eye(3)[organ]
        share = np.round(np.exp(logits) / np.exp(logits).sum(1, keepdims=True), 2)
        share[:, 2] = 1 - share[:, 0] - share[:, 1]
        prob = {
            "sick": np.round(1 / (1 + np.exp(-rng.normal(size=n) - 2 * sick + 1)), 2),
            "organ": share.clip(0, 1),
            "signs": np.round(1 / (1 + np.exp(-rng.normal(size=(n, 3)) - signs + 0.5)), 2),
        }
        truth = {"sick": sick, "organ": organ.astype(float), "signs": signs}
        for values in truth.values():
            values[rng.random(values.shape) < unknown] = np.nan
        ids = np.array([f"i{k}" for k in range(n)])
        patient = np.array([f"p{k}" for k in rng.integers(0, patients, n)])
        return Predictions((BINARY, MULTICLASS, MULTILABEL), ids, patient, patient, truth, prob, **more)

    return make
