"""ResNets of torchvision's design and tensor names: five stages from an image to a feature vector.

The blocks are written out here because importing torchvision costs a cold process one second (its operators pull in
``torch._dynamo``: 1.0 s of 2.2 s, a thousand modules). The tests hold every backbone against torchvision's: the same
names and shapes, and the same output bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lepton_vision.config import Backbone, Config

StemKind = Literal["standard", "small"]
STAGES: tuple[str, ...] = ("stem", "layer1", "layer2", "layer3", "layer4")
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


class Encoder(nn.Module):
    """A ResNet without its classifier.

    Args:
        backbone: which design.
        channels: C of the input.
        stem: "standard" is a 7x7 convolution of stride 2 and a maximum pool (H/4); "small" is a 3x3 convolution of
            stride 1 without a pool (H), for images of up to 64 pixels.

    Attributes:
        stem, layer1, layer2, layer3, layer4: the stages, see ``STAGES``.
        width: F, length of the feature vector (512 or 2048).
    """

    def __init__(self, backbone: Backbone, *, channels: int, stem: StemKind = "standard") -> None:
        super().__init__()
        design = DESIGNS[backbone]
        self.backbone, self.channels, self.stem_kind = backbone, channels, stem
        self.stem = Stem(channels, kind=stem)
        inner = 64
        for position, (blocks, planes) in enumerate(zip(design.blocks, (64, 128, 256, 512), strict=True)):
            layer = _make_layer(design, inner, planes=planes, blocks=blocks, stride=1 if position == 0 else 2)
            self.add_module(STAGES[position + 1], layer)
            inner = planes * design.expansion
        self.width = inner
        self._initialize()

    def _initialize(self) -> None:
        """He et al. 2015 (arXiv:1502.01852), fan out; norm layers start as the identity."""
        for module in self.modules():
            # On the meta device there is nothing to fill, and torch would import its compiler to do so (one second).
            if isinstance(module, nn.Conv2d) and not module.weight.is_meta:
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def stages(self) -> dict[str, nn.Module]:
        """Return the five stages by name, input first."""
        return {name: self.get_submodule(name) for name in STAGES}

    def maps(self, images: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Yield each stage's name and feature map (B, F_stage, H_stage, W_stage), input first."""
        for name, stage in self.stages().items():
            images = stage(images)
            yield name, images

    def pyramid(self, images: Tensor) -> dict[str, Tensor]:
        """Return all feature maps by stage, for heads that need more than the pooled vector."""
        return dict(self.maps(images))

    def features(self, images: Tensor) -> Tensor:
        """Return the mean of the last feature map over all positions.

        The mean is taken in float32 under autocast too: it costs nothing, and a feature rounded to 8 bits would make
        ties among the scores.

        Args:
            images: (B, C, H, W) float32, normalised.

        Returns:
            (B, F) float32.
        """
        return self.upper(images, below=0)

    def lower(self, images: Tensor, count: int) -> Tensor:
        """Return the feature map of the lowest ``count`` stages, pooled as in ``features`` where it is all five."""
        for name in STAGES[:count]:
            images = self.get_submodule(name)(images)
        return images if count < len(STAGES) else _pool(images)

    def upper(self, maps: Tensor, *, below: int) -> Tensor:
        """Finish from what ``lower`` gave for ``below`` stages: (B, F) float32."""
        for name in STAGES[below:]:
            maps = self.get_submodule(name)(maps)
        return maps if below == len(STAGES) else _pool(maps)

    def forward(self, images: Tensor) -> Tensor:
        """Return ``features``."""
        return self.features(images)


def _pool(maps: Tensor) -> Tensor:
    return F.adaptive_avg_pool2d(maps.float(), 1).flatten(1)


class Stem(nn.Module):
    """From the image to 64 channels."""

    def __init__(self, channels: int, *, kind: StemKind) -> None:
        super().__init__()
        size, stride = (7, 2) if kind == "standard" else (3, 1)
        self.conv1 = nn.Conv2d(channels, 64, kernel_size=size, stride=stride, padding=size // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.pool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1) if kind == "standard" else nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) → (B, 64, H/4, W/4), or (B, 64, H, W) where the stem is small."""
        maps: Tensor = self.pool(F.relu(self.bn1(self.conv1(images)), inplace=True))
        return maps


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut (arXiv:1512.03385)."""

    def __init__(self, inner: int, planes: int, *, stride: int, downsample: nn.Module | None) -> None:
        super().__init__()
        self.conv1 = _conv(inner, planes, size=3, stride=stride)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = _conv(planes, planes, size=3)
        self.bn2 = nn.BatchNorm2d(planes)
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
        self, inner: int, planes: int, *, stride: int, downsample: nn.Module | None, groups: int, base_width: int
    ) -> None:
        super().__init__()
        width = planes * base_width // 64 * groups
        self.conv1 = _conv(inner, width, size=1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _conv(width, width, size=3, stride=stride, groups=groups)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = _conv(width, planes * 4, size=1)
        self.bn3 = nn.BatchNorm2d(planes * 4)
        self.downsample = downsample

    def forward(self, maps: Tensor) -> Tensor:
        """(B, F, H, W) → (B, 4 planes, H/stride, W/stride)."""
        shortcut = maps if self.downsample is None else self.downsample(maps)
        out = F.relu(self.bn1(self.conv1(maps)), inplace=True)
        out = F.relu(self.bn2(self.conv2(out)), inplace=True)
        out = self.bn3(self.conv3(out))
        out += shortcut
        return F.relu(out, inplace=True)


def _conv(inner: int, outer: int, *, size: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inner, outer, size, stride=stride, padding=size // 2, groups=groups, bias=False)


def _make_layer(design: Design, inner: int, *, planes: int, blocks: int, stride: int) -> nn.Sequential:
    """Return the blocks of one stage; the first one changes size and channels."""
    outer = planes * design.expansion
    layer = nn.Sequential()
    for position in range(blocks):
        first = position == 0
        changes = first and (stride != 1 or inner != outer)
        shortcut = nn.Sequential(_conv(inner, outer, size=1, stride=stride), nn.BatchNorm2d(outer)) if changes else None
        step = stride if first else 1
        block: nn.Module
        if design.is_bottleneck:
            block = Bottleneck(
                inner if first else outer,
                planes,
                stride=step,
                downsample=shortcut,
                groups=design.groups,
                base_width=design.base_width,
            )
        else:
            block = BasicBlock(inner if first else outer, planes, stride=step, downsample=shortcut)
        layer.append(block)
    return layer


def torchvision_name(name: str) -> str:
    """Return what torchvision calls the encoder tensor ``name`` (it has no stem module).

    Example:
        >>> torchvision_name("stem.conv1.weight"), torchvision_name("layer1.0.conv1.weight")
        ('conv1.weight', 'layer1.0.conv1.weight')
    """
    return name.removeprefix("stem.")


def skeleton(backbone: Backbone, *, channels: int = 3, stem: StemKind = "standard") -> Encoder:
    """Return an encoder without memory (on torch's meta device): names and shapes only."""
    with torch.device("meta"):
        return Encoder(backbone, channels=channels, stem=stem)
