"""ResNets with torchvision's design and tensor names, for images and volumes, in five stages.

The blocks are written out here because importing torchvision costs a cold process one second (its operators pull in
``torch._dynamo``: 1.0 s of 2.2 s, a thousand modules), MONAI eight. The tests hold every backbone against
torchvision's, and the 3-D ones against MONAI's: the same names and shapes, and the same output bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lepton_vision.config import Config
from lepton_vision.models.norms import fold_batch_norms
from lepton_vision.types import Backbone

StemKind = Literal["standard", "small"]
STAGES: tuple[str, ...] = ("stem", "layer1", "layer2", "layer3", "layer4")
_DOUBLINGS = (1, 2, 4, 8)
_SMALL_INPUT = 64  # pixels: below, a stem that divides by four leaves layer4 with a single position


@dataclass(frozen=True, slots=True)
class Design:
    """Blocks per layer; ``groups`` and ``base_width`` as in ResNeXt (arXiv:1611.05431) and Wide ResNet (1605.07146)."""

    blocks: tuple[int, int, int, int]
    is_bottleneck: bool = True
    groups: int = 1
    base_width: int = 64

    @property
    def expansion(self) -> int:
        """Channels that a block gives per plane."""
        return 4 if self.is_bottleneck else 1


DESIGNS: dict[Backbone, Design] = {
    "resnet10": Design((1, 1, 1, 1), is_bottleneck=False),
    "resnet18": Design((2, 2, 2, 2), is_bottleneck=False),
    "resnet34": Design((3, 4, 6, 3), is_bottleneck=False),
    "resnet50": Design((3, 4, 6, 3)),
    "resnet101": Design((3, 4, 23, 3)),
    "resnet152": Design((3, 8, 36, 3)),
    "resnext50_32x4d": Design((3, 4, 6, 3), groups=32, base_width=4),
    "resnext101_32x8d": Design((3, 4, 23, 3), groups=32, base_width=8),
    "resnext101_64x4d": Design((3, 4, 23, 3), groups=64, base_width=4),
    "wide_resnet50_2": Design((3, 4, 6, 3), base_width=128),
    "wide_resnet101_2": Design((3, 4, 23, 3), base_width=128),
}


def stem_kind(config: Config) -> StemKind:
    """Return the stem that a configuration means: "auto" is "small" where both sides are at most 64 pixels.

    Example:
        >>> stem_kind(Config().override("preprocess.size=[28, 28]"))
        'small'
    """
    if config.model.stem != "auto":
        return config.model.stem
    return "small" if max(config.preprocess.size) <= _SMALL_INPUT else "standard"


class ResNet(nn.Module):
    """A ResNet without its classifier.

    Args:
        backbone: which design.
        channels: C of the input.
        stem: "standard" is a 7x7 convolution of stride 2 and a maximum pool (H/4); "small" is a 3x3 convolution of
            stride 1 without a pool (H), for images of up to 64 pixels.
        dims: 2 for images, 3 for volumes. In three dimensions resnet18 and resnet34 have shortcuts without weights,
            as the published weights for volumes do (MedicalNet, arXiv:1904.00625; MONAI's shortcut type A).
        planes: channels of the first stage.

    Attributes:
        stem, layer1, layer2, layer3, layer4: the stages, see ``STAGES``.
        width: F, length of the feature vector (512 or 2048 where ``planes`` is 64).
        depths: channels of the maps that ``skips`` gives.
        strides: how many voxels of the input one of theirs covers along an axis.
    """

    def __init__(
        self, backbone: Backbone, *, channels: int, stem: StemKind = "standard", dims: int = 2, planes: int = 64
    ) -> None:
        super().__init__()
        design = DESIGNS[backbone]
        self.backbone, self.channels, self.stem_kind, self.dims = backbone, channels, stem, dims
        self.stem = Stem(channels, kind=stem, dims=dims, planes=planes)
        widths = [planes * factor for factor in _DOUBLINGS]
        inner = planes
        for position, (blocks, width) in enumerate(zip(design.blocks, widths, strict=True)):
            stride = 1 if position == 0 else 2
            layer = _make_layer(design, inner, planes=width, blocks=blocks, stride=stride, dims=dims)
            self.add_module(STAGES[position + 1], layer)
            inner = width * design.expansion
        self.width = inner
        self.depths = (planes, *(width * design.expansion for width in widths))
        self.strides = (2, 4, 8, 16, 32) if stem == "standard" else (1, 1, 2, 4, 8)
        self._initialize()

    def _initialize(self) -> None:
        """He et al. 2015 (arXiv:1502.01852), fan out; norm layers start as the identity."""
        for module in self.modules():
            # On the meta device there is nothing to fill, and torch would import its compiler to do so (one second).
            if isinstance(module, nn.Conv2d | nn.Conv3d) and not module.weight.is_meta:
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def stages(self) -> dict[str, nn.Module]:
        """Return the five stages by name, input first."""
        return {name: self.get_submodule(name) for name in STAGES}

    def skips(self, images: Tensor) -> list[Tensor]:
        """Return the maps that a decoder needs, finest first: of the stem before its pool, then of layer1 … layer4."""
        maps = [self.stem.convolve(images)]
        inner = self.stem.pool(maps[0])
        for name in STAGES[1:]:
            inner = self.get_submodule(name)(inner)
            maps.append(inner)
        return maps

    def features(self, images: Tensor) -> Tensor:
        """Return the mean of the last feature map over all positions.

        Images (B, C, H, W) below are volumes (B, C, D, H, W) where the encoder has three dimensions.

        The mean is taken in float32 under autocast too: it costs nothing, and a feature rounded to 8 bits would make
        ties among the scores.

        Args:
            images: (B, C, H, W) float32, normalised.

        Returns:
            (B, F) float32.
        """
        for name in STAGES:
            images = self.get_submodule(name)(images)
        return self.pool(images)

    def pool(self, maps: Tensor) -> Tensor:
        """Return the features (B, F) float32 of the last map."""
        return global_average(maps)

    def fold(self) -> None:
        """Put every batch norm into the convolution before it; only outside training."""
        fold_batch_norms(self)

    def forward(self, images: Tensor) -> Tensor:
        """Return ``features``."""
        return self.features(images)


def global_average(maps: Tensor) -> Tensor:
    """Mean (B, F) float32 of maps (B, F, H, W) or (B, F, D, H, W) over all positions."""
    mean: Tensor = (F.adaptive_avg_pool2d if maps.ndim == 4 else F.adaptive_avg_pool3d)(maps.float(), 1)
    return mean.flatten(1)


class Stem(nn.Module):
    """From the image to the channels of the first stage."""

    def __init__(self, channels: int, *, kind: StemKind, dims: int = 2, planes: int = 64) -> None:
        super().__init__()
        size, stride = (7, 2) if kind == "standard" else (3, 1)
        self.conv1 = conv(channels, planes, size=size, stride=stride, dims=dims)
        self.bn1 = norm(planes, dims=dims)
        pools = nn.MaxPool2d if dims == 2 else nn.MaxPool3d
        self.pool = pools(kernel_size=3, stride=2, padding=1) if kind == "standard" else nn.Identity()

    def convolve(self, images: Tensor) -> Tensor:
        """(B, C, H, W) → (B, planes, H/2, W/2), or (B, planes, H, W) where the stem is small."""
        return F.relu(self.bn1(self.conv1(images)), inplace=True)

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) → (B, planes, H/4, W/4), or (B, planes, H, W) where the stem is small."""
        maps: Tensor = self.pool(self.convolve(images))
        return maps


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut (arXiv:1512.03385)."""

    def __init__(self, inner: int, planes: int, *, stride: int, downsample: nn.Module | None, dims: int = 2) -> None:
        super().__init__()
        self.conv1 = conv(inner, planes, size=3, stride=stride, dims=dims)
        self.bn1 = norm(planes, dims=dims)
        self.conv2 = conv(planes, planes, size=3, dims=dims)
        self.bn2 = norm(planes, dims=dims)
        self.downsample = downsample

    def forward(self, maps: Tensor) -> Tensor:
        """(B, F, H, W) → (B, planes, H/stride, W/stride)."""
        shortcut = maps if self.downsample is None else self.downsample(maps)
        out = F.relu(self.bn1(self.conv1(maps)), inplace=True)
        out = self.bn2(self.conv2(out))
        out += shortcut
        return F.relu(out, inplace=True)


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions beside a shortcut; the 3x3 one has the stride (ResNet V1.5, as in torchvision)."""

    def __init__(
        self,
        inner: int,
        planes: int,
        *,
        stride: int,
        downsample: nn.Module | None,
        groups: int,
        base_width: int,
        dims: int = 2,
    ) -> None:
        super().__init__()
        width = planes * base_width // 64 * groups
        self.conv1 = conv(inner, width, size=1, dims=dims)
        self.bn1 = norm(width, dims=dims)
        self.conv2 = conv(width, width, size=3, stride=stride, groups=groups, dims=dims)
        self.bn2 = norm(width, dims=dims)
        self.conv3 = conv(width, planes * 4, size=1, dims=dims)
        self.bn3 = norm(planes * 4, dims=dims)
        self.downsample = downsample

    def forward(self, maps: Tensor) -> Tensor:
        """(B, F, H, W) → (B, 4 planes, H/stride, W/stride)."""
        shortcut = maps if self.downsample is None else self.downsample(maps)
        out = F.relu(self.bn1(self.conv1(maps)), inplace=True)
        out = F.relu(self.bn2(self.conv2(out)), inplace=True)
        out = self.bn3(self.conv3(out))
        out += shortcut
        return F.relu(out, inplace=True)


class Widen(nn.Module):
    """A shortcut without weights: every ``stride``-th position, further channels 0 (arXiv:1512.03385, option A).

    MONAI's cuts the gradient here; this one lets it through, as the paper's does.
    """

    def __init__(self, outer: int, *, stride: int) -> None:
        super().__init__()
        self.outer, self.stride = outer, stride

    def forward(self, maps: Tensor) -> Tensor:
        """(B, F, D, H, W) → (B, outer, D/stride, H/stride, W/stride)."""
        step = slice(None, None, self.stride)
        return F.pad(maps[:, :, step, step, step], (0, 0, 0, 0, 0, 0, 0, self.outer - maps.shape[1]))


def conv(inner: int, outer: int, *, size: int, dims: int, stride: int = 1, groups: int = 1) -> nn.Conv2d | nn.Conv3d:
    """Convolution without bias that keeps the size but for its stride."""
    kind = nn.Conv2d if dims == 2 else nn.Conv3d
    return kind(inner, outer, size, stride=stride, padding=size // 2, groups=groups, bias=False)


def norm(channels: int, *, dims: int) -> nn.BatchNorm2d | nn.BatchNorm3d:
    """Batch norm."""
    return nn.BatchNorm2d(channels) if dims == 2 else nn.BatchNorm3d(channels)


def _make_layer(design: Design, inner: int, *, planes: int, blocks: int, stride: int, dims: int) -> nn.Sequential:
    """Return the blocks of one stage; the first one changes size and channels."""
    outer = planes * design.expansion
    layer = nn.Sequential()
    for position in range(blocks):
        first = position == 0
        shortcut = _shortcut(design, inner, outer=outer, stride=stride, dims=dims) if first else None
        source, step = (inner, stride) if first else (outer, 1)
        if design.is_bottleneck:
            shape = {"groups": design.groups, "base_width": design.base_width}
            block: nn.Module = Bottleneck(source, planes, stride=step, downsample=shortcut, dims=dims, **shape)
        else:
            block = BasicBlock(source, planes, stride=step, downsample=shortcut, dims=dims)
        layer.append(block)
    return layer


def _shortcut(design: Design, inner: int, *, outer: int, stride: int, dims: int) -> nn.Module | None:
    if stride == 1 and inner == outer:
        return None
    if dims == 3 and not design.is_bottleneck and design.blocks != (1, 1, 1, 1):
        return Widen(outer, stride=stride)
    return nn.Sequential(conv(inner, outer, size=1, stride=stride, dims=dims), norm(outer, dims=dims))


def torchvision_name(name: str) -> str:
    """Return what torchvision calls the encoder tensor ``name`` (it has no stem module).

    Example:
        >>> torchvision_name("stem.conv1.weight"), torchvision_name("layer1.0.conv1.weight")
        ('conv1.weight', 'layer1.0.conv1.weight')
    """
    return name.removeprefix("stem.")


def meta_resnet(
    backbone: Backbone, *, channels: int = 3, stem: StemKind = "standard", dims: int = 2, planes: int = 64
) -> ResNet:
    """Return an encoder without memory (on torch's meta device): names and shapes only."""
    with torch.device("meta"):
        return ResNet(backbone, channels=channels, stem=stem, dims=dims, planes=planes)
