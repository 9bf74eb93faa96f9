"""Encoders of other packages by name: ``torchvision:densenet121``, ``timm:convnext_tiny``, ``monai:SEResNet50``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from lepton_vision.errors import ConfigError
from lepton_vision.models.chain import Chain, with_channels

Parts = dict[str, nn.Module]


def make_from_source(backbone: str, *, channels: int, dims: int, options: Mapping[str, Any]) -> nn.Module:
    """Return the encoder that ``source:name`` means, with random weights.

    Args:
        backbone: checked by the configuration.
        channels: C of the input.
        dims: 2 or 3.
        options: for the source's own builder.

    Raises:
        ConfigError: volumes for a network of images, a name that timm does not know, or an option that the builder does
            not take.
        MissingExtraError: timm is not installed.
    """
    source, _, name = backbone.partition(":")
    if dims != 2 and source != "monai":
        raise ConfigError(
            f"{backbone} is for images, and volume.view 3d needs a network of volumes. Choose monai:NAME, a ResNet of "
            "ours, or another view.",
            key="model.backbone",
        )
    try:
        return _SOURCES[source](name, channels, dims, options)
    except TypeError as error:
        if not options or "argument" not in str(error):
            raise
        raise ConfigError(f"{backbone} takes other options. Received: {error}.", key="model.options") from None


def _torchvision(name: str, channels: int, dims: int, options: Mapping[str, Any]) -> Chain:
    del dims
    from torchvision.models import get_model  # costs one second, see resnet.py

    network: Any = with_channels(get_model(name, weights=None, **options), channels)
    parts = _children(network.features, "features")
    if name.startswith("densenet"):
        parts |= {"relu": nn.ReLU()}
    norm = ("classifier.0", network.classifier[0]) if name.startswith("convnext") else None
    return Chain(parts, channels=channels, dims=2, pooled_norm=norm, imagenet=name)


def _timm(name: str, channels: int, dims: int, options: Mapping[str, Any]) -> nn.Module:
    del dims
    from lepton_vision.models.timm_encoders import TimmEncoder  # an extra; costs seconds

    return TimmEncoder(name, channels=channels, options=options)


def _monai(name: str, channels: int, dims: int, options: Mapping[str, Any]) -> Chain:
    from monai.networks import nets  # costs eight seconds, see resnet.py

    build: Callable[..., Any] = getattr(nets, name)
    if name.startswith("DenseNet"):
        network = build(spatial_dims=dims, in_channels=channels, out_channels=1, **options)
        return Chain(_children(network.features, "features") | {"relu": nn.ReLU()}, channels=channels, dims=dims)
    network = build(spatial_dims=dims, in_channels=channels, num_classes=1, **options)
    parts = _children(network.layer0, "layer0")
    parts |= {layer: getattr(network, layer) for layer in ("layer1", "layer2", "layer3", "layer4")}
    return Chain(parts, channels=channels, dims=dims)


def _children(module: nn.Module, prefix: str) -> Parts:
    return {f"{prefix}.{name}": part for name, part in module.named_children()}


_SOURCES: dict[str, Callable[[str, int, int, Mapping[str, Any]], nn.Module]] = {
    "torchvision": _torchvision,
    "timm": _timm,
    "monai": _monai,
}
