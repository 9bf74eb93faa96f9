"""Validation figures during training, without intervals."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from lepton_vision.config import Config
from lepton_vision.errors import EvaluationError
from lepton_vision.evaluation.classes.figure_table import SPECS
from lepton_vision.evaluation.classes.figures import COUNTED, WATCHED, validation_figures, watched
from lepton_vision.evaluation.classes.own_figures import OwnFigures
from lepton_vision.evaluation.masks.evaluation import overlap_figures
from lepton_vision.evaluation.masks.measures import MASK_SPECS
from lepton_vision.inference.predictor import examine_network
from lepton_vision.inference.whole_volumes import over_whole_volumes
from lepton_vision.training.features import FixedStages, UpperPart
from lepton_vision.types import Batch
from lepton_vision.types.figure import Better

if TYPE_CHECKING:
    import torch
    from torch import nn
    from torch.utils.data import DataLoader

    from lepton_vision.models.assemble import AnyNetwork
    from lepton_vision.models.device import Precision


def watched_figures(config: Config, own: OwnFigures) -> dict[str, Better]:
    """Names of what validation gives, by which an epoch may be chosen, and which way of each is better.

    Raises:
        EvaluationError: an own figure would have the name of one of ours.
    """
    names = () if config.segmentation is None else ("", *(f"_{name}" for name in config.segmentation.names))
    ours = {key: SPECS[name].better for key, name in watched(config.targets).items()}
    ours |= {f"val_dice{name}": MASK_SPECS["dice"].better for name in names}
    taken = [name for name in own if f"val_{name}" in {*ours, *WATCHED, *COUNTED}]
    if taken:
        raise EvaluationError(
            f"figures: val_{taken[0]} is a figure of validation already. Choose another name than {taken[0]!r}.",
            key=taken[0],
        )
    return ours | {f"val_{name}": one.better for name, one in own.items()}


def make_validator(
    config: Config,
    val_loader: DataLoader[Batch] | None,
    *,
    fixed: FixedStages,
    device: torch.device,
    precision: Precision,
    own: OwnFigures,
) -> Callable[[AnyNetwork], dict[str, float]]:
    """Validation function for training; with cached features the fixed stages are not run again."""

    def validate(network: AnyNetwork) -> dict[str, float]:
        if val_loader is None:
            return {}
        is_cached = config.train.cache_features
        seen = UpperPart(network, fixed.count) if is_cached else _over_whole_volumes(network, config, device=device)
        batches = fixed.loader(network, val_loader) if is_cached else val_loader
        found = examine_network(seen, batches, targets=config.targets, device=device, precision=precision)
        figures = {} if found.predictions is None else validation_figures(found.predictions, own)
        if found.overlap is not None and config.segmentation is not None:
            figures |= overlap_figures(found.overlap, config.segmentation.names)
        return figures

    return validate


def _over_whole_volumes(network: AnyNetwork, config: Config, *, device: torch.device) -> nn.Module:
    """Predictor of a validation loader: whole volumes where masks are compared, or slices stacked."""
    if not config.is_volume or (config.segmentation is None and not config.sees_slabs):
        return network
    return over_whole_volumes(network, config).to(device)
