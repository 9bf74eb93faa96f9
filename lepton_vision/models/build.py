"""Construction of a network that is ready for training, from a configuration."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from lepton_vision.config import Config
from lepton_vision.errors import ConfigError, WeightsError
from lepton_vision.models.assemble import AnyNetwork, make_network
from lepton_vision.models.bundle import Bundle
from lepton_vision.models.decoders import start_at
from lepton_vision.models.device import OWN_RANDOM_STATE
from lepton_vision.models.encoders import probe
from lepton_vision.models.weights import load_encoder_state, load_weights
from lepton_vision.types import Target


def build_model(config: Config, *, channels: int | None = None, targets: Sequence[Target] | None = None) -> AnyNetwork:
    """Build the network of ``config`` and give it the weights that ``config.model`` names.

    Random weights come from ``config.train.seed`` alone: the same configuration gives the same network, and torch's
    global generators are left as they were.

    Args:
        config: ``model``, ``preprocess`` (size and channels), ``train.seed`` and ``train.mask_prior`` count.
        channels: C of the input; None means ``config.channels``.
        targets: one head each; None means ``config.targets``.

    Returns:
        A network on the CPU, in training mode; an ``Ensemble`` where ``model.members`` is above 1.

    Raises:
        ConfigError: no target; or all members would be the same, as with the heads of one network for each.
        WeightsError: weights that are not there, do not load, or do not fit.
        BundleError: ``init_from`` names no usable bundle.

    Example:
        >>> finding = Target("finding", "binary", ("absent", "present"))
        >>> model = build_model(Config(targets=(finding,)))
        >>> model(torch.zeros(2, 1, 224, 224)).logits["finding"].shape
        torch.Size([2, 1])
    """
    with OWN_RANDOM_STATE, torch.random.fork_rng(devices=[]):  # the CPU generator alone is used: no other is touched
        torch.default_generator.manual_seed(config.train.seed)
        network = make_network(config, channels=channels, targets=targets)
    for member in network.members:
        if member.decoder is not None:
            start_at(member.decoder, prior=config.train.mask_prior)
    if not config.model.is_resnet:
        volume = config.volume
        probe(network.members[0].encoder, volume.patch if network.dims == 3 and volume else config.preprocess.size)
    if config.model.init_from is not None:
        network.start = _start_from_bundle(network, config)
    elif config.model.weights != "none":
        first, *others = network.members
        network.start = load_weights(first.encoder, config.model.weights)
        for member in others:
            member.encoder.load_state_dict(first.encoder.state_dict())
    return network


def _start_from_bundle(network: AnyNetwork, config: Config) -> str:
    """Take over the encoder of a bundle; the heads stay new unless the configuration keeps them."""
    bundle, count = Bundle.load(str(config.model.init_from)), len(network.members)
    before = bundle.config.model.backbone
    if before != config.model.backbone:
        raise WeightsError(
            f"Expected a bundle of backbone {config.model.backbone}. Received: {before}. Set model.backbone to it.",
            key="model.init_from",
        )
    states = bundle.member_states
    if len(states) not in (1, count):
        raise WeightsError(
            f"Expected a bundle with {'1 member' if count == 1 else f'1 or {count} members'}. Received: one with "
            f"{len(states)}. Set model.members to it.",
            key="model.init_from",
        )
    if config.model.keep_heads and len(states) < count:
        raise ConfigError(
            f"model.keep_heads would start {count} members from one network: they would stay the same. Expected a "
            f"bundle with {count} members. Turn model.keep_heads off, or set model.members to 1.",
            key="model.keep_heads",
        )
    said = f"bundle {bundle.bundle_id}"
    starts = [
        load_encoder_state(member.encoder, states[place % len(states)], said=said)
        for place, member in enumerate(network.members)
    ]
    return starts[0] + (_keep_heads(network, bundle) if config.model.keep_heads else "")


def _keep_heads(network: AnyNetwork, bundle: Bundle) -> str:
    """Take over the heads of targets that are the same in both; return in words which."""
    before = {_sense(target) for target in bundle.targets}
    kept = [target.name for target in network.targets if _sense(target) in before]
    if not kept:
        raise WeightsError(
            "Expected a bundle with a target of the same name, kind, classes and unit, since model.keep_heads is on. "
            f"Received: {', '.join(target.name for target in bundle.targets)}. Turn it off for a new task.",
            key="model.keep_heads",
        )
    for member, state in zip(network.members, bundle.member_states, strict=True):
        layers = [(name, *part) for name in kept for part in member.heads.parts(name).items()]
        for name, path, layer in layers:
            here = layer.state_dict()
            own = {key: state[f"{path}.{key}"] for key in here if f"{path}.{key}" in state}
            if any(key not in own or own[key].shape != tensor.shape for key, tensor in here.items()):
                raise WeightsError(
                    "Expected heads that see as many features as those of this configuration, and have the same loss, "
                    f"since model.keep_heads is on. Received: others for {name!r}, as where one decides by "
                    "segmentation.mode evidence. Turn model.keep_heads off.",
                    key="model.keep_heads",
                )
            layer.load_state_dict(own)
    return f"; kept heads {', '.join(kept)}"


def _sense(target: Target) -> tuple[str, str, tuple[str, ...], str]:
    return target.name, target.kind, target.classes, target.unit
