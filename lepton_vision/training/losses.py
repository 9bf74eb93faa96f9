"""Masked losses, one per target and one for masks: unknown labels add nothing to the loss or its gradient.

The mean is taken over the known labels of a whole optimiser step (all accumulated batches of all processes), so that
splitting a step into parts changes nothing. Of masks every sample is judged by itself, whatever its size: Dice is a
mean over the samples that have a structure, cross entropy over all known ones. Voxels that are ``UNKNOWN`` contribute
nothing, and so does a sample without any known voxel.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from lepton_vision.errors import TrainingError
from lepton_vision.types import UNKNOWN, Batch, ModelOutput, Target

__all__ = [
    "MASKS",
    "LossParts",
    "LossWeights",
    "balanced_weights",
    "count_known",
    "mask_loss_sum",
    "multitask_loss",
    "segmentation_loss",
    "target_loss",
]

MASKS = "masks"
"""Name of the masks among the losses; the configuration keeps it from targets."""

_VALUE_LOSSES: Mapping[str, Callable[..., Tensor]] = {"squared": functional.mse_loss, "huber": functional.huber_loss}
MaskLoss = Literal["dice_ce", "dice", "ce"]
_SMOOTH = 1e-5  # as MONAI's DiceLoss has it


@dataclass(frozen=True, slots=True)
class LossWeights:
    """How much each target and each class counts.

    Attributes:
        targets: by target name, the factor of its loss; 1 where not named.
        classes: by target name, the factor of each class's labels: binary (2,), multiclass (K,), multilabel (K, 2).
        deviations: by target name, the standard deviation that errors of a number are divided by; 1 where not named.
        smoothing: label smoothing in [0, 0.5): binary 0/1 becomes s/2 / 1 - s/2; multiclass spreads s evenly over K.
        mask: the factor of the masks' loss.
        mask_loss: what the masks' loss is, see ``mask_loss_sum``.
    """

    targets: Mapping[str, float] = field(default_factory=dict)
    classes: Mapping[str, Tensor] = field(default_factory=dict)
    deviations: Mapping[str, Tensor] = field(default_factory=dict)
    smoothing: float = 0.0
    mask: float = 1.0
    mask_loss: MaskLoss = "dice_ce"

    def to(self, device: torch.device) -> LossWeights:
        """Move the class factors and deviations to ``device``."""
        classes, deviations = (
            {name: factor.to(device) for name, factor in group.items()} for group in (self.classes, self.deviations)
        )
        return replace(self, classes=classes, deviations=deviations)


@dataclass(frozen=True, slots=True)
class LossParts:
    """A loss and what it is made of.

    Attributes:
        total: () float32 with gradient: sum over targets of target weight times the masked mean.
        by_target: by target name, () float32 without gradient, before the target weight; "masks" is that of the masks.
    """

    total: Tensor
    by_target: dict[str, Tensor]


def count_known(labels: Mapping[str, Tensor], targets: Sequence[Target], *, masks: Tensor | None = None) -> Tensor:
    """(T + 2,) float32: known labels of each target (multilabel: over all K columns), masks, masks with a structure.

    Example:
        >>> count_known({"a": torch.tensor([1.0, torch.nan])}, [Target("a", "binary", ("no", "yes"))])
        tensor([1., 0., 0.])
    """
    counts = [(~torch.isnan(labels[target.name])).sum().float() for target in targets]
    device = counts[0].device if counts else None if masks is None else masks.device
    return torch.stack([*counts, count_masks(masks).to(device), count_present(masks).to(device)])


def multitask_loss(
    output: ModelOutput,
    labels: Mapping[str, Tensor],
    *,
    targets: Sequence[Target],
    masks: Tensor | None = None,
    weights: LossWeights | None = None,
    known: Tensor | None = None,
    log_variance: Tensor | None = None,
) -> LossParts:
    """Sum the targets' masked means; a batch without any known label gives exactly zero, with zero gradients.

    Args:
        output: logits (B, 1) for binary, (B, K) otherwise; any float dtype, the loss is computed in float32. Where it
            holds those of members, the loss is the mean of theirs, and its own logits do not count.
        labels: by target name, (B,) or (B, K) float32; NaN is unknown.
        targets: which heads count.
        masks: (B, H, W) or (B, D, H, W) uint8; None where masks do not count.
        weights: of targets, classes and masks; None counts everything once.
        known: (T + 2,) divisor of each loss, from ``count_known`` over the whole optimiser step; None counts this
            batch.
        log_variance: (T,), or (T + 1,) with masks: learnt log variance s of each loss L, which then counts
            exp(-s) L + s / 2 (Kendall et al., arXiv:1705.07115) over the whole step; a loss of which nothing is known
            does not count. Of an ensemble, one row for each member.

    Returns:
        The loss in float32.

    Example:
        >>> target = Target("a", "binary", ("no", "yes"))
        >>> output = ModelOutput({"a": torch.zeros(2, 1)})
        >>> round(multitask_loss(output, {"a": torch.tensor([1.0, torch.nan])}, targets=[target]).total.item(), 4)
        0.6931
    """
    if output.members:
        rows = [None] * len(output.members) if log_variance is None else list(log_variance)
        alone = partial(multitask_loss, labels=labels, targets=targets, masks=masks, weights=weights, known=known)
        return _mean_loss([alone(one, log_variance=row) for one, row in zip(output.members, rows, strict=True)])
    weights = weights if weights is not None else LossWeights()
    here = count_known(labels, targets, masks=masks)
    known = here if known is None else known
    sums = {t.name: _masked_sum(output.logits[t.name], labels[t.name], target=t, weights=weights) for t in targets}
    factors = [weights.targets.get(target.name, 1.0) for target in targets]
    if masks is not None and output.mask_logits is not None:
        factor = known[-2] / known[-1].clamp(min=1.0)
        sums[MASKS] = mask_loss_sum(output.mask_logits, masks, kind=weights.mask_loss, dice_factor=factor)
        factors.append(weights.mask)
    if not sums:
        raise TrainingError("Expected at least one target, or masks. Received: none.", key="targets")
    divisors = known[: len(sums)].clamp(min=1.0)
    means = torch.stack(list(sums.values())) / divisors
    by_target = dict(zip(sums, means.detach(), strict=True))
    # A tensor of the factors would be copied to a GPU, which waits until all that it was told before is done.
    scaled = torch.stack([mean * factor for mean, factor in zip(means, factors, strict=True)])
    if log_variance is not None:
        scaled = torch.exp(-log_variance) * scaled + 0.5 * log_variance * here[: len(sums)] / divisors
    return LossParts(scaled.sum(), by_target)


def target_loss(
    output: ModelOutput,
    batch: Batch,
    *,
    target: Target,
    smoothing: float = 0.0,
    classes: Tensor | None = None,
    deviation: float | None = None,
) -> Tensor:
    """() mean loss of one target over the known labels of a batch: that of its kind, see ``Target.loss``.

    Args:
        output: what the network gives, without members.
        batch: its labels, NaN where unknown; without any known label the loss is 0, with gradients of 0.
        target: whose logits and labels.
        smoothing: see ``LossWeights.smoothing``.
        classes: factors, see ``LossWeights.classes``.
        deviation: of a number, what its errors are divided by; None leaves them in its unit.

    Example:
        A loss for ``fit(…, loss=focal)`` that leaves easy images to themselves:

        >>> finding = Target("finding", "binary", ("absent", "present"))
        >>> def focal(output: ModelOutput, batch: Batch) -> Tensor:
        ...     loss = target_loss(output, batch, target=finding)
        ...     return (1 - torch.exp(-loss)) ** 2 * loss
        >>> batch = Batch(torch.zeros(1, 1, 8, 8), {"finding": torch.ones(1)}, torch.zeros(1), ("a",))
        >>> round(focal(ModelOutput({"finding": torch.zeros(1, 1)}), batch).item(), 4)
        0.1733
    """
    weights = LossWeights(
        smoothing=smoothing,
        classes={} if classes is None else {target.name: classes},
        deviations={} if deviation is None else {target.name: torch.as_tensor(deviation)},
    )
    return multitask_loss(output, batch.labels, targets=[target], weights=weights).total


def segmentation_loss(output: ModelOutput, batch: Batch, *, kind: MaskLoss = "dice_ce") -> Tensor:
    """() mean loss of the masks of a batch over the samples that have one, see ``mask_loss_sum``.

    Raises:
        TrainingError: the network predicts no masks, or the batch holds none.
    """
    if output.mask_logits is None or batch.masks is None:
        raise TrainingError("Expected masks in the output and in the batch. Received: none.", key="segmentation")
    return multitask_loss(output, {}, targets=[], masks=batch.masks, weights=LossWeights(mask_loss=kind)).total


def _mean_loss(parts: Sequence[LossParts]) -> LossParts:
    """The mean over members: each of them learns as it would alone, with a gradient divided by their number."""
    total = torch.stack([part.total for part in parts]).mean()
    names = parts[0].by_target
    return LossParts(total, {name: torch.stack([part.by_target[name] for part in parts]).mean() for name in names})


def _masked_sum(logits: Tensor, labels: Tensor, *, target: Target, weights: LossWeights) -> Tensor:
    """() sum of the element losses over known labels; stays connected to the logits where all are unknown."""
    logits = logits.float()
    is_known = ~torch.isnan(labels)
    safe = torch.where(is_known, labels, 0.0)
    classes = weights.classes.get(target.name)
    if target.is_value:
        deviation, measure = weights.deviations.get(target.name, 1.0), _VALUE_LOSSES[target.trained_with]
        losses, factor = measure(logits.squeeze(1) / deviation, safe / deviation, reduction="none"), None
    elif target.is_exclusive:
        index = safe.long()
        losses = functional.cross_entropy(logits, index, reduction="none", label_smoothing=weights.smoothing)
        factor = None if classes is None else classes[index]
    else:
        logits = logits.squeeze(1) if target.is_single else logits
        smoothed = safe * (1.0 - weights.smoothing) + weights.smoothing / 2.0
        losses = functional.binary_cross_entropy_with_logits(logits, smoothed, reduction="none")
        # (2,) for binary, a row of two per column for multilabel: [weight of 0, weight of 1].
        factor = None if classes is None else torch.where(safe > 0.5, classes[..., 1], classes[..., 0])
    losses = losses if factor is None else losses * factor
    return torch.where(is_known, losses, 0.0).sum()


def balanced_weights(labels: npt.NDArray[np.float32], target: Target) -> Tensor:
    """Weights that make every class count the same in sum, with mean 1 over the known labels.

    Args:
        labels: (N,) class index or (N, K) of 0 and 1; NaN is unknown.
        target: whose labels they are.

    Returns:
        n / (classes present * n of the class): (2,) binary, (K,) multiclass, (K, 2) multilabel, float32; 0 for a class
        that does not occur, a column with one class only keeps weight 1.

    Raises:
        TrainingError: no label is known.

    Example:
        >>> balanced_weights(np.float32([0, 0, 0, 1]), Target("a", "binary", ("no", "yes")))
        tensor([0.6667, 2.0000])
    """
    require_known(labels, target.name)
    if target.has_label_by_class:
        return torch.stack([_inverse_frequency(column, 2) for column in labels.T])
    return _inverse_frequency(labels, len(target.classes))


def require_known(labels: npt.NDArray[np.float32], name: str) -> None:
    """Refuse training labels, (N,) or (N, K), of which none is known.

    Raises:
        TrainingError: names the target.
    """
    if np.isnan(labels).all():
        raise TrainingError(
            f"Target {name!r} has no known label among {len(labels)} training images. "
            "Check the label table, or remove the target.",
            key=name,
        )


def _inverse_frequency(labels: npt.NDArray[np.float32], classes: int) -> Tensor:
    """(classes,) float32 inverse frequencies of one column."""
    known = labels[~np.isnan(labels)].astype(np.int64)
    counts = np.bincount(known, minlength=classes)
    present = max(1, int((counts > 0).sum()))
    weights = np.divide(len(known), present * counts, out=np.zeros(classes), where=counts > 0)
    return torch.from_numpy(weights.astype(np.float32))


def count_masks(masks: Tensor | None) -> Tensor:
    """() float32: how many samples have a mask, at least in part.

    Example:
        >>> count_masks(torch.tensor([[[0, 1]], [[UNKNOWN, UNKNOWN]]], dtype=torch.uint8))
        tensor(1.)
    """
    if masks is None:
        return torch.zeros(())
    return (masks.flatten(1) != UNKNOWN).any(dim=1).sum().float()


def count_present(masks: Tensor | None) -> Tensor:
    """() float32: how many samples have any structure.

    Example:
        >>> count_present(torch.tensor([[[0, 1]], [[0, 0]], [[UNKNOWN, 0]]], dtype=torch.uint8))
        tensor(1.)
    """
    if masks is None:
        return torch.zeros(())
    return ((masks != UNKNOWN) & (masks > 0)).flatten(1).any(dim=1).sum().float()


def mask_loss_sum(logits: Tensor, masks: Tensor, *, kind: MaskLoss, dice_factor: Tensor | float = 1.0) -> Tensor:
    """Sum the losses of the samples with a mask; stays connected to the logits where there is none.

    Cross entropy is the mean over the known voxels of a sample. Dice loss is 1 - Dice of the probabilities, the mean
    over the structures that the sample has (Milletari et al., arXiv:1606.04797): where a structure is absent, its Dice
    is 0 for every prediction but a perfect one, and only cross entropy says in which direction to go.

    Args:
        logits: (B, 1 + M, H, W) or (B, 1 + M, D, H, W); background first.
        masks: (B, H, W) or (B, D, H, W) uint8.
        kind: "dice", "ce", or "dice_ce" for their sum.
        dice_factor: of the Dice losses. The samples that are known by those that have a structure makes the mean over
            the former one over the latter: where most slices are empty, Dice would else count next to nothing, and
            nothing would lift a head that predicts background everywhere.

    Returns:
        () float32.

    Example:
        >>> logits = torch.zeros(1, 2, 1, 2)
        >>> round(mask_loss_sum(logits, torch.tensor([[[0, 1]]], dtype=torch.uint8), kind="ce").item(), 4)
        0.6931
    """
    log_prob = functional.log_softmax(logits.float(), dim=1)
    is_known = masks != UNKNOWN
    total = log_prob.sum() * 0.0
    if kind != "dice":
        index = torch.where(is_known, masks, 0).long()
        losses = functional.nll_loss(log_prob, index, reduction="none") * is_known
        total = total + (losses.flatten(1).sum(dim=1) / is_known.flatten(1).sum(dim=1).clamp(min=1)).sum()
    if kind != "ce":
        total = total + _dice_losses(log_prob.exp(), masks, is_known=is_known).sum() * dice_factor
    return total


def _dice_losses(prob: Tensor, masks: Tensor, *, is_known: Tensor) -> Tensor:
    """(B,) mean over the structures that each sample has; 0 where it has none."""
    total = prob.new_zeros(len(prob))
    present = prob.new_zeros(len(prob))
    for value in range(1, prob.shape[1]):
        truth = (masks == value).flatten(1)
        found = (prob[:, value] * is_known).flatten(1)
        overlap = (found * truth).sum(dim=1)
        dice = (2.0 * overlap + _SMOOTH) / (found.sum(dim=1) + truth.sum(dim=1) + _SMOOTH)
        has_it = truth.any(dim=1)
        total = total + torch.where(has_it, 1.0 - dice, 0.0)
        present = present + has_it
    return total / present.clamp(min=1.0)
