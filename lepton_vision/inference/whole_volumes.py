"""Predictors of whole-volume masks for every view of a volume."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from lepton_vision.config import Config
from lepton_vision.inference.slicewise import SlicewiseNetwork
from lepton_vision.inference.windows import WindowedNetwork
from lepton_vision.models.assemble import AnyNetwork


def over_whole_volumes(network: AnyNetwork, config: Config, *, mirrored: Sequence[int] = ()) -> nn.Module:
    """Wrap a network so that it takes volumes (B, C, D, H, W) of any size: in windows, or slice by slice with 2.5d.

    Args:
        network: the bare one.
        config: its configuration, with a section ``volume``.
        mirrored: axes that masks are predicted mirrored along too, see ``mirrors.mirror_sets``.

    Raises:
        ConfigError: ``volume.view`` is "slices", or there is no section ``volume``; an axis that does not exist.
    """
    kind = SlicewiseNetwork if config.sees_slabs else WindowedNetwork
    return kind(network, config, mirrored=mirrored)
