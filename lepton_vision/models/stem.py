"""Adaptation of a pretrained first convolution to another number of channels or another kernel size."""

from __future__ import annotations

import torch
from torch import Tensor


def adapt_stem(weight: Tensor, *, like: Tensor) -> Tensor:
    """Return ``weight`` with the channels and the kernel size of ``like``.

    Channels. Equal channels give the same response as before, whatever their number: a gray image gives what it gave as
    three equal channels (the sum over R, G and B). Where the new number is a multiple of the old one, the old channels
    are repeated and divided (two windows in RGB keep their colours); otherwise every new channel gets the same share of
    the sum. This holds for the network's input, so mean and deviation must be the same for all channels: after
    ImageNet's three different means, three "equal" channels are no longer equal (the shift is small, and training
    absorbs it in the norm layer).

    Kernel. 7x7 → 3x3 (the small stem): the kernel is shrunk by area, as if the image had been seen at 3/7 of its size,
    about what stride 1 instead of 2 undoes; its sum, and with it the response to an even image, stays. 3x3 → 7x7: the
    kernel stands in the middle of zeros, so each position that is looked at gives the same response.

    Args:
        weight: (64, C, k, k), or (64, C, k, k, k) of a 3-D network; any float type.
        like: (64, C', k', k') or (64, C', k', k', k'); only its shape counts.

    Returns:
        float32 of the shape of ``like``; ``weight`` itself where the shapes agree.

    Example:
        >>> rgb = torch.ones(64, 3, 7, 7)
        >>> float(adapt_stem(rgb, like=torch.empty(64, 1, 7, 7))[0, 0, 0, 0])
        3.0
    """
    if weight.shape == like.shape:
        return weight
    weight = _adapt_channels(weight.float(), like.shape[1])
    return _adapt_kernel(weight, like.shape[2])


def _adapt_channels(weight: Tensor, channels: int) -> Tensor:
    before, ones = weight.shape[1], (1,) * (weight.ndim - 2)
    if channels % before == 0:
        times = channels // before
        return weight.repeat(1, times, *ones) / times
    return weight.sum(dim=1, keepdim=True).repeat(1, channels, *ones) / channels


def _adapt_kernel(weight: Tensor, size: int) -> Tensor:
    before, axes = weight.shape[2], weight.ndim - 2
    if size > before:
        margin = (size - before) // 2
        return torch.nn.functional.pad(weight, (margin,) * 2 * axes)
    if size < before:
        shares = _overlaps(before, size).to(weight)
        for axis in range(2, 2 + axes):
            weight = torch.tensordot(weight, shares, dims=([axis], [1])).movedim(-1, axis)
    return weight


def _overlaps(before: int, after: int) -> Tensor:
    """(after, before): which part of each old cell falls into each new one; every column sums to 1."""
    edges = torch.linspace(0, before, after + 1, dtype=torch.float64)
    cells = torch.arange(before, dtype=torch.float64)
    high = torch.minimum(edges[1:, None], cells + 1)
    low = torch.maximum(edges[:-1, None], cells)
    return (high - low).clamp(min=0)
