"""Check of the configuration before a run: every batch norm must see more than one value per channel."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from torch import nn

from lepton_vision.errors import ConfigError
from lepton_vision.models.machine_errors import ONE_VALUE
from lepton_vision.training.optim import frozen_stages

if TYPE_CHECKING:
    from lepton_vision.config import Config
    from lepton_vision.models.assemble import AnyNetwork


def check_batch_norms(model: AnyNetwork, config: Config, *, samples: int) -> None:
    """Refuse to train a norm that gets one value for each channel in a batch: it has no spread.

    Args:
        model: asked for its norms, and for how much one place of its last map covers.
        config: batch size, size of the input, and which norms learn.
        samples: that this process sees in an epoch; a batch has no more.

    Raises:
        ConfigError: the last stage of the encoder would get one value.
    """
    train, volume = config.train, config.volume
    stages = model.encoder_stages().values()
    is_fixed = train.freeze_norms or frozen_stages(train, train.epochs - 1) == len(stages)
    has_norms = any(isinstance(one, nn.modules.batchnorm._BatchNorm) for stage in stages for one in stage.modules())
    if not has_norms or is_fixed or samples < 1 or not model.strides:
        return
    size: tuple[int, ...] = config.preprocess.size
    slices = 1
    if volume is not None and config.dims == 3:
        size = volume.patch
    elif volume is not None and config.joins_slices:
        slices = volume.patch[0]
    positions = math.prod(-(-length // model.strides[-1]) for length in size)
    if min(train.batch_size, samples) * positions * slices == 1:
        raise ConfigError(
            f"{ONE_VALUE} Received: train.batch_size={train.batch_size}, {samples} training images in an epoch of a "
            f"process, and an input of {' x '.join(map(str, size))}.",
            key="train.batch_size",
        )
