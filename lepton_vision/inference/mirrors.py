"""Test-time augmentation of volume masks: average over mirror images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations

from torch import Tensor

from lepton_vision.errors import ConfigError

_AXES = (2, 3, 4)
LEFT_RIGHT = 4
"""The axis W of volumes along ``volume.AXES``."""


def mirror_sets(axes: Sequence[int]) -> list[tuple[int, ...]]:
    """Every combination of axes that a volume is mirrored along, without the one of none.

    Args:
        axes: 2 D, 3 H, 4 W; leave out W where structures tell left from right.

    Raises:
        ConfigError: an axis that does not exist.

    Example:
        >>> mirror_sets((3, 4))
        [(3,), (4,), (3, 4)]
    """
    if not set(axes) <= set(_AXES):
        raise ConfigError(f"Volumes have axes 2, 3 and 4. Received: {list(axes)}.", key="mirrored")
    return [chosen for count in range(1, len(axes) + 1) for chosen in combinations(axes, count)]


def average_mirrored(
    plain: Tensor, predict: Callable[[Tensor], Tensor], *, images: Tensor, mirrors: Sequence[tuple[int, ...]]
) -> Tensor:
    """Mean of mask logits (B, 1 + M, D, H, W) of volumes and of their mirror images, mirrored back.

    Args:
        plain: what ``predict`` gives for ``images``.
        predict: volumes to mask logits of their size.
        images: (B, C, D, H, W).
        mirrors: from ``mirror_sets``.
    """
    total = plain
    for axes in mirrors:
        total = total + predict(images.flip(axes)).flip(axes)
    return total / (1 + len(mirrors))
