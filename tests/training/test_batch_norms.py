"""Batch norms with one value for each channel are refused beforehand, exactly where torch refuses them."""

from __future__ import annotations

import pytest
import torch
from tiny import FINDING

from lepton_vision.config import Config
from lepton_vision.errors import ConfigError
from lepton_vision.models import build_model
from lepton_vision.training.batch_norms import check_batch_norms
from lepton_vision.training.optim import frozen_stages, set_frozen

PLANE = ("preprocess.size=[32, 32]", "model.stem=standard")
VOLUME = ("volume.view=3d", "volume.patch=[32, 32, 32]", "model.stem=standard")


@pytest.mark.parametrize(
    ("options", "samples", "is_refused"),
    [
        (PLANE, 10, True),
        ((*PLANE, "train.batch_size=2"), 10, False),
        ((*PLANE, "train.batch_size=8"), 1, True),
        (("preprocess.size=[33, 32]", "model.stem=standard"), 10, False),
        (("preprocess.size=[8, 8]",), 10, True),
        (("preprocess.size=[9, 8]",), 10, False),
        ((*PLANE, "model.norm=instance"), 10, False),
        ((*PLANE, "train.freeze_norms=true"), 10, False),
        ((*PLANE, "train.freeze_stages=5"), 10, False),
        ((*PLANE, "train.freeze_stages=5", "train.unfreeze_every=1", "train.epochs=2"), 10, True),
        (VOLUME, 10, True),
        ((*VOLUME[:1], "volume.patch=[32, 32, 40]", *VOLUME[2:]), 10, False),
        ((*VOLUME, "train.batch_size=2"), 10, False),
        (("volume.view=slices", "volume.patch=[3, 1, 1]", *PLANE), 10, False),
    ],
)
def test_it_is_refused_where_torch_refuses(options: tuple[str, ...], samples: int, is_refused: bool) -> None:
    config = Config(targets=(FINDING,)).override(
        "model.backbone=resnet10", "model.width=8", "train.batch_size=1", *options
    )
    size = config.preprocess.size
    if config.volume is not None:
        size = config.volume.patch if config.volume.view == "3d" else (config.volume.patch[0], *size)
    images = torch.rand(min(config.train.batch_size, samples), 1, *size)
    model = build_model(config)
    set_frozen(model, frozen_stages(config.train, config.train.epochs - 1), norms=config.train.freeze_norms)
    if is_refused:
        with pytest.raises(ConfigError, match=r"train\.batch_size=2 or more.*Received: train\.batch_size"):
            check_batch_norms(model, config, samples=samples)
        with pytest.raises(ValueError, match="Expected more than 1 value per channel"):
            model(images)
    else:
        check_batch_norms(model, config, samples=samples)
        model(images)
