"""From a configuration to a network that is ready to be trained."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from lepton_vision.config import Config
from lepton_vision.errors import WeightsError
from lepton_vision.models.bundle import Bundle
from lepton_vision.models.network import Network, make_network
from lepton_vision.models.weights import load_encoder_state, load_weights
from lepton_vision.types import Target


def build_model(config: Config, *, channels: int | None = None, targets: Sequence[Target] | None = None) -> Network:
    """Build the network of ``config`` and give it the weights that ``config.model`` names.

    Random weights come from ``config.train.seed`` alone: the same configuration gives the same network, and torch's
    global generators are left as they were.

    Args:
        config: ``model``, ``preprocess`` (size and channels) and ``train.seed`` count.
        channels: C of the input; None means ``config.channels``.
        targets: one head each; None means ``config.targets``.

    Returns:
        A network on the CPU, in training mode.

    Raises:
        ConfigError: no target.
        WeightsError: weights that are not there, do not load, or do not fit.
        BundleError: ``init_from`` names no usable bundle.

    Example:
        >>> finding = Target("finding", "binary", ("absent", "present"))
        >>> model = build_model(Config(targets=(finding,)))
        >>> model(torch.zeros(2, 1, 224, 224)).logits["finding"].shape
        torch.Size([2, 1])
    """
    with torch.random.fork_rng(devices=[]):  # the CPU generator alone is used, so no other one is touched
        torch.default_generator.manual_seed(config.train.seed)
        network = make_network(config, channels=channels, targets=targets)
    if config.model.init_from is not None:
        network.start = _start_from_bundle(network, config)
    elif config.model.weights != "none":
        network.start = load_weights(network.encoder, config.model.weights)
    return network


def _start_from_bundle(network: Network, config: Config) -> str:
    """Take over the encoder of a bundle; the heads stay new unless the configuration keeps them."""
    bundle = Bundle.load(str(config.model.init_from))
    before = bundle.config.model.backbone
    if before != config.model.backbone:
        raise WeightsError(
            f"Expected a bundle of backbone {config.model.backbone}. Received: {before}. Set model.backbone to it.",
            key="model.init_from",
        )
    said = load_encoder_state(network.encoder, bundle.state, said=f"bundle {bundle.bundle_id}")
    return said + _keep_heads(network, bundle) if config.model.keep_heads else said


def _keep_heads(network: Network, bundle: Bundle) -> str:
    """Take over the heads of targets that are the same in both; return in words which."""
    before = {(target.name, target.kind, target.classes) for target in bundle.targets}
    kept = [target.name for target in network.targets if (target.name, target.kind, target.classes) in before]
    if not kept:
        raise WeightsError(
            "Expected a bundle with a target of the same name, kind and classes, since model.keep_heads is on. "
            f"Received: {', '.join(target.name for target in bundle.targets)}. Turn it off for a new task.",
            key="model.keep_heads",
        )
    for name in kept:
        head = network.heads.head(name)
        before_it = {key: bundle.state[f"{network.heads.path(name)}.{key}"] for key in head.state_dict()}
        if any(before_it[key].shape != tensor.shape for key, tensor in head.state_dict().items()):
            raise WeightsError(
                "Expected heads that see as many features as those of this configuration, since model.keep_heads is "
                f"on. Received: others for {name!r}, as where one of both decides by segmentation.mode evidence. Turn "
                "model.keep_heads off.",
                key="model.keep_heads",
            )
        head.load_state_dict(before_it)
    return f"; kept heads {', '.join(kept)}"
