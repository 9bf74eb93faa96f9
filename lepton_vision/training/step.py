"""Optimiser step: forward and backward over the accumulated batches, clipping, update, weight average."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from lepton_vision.errors import ConfigError
from lepton_vision.models.device import autocast, suited_format, true_float32
from lepton_vision.training.losses import LossWeights, count_known, multitask_loss
from lepton_vision.training.optim import WeightAverage, set_frozen, set_rate
from lepton_vision.training.own_parts import Loss, own_loss

if TYPE_CHECKING:
    from lepton_vision.config.sections import TrainConfig
    from lepton_vision.models.assemble import AnyNetwork
    from lepton_vision.models.device import Precision
    from lepton_vision.models.network import Network
    from lepton_vision.training.distributed import World
    from lepton_vision.types import Batch, ModelOutput, Target


@dataclass(slots=True)
class Stepper:
    """What one optimiser step works on; made once, it outlives the epochs.

    Attributes:
        model: the network that is trained, as it will be saved.
        trained: what is called with a batch's images and gives a ModelOutput: the model, or its upper part where
            features are cached.
        config: clipping, channels_last, compile, seed.
        targets: heads that count.
        weights: of targets and classes, on the device.
        own_loss: of the caller, in place of ours; None otherwise.
        peak: learning rate of groups with ``lr_scale`` 1, before the schedule.
        world: the processes of this run.
        precision: of the forward pass.
        optimizer: over all parameters of ``model``.
        scaler: of the fp16 gradients, None otherwise.
        average: averaged weights, None where averaging is off.
        frozen: stages that are fixed now, -1 before the first epoch.
        forward: ``trained``, wrapped for several processes and compiled where asked for.
    """

    model: AnyNetwork
    trained: nn.Module
    config: TrainConfig
    targets: Sequence[Target]
    weights: LossWeights
    world: World
    precision: Precision
    optimizer: torch.optim.Optimizer
    peak: float
    own_loss: Loss | None = None
    scaler: torch.amp.GradScaler | None = None
    average: WeightAverage | None = None
    frozen: int = -1
    forward: nn.Module | None = None

    def freeze(self, count: int) -> nn.Module:
        """Fix the lowest ``count`` stages and return what is called in the forward pass."""
        set_frozen(self.model, count, norms=self.config.freeze_norms)
        if self.forward is None or count != self.frozen:
            wrapped = self.world.wrap(self.trained)
            self.forward = cast(nn.Module, torch.compile(wrapped)) if self.config.compile else wrapped
            self.frozen = count
        return self.forward

    @property
    def validated(self) -> AnyNetwork:
        """What is validated and kept: the averaged network where averaging is on; in evaluation mode."""
        network: AnyNetwork = self.model if self.average is None else self.average.model
        return network.eval()

    def parts(self) -> dict[str, Any]:
        """State dicts of all that a step changes."""
        parts: dict[str, Any] = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        parts["optimizer_kind"] = type(self.optimizer).__name__
        if self.average is not None:
            parts |= {"average": self.average.model.state_dict(), "average_updates": self.average.updates}
        return parts if self.scaler is None else parts | {"scaler": self.scaler.state_dict()}

    def load_parts(self, parts: Mapping[str, Any]) -> None:
        """Take over what ``parts`` gave.

        Raises:
            ConfigError: it is of another optimiser.
        """
        before, now = parts["optimizer_kind"], type(self.optimizer).__name__
        if before != now:
            raise ConfigError(f"Cannot resume with the optimiser {now}: the run has {before}.", key="optimizer")
        self.model.load_state_dict(parts["model"])
        self.optimizer.load_state_dict(parts["optimizer"])
        if self.average is not None:
            self.average.model.load_state_dict(parts["average"])
            self.average.updates = parts["average_updates"]
        if self.scaler is not None and "scaler" in parts:
            self.scaler.load_state_dict(parts["scaler"])


def take_step(stepper: Stepper, batches: Sequence[Batch], *, forward: nn.Module, rate: float) -> tuple[Tensor, Tensor]:
    """Move the weights once.

    The gradient is that of the mean over all known labels of all ``batches`` of all processes, however ragged.

    Args:
        stepper: what is moved.
        batches: the accumulated batches of this process, as they come from the loader.
        forward: what ``Stepper.freeze`` gave.
        rate: learning rate of groups with ``lr_scale`` 1.

    Returns:
        Loss () of this process' share, times the number of processes, whose mean over them is the loss; and gradient
        norm () before clipping, of an ensemble the largest of its members'. Both stay on the device.
    """
    world, scaler, device = stepper.world, stepper.scaler, stepper.world.device
    known = world.total(torch.stack([_count(stepper, batch) for batch in batches]).sum(0))
    set_rate(stepper.optimizer, rate)
    total = torch.zeros((), device=device)
    for place, batch in enumerate(batches):
        batch = batch.to(device, memory_format=_memory_format(batch, stepper.config))
        with _synchronised(forward, is_last=place == len(batches) - 1), true_float32(device):
            with autocast(device, stepper.precision):
                output = forward(batch.images)
            # DistributedDataParallel divides the summed gradients by the number of processes.
            loss = _loss(stepper, output, batch, known=known) * float(world.size)
            (loss if scaler is None else scaler.scale(loss)).backward()  # type: ignore[no-untyped-call]
        total += loss.detach()
    norm = _update(stepper)
    return total, norm


def _count(stepper: Stepper, batch: Batch) -> Tensor:
    """What the loss of a step is divided by, of one batch: known labels of each kind, or images of an own loss."""
    if stepper.own_loss is not None:
        return torch.tensor([float(len(batch.images))])
    return count_known(batch.labels, stepper.targets, masks=batch.masks)


def _loss(stepper: Stepper, output: ModelOutput, batch: Batch, *, known: Tensor) -> Tensor:
    """() the share of a batch in the loss of a whole step."""
    if stepper.own_loss is not None:
        return own_loss(stepper.own_loss, output, batch) * (len(batch.images) / known[0])
    return multitask_loss(
        output,
        batch.labels,
        targets=stepper.targets,
        masks=batch.masks,
        weights=stepper.weights,
        known=known,
        log_variance=stepper.model.log_variance,
    ).total


def _update(stepper: Stepper) -> Tensor:
    """Clip and apply the gradients; return their norm. With a scaler, a non-finite gradient is passed over.

    Each member of an ensemble is clipped by itself, as it would be alone: the mean loss has divided its gradient. So is
    each part of a network whose loss shapes nothing else.
    """
    if stepper.scaler is not None:
        stepper.scaler.unscale_(stepper.optimizer)
    members = stepper.model.members
    largest = (stepper.config.clip_norm or math.inf) / len(members)
    norm = torch.stack([_clip(member, largest) for member in members]).max()
    if stepper.scaler is None:
        stepper.optimizer.step()
    else:
        stepper.scaler.step(stepper.optimizer)
        stepper.scaler.update()
    stepper.optimizer.zero_grad(set_to_none=True)
    if stepper.average is not None:
        stepper.average.update(stepper.model)
    return norm


def _clip(network: Network, largest: float) -> Tensor:
    """Scale the gradients of a network, and of each part apart, down to a norm of ``largest``; return that of all."""
    apart = [list(part.parameters()) for part in network.apart]
    known = {id(p) for part in apart for p in part}
    groups = [[p for p in network.parameters() if id(p) not in known], *apart]
    learning = [[p for p in group if p.requires_grad and p.grad is not None] for group in groups]
    norms = [nn.utils.clip_grad_norm_(group, largest) for group in filter(None, learning)] or [torch.zeros(())]
    return norms[0] if len(norms) == 1 else torch.linalg.vector_norm(torch.stack(norms))


def seed_step(config: TrainConfig, *, epoch: int, step: int, rank: int) -> None:
    """Seed torch for one step, so that dropout depends on the place in the run alone and a resumed run repeats it."""
    state = np.random.SeedSequence((config.seed, epoch, step, rank)).generate_state(1, np.uint64)
    torch.manual_seed(int(state[0]) >> 1)


def _memory_format(batch: Batch, config: TrainConfig) -> torch.memory_format | None:
    return suited_format(batch.images.ndim) if config.channels_last else None


def _synchronised(forward: nn.Module, *, is_last: bool) -> contextlib.AbstractContextManager[None]:
    """Let the processes exchange gradients once per step, after the last batch."""
    module = getattr(forward, "_orig_mod", forward)
    if isinstance(module, DistributedDataParallel) and not is_last:
        return module.no_sync()
    return contextlib.nullcontext()
