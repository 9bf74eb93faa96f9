"""Early stopping and choice of the best epoch by a validation figure."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping

from lepton_vision.config.sections import TrainConfig
from lepton_vision.errors import ConfigError, TrainingError, nearest
from lepton_vision.training.checkpoint import Position

MONITORS = ("val_auroc", "val_average_precision", "val_loss")
"""Figures that validation of targets always gives."""

_LOGGER = logging.getLogger(__name__)
_LOWER_IS_BETTER = ("loss", "brier", "ece", "error")


def is_kept(position: Position, figures: Mapping[str, float], *, train: TrainConfig, warns: bool) -> bool:
    """Whether the weights of this epoch are the ones to keep so far; counts the epochs without a better figure.

    A figure that is undefined says neither that the epoch is better nor that it is not: it is not kept, nor counted.
    """
    if train.keep == "last":
        return True
    value = monitored(figures, train.monitor)
    if not math.isfinite(value):
        if warns:
            _LOGGER.warning(
                "train.monitor: %s is undefined after epoch %d (from 0), which is not kept, nor counted for patience.",
                train.monitor,
                position.epoch,
            )
        return False
    before = math.nan if position.best is None else position.best.figures[train.monitor]
    is_better = _is_better(value, before, train.monitor)
    position.stale = 0 if is_better else position.stale + 1
    return is_better


def monitored(figures: Mapping[str, float], monitor: str) -> float:
    """Return the figure that decides.

    Raises:
        ConfigError: validation does not give it.
    """
    if monitor not in figures:
        raise ConfigError(
            f"train.monitor: validation gives no figure {monitor!r}. {nearest(monitor, list(figures))}",
            key="train.monitor",
        )
    return figures[monitor]


def undefined_monitor_error(monitor: str) -> TrainingError:
    """Return what ends a run of which no epoch can be the best."""
    return TrainingError(
        f"train.monitor: {monitor} was undefined after every epoch, so that none is the best. Expected samples in "
        "validation that it can be computed from: both classes, or true masks. Set another train.monitor (val_loss "
        "needs labels alone) or train.keep=last, in a new run folder.",
        key="train.monitor",
    )


def _is_better(value: float, before: float, monitor: str) -> bool:
    """Whether a finite figure beats the best so far; one that is not finite is beaten by any."""
    if not math.isfinite(before):
        return True
    return value < before if monitor.endswith(_LOWER_IS_BETTER) else value > before
