"""Optimisation: parameter groups, learning rates, frozen stages, averaged weights."""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from lepton_vision.errors import ConfigError

if TYPE_CHECKING:
    from lepton_vision.config import Config
    from lepton_vision.config.sections import TrainConfig
    from lepton_vision.models.assemble import AnyNetwork

_QUICK = 10.0


def standardise_heads(model: AnyNetwork, config: Config) -> None:
    """Let heads that see the evidence of masks alone learn on figures around 0, see ``Heads.standardise``.

    Log odds and log shares are far from 0. Heads that are taken over from a bundle know the figures as they are.
    """
    if _sees_evidence(model) and not config.model.keep_heads:
        for member in model.members:
            member.heads.standardise()


def _sees_evidence(model: AnyNetwork) -> bool:
    return model.segmentation is not None and model.segmentation.mode == "evidence"


def make_optimizer(model: AnyNetwork, config: TrainConfig, *, device: torch.device) -> torch.optim.AdamW:
    """AdamW over all parameters in four groups: encoder or not, decayed or not (norms and biases are not).

    Heads that see the evidence of masks alone (``segmentation.mode``) are two groups more, at ten times the rate: a
    logistic regression on a few figures would be half fitted when the masks are done.

    Frozen parameters belong to their group too: without a gradient AdamW passes over them, and they take part as soon
    as gradual unfreezing frees them.

    Args:
        model: parameters outside the stages of its encoder count as those of heads.
        config: peak rate, weight decay, ``encoder_lr_scale``.
        device: where the model is.

    Returns:
        The optimiser; each group carries ``lr_scale`` for ``set_rate``.
    """
    groups: dict[tuple[float, bool, bool], list[nn.Parameter]] = {}
    stages = model.parameter_stages()
    encoder = {id(parameter) for stage in model.encoder_stages().values() for parameter in stage.parameters()}
    quick = {id(parameter) for parameter in stages["heads"].parameters()} if _sees_evidence(model) else set[int]()
    for parameter in model.parameters():
        # One axis only: biases, and the weights of batch, layer and group norms.
        rate = _QUICK if id(parameter) in quick else 1.0
        groups.setdefault((rate, id(parameter) in encoder, parameter.ndim > 1), []).append(parameter)
    described = [
        {
            "params": parameters,
            "weight_decay": config.weight_decay if is_decayed else 0.0,
            "lr_scale": config.encoder_lr_scale if is_encoder else rate,
        }
        for (rate, is_encoder, is_decayed), parameters in groups.items()
    ]
    return torch.optim.AdamW(described, lr=config.lr, fused=device.type in ("cpu", "cuda"))


def rate_at(step: int, *, steps: int, warmup: int, floor: float) -> float:
    """Share of the peak rate at an optimiser step: linear warm-up, then half a cosine down to ``floor``.

    Args:
        step: from 0.
        steps: of the whole run.
        warmup: steps until the peak; the first step already moves.
        floor: share that the last step has.

    Example:
        >>> [round(rate_at(step, steps=6, warmup=2, floor=0.0), 2) for step in range(6)]
        [0.5, 1.0, 1.0, 0.75, 0.25, 0.0]
    """
    warmup = min(warmup, steps - 1)
    if step < warmup:
        return (step + 1) / warmup
    part = (step - warmup) / max(1, steps - 1 - warmup)
    return floor + (1.0 - floor) * 0.5 * (1.0 + math.cos(math.pi * min(1.0, part)))


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give each group ``rate`` times its ``lr_scale``."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["lr_scale"]


def frozen_stages(config: TrainConfig, epoch: int) -> int:
    """How many stages stay fixed in an epoch (counted from 0): gradual unfreezing frees one at a time, from the top."""
    freed = epoch // config.unfreeze_every if config.unfreeze_every else 0
    return max(0, config.freeze_stages - freed)


def check_frozen(model: AnyNetwork, config: TrainConfig) -> None:
    """Refuse to fix more stages than the encoder has.

    Raises:
        ConfigError: ``freeze_stages`` is above their number.
    """
    names = list(model.encoder_stages())
    if config.freeze_stages > len(names):
        raise ConfigError(
            f"Expected train.freeze_stages from 0 to {len(names)} ({', '.join(names)}). Received: "
            f"{config.freeze_stages}.",
            key="train.freeze_stages",
        )


def fixed_parameters(model: AnyNetwork, config: TrainConfig) -> set[int]:
    """``id`` of each parameter that no epoch trains."""
    stages = list(model.encoder_stages().values())
    fixed = stages[: frozen_stages(config, config.epochs - 1)]
    if config.freeze_norms:
        fixed += [m for stage in stages for m in stage.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    return {id(parameter) for part in fixed for parameter in part.parameters()}


def set_frozen(model: AnyNetwork, count: int, *, norms: bool = False) -> None:
    """Put the model in training mode with the lowest ``count`` encoder stages fixed.

    A fixed stage has no gradient and stays in evaluation mode: its norm layers use and keep their running figures,
    which otherwise drift towards the new data under weights that never saw them. With ``norms`` the norm layers of all
    other stages of the encoder stay fixed too: figures of a few small batches are worse than the pretrained ones.
    """
    model.train()
    stages = list(model.encoder_stages().values())
    for place, stage in enumerate(stages):
        is_frozen = place < count
        stage.requires_grad_(not is_frozen)
        stage.train(not is_frozen)
    for module in (module for stage in stages for module in stage.modules()) if norms else ():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval().requires_grad_(False)


class WeightAverage:
    """Exponential moving average of a model's weights; buffers (running figures of norms) are copied.

    The decay grows with the steps, min(decay, (1 + n) / (10 + n)), so that a short run does not average its start.

    Args:
        model: starts the average.
        decay: in (0, 1).
    """

    def __init__(self, model: AnyNetwork, decay: float) -> None:
        self.model: AnyNetwork = copy.deepcopy(model).requires_grad_(False).eval()
        self.decay = decay
        self.updates = 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average towards ``model`` after an optimiser step."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        averages: list[Tensor] = list(self.model.parameters())
        torch._foreach_lerp_(averages, list(model.parameters()), 1.0 - decay)
        for average, buffer in zip(self.model.buffers(), model.buffers(), strict=True):
            average.copy_(buffer)
