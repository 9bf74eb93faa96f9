"""Evidence for a class from predicted masks: largest log odds and area share of each structure."""

from __future__ import annotations

import torch
from torch import Tensor

FIGURES = 2
"""Figures of each structure."""

_LEAST_SHARE = 1e-4


def mask_evidence(mask_logits: Tensor) -> Tensor:
    """Return figures of each structure: its largest log odds at any pixel, and the log of the share that it covers.

    The first answers for one small lesion, the second for many or large ones. The share is the mean probability, to
    which 0.0001 is added. Both are log odds or nearly so, as the logits of a class are: a head needs no large weights.

    Args:
        mask_logits: (B, 1 + M, H, W) or (B, 1 + M, D, H, W), before the softmax; background is channel 0.

    Returns:
        (B, 2 M) float32: the largest log odds of all structures, then the log shares.

    Example:
        >>> mask_evidence(torch.zeros(1, 2, 8, 8)).exp().tolist()  # odds of 1 everywhere: half of the image
        [[1.0, 0.500100...]]
    """
    logits = mask_logits.float().flatten(2)
    odds = torch.stack([_log_odds(logits, place) for place in range(1, logits.shape[1])], dim=1)
    shares = torch.log(torch.sigmoid(odds).mean(dim=2) + _LEAST_SHARE)
    return torch.cat([odds.amax(dim=2), shares], dim=1)


def _log_odds(logits: Tensor, place: int) -> Tensor:
    """(B, N) log of p / (1 - p) of the structure at ``place``, from (B, 1 + M, N)."""
    others = torch.cat([logits[:, :place], logits[:, place + 1 :]], dim=1)
    return logits[:, place] - others.logsumexp(dim=1)
