"""Pictures of what a network sees: one batch of a loader, with labels and masks."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from typing import Any

import numpy as np

from lepton_vision.errors import InvalidValueError
from lepton_vision.reporting.figures import SERIES, Plot
from lepton_vision.types import UNKNOWN, Batch, FloatArray, Pixels, Target

_SIDE = 1.8  # inches of one picture


def show_batch(loader: Any, *, images: int = 16) -> Plot:
    """Draw the next batch of a loader as training sees it: augmented, and back from the network's scale to grey values.

    Of a volume the middle slice is shown, or the one with most of its mask. Masks are outlined, each structure in its
    colour; what nobody knows is left plain.

    Args:
        loader: as ``make_loader`` gives it.
        images: how many at most.

    Returns:
        A figure of matplotlib, which a notebook shows; ``figure.savefig(path)`` writes it. It shows pixels of patients.

    Raises:
        InvalidValueError: no image is asked for.

    Example:
        >>> show_batch(make_loader(manifest.subset("train"), config, training=True))  # doctest: +SKIP
    """
    if images < 1:
        raise InvalidValueError(f"Expected at least 1 image. Received: {images}.", key="images")
    batch: Batch = next(iter(loader))
    config, targets = loader.dataset.config, loader.dataset.targets
    names = () if config.segmentation is None else tuple(config.segmentation.structures)
    count = min(images, len(batch.image_ids))
    columns = min(count, 8)
    rows = -(-count // columns)
    figure = Plot(figsize=(_SIDE * columns, (_SIDE + 0.3 * max(len(targets), 1)) * rows), layout="constrained")
    for place in range(count):
        axes = figure.add_subplot(rows, columns, place + 1)
        axes.set_axis_off()
        pixels = _grey(batch.images[place].numpy(), mean=config.preprocess.mean, std=config.preprocess.std)
        mask = None if batch.masks is None else batch.masks[place].numpy()
        if pixels.ndim == 4:
            chosen = _slice(pixels.shape[1], mask)
            pixels, mask = pixels[:, chosen], None if mask is None else mask[chosen]
        shown = pixels.transpose(1, 2, 0) if len(pixels) == 3 else pixels.mean(axis=0)
        axes.imshow(shown, cmap="gray", vmin=0.0, vmax=1.0, interpolation="nearest")
        insides = [] if mask is None else [mask == number for number in range(1, len(names) + 1)]
        for inside, color in zip(insides, cycle(SERIES), strict=False):
            if inside.any():
                axes.contour(inside, levels=[0.5], colors=[color], linewidths=1.2)
        labels = {target.name: batch.labels[target.name][place].numpy() for target in targets}
        lines = [f"{target.name}: {_answer(labels[target.name], target)}" for target in targets]
        axes.set_title("\n".join(lines), fontsize=7, parse_math=False)
    return figure


def _grey(images: Pixels, *, mean: Sequence[float], std: Sequence[float]) -> Pixels:
    """(C, …) in [0, 1], of what the network takes."""
    shape = (-1, *(1,) * (images.ndim - 1))
    grey = np.clip(images * np.reshape(std, shape) + np.reshape(mean, shape), 0.0, 1.0)
    return np.asarray(grey, np.float32)


def _slice(depth: int, mask: Any) -> int:
    if mask is None:
        return depth // 2
    sizes = ((mask > 0) & (mask != UNKNOWN)).sum(axis=(1, 2))
    return int(sizes.argmax()) if sizes.any() else depth // 2


def _answer(label: FloatArray, target: Target) -> str:
    """A label in words: () of one class, or (K,) of findings."""
    if label.ndim:
        there = [name for name, value in zip(target.classes, label, strict=True) if value == 1.0]
        return ", ".join(there) or ("unknown" if np.isnan(label).any() else "none")
    if np.isnan(label):
        return "unknown"
    return f"{float(label):.4g} {target.unit}".strip() if target.is_value else target.classes[int(label)]
