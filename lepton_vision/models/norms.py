"""Normalisation layers per sample and per feature, and folding of norms into the weights beside them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

_LATEST = 0.1  # share of the latest batch in a running figure, as torch's batch norms have it
_EPS = 1e-5


class InstanceNorm(nn.Module):
    """Each channel of each sample to mean 0 and variance 1, then a learnt scale and shift (arXiv:1607.08022).

    What ``torch.nn.InstanceNorm3d(affine=True)`` gives, but the memory format stays as it was, which keeps convolutions
    behind it fast, and a map of one position gives the shift.

    Args:
        channels: of the maps.
        eps: added to the variance.
    """

    def __init__(self, channels: int, *, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, maps: Tensor) -> Tensor:
        """(B, F, …) of any float type to the same."""
        normed = [
            torch.batch_norm(one, self.weight, self.bias, None, None, True, 0.0, self.eps, torch.backends.cudnn.enabled)
            for one in torch.split(maps, 1)
        ]
        return normed[0] if len(normed) == 1 else torch.cat(normed)


class RunningNorm(nn.Module):
    """Each feature less its mean, by its deviation, both of the latest batches.

    The figures are those of the running average in training too, so that a batch of one sample has some; no gradient
    goes into them.

    Args:
        features: F.
    """

    mean: Tensor
    variance: Tensor
    updates: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("variance", torch.ones(features))
        self.register_buffer("updates", torch.zeros(()))

    def forward(self, features: Tensor) -> Tensor:
        """(B, F) float32 to the same."""
        if self.training:
            with torch.no_grad():
                self.updates += 1
                share = (1 / self.updates).clamp(min=_LATEST)
                self.mean.lerp_(features.mean(dim=0), share)
                self.variance.lerp_((features - self.mean).square().mean(dim=0), share)
        return (features - self.mean) * torch.rsqrt(self.variance + _EPS)


def fold_running_norms(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Put every ``norm`` that is a ``RunningNorm`` into the linear layers beside it, in the state dict of a network.

    Example:
        >>> norm, layer = RunningNorm(1), nn.Linear(1, 1)
        >>> state = {f"norm.{name}": value for name, value in norm.state_dict().items()} | {
        ...     f"linear.a.{name}": value for name, value in layer.state_dict().items()
        ... }
        >>> sorted(fold_running_norms(state))
        ['linear.a.bias', 'linear.a.weight']
    """
    folded = dict(state)
    for key in [key for key in state if key.endswith("norm.updates")]:
        place = key.removesuffix("norm.updates")
        mean, variance = state[f"{place}norm.mean"], state[f"{place}norm.variance"]
        for name in ("mean", "variance", "updates"):
            del folded[f"{place}norm.{name}"]
        for name in [name for name in state if name.startswith(f"{place}linear.") and name.endswith(".weight")]:
            bias = f"{name.removesuffix('weight')}bias"
            folded[name] = state[name] * torch.rsqrt(variance + _EPS)
            folded[bias] = state[bias] - folded[name] @ mean
    return folded


def use_instance_norms(network: nn.Module) -> None:
    """Put an ``InstanceNorm`` in the place of every batch norm below ``network``, under the same name."""
    for name, module in network.named_children():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            setattr(network, name, InstanceNorm(module.num_features, eps=module.eps))
        else:
            use_instance_norms(module)


def fold_batch_norms(encoder: nn.Module) -> None:
    """Put every batch norm below an evaluated ResNet into the weights of the convolution before it.

    The function stays the same, but for rounding; one pass over the maps less for each layer makes a step in bf16 5 %
    faster on a CPU. ``bnK`` follows ``convK``, and in a shortcut the second module the first; other norms stay.

    Example:
        >>> block = nn.Sequential(nn.Conv2d(1, 4, 1), nn.BatchNorm2d(4)).eval()
        >>> fold_batch_norms(block)
        >>> [type(layer).__name__ for layer in block]
        ['Conv2d', 'Identity']
    """
    for module in list(encoder.modules()):
        layers = dict(module.named_children())
        for before, after in [("0", "1"), *((f"conv{k}", f"bn{k}") for k in (1, 2, 3))]:
            conv, norm = layers.get(before), layers.get(after)
            if isinstance(conv, nn.Conv2d | nn.Conv3d) and isinstance(norm, nn.BatchNorm2d | nn.BatchNorm3d):
                setattr(module, before, fuse_conv_bn_eval(conv, norm))
                setattr(module, after, nn.Identity())
