"""Synthetic study that any network learns: noise, with a brighter square in every second image."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from lepton_vision.manifest import Manifest


def planted_squares(folder: Path, *, counts: Mapping[str, int], side: int, brighter: int) -> Manifest:
    """An .npz with official splits: ``counts`` images of ``side`` pixels; the square is half as wide, in the middle."""
    rng, arrays = np.random.default_rng(0), {}
    inner = slice(side // 4, 3 * side // 4)
    for split, n in counts.items():
        labels = np.arange(n) % 2
        images = rng.integers(0, 120, (n, side, side))
        images[labels == 1, inner, inner] += brighter
        arrays |= {f"{split}_images": images.astype(np.uint8), f"{split}_labels": labels[:, None]}
    np.savez(folder / "tiny.npz", **arrays)
    return Manifest.scan(folder / "tiny.npz", workers=0)
