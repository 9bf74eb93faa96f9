"""Encoders: the door for a network of your own, and what the rest of the package asks of any of them."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar, cast, runtime_checkable

import torch
from torch import Tensor, nn

from lepton_vision.config import ENCODERS, Config
from lepton_vision.errors import ConfigError, nearest
from lepton_vision.models.external_encoders import make_from_source
from lepton_vision.models.machine_errors import is_memory_full
from lepton_vision.models.resnet import ResNet, global_average, stem_kind
from lepton_vision.types import Backbone

Factory = TypeVar("Factory", bound=Callable[..., Any])
_RESERVED = frozenset({"heads", "decoder", "attention", "balance"})  # further parts of a network
_SIDES = (32, 64, 96, 128, 224, 256, 384)  # pixels of images that an encoder is tried with
_FAILED = (AssertionError, RuntimeError, ValueError)  # what layers raise that cannot take an image
_ASKED = ("stages", "features", "skips", "depths", "strides", "width", "dims", "channels")


@runtime_checkable
class Encoder(Protocol):
    """What turns images into features: any ``nn.Module`` with these eight members.

    Each parameter and buffer belongs to exactly one stage. Where the stages are applied one after another, and
    ``features`` is the mean of what the last one gives over all places, fixed stages may be computed once
    (``train.cache_features``) and Grad-CAM has a map to look at. Where features are made of the last map in another
    way, a method ``pool(last_map) -> (B, F)`` says how. Where no stage as such gives the last map, a module
    ``last_map`` that it passes through shows it to Grad-CAM. A method ``fold()`` may put batch norms into convolutions
    once training is over. An encoder without maps of places (``depths`` and ``strides`` empty, ``skips`` gives none)
    has pooled features alone: no segmentation head.

    A factory is registered with ``register_encoder``; it builds the network alone, with random weights from torch's
    generator: weights come from ``model.weights``, and a bundle has its own.
    """

    @property
    def channels(self) -> int:
        """C of the input."""

    @property
    def dims(self) -> int:
        """2 for images (B, C, H, W), 3 for volumes (B, C, D, H, W)."""

    @property
    def width(self) -> int:
        """F, length of the feature vector."""

    @property
    def depths(self) -> Sequence[int]:
        """Channels of the maps that ``skips`` gives, finest first."""

    @property
    def strides(self) -> Sequence[int]:
        """How many voxels of the input one of each map covers along an axis."""

    def stages(self) -> dict[str, nn.Module]:
        """Return the stages by name, input first, any number."""

    def features(self, images: Tensor) -> Tensor:
        """Return pooled features (B, F) of images (B, C, H, W) float32, normalised."""

    def skips(self, images: Tensor) -> Sequence[Tensor]:
        """Return the maps that a decoder needs, (B, depth, H / stride, …), finest first; the last one is pooled."""

    def state_dict(self) -> dict[str, Any]:
        """Return all tensors by name, as every ``nn.Module`` does."""

    def load_state_dict(self, state_dict: Mapping[str, Any], /) -> Any:
        """Take over all tensors, as every ``nn.Module`` does."""


def register_encoder(name: str) -> Callable[[Factory], Factory]:
    """Register a factory ``(*, channels: int, dims: int, **options) -> Encoder`` for ``model.backbone: name``.

    ``model.options`` of the configuration go to the factory. Another process finds it where its package has an entry
    point of that name in the group ``lepton_vision.encoders``, or where its module is imported first.

    Raises:
        InvalidValueError: the name is taken.

    Example:
        >>> @register_encoder("mine")  # doctest: +SKIP
        ... def make_mine(*, channels: int, dims: int, depth: int = 4) -> Encoder:
        ...     return MyEncoder(channels, depth=depth)
    """
    return ENCODERS.register(name)


def make_encoder(config: Config, *, channels: int) -> Encoder:
    """Return the encoder of a configuration with random weights.

    Raises:
        ConfigError: an unknown name or option, or what the factory gave is no encoder; the message says what it lacks.
    """
    model, dims = config.model, config.dims
    if model.is_resnet:
        name = cast("Backbone", model.backbone)
        return ResNet(name, channels=channels, stem=stem_kind(config), dims=dims, planes=model.width)
    if model.source:
        made: Any = make_from_source(model.backbone, channels=channels, dims=dims, options=model.options)
    else:
        factory = ENCODERS.get(model.backbone)
        _check_options(factory, model.options)
        made = factory(channels=channels, dims=dims, **model.options)
    faults = _faults(made, channels=channels, dims=dims)
    if faults:
        raise ConfigError(f"The encoder {model.backbone!r}: {faults[0]}", key="model.backbone")
    encoder: Encoder = made
    if config.segmentation is not None and not encoder.strides:
        raise ConfigError(
            f"The encoder {model.backbone!r} gives pooled features alone, and a segmentation head needs maps of "
            "several sizes. Choose another backbone, or leave segmentation out.",
            key="model.backbone",
        )
    return encoder


def _check_options(factory: Callable[..., Any], options: Mapping[str, Any]) -> None:
    known = inspect.signature(factory).parameters
    if any(one.kind is inspect.Parameter.VAR_KEYWORD for one in known.values()):
        return
    free = [name for name in known if name not in ("channels", "dims")]
    for name in options:
        if name not in free:
            told = nearest(name, free) if free else "It takes none."
            raise ConfigError(f"The encoder takes no option {name!r}. {told}", key=f"model.options.{name}")
    missing = [name for name in free if known[name].default is inspect.Parameter.empty and name not in options]
    if missing:
        raise ConfigError(
            f"The encoder needs the option {missing[0]!r}. Set model.options.", key=f"model.options.{missing[0]}"
        )


def _faults(made: Any, *, channels: int, dims: int) -> list[str]:
    """What keeps a value from being an encoder, in words; nothing is computed."""
    if not isinstance(made, nn.Module):
        return [f"expected an nn.Module of its factory. Received: {type(made).__name__}."]
    tensors = (*made.named_parameters(), *made.named_buffers())
    made = cast(Any, made)
    missing = [name for name in _ASKED if not hasattr(made, name)]
    if missing:
        return [f"expected the members {', '.join(_ASKED)}. Missing: {', '.join(missing)}."]
    if (made.channels, made.dims) != (channels, dims):
        seen = f"{made.channels} channels and {made.dims} dimensions"
        return [f"expected {channels} channels and {dims} dimensions, as its factory was told. Received: {seen}."]
    if len(made.depths) != len(made.strides):
        return [f"expected as many depths as strides. Received: {made.depths}, {made.strides}."]
    stages = made.stages()
    if not stages or _RESERVED & set(stages):
        names = ", ".join(sorted(_RESERVED))
        return [f"expected at least one stage, none called {names}. Received: {', '.join(stages) or 'none'}."]
    held = [id(one) for stage in stages.values() for one in (*stage.parameters(), *stage.buffers())]
    loose = [name for name, one in tensors if held.count(id(one)) != 1]
    if loose:
        return [f"expected each tensor in exactly one of its stages. In none, or in several: {loose[0]}."]
    return []


@torch.no_grad()
def probe(encoder: Encoder, size: Sequence[int]) -> None:
    """Let an encoder see one image of nothing, and compare what it gives with what it says of itself.

    Args:
        encoder: on the CPU; its modes are as before afterwards.
        size: (H, W) or (D, H, W) of the network's input.

    Raises:
        ConfigError: features, or maps, of another shape, none for an image of this size, or none at all.
    """
    network: Any = encoder
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        features, maps = _see_nothing(encoder, size)
    except _FAILED as error:
        if is_memory_full(error):
            raise
        raise _refusal(encoder, size, error) from error
    finally:
        for module, mode in modes:
            module.training = mode
    if features.shape != (1, encoder.width):
        raise ConfigError(
            f"The encoder says width {encoder.width}: expected features (1, {encoder.width}) of one image. Received: "
            f"{tuple(features.shape)}. Correct its width, or its features().",
            key="model.backbone",
        )
    found, said = [one.shape[1] for one in maps], list(encoder.depths)
    if found != said or any(one.ndim != encoder.dims + 2 for one in maps):
        raise ConfigError(
            f"The encoder says depths {said}: expected maps (1, depth, …) of skips(). Received: "
            f"{[tuple(one.shape) for one in maps]}. Correct its depths, or its skips().",
            key="model.backbone",
        )


def _see_nothing(encoder: Encoder, size: Sequence[int]) -> tuple[Tensor, list[Tensor]]:
    """Features and maps of one image of zeros."""
    images = torch.zeros(1, encoder.channels, *size)
    return encoder.features(images), list(encoder.skips(images)) if encoder.strides else []


def _refusal(encoder: Encoder, size: Sequence[int], error: Exception) -> ConfigError:
    """Say whether it is the size of the image, as another one is taken, or the encoder itself that is wrong."""
    said, cause = " x ".join(map(str, size)), f"{type(error).__name__}: {error}"
    for side in _SIDES[: 3 if encoder.dims == 3 else None]:
        with contextlib.suppress(*_FAILED):
            _see_nothing(encoder, [side] * encoder.dims)
            key = "volume.patch" if encoder.dims == 3 else "preprocess.size"
            return ConfigError(
                f"The encoder cannot take images of {said} ({cause}), while it takes those of "
                f"{' x '.join([str(side)] * encoder.dims)}. Choose another {key}, or an option of the encoder (of "
                "timm's: img_size).",
                key=key,
            )
    return ConfigError(
        f"The encoder fails on images of zeros, of {said} as of other sizes ({cause}). Correct it, or model.options.",
        key="model.backbone",
    )


def pooled(encoder: Encoder, images: Tensor, *, last: Tensor) -> Tensor:
    """Return the features (B, F) of images of which ``last`` is the coarsest map, without a second pass if possible."""
    pool = getattr(encoder, "pool", None)
    return encoder.features(images) if pool is None else pool(last)


def lower(encoder: Encoder, images: Tensor, count: int) -> Tensor:
    """Return what the lowest ``count`` stages make of images, the features where it is all of them."""
    stages = list(encoder.stages().values())
    if count == len(stages):
        return encoder.features(images)
    for stage in stages[:count]:
        images = stage(images)
    return images


def upper(encoder: Encoder, maps: Tensor, *, below: int) -> Tensor:
    """Finish from what ``lower`` gave for ``below`` stages: (B, F)."""
    stages = list(encoder.stages().values())
    if below == len(stages):
        return maps
    for stage in stages[below:]:
        maps = stage(maps)
    pool: Callable[[Tensor], Tensor] = getattr(encoder, "pool", global_average)
    return pool(maps)


def check_chain(encoder: Encoder, images: Tensor, count: int) -> None:
    """Refuse to keep what the lowest stages give where the stages above them do not make the features of it.

    Raises:
        ConfigError: the encoder computes something else between its stages.
    """
    if count == len(encoder.stages()):
        return
    expected = encoder.features(images)
    try:
        found = upper(encoder, lower(encoder, images, count), below=count)
        is_same = found.shape == expected.shape and torch.allclose(
            found.float(), expected.float(), rtol=1e-2, atol=1e-3
        )
    except (RuntimeError, ValueError, TypeError, IndexError):  # a map that the next stage cannot take
        is_same = False
    if not is_same:
        raise ConfigError(
            f"train.cache_features with {count} fixed stages: the encoder's features are not what its stages, one "
            "after another, and pool() give. Fix all stages, or turn it off.",
            key="train.cache_features",
        )


def fold(encoder: Encoder) -> None:
    """Let an encoder that can fold its batch norms into its convolutions do so; the others stay as they are."""
    folds: Callable[[], None] | None = getattr(encoder, "fold", None)
    if folds is not None:
        folds()
