"""Attention pooling over the slices of a volume, learnt from the label of the volume."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lepton_vision.models.device import full_precision

_HIDDEN = 128  # as in the paper


class AttentionPool(nn.Module):
    """Gated attention (Ilse, Tomczak and Welling, arXiv:1802.04712, equation 9).

    The bag's features are the mean of its instances', weighted by a softmax of w^T (tanh(V h) * sigmoid(U h)).

    Args:
        features: F of an instance.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.value = nn.Linear(features, _HIDDEN)
        self.gate = nn.Linear(features, _HIDDEN)
        self.score = nn.Linear(_HIDDEN, 1)

    def weights(self, features: Tensor, is_there: Tensor) -> Tensor:
        """Attention weight of each instance.

        Args:
            features: (B, S, F) of any float type.
            is_there: (B, S) bool; others count nothing. A bag that holds none counts all alike.

        Returns:
            (B, S) float32, sums of 1.
        """
        with full_precision(features.device):
            inner = features.float()
            scores = self.score(torch.tanh(self.value(inner)) * torch.sigmoid(self.gate(inner))).squeeze(2)
            is_empty = ~is_there.any(dim=1, keepdim=True)
            scores = torch.where(is_empty, 0.0, scores).masked_fill(~(is_there | is_empty), -torch.inf)
            weights: Tensor = scores.softmax(dim=1)
            return weights

    def forward(self, features: Tensor, is_there: Tensor) -> Tensor:
        """(B, F) float32 features of the bags."""
        return (self.weights(features, is_there)[:, :, None] * features.float()).sum(dim=1)


def as_slices(volumes: Tensor) -> tuple[Tensor, Tensor]:
    """Take volumes apart.

    Args:
        volumes: (B, C, D, H, W).

    Returns:
        (B * D, C, H, W), the slices of the first volume first, and (B, D) bool, which of them hold anything: a slice of
        one value is padding.

    Example:
        >>> slices, is_there = as_slices(torch.arange(8.0).reshape(1, 1, 2, 2, 2))
        >>> slices.shape, is_there.tolist()
        (torch.Size([2, 1, 2, 2]), [[True, True]])
    """
    slices = volumes.movedim(2, 1)
    planes = slices.flatten(3)
    is_there = (planes.amax(dim=3) != planes.amin(dim=3)).any(dim=2)
    return slices.flatten(0, 1), is_there
