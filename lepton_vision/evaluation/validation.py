"""What training watches: a few figures of the validation split, without intervals."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from lepton_vision.config import Config
from lepton_vision.evaluation.questions import questions_of
from lepton_vision.evaluation.segmentation import overlap_figures
from lepton_vision.evaluation.target_measures import measures_of
from lepton_vision.inference.predictions import Predictions
from lepton_vision.inference.predictor import examine_network
from lepton_vision.inference.whole_volumes import on_wholes
from lepton_vision.training.features import FixedStages, UpperPart
from lepton_vision.types import Batch

if TYPE_CHECKING:
    import torch
    from torch import nn
    from torch.utils.data import DataLoader

    from lepton_vision.models.device import Precision
    from lepton_vision.models.network import AnyNetwork


def validation_figures(predictions: Predictions) -> dict[str, float]:
    """Compute what training watches, without intervals: ``val_auroc``, ``val_average_precision`` and ``val_loss``.

    Each is the mean over the targets of the mean over the classes that can be judged: for ``val_loss``, the log loss of
    the probabilities, those with a label, otherwise those with positive and negative samples. Where others are left
    out, ``val_classes_judged`` and ``val_classes_left_out`` count both. A figure that no class defines is NaN.
    """
    names = {"val_auroc": "auroc", "val_average_precision": "average_precision", "val_loss": "log_loss"}
    found: dict[str, list[float]] = {key: [] for key in names}
    judged = left_out = 0
    for target in predictions.targets:
        asked = questions_of(predictions, target)
        both, labelled = (
            [one.class_name for one in asked if not one.missing()],
            [one.class_name for one in asked if one.n],
        )
        judged, left_out = judged + len(both), left_out + len(asked) - len(both)
        part = predictions.select(predictions.labelled(target))
        measures = measures_of(part, target, thresholds=(0.5,) * target.outputs)
        values = measures.values(np.ones((1, measures.units)))
        for key, name in names.items():
            is_whole = target.kind == "binary" or (target.is_exclusive and name == "log_loss")
            classes = labelled if name == "log_loss" else both
            ends = [""] if is_whole and classes else [f"_{one}" for one in classes]
            if ends:
                found[key].append(float(np.mean([values[f"{name}{end}"][0] for end in ends])))
    figures = {key: float(np.mean(values)) if values else float("nan") for key, values in found.items()}
    return figures | ({"val_classes_judged": judged, "val_classes_left_out": left_out} if left_out else {})


def make_validator(
    config: Config,
    val_loader: DataLoader[Batch] | None,
    *,
    fixed: FixedStages,
    device: torch.device,
    precision: Precision,
) -> Callable[[AnyNetwork], dict[str, float]]:
    """What training calls after each epoch; with cached features the fixed stages are not run again."""

    def validate(network: AnyNetwork) -> dict[str, float]:
        if val_loader is None:
            return {}
        is_cached = config.train.cache_features
        seen = UpperPart(network, fixed.count) if is_cached else _on_wholes(network, config, device=device)
        batches = fixed.loader(network, val_loader) if is_cached else val_loader
        found = examine_network(seen, batches, targets=config.targets, device=device, precision=precision)
        figures = {} if found.predictions is None else validation_figures(found.predictions)
        if found.overlap is not None and config.segmentation is not None:
            figures |= overlap_figures(found.overlap, config.segmentation.names)
        return figures

    return validate


def _on_wholes(network: AnyNetwork, config: Config, *, device: torch.device) -> nn.Module:
    """What predicts the batches of a validation loader: whole volumes where masks are compared, or slices stacked."""
    if config.volume is None or not (config.segmentation is not None or config.sees_slabs):
        return network
    return on_wholes(network, config).to(device)
