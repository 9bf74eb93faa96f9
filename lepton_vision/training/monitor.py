"""Early stopping and choice of the best epoch by a validation figure."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping

from lepton_vision.config.sections import TrainConfig
from lepton_vision.errors import ConfigError, TrainingError, nearest
from lepton_vision.training.checkpoint import Position
from lepton_vision.types.figure import Better

_LOGGER = logging.getLogger(__name__)


def is_kept(
    position: Position, figures: Mapping[str, float], *, train: TrainConfig, better: Better, warns: bool
) -> bool:
    """Whether the weights of this epoch are the ones to keep so far; counts the epochs without a better figure.

    A figure that is undefined says neither that the epoch is better nor that it is not: it is not kept, nor counted.
    """
    if train.keep == "last":
        return True
    value = figures.get(train.monitor, math.nan)
    if not math.isfinite(value):
        if warns:
            _LOGGER.warning(
                "train.monitor: %s is undefined after epoch %d (from 0), which is not kept, nor counted for patience.",
                train.monitor,
                position.epoch,
            )
        return False
    before = math.nan if position.best is None else position.best.figures[train.monitor]
    is_better = not math.isfinite(before) or (value < before if better == "lower" else value > before)
    position.stale = 0 if is_better else position.stale + 1
    return is_better


def direction(monitor: str, watched: Mapping[str, Better]) -> Better:
    """Return which way of the figure that decides is better.

    Raises:
        ConfigError: validation gives no such figure, or one of which no way is better.
    """
    known = [name for name, better in watched.items() if better != "neither"]
    if monitor not in known:
        raise ConfigError(
            f"train.monitor: validation gives no figure {monitor!r}. {nearest(monitor, known)}",
            key="train.monitor",
        )
    return watched[monitor]


def undefined_monitor_error(monitor: str) -> TrainingError:
    """Return what ends a run of which no epoch can be the best."""
    return TrainingError(
        f"train.monitor: {monitor} was undefined after every epoch, so that none is the best. Expected samples in "
        "validation that it can be computed from: both classes, or true masks. Set another train.monitor (val_loss "
        "needs labels alone) or train.keep=last, in a new run folder.",
        key="train.monitor",
    )
