"""Predicted masks as input of a classifier: images cropped to their area, or figures of each structure as evidence."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from lepton_vision.models.device import full_precision

EVIDENCE_FIGURES = 2
"""Figures of each structure that ``mask_evidence`` gives."""

_LEAST_SHARE = 1e-4


def crop_to_masks(images: Tensor, mask_logits: Tensor, *, margin: float) -> Tensor:
    """Cut each image to the box of its predicted structures and bring the cut to the size of the image.

    The aspect ratio is kept: the box grows to that of the image, so that nothing is stretched. An image without any
    predicted structure stays whole. No gradient reaches the mask.

    Args:
        images: (B, C, H, W) or (B, C, D, H, W).
        mask_logits: (B, 1 + M, …) of the same sizes; background is channel 0.
        margin: around the box on each side, as a part of its side.

    Returns:
        Images of the same shape, sampled linearly.

    Example:
        >>> images = torch.arange(16.0).reshape(1, 1, 4, 4)
        >>> logits = torch.zeros(1, 2, 4, 4)
        >>> logits[0, 1, 1:3, 1:3] = 1.0
        >>> crop_to_masks(images, logits, margin=0.0)[0, 0, 0, 0].item()  # a corner of the box from 1 to 3
        3.75
    """
    found = mask_logits.detach().argmax(dim=1) > 0
    dims = images.ndim - 2
    theta = torch.zeros(len(images), dims, dims + 1, dtype=torch.float32, device=images.device)
    half, middle = _boxes(found, margin=margin)
    for axis in range(dims):
        # affine_grid counts axes from the last one: x (W) first.
        theta[:, dims - 1 - axis, dims - 1 - axis] = half
        theta[:, dims - 1 - axis, dims] = middle[:, axis]
    with full_precision(images.device):  # a place with the 8 bits of bf16 is off by half a pixel of 224
        grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images.float(), grid, mode="bilinear", padding_mode="border", align_corners=False)


def _boxes(found: Tensor, *, margin: float) -> tuple[Tensor, Tensor]:
    """Half side (B,) and middle (B, axes) of the boxes, where every axis of the image goes from -1 to 1."""
    sizes = found.shape[1:]
    lows, highs = [], []
    for axis, size in enumerate(sizes):
        line = found.movedim(axis + 1, 1).flatten(2).any(dim=2)
        places = torch.arange(size, device=found.device)
        lows.append(torch.where(line, places, size).amin(dim=1) / size)
        highs.append((torch.where(line, places, -1).amax(dim=1) + 1) / size)
    low, high = torch.stack(lows, dim=1), torch.stack(highs, dim=1)
    side = ((high - low) * (1.0 + 2.0 * margin)).amax(dim=1).clamp(max=1.0)
    is_empty = ~found.flatten(1).any(dim=1)
    side = torch.where(is_empty, 1.0, side)
    middle = torch.where(is_empty[:, None], 0.5, (low + high) / 2.0)
    middle = torch.minimum(torch.maximum(middle, side[:, None] / 2.0), 1.0 - side[:, None] / 2.0)  # inside the image
    return side, middle * 2.0 - 1.0


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
