"""Check of the configuration before a run: every batch norm must see more than one value per channel."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from lepton_vision.errors import ConfigError
from lepton_vision.models.resnet import STAGES, stem_kind
from lepton_vision.models.troubles import ONE_VALUE
from lepton_vision.training.optim import frozen_stages

if TYPE_CHECKING:
    from lepton_vision.config import Config

_STRIDES = {"standard": 32, "small": 8}  # of the last stage


def check_batch_norms(config: Config, *, samples: int) -> None:
    """Refuse to train a norm that gets one value for each channel in a batch: it has no spread.

    Args:
        config: batch size, size of the input, and which norms learn.
        samples: that this process sees in an epoch; a batch has no more.

    Raises:
        ConfigError: the last stage of the encoder would get one value.
    """
    train, volume = config.train, config.volume
    is_fixed = train.freeze_norms or frozen_stages(train, train.epochs - 1) == len(STAGES)
    if config.model.norm != "batch" or is_fixed or samples < 1:
        return
    size: tuple[int, ...] = config.preprocess.size
    slices = 1
    if volume is not None and volume.view == "3d":
        size = volume.patch
    elif volume is not None and volume.view == "slices":
        slices = volume.patch[0]
    positions = math.prod(-(-length // _STRIDES[stem_kind(config)]) for length in size)
    if min(train.batch_size, samples) * positions * slices == 1:
        raise ConfigError(
            f"{ONE_VALUE} Received: train.batch_size={train.batch_size}, {samples} training images in an epoch of a "
            f"process, and an input of {' x '.join(map(str, size))}.",
            key="train.batch_size",
        )
