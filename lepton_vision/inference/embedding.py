"""Embeddings: the features that a network makes of images, with their ids."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from lepton_vision.errors import ConfigError
from lepton_vision.inference.prediction_inputs import Given
from lepton_vision.inference.predictor import PredictionParts, Progress, predict_parts
from lepton_vision.models.bundle import Bundle
from lepton_vision.predictions.cells import Failure, TextArray
from lepton_vision.types import Displayed, Pixels, Table


@dataclass(frozen=True, eq=False)
class Embeddings(Displayed):
    """Features of images.

    Attributes:
        image_id: (N,) pseudonymous ids, in the order given.
        patient_id: (N,) pseudonymous ids; "" where unknown.
        series_id: (N,) pseudonymous ids; "" where unknown.
        features: (N, F) float32, what the heads see; of an ensemble those of its members side by side.
        bundle_id: of the model.
        failures: images without features, each with a reason.
    """

    image_id: TextArray
    patient_id: TextArray
    series_id: TextArray
    features: Pixels
    bundle_id: str = ""
    failures: tuple[Failure, ...] = ()

    def __len__(self) -> int:
        return len(self.image_id)

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        """``numpy.asarray(embeddings)`` is ``features``."""
        return np.array(self.features, dtype=dtype, copy=copy)

    @property
    def frame(self) -> pd.DataFrame:
        """A row for each image: the three ids, then ``feature_0`` … float32."""
        ids = {"image_id": self.image_id, "patient_id": self.patient_id, "series_id": self.series_id}
        values = pd.DataFrame(self.features, columns=[f"feature_{k}" for k in range(self.features.shape[1])])
        return pd.concat([pd.DataFrame(ids), values], axis=1)

    def _tables(self) -> list[Table]:
        shape = " x ".join(map(str, self.features.shape))
        return [Table(f"Features of {len(self)} images, {shape}, bundle {self.bundle_id}; {len(self.failures)} failed")]


def embed(
    bundle: Bundle | str | Path,
    images: Given,
    *,
    device: str = "auto",
    precision: str = "auto",
    batch_size: int | None = None,
    workers: int = 0,
    progress: Progress | bool | None = True,
    cache_dir: str | Path | None = None,
) -> Embeddings:
    """Return the features that the heads of a network see of every image, with the ids of ``predict``.

    Args:
        bundle: the model, or its folder.
        images: as ``predict`` takes them; rows of several splits too.
        device: "auto", "cpu", "cuda" or "mps".
        precision: "auto", "fp32", "bf16" or "fp16".
        batch_size: images at once; None is that of the training.
        workers: threads that read ahead while the model works.
        progress: as of ``predict``.
        cache_dir: as of ``predict``.

    Raises:
        ConfigError: a bundle of masks alone; all else is as of ``predict``.

    Example:
        >>> found = embed("runs/ct-01/bundle", manifest.subset("val"))  # doctest: +SKIP
        >>> found.features.shape, found.frame.columns[:3].tolist()  # doctest: +SKIP
        ((118, 512), ['image_id', 'patient_id', 'series_id'])
    """
    bundle = bundle if isinstance(bundle, Bundle) else Bundle.load(bundle)
    if not bundle.targets:
        raise ConfigError(
            "Expected a bundle with targets, whose heads see features. Received: one of masks alone.", key="bundle"
        )
    parts = PredictionParts(features=[])
    how: dict[str, Any] = {"batch_size": batch_size, "workers": workers, "progress": progress, "cache_dir": cache_dir}
    made = predict_parts(bundle, images, parts, device=device, precision=precision, engine="torch", **how)
    features = np.concatenate(parts.features) if parts.features else np.zeros((0, 0), np.float32)
    ids = (made.image_id, made.patient_id, made.series_id)
    return Embeddings(*ids, features, bundle_id=bundle.bundle_id, failures=made.failures)
