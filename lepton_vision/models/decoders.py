"""Segmentation decoders in two and three dimensions: feature maps of the encoder to masks of the image's size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lepton_vision.config import SegmentationConfig
from lepton_vision.models.device import full_precision
from lepton_vision.models.encoders import Encoder
from lepton_vision.models.resnet import conv, norm


class UnetDecoder(nn.Module):
    """From the coarsest map upwards, each time joined with the encoder's map of that size (arXiv:1505.04597).

    Of two maps of one size, as the stem's and layer1's where the stem is small, the deeper one is joined alone: a
    second step at the finest resolution would cost more than all other steps together.

    Args:
        depths: channels of the encoder's maps, finest first.
        strides: voxels of the input that one of theirs covers along an axis.
        outputs: 1 + M.
        channels: of the finest map; each coarser one has twice as many.
        dims: 2 or 3.
    """

    def __init__(
        self, depths: Sequence[int], *, strides: Sequence[int], outputs: int, channels: int, dims: int
    ) -> None:
        super().__init__()
        pairs = zip(strides, (*strides[1:], None), strict=True)
        self.levels = tuple(place for place, (stride, following) in enumerate(pairs) if stride != following)
        depths = [depths[place] for place in self.levels]
        self.steps = nn.ModuleList()
        inner = depths[-1]
        for level in reversed(range(len(depths) - 1)):
            outer = channels * 2**level
            self.steps.append(
                nn.Sequential(*_block(inner + depths[level], outer, dims=dims), *_block(outer, outer, dims=dims))
            )
            inner = outer
        self.last = _last(inner, outputs, dims=dims)

    def forward(self, maps: Sequence[Tensor], *, size: Sequence[int]) -> Tensor:
        """Return logits (B, 1 + M, *size) float32 from maps (B, F, …), finest first."""
        maps = [maps[place] for place in self.levels]
        inner = maps[-1]
        for step, skip in zip(self.steps, reversed(maps[:-1]), strict=True):
            inner = step(torch.cat([_resize(inner, skip.shape[2:]), skip], dim=1))
        return _finish(self.last, inner, size=size)


class FpnDecoder(nn.Module):
    """Maps from a quarter to the coarsest, made alike, added from the top and summed (arXiv:1612.03144, 1901.02446).

    Args:
        depths: channels of the encoder's maps, finest first.
        strides: voxels of the input that one of theirs covers along an axis; a first one below 4 is left out.
        outputs: 1 + M.
        channels: of all maps.
        dims: 2 or 3.
    """

    def __init__(
        self, depths: Sequence[int], *, strides: Sequence[int], outputs: int, channels: int, dims: int
    ) -> None:
        super().__init__()
        self.first = 1 if strides[0] < 4 and len(depths) > 1 else 0
        depths = depths[self.first :]
        self.lateral = nn.ModuleList(conv(depth, channels, size=1, dims=dims) for depth in depths)
        self.smooth = nn.ModuleList(nn.Sequential(*_block(channels, channels, dims=dims)) for _ in depths)
        self.last = _last(channels, outputs, dims=dims)

    def forward(self, maps: Sequence[Tensor], *, size: Sequence[int]) -> Tensor:
        """Return logits (B, 1 + M, *size) float32 from maps (B, F, …), finest first."""
        maps = maps[self.first :]
        finest = maps[0].shape[2:]
        total = inner = torch.zeros((), device=maps[0].device)
        for lateral, smooth, skip in zip(reversed(self.lateral), reversed(self.smooth), reversed(maps), strict=True):
            above = inner if inner.ndim == 0 else _resize(inner, skip.shape[2:])
            inner = lateral(skip) + above
            total = total + _resize(smooth(inner), finest)
        return _finish(self.last, total, size=size)


def make_decoder(encoder: Encoder, config: SegmentationConfig) -> UnetDecoder | FpnDecoder:
    """Return the head that ``config`` asks for, for the maps of ``encoder.skips``."""
    outputs = 1 + len(config.structures)
    shape: Any = {"strides": encoder.strides, "outputs": outputs, "dims": encoder.dims}
    if config.decoder == "unet":
        return UnetDecoder(encoder.depths, channels=config.channels, **shape)
    return FpnDecoder(encoder.depths, channels=4 * config.channels, **shape)


def start_at(decoder: UnetDecoder | FpnDecoder, *, prior: float) -> None:
    """Lower the log odds of each structure at the start by those of ``prior``, from 0.5 where nothing is known."""
    with torch.no_grad():
        decoder.last.get_parameter("bias")[1:] += math.log(prior / (1.0 - prior))


def _block(inner: int, outer: int, *, dims: int) -> tuple[nn.Module, ...]:
    layer = conv(inner, outer, size=3, dims=dims)
    if not layer.weight.is_meta:
        nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return layer, norm(outer, dims=dims), nn.ReLU(inplace=True)


def _last(inner: int, outputs: int, *, dims: int) -> nn.Module:
    """1x1 convolution with torch's own start: with weights as small as a classifier's, hundreds of steps are lost."""
    return (nn.Conv2d if dims == 2 else nn.Conv3d)(inner, outputs, kernel_size=1)


def _resize(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Nearest neighbour: what follows is a convolution, which smooths."""
    return maps if maps.shape[2:] == tuple(size) else F.interpolate(maps, size=tuple(size), mode="nearest")


def _finish(last: nn.Module, maps: Tensor, *, size: Sequence[int]) -> Tensor:
    """Logits in float32 under autocast too, brought to the size of the image by linear interpolation."""
    with full_precision(maps.device):
        logits: Tensor = last(maps.float())
        if logits.shape[2:] == tuple(size):
            return logits
        mode = "bilinear" if logits.ndim == 4 else "trilinear"
        return F.interpolate(logits, size=tuple(size), mode=mode, align_corners=False)
