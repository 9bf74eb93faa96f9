"""Segmentation loss: Dice and cross entropy over the known voxels.

Every sample is judged by itself, so that neither its size, nor how a step is split into batches changes what it
contributes; Dice is a mean over the samples that have a structure, cross entropy over all known ones. Voxels that are
``UNKNOWN`` contribute nothing; a sample without any known voxel contributes nothing at all.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from lepton_vision.types import UNKNOWN

MaskLoss = Literal["dice_ce", "dice", "ce"]
_SMOOTH = 1e-5  # as MONAI's DiceLoss has it


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
