"""The section of a configuration that says which network, and what it starts from."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath, PureWindowsPath
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, field_validator, model_validator

from lepton_vision.config.sections import Fraction, PositiveInt, Section
from lepton_vision.errors import ConfigError, nearest
from lepton_vision.registry import Registry
from lepton_vision.types import Backbone

RESNETS: tuple[str, ...] = get_args(Backbone)
ENCODERS = Registry("encoder", key="model.backbone", group="lepton_vision.encoders", ours=RESNETS)
"""Encoders that teams bring, see ``models.encoders``; here, so that a name is checked without torch."""

_VGG = ("vgg11", "vgg13", "vgg16", "vgg19")
SOURCES: dict[str, tuple[str, ...]] = {
    "torchvision": (
        *("densenet121", "densenet161", "densenet169", "densenet201"),
        *(f"efficientnet_b{size}" for size in range(8)),
        *("efficientnet_v2_s", "efficientnet_v2_m", "efficientnet_v2_l"),
        *("convnext_tiny", "convnext_small", "convnext_base", "convnext_large"),
        *("mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large"),
        *(*_VGG, *(f"{name}_bn" for name in _VGG)),
    ),
    "monai": (
        *("DenseNet121", "DenseNet169", "DenseNet201", "DenseNet264"),
        *("SEResNet50", "SEResNet101", "SEResNet152", "SEResNext50", "SEResNext101", "SENet154"),
    ),
}
"""Networks of other packages, as ``source:name``; timm's, of which there are a thousand, are checked when built."""


class ModelConfig(Section):
    """Which network, and what it starts from."""

    backbone: str = "resnet18"
    """Encoder: a ResNet of torchvision by its name, resnet10, one of torchvision's other networks for images
    (torchvision:densenet121, torchvision:efficientnet_b0, torchvision:convnext_tiny …), one of timm's
    (timm:convnext_tiny …; extra ``timm``), one of MONAI's, also for volumes (monai:SEResNet50, monai:DenseNet121 …),
    or one of your own (``register_encoder``)."""
    options: dict[str, Any] = Field(default_factory=dict)
    """What the factory of an encoder that is no ResNet of ours takes beside channels and dims; plain values."""
    weights: str = "none"
    """"none" (random), "imagenet" (torchvision's download or cache) or a local file of torch (.pt, .pth.tar, .ckpt …),
    safetensors or NumPy (.npz): a state dict, or a checkpoint that holds one."""
    init_from: str | None = None
    """Folder of a bundle whose encoder is the start; excludes ``weights``."""
    keep_heads: bool = False
    """With init_from: heads of targets that both have start from the bundle too (a probe's, to be fine-tuned)."""
    stem: Literal["auto", "standard", "small"] = "auto"
    """Of a ResNet. small: 3x3 stride 1 without pooling; auto takes it for inputs up to 64 pixels."""
    norm: Literal["batch", "instance"] = "batch"
    """instance: each sample is normalised by itself (arXiv:1607.08022). For training from random weights in batches of
    a few volumes, from which a batch norm cannot learn figures that hold for others."""
    dropout: Fraction = 0.0
    """Share of the pooled features that is set to 0 at random before the heads, in training."""
    width: PositiveInt = 64
    """Channels of the first stage of a ResNet; the others follow (2, 4, 8 times). Pretrained weights have 64."""
    members: Annotated[int, Field(ge=1, le=16)] = 1
    """Networks in one bundle, trained side by side, each from its own random start, and averaged in use (deep
    ensembles, arXiv:1612.01474): so many times the cost of one. Pretrained encoders start alike, the heads do not."""
    mirrored: bool = False
    """Outside training, classify an image with left and right exchanged too, and average both: twice the time. For
    models of images that are trained with flips."""

    @property
    def is_resnet(self) -> bool:
        """Whether the backbone is one of ours."""
        return self.backbone in RESNETS

    @property
    def source(self) -> str:
        """Package that a backbone like "monai:SEResNet50" is of; "" for others."""
        return self.backbone.partition(":")[0] if ":" in self.backbone else ""

    @field_validator("backbone")
    @classmethod
    def _check_backbone(cls, value: str) -> str:
        source, colon, name = value.partition(":")
        if colon:
            if source not in (*SOURCES, "timm"):
                raise ValueError(f"unknown source {source!r} of encoders. {nearest(source, [*SOURCES, 'timm'])}")
            if source == "timm":
                if not re.fullmatch(r"\w[\w.-]*", name):
                    raise ValueError(f"expected a name of timm.list_models() after 'timm:'. Received: {name!r}")
            elif name not in SOURCES[source]:
                raise ValueError(f"unknown encoder {name!r} of {source}. {nearest(name, SOURCES[source])}")
            return value
        try:
            ENCODERS.check(value)
        except ConfigError as error:
            raise ValueError(str(error)) from None
        return value

    @field_validator("options")
    @classmethod
    def _check_options(cls, value: dict[str, Any]) -> dict[str, Any]:
        for one in _leaves(value):
            if not isinstance(one, str | int | float | None):
                raise ValueError(f"options are plain values (text, numbers, lists), not {type(one).__name__}")
            if isinstance(one, str) and (PurePosixPath(one).is_absolute() or PureWindowsPath(one).is_absolute()):
                raise ValueError("options travel in the bundle, where no path may stand: weights go to model.weights")
        return value

    @model_validator(mode="after")
    def _check_design(self) -> ModelConfig:
        if self.is_resnet and self.options:
            raise ValueError(f"options are for other encoders, and {self.backbone} takes none: leave them out")
        for key in ("stem", "width"):
            if not self.is_resnet and getattr(self, key) != type(self).model_fields[key].default:
                raise ValueError(f"{key} is of a ResNet, and backbone is {self.backbone}: leave it out")
        return self

    @model_validator(mode="after")
    def _check_start(self) -> ModelConfig:
        if self.init_from is not None and self.weights != "none":
            raise ValueError("init_from and weights exclude each other: set weights to 'none'")
        if self.keep_heads and self.init_from is None:
            raise ValueError("keep_heads needs init_from: name the bundle whose heads are kept")
        if self.norm == "instance" and self.weights != "none":
            raise ValueError("pretrained weights come with batch norms: set norm to 'batch'")
        return self


def _leaves(value: Any) -> Iterator[Any]:
    """Values inside mappings and lists, names of mappings too."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from (name, *_leaves(inner))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _leaves(inner)
    else:
        yield value
