"""Encoder and heads: ``forward`` always returns a ModelOutput."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lepton_vision.config import Config
from lepton_vision.errors import ConfigError
from lepton_vision.models.encoder import Encoder, stem_kind
from lepton_vision.models.heads import Heads
from lepton_vision.types import ModelOutput, Target


class Network(nn.Module):
    """A classifier: ``encoder`` (five stages), then ``heads`` (one per target).

    Attributes:
        encoder: see ``Encoder``.
        heads: see ``Heads``.
        targets: what is predicted, in the order of the heads.
        start: in words, what the encoder's weights are from ("random", "imagenet …", "file …", "bundle …").
    """

    def __init__(self, encoder: Encoder, heads: Heads) -> None:
        super().__init__()
        self.encoder, self.heads = encoder, heads
        self.targets = heads.targets
        self.start = "random"

    @property
    def channels(self) -> int:
        """C of the input."""
        return self.encoder.channels

    def features(self, images: Tensor) -> Tensor:
        """Return pooled features, (B, F) float32, of ``images``, (B, C, H, W) float32, normalised."""
        return self.encoder.upper(self.lower(images, 0), below=0)

    def lower(self, images: Tensor, count: int) -> Tensor:
        """Return what the lowest ``count`` stages make of ``images``: a feature map, pooled where it is all five."""
        if images.ndim != 4 or images.shape[1] != self.encoder.channels:
            raise ConfigError(
                f"Expected images (B, {self.encoder.channels}, H, W). Received: {tuple(images.shape)}. "
                "Preprocess them with the configuration of this model."
            )
        return self.encoder.lower(images, count)

    def upper(self, maps: Tensor, *, below: int) -> ModelOutput:
        """Finish from what ``lower`` gave for ``below`` stages: fixed stages need to run once only."""
        return ModelOutput(self.heads(self.encoder.upper(maps, below=below)))

    def forward(self, images: Tensor) -> ModelOutput:
        """Return logits before sigmoid or softmax.

        Args:
            images: (B, C, H, W) float32, normalised (``transforms.to_input``).

        Returns:
            ``logits`` by target: (B, 1) float32 for binary, (B, K) float32 otherwise.

        Raises:
            ConfigError: another number of channels or axes.
        """
        return self.upper(self.lower(images, 0), below=0)

    def parameter_stages(self) -> dict[str, nn.Module]:
        """Return the parts of the network by name, input first: stem, layer1 … layer4, heads.

        Every parameter and buffer belongs to exactly one of them, so they serve for freezing (``requires_grad_`` and
        ``eval`` for the norm layers) and for learning rates.
        """
        return self.encoder.stages() | {"heads": self.heads}


def make_network(config: Config, *, channels: int | None = None, targets: Sequence[Target] | None = None) -> Network:
    """Return a network with random weights from torch's current generator.

    Raises:
        ConfigError: no target, or two of the same name.
    """
    targets = config.targets if targets is None else tuple(targets)
    names = [target.name for target in targets]
    if not names or len(set(names)) != len(names):
        raise ConfigError(
            f"Expected at least one target, each name once. Received: {names}. Set targets in the configuration.",
            key="targets",
        )
    channels = config.preprocess.channels if channels is None else channels
    if channels < 1:
        raise ConfigError(f"Expected at least 1 channel. Received: {channels}.", key="preprocess.windows")
    encoder = Encoder(config.model.backbone, channels=channels, stem=stem_kind(config))
    return Network(encoder, Heads(encoder.width, targets, dropout=config.model.dropout))


def empty_network(config: Config, *, channels: int, targets: Sequence[Target]) -> Network:
    """Return a network without memory (on torch's meta device), ready for ``load_state_dict(…, assign=True)``."""
    with torch.device("meta"):
        return make_network(config, channels=channels, targets=targets)
