"""The section of a configuration that says which network, and what it starts from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath, PureWindowsPath
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, field_validator, model_validator

from lepton_vision.config.sections import Fraction, PositiveInt, Section
from lepton_vision.errors import ConfigError
from lepton_vision.registry import Registry
from lepton_vision.types import Backbone

RESNETS: tuple[str, ...] = get_args(Backbone)
ENCODERS = Registry("encoder", key="model.backbone", group="lepton_vision.encoders", ours=RESNETS)
"""Encoders that teams bring, see ``models.encoders``; here, so that a name is checked without torch."""


class ModelConfig(Section):
    """Which network, and what it starts from."""

    backbone: str = "resnet18"
    """Encoder: a ResNet of torchvision by its name, resnet10, or one of your own (``register_encoder``)."""
    options: dict[str, Any] = Field(default_factory=dict)
    """What the factory of an encoder of your own takes beside channels and dims; plain values."""
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

    @field_validator("backbone")
    @classmethod
    def _check_backbone(cls, value: str) -> str:
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
            raise ValueError(f"options are for an encoder of your own, and {self.backbone} takes none: leave them out")
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
