"""Network of encoder, heads and decoder, whose ``forward`` always returns a ModelOutput."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lepton_vision.config import SegmentationConfig
from lepton_vision.errors import ConfigError
from lepton_vision.models.attention import AttentionPool, as_slices
from lepton_vision.models.decoders import make_decoder
from lepton_vision.models.device import suited_format
from lepton_vision.models.encoders import Encoder, lower, pooled, upper
from lepton_vision.models.heads import Heads
from lepton_vision.models.regions import crop_to_masks, mask_evidence
from lepton_vision.types import ModelOutput


def list_parts(network: nn.Module) -> str:
    """Text of a network: its parts and how large they are; ``print(network.encoder)`` shows layers."""
    sizes = {name: sum(one.numel() for one in part.parameters()) for name, part in network.named_children()}
    parts = [f"  {name}: {type(part).__name__}, {sizes[name]:,} parameters," for name, part in network.named_children()]
    return "\n".join([f"{type(network).__name__}(", *parts, ")"])


class Network(nn.Module):
    """``encoder`` (its stages), then ``heads`` (one per target) and, where asked for, ``decoder`` (masks).

    Attributes:
        encoder: see ``Encoder``.
        heads: see ``Heads``.
        decoder: segmentation head, or None.
        attention: joins the slices of a volume, or None where a sample is one image.
        balance: learnt variances of the losses, or None.
        targets: what is predicted, in the order of the heads.
        start: in words, what the encoder's weights are from ("random", "imagenet …", "file …", "bundle …").
        gives_masks: whether ``forward`` computes masks; turned off in scoring where they only helped to train.
        is_mirrored: whether features outside training are the mean over an image and its left–right mirror image; the
            heads are linear, so that logits are this mean too.
    """

    def __init__(
        self,
        encoder: Encoder,
        heads: Heads,
        *,
        segmentation: SegmentationConfig | None = None,
        is_balanced: bool = False,
        joins_slices: bool = False,
        is_mirrored: bool = False,
    ) -> None:
        super().__init__()
        self.encoder, self.heads = encoder, heads
        self.targets = heads.targets
        self.segmentation = segmentation
        self.decoder = None if segmentation is None else make_decoder(encoder, segmentation)
        self.attention = AttentionPool(encoder.width) if joins_slices else None
        self.balance = Balance(len(self.targets) + (segmentation is not None)) if is_balanced else None
        self.start = "random"
        self.gives_masks = segmentation is not None
        self.is_mirrored = is_mirrored

    __repr__ = list_parts

    @property
    def channels(self) -> int:
        """C of the input."""
        return self.encoder.channels

    @property
    def dims(self) -> int:
        """Axes that the encoder sees, 2 or 3."""
        return self.encoder.dims

    @property
    def strides(self) -> tuple[int, ...]:
        """How many voxels of the input one of each stage covers along an axis."""
        return tuple(self.encoder.strides)

    @property
    def width(self) -> int:
        """F, length of the feature vector."""
        return self.encoder.width

    @property
    def members(self) -> Sequence[Network]:
        """The networks that learn by themselves: this one. See ``Ensemble``."""
        return (self,)

    @property
    def apart(self) -> Sequence[nn.Module]:
        """Parts whose loss shapes nothing else, as ``segmentation.mode`` says; none in most modes."""
        mode = "joint" if self.segmentation is None else self.segmentation.mode
        part = {"detached": self.decoder, "evidence": self.heads}.get(mode)
        return () if part is None else (part,)

    @property
    def log_variance(self) -> Tensor | None:
        """(T,), or (T + 1,) with masks, float32: learnt log variances of the losses, or None."""
        return None if self.balance is None else self.balance.log_variance

    def features(self, images: Tensor) -> Tensor:
        """Return pooled features, (B, F) float32, of images or volumes as ``forward`` takes them."""
        images = self._checked(images)
        if self.attention is None:
            features = self.encoder.features(images)
            if self.is_mirrored and not self.training:
                features = (features + self.encoder.features(images.flip(-1))) / 2
            return features
        slices, is_there = as_slices(images)
        features = self.encoder.features(slices.contiguous(memory_format=suited_format(4)))
        joined: Tensor = self.attention(features.reshape(*is_there.shape, -1), is_there)
        return joined

    def lower(self, images: Tensor, count: int) -> Tensor:
        """Return what the lowest ``count`` stages make of ``images``: a feature map, pooled where it is all of them."""
        return lower(self.encoder, self._checked(images), count)

    def upper(self, maps: Tensor, *, below: int) -> ModelOutput:
        """Finish from what ``lower`` gave for ``below`` stages: fixed stages need to run once only. No masks."""
        return self._head(upper(self.encoder, maps, below=below))

    def forward(self, images: Tensor) -> ModelOutput:
        """Return logits before sigmoid or softmax.

        Args:
            images: (B, C, H, W) float32, normalised (``preprocess.to_input``); (B, C, D, H, W) for a 3-D encoder, or
                for slices that attention joins.

        Returns:
            ``logits`` by target: (B, 1) float32 for binary, (B, K) float32 otherwise; ``mask_logits``
            (B, 1 + M, H, W) float32 where there is a segmentation head.

        Raises:
            ConfigError: another number of channels or axes.
        """
        mode = "none" if self.segmentation is None else self.segmentation.mode
        if self.decoder is None or not (self.gives_masks or mode in ("roi", "evidence")):
            return self._head(self.features(images))
        images = self._checked(images)
        maps = self.encoder.skips(images)
        given = [one.detach() for one in maps] if mode == "detached" else maps
        masks = self.decoder(given, size=images.shape[2:])
        return self._classify(images, maps[-1], masks=masks)

    def _head(self, features: Tensor, *, masks: Tensor | None = None) -> ModelOutput:
        return ModelOutput(self.heads(features), masks, features)

    def _classify(self, images: Tensor, last: Tensor, *, masks: Tensor) -> ModelOutput:
        if not self.targets:
            return ModelOutput({}, masks)
        if self.segmentation is not None and self.segmentation.mode == "evidence":
            # Grad-CAM, outside training, follows a class back through the mask; its loss does not.
            evidence = mask_evidence(masks.detach() if self.training else masks)
            return ModelOutput(self.heads(evidence), masks, pooled(self.encoder, images, last=last))
        if self.segmentation is not None and self.segmentation.mode == "roi":
            cut = crop_to_masks(images, masks, margin=self.segmentation.roi_margin)
            features = self.encoder.features(cut.to(memory_format=suited_format(cut.ndim)))
        else:
            features = pooled(self.encoder, images, last=last)
        return self._head(features, masks=masks)

    def _checked(self, images: Tensor) -> Tensor:
        dims = self.encoder.dims if self.attention is None else 3
        if images.ndim != dims + 2 or images.shape[1] != self.encoder.channels:
            axes = "H, W" if dims == 2 else "D, H, W"
            raise ConfigError(
                f"Expected images (B, {self.encoder.channels}, {axes}). Received: {tuple(images.shape)}. "
                "Preprocess them with the configuration of this model."
            )
        return images

    def encoder_stages(self) -> dict[str, nn.Module]:
        """Return the stages of the encoder by name, input first: of a ResNet stem, layer1 … layer4."""
        return self.encoder.stages()

    def parameter_stages(self) -> dict[str, nn.Module]:
        """Return the parts of the network by name, input first: stages of the encoder, heads, decoder … if any.

        Every parameter and buffer of theirs belongs to exactly one of them, so they serve for freezing
        (``requires_grad_`` and ``eval`` for the norm layers) and for learning rates.
        """
        further = {"decoder": self.decoder, "attention": self.attention, "balance": self.balance}
        return (
            self.encoder_stages()
            | {"heads": self.heads}
            | {name: part for name, part in further.items() if part is not None}
        )


class Balance(nn.Module):
    """One learnt variance per loss (arXiv:1705.07115).

    Args:
        losses: one per target, then one for the masks.
    """

    def __init__(self, losses: int) -> None:
        super().__init__()
        self.log_variance = nn.Parameter(torch.zeros(losses))
