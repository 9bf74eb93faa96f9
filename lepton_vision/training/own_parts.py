"""Parts of a training that the caller brings: a loss, an optimiser, a schedule, a look at each epoch, figures, changes.

These six are all: whatever else a training needs is in the configuration. None of them travels in a bundle, but for a
description of the changes of images.
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lepton_vision.errors import ConfigError, TrainingError
from lepton_vision.training.optim import fixed_parameters
from lepton_vision.types import Batch, ModelOutput
from lepton_vision.types.figure import OwnFigure

if TYPE_CHECKING:
    from lepton_vision.config import Config
    from lepton_vision.config.sections import TrainConfig
    from lepton_vision.models.assemble import AnyNetwork

Loss = Callable[[ModelOutput, Batch], Tensor]
MakeOptimizer = Callable[[Any], torch.optim.Optimizer]
Schedule = Callable[[int, int], float]
OnEpoch = Callable[[int, Mapping[str, Any]], bool | None]


@dataclass(frozen=True, slots=True)
class OwnParts:
    """What the caller of ``fit`` brings; None is the package's own.

    Attributes:
        loss: ``f(output, batch) -> Tensor``, the mean over the images of one batch: a scalar with a gradient.
            ``output`` holds float32 logits (of one member at a time, where there are several), ``batch`` is on the
            device, with NaN for labels that are not known, and with the features of fixed stages for images where those
            are cached. A batch counts by its number of images, over all accumulated batches of all processes; so a loss
            that divides the sum over its known labels by ``len(batch.images)`` is the same however a step is divided.
            ``training.losses`` has ours to build on. Random numbers of torch are repeated by a resumed run.
        optimizer: ``f(network) -> torch.optim.Optimizer`` over all parameters that are trained. The rate of each group
            is its peak, which the schedule scales; ``train.lr``, ``weight_decay``, ``encoder_lr_scale`` do not count.
        schedule: ``f(step, steps) -> float``, the share of the peak rate at an optimiser step, counted from 0, of all
            steps of the run, in place of ``train.warmup_epochs`` and ``min_lr_scale``. A resumed run asks it again, so
            it depends on nothing else.
        on_epoch: ``f(epoch, figures) -> bool | None``, called in process 0 after each epoch (from 0) with the row of
            ``metrics.jsonl``: ``train_loss``, ``lr``, the figures of validation. True ends the training, as
            ``train.patience`` does: the best epoch so far is kept, and there is nothing left to resume. An epoch that
            was not written down before a kill comes again.
        figures: by name, figures that validation gives as ``val_<name>`` beside ours, see ``OwnFigure``. Where one of
            them is ``train.monitor``, ``better`` says which epoch is kept, and it shapes the weights.
        augment: pipeline of albumentations or monai.transforms that changes training samples, see ``make_loader``.
        augment_facts: plain values that describe it, or that of ``augment.pipeline``.
    """

    loss: Loss | None = None
    optimizer: MakeOptimizer | None = None
    schedule: Schedule | None = None
    on_epoch: OnEpoch | None = None
    figures: Mapping[str, OwnFigure] = field(default_factory=dict)
    augment: Any = None
    augment_facts: Any = None

    def shaping(self, train: TrainConfig) -> tuple[str, ...]:
        """Names of the parts that shape the weights, which a resumed run must be given again."""
        parts = [name for name in ("loss", "optimizer", "schedule") if getattr(self, name) is not None]
        decides = self.figures.get(train.monitor.removeprefix("val_")) if train.keep == "best" else None
        if decides is not None:
            parts.append(f"figures ({train.monitor}: {decides.better} is better)")
        if self.augment_facts is not None:
            text = json.dumps(self.augment_facts, sort_keys=True)
            parts.append(f"augment (description {hashlib.sha256(text.encode()).hexdigest()[:8]})")
        return tuple(parts)

    def told(self, train: TrainConfig) -> dict[str, Any]:
        """What a bundle tells of them."""
        return {"own_parts": list(self.shaping(train)), "augment": self.augment_facts}

    def check(self, config: Config) -> None:
        """Refuse settings of our losses beside an own one, since they would not count.

        Raises:
            ConfigError: one of them is set.
        """
        if self.loss is None:
            return
        segmentation, usual = config.segmentation, type(config.train)()
        keys = ("target_weights", "class_weights", "label_smoothing", "balance")
        said = [f"train.{key}" for key in keys if getattr(config.train, key) != getattr(usual, key)]
        if segmentation is not None:
            fields = type(segmentation).model_fields
            said += [
                f"segmentation.{key}" for key in ("weight", "loss") if getattr(segmentation, key) != fields[key].default
            ]
        if said:
            raise ConfigError(
                f"{', '.join(said)}: of the losses of this package, and a loss was given (loss=). Leave it out of the "
                "configuration, and let the function that was given do it.",
                key=said[0],
            )


def own_loss(function: Loss, output: ModelOutput, batch: Batch) -> Tensor:
    """() float32: what the caller's loss says of a batch, the mean over members.

    Raises:
        TrainingError: it gives no scalar that the network can learn from.
    """
    members = [_float32(member) for member in output.members or (output,)]
    total = torch.stack([_checked_loss(function, member, batch) for member in members]).mean()
    # Each parameter gets a gradient, if of zero, whatever the loss looks at: several processes wait for all of them.
    nothing = [logits.sum() * 0.0 for member in members for logits in _logits(member)]
    return total + torch.stack(nothing).sum()


def _float32(output: ModelOutput) -> ModelOutput:
    masks = None if output.mask_logits is None else output.mask_logits.float()
    logits = {name: values.float() for name, values in output.logits.items()}
    return replace(output, logits=logits, mask_logits=masks)


def _logits(output: ModelOutput) -> list[Tensor]:
    return [*output.logits.values(), *([] if output.mask_logits is None else [output.mask_logits])]


def _checked_loss(function: Loss, output: ModelOutput, batch: Batch) -> Tensor:
    with _named("loss"):
        loss = function(output, batch)
    if not isinstance(loss, Tensor) or loss.ndim or not loss.is_floating_point():
        said = (
            f"a tensor of shape {tuple(loss.shape)}, {loss.dtype}" if isinstance(loss, Tensor) else type(loss).__name__
        )
        raise _refused("loss", "a scalar tensor of floating point, the mean over the batch", said)
    if not loss.requires_grad:
        raise _refused("loss", "a loss with a gradient, computed from the logits by torch", "one without any")
    if loss.device != batch.images.device:
        raise _refused("loss", f"a loss on the device of the batch, {batch.images.device}", f"one on {loss.device}")
    return loss.float()


def make_own_optimizer(function: MakeOptimizer, model: AnyNetwork, *, config: TrainConfig) -> torch.optim.Optimizer:
    """Make the caller's optimiser; each group gets its ``lr_scale`` for ``set_rate``, see ``peak_rate``.

    Raises:
        TrainingError: it is none, lacks parameters that are trained, holds others, or cannot take a step by itself.
    """
    with _named("optimizer"):
        optimizer = function(model)
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise _refused("optimizer", "a torch.optim.Optimizer", type(optimizer).__name__)
    step = inspect.signature(optimizer.step).parameters.get("closure")
    if step is not None and step.default is inspect.Parameter.empty:
        raise _refused("optimizer", "one whose step needs no closure", type(optimizer).__name__)
    _check_parameters(optimizer, model, config=config)
    rates = [_rate(group) for group in optimizer.param_groups]
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr_scale"] = rate / max(rates)
    return optimizer


def _check_parameters(optimizer: torch.optim.Optimizer, model: AnyNetwork, *, config: TrainConfig) -> None:
    held = {id(one) for group in optimizer.param_groups for one in group["params"]}
    known = held | fixed_parameters(model, config)
    missing = [name for name, one in model.named_parameters() if id(one) not in known]
    if missing:
        shown = ", ".join(missing[:3]) + (" …" if len(missing) > 3 else "")
        expected = "all parameters of the network that are trained (train.freeze_stages fixes the others)"
        raise _refused("optimizer", expected, f"one that lacks {len(missing)}: {shown}")
    if held - {id(one) for one in model.parameters()}:
        raise _refused("optimizer", "parameters of the network that was given", "others, too")


def peak_rate(optimizer: torch.optim.Optimizer) -> float:
    """Return the largest rate of a new optimiser's groups, which those of the others are parts of."""
    return max(float(group["lr"]) for group in optimizer.param_groups)


def _rate(group: Mapping[str, Any]) -> float:
    rate = float(group.get("lr", math.nan))
    if not (math.isfinite(rate) and rate > 0.0):
        raise _refused("optimizer", "groups with a learning rate above 0", repr(group.get("lr")))
    return rate


def own_share(function: Schedule, step: int, steps: int) -> float:
    """Share of the peak rate at a step, as the caller's schedule has it.

    Raises:
        TrainingError: it is no finite number of at least 0.
    """
    with _named("schedule"):
        share = function(step, steps)
    try:
        value = float(share)
    except (TypeError, ValueError):
        value = math.nan
    if not (math.isfinite(value) and value >= 0.0):
        said = f"{value:g}" if isinstance(share, int | float) else type(share).__name__
        raise _refused(
            "schedule", "a finite number of at least 0, the share of the peak rate", f"{said} at step {step}"
        )
    return value


def wants_stop(function: OnEpoch | None, row: Mapping[str, Any]) -> bool:
    """Tell the caller of an epoch; whether the training is to end.

    Raises:
        TrainingError: the answer is neither True, False nor None.
    """
    if function is None:
        return False
    with _named("on_epoch"):
        answer = function(row["epoch"], dict(row))
    if not (answer is None or isinstance(answer, bool)):
        raise _refused("on_epoch", "True to stop, or False or None to go on", type(answer).__name__)
    return bool(answer)


@contextlib.contextmanager
def _named(name: str) -> Iterator[None]:
    """Say in a note which function failed; the error and its traceback are the caller's own."""
    try:
        yield
    except Exception as error:
        error.add_note(f"Raised by the function that was given as {name}=.")
        raise


def _refused(name: str, expected: str, received: str) -> TrainingError:
    return TrainingError(f"{name}: expected {expected}. Received: {received}. Change the function given.", key=name)
