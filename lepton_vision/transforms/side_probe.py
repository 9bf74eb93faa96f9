"""Probe of a random change of images: whether left stays left of right."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np

from lepton_vision.errors import ConfigError
from lepton_vision.types import Pixels

_DRAWS = 12  # a change that exchanges sides in every second draw is missed once in four thousand times
_LEAST = 0.01  # of the width: what turns by 89 degrees keeps more


def keeps_sides(change: Callable[[Pixels, int], Any], shape: tuple[int, ...]) -> bool:
    """Whether what is bright on the left stays left of what is bright on the right.

    Brightness is compared with that of a plain image under the same seed, so noise, inversion and shifts tell nothing.

    Args:
        change: of an image (…, H, W) float32 in [0, 1] by a seed; where it fails on such an image nothing is known.
        shape: of the image; W is at least 3.
    """
    third, rows = shape[-1] // 3, np.linspace(0.1, 0.4, shape[-2], dtype=np.float32)[:, None]
    plain = np.broadcast_to(rows, shape).copy()
    left, right = plain.copy(), plain.copy()
    left[..., :third] += 0.5
    right[..., -third:] += 0.5
    for seed in range(_DRAWS):
        try:
            nothing, *sides = (np.asarray(change(one.copy(), seed), np.float64) for one in (plain, left, right))
            places = [_place(np.abs(one - nothing)) for one in sides]
        except Exception:  # of any library, told with its reason where samples are changed
            return True
        if places[1] - places[0] < _LEAST:  # NaN where a side was moved out of the image
            return False
    return True


def _place(weights: Any) -> float:
    """Mean place along the last axis, 0 to 1; NaN where nothing is left."""
    columns = weights.reshape(-1, weights.shape[-1]).sum(axis=0)
    total = columns.sum()
    return float(columns @ np.linspace(0.0, 1.0, len(columns)) / total) if total > 0 else float("nan")


def refuse_exchange(name: str) -> NoReturn:
    """Say that a step of a pipeline may not be there."""
    raise ConfigError(
        f"{name} exchanges left and right, or turns by a right angle and more, and a target or structure tells them "
        "apart. Leave it out of the pipeline.",
        key="augment.pipeline",
    )
