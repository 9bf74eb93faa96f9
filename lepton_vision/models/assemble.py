"""Assembly of networks from a configuration: encoder, heads, decoder, ensemble."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from lepton_vision.config import Config
from lepton_vision.errors import ConfigError
from lepton_vision.models.device import OWN_RANDOM_STATE
from lepton_vision.models.encoders import Encoder, make_encoder
from lepton_vision.models.ensemble import Ensemble
from lepton_vision.models.heads import Heads
from lepton_vision.models.network import Network
from lepton_vision.models.norms import use_instance_norms
from lepton_vision.models.regions import EVIDENCE_FIGURES
from lepton_vision.types import Target

AnyNetwork = Network | Ensemble
"""What a configuration describes: one network, or several that are one to their callers (``model.members``)."""


def make_network(config: Config, *, channels: int | None = None, targets: Sequence[Target] | None = None) -> AnyNetwork:
    """Return a network, or an ensemble, with random weights from torch's current generator.

    Each member draws its own weights from it, the first one those of a single network.

    Raises:
        ConfigError: no target, or two of the same name.
    """
    targets = config.targets if targets is None else tuple(targets)
    names = [target.name for target in targets]
    if not (names or config.segmentation) or len(set(names)) != len(names):
        raise ConfigError(
            f"Expected at least one target, each name once. Received: {names}. Set targets or segmentation in the "
            "configuration.",
            key="targets",
        )
    channels = config.channels if channels is None else channels
    if channels < 1:
        raise ConfigError(f"Expected at least 1 channel. Received: {channels}.", key="preprocess.windows")
    members = [_make_member(config, channels=channels, targets=targets) for _ in range(config.model.members)]
    return members[0] if len(members) == 1 else Ensemble(members)


def _make_member(config: Config, *, channels: int, targets: Sequence[Target]) -> Network:
    encoder = make_encoder(config, channels=channels)
    heads = _make_heads(config, encoder, targets)
    network = Network(
        encoder,
        heads,
        segmentation=config.segmentation,
        is_balanced=config.train.balance == "uncertainty",
        joins_slices=config.joins_slices,
        is_mirrored=config.model.mirrored,
    )
    if config.model.norm == "instance":
        use_instance_norms(network)
    return network


def _make_heads(config: Config, encoder: Encoder, targets: Sequence[Target]) -> Heads:
    """Heads that see pooled features, or what the masks say; these leave the masks the start that they have alone."""
    if config.segmentation is None or config.segmentation.mode != "evidence":
        return Heads(encoder.width, targets, dropout=config.model.dropout)
    with OWN_RANDOM_STATE, torch.random.fork_rng(devices=[]):
        return Heads(EVIDENCE_FIGURES * len(config.segmentation.structures), targets, dropout=config.model.dropout)


def empty_network(config: Config, *, channels: int, targets: Sequence[Target]) -> AnyNetwork:
    """Return a network ready for ``load_state_dict(…, assign=True)``, without memory (on torch's meta device).

    One with a foreign encoder has memory: few networks can be built without, and not all they hold is in their state.
    """
    if not config.model.is_resnet:
        with OWN_RANDOM_STATE, torch.random.fork_rng(devices=[]):
            return make_network(config, channels=channels, targets=targets)
    with torch.device("meta"):
        return make_network(config, channels=channels, targets=targets)
