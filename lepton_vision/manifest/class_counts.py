"""Class counts of the splits, and warnings before training about the classes that a split lacks."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lepton_vision.errors import LabelError
from lepton_vision.types import Split, Target

if TYPE_CHECKING:
    from lepton_vision.manifest.table import Manifest

_LOGGER = logging.getLogger(__name__)
_BANDS = 4  # of a number: quarters of the labels
_FEW = 2  # samples of a class on which a figure, or a weight, is chance


@dataclass(frozen=True, slots=True)
class ClassCount:
    """Labelled samples of one class: the positive one of a binary target, or one class against the rest.

    Attributes:
        name: of the class.
        positives: samples of it.
        negatives: samples that are known not to be of it.
    """

    name: str
    positives: int
    negatives: int

    @property
    def is_judged(self) -> bool:
        """Whether the class can be told from the rest, and figures of that are defined."""
        return self.positives > 0 and self.negatives > 0

    def __str__(self) -> str:
        return f"{self.name} ({self.positives} positive, {self.negatives} negative)"


def label_groups(labels: npt.NDArray[np.floating[Any]], target: Target) -> dict[str, npt.NDArray[np.bool_]]:
    """Mark the samples of each class, (N,) bool; of a number those of each quarter, as "3 to 4.5" (its ends with it).

    Args:
        labels: (N,) or (N, K), as ``Manifest.labels`` gives them.
        target: whose labels they are.

    Example:
        >>> age = Target("age", "regression")
        >>> {name: int(rows.sum()) for name, rows in label_groups(np.array([1, 2, 3, 4, np.nan]), age).items()}
        {'1 to 1.75': 1, '1.75 to 2.5': 1, '2.5 to 3.25': 1, '3.25 to 4': 1}
    """
    if target.has_label_by_class:
        return {name: labels[:, k] == 1 for k, name in enumerate(target.classes)}
    if not target.is_value:
        return {name: labels == k for k, name in enumerate(target.classes)}
    known = labels[~np.isnan(labels)].astype(np.float64)
    edges = np.unique(np.quantile(known, np.linspace(0, 1, _BANDS + 1))) if len(known) else np.empty(0)
    if len(edges) < 2:
        return {f"{edge:g}": labels == edge for edge in edges}
    band = np.searchsorted(edges[1:-1], labels)
    pairs = enumerate(itertools.pairwise(edges))
    return {f"{low:g} to {high:g}": (band == k) & ~np.isnan(labels) for k, (low, high) in pairs}


def count_classes(part: Manifest, target: Target) -> tuple[ClassCount, ...]:
    """Count the labels of one target: one entry for a binary one, K otherwise; none of a number."""
    if target.is_value:
        return ()
    labels = part.labels(target).astype(np.float64)
    if target.is_exclusive:
        labels = np.where(np.isnan(labels)[:, None], np.nan, labels[:, None] == np.arange(len(target.classes)))
    columns = labels.reshape(len(part), target.outputs).T
    counted = zip(target.answers, columns, strict=True)
    return tuple(ClassCount(name, int((one == 1).sum()), int((one == 0).sum())) for name, one in counted)


def has_contrast(labels: npt.NDArray[np.floating[Any]]) -> bool:
    """Whether there is something to tell apart: two values in (N,) labels, or in a column of (N, K)."""
    columns = labels.reshape(len(labels), -1).T
    return any(len(np.unique(column[~np.isnan(column)])) > 1 for column in columns)


def find_problem(part: Manifest, target: Target, *, split: Split) -> LabelError | None:
    """Return why a split is of no use for a target: no label, or nothing to tell apart."""
    labels = part.labels(target)
    labelled = int((~np.isnan(labels)).reshape(len(labels), -1).sum(axis=0).max(initial=0))
    if has_contrast(labels):
        return None
    if not labelled:
        text = f"Target {target.name!r} has no known label in the {split} split. Give labels"
    else:
        what = "no class with both positive and negative samples" if target.has_label_by_class else "one class only"
        what = "one value only" if target.is_value else what
        text = (
            f"Target {target.name!r} has {what} in the {split} split ({labelled} labelled images). Expected at least "
            "two. Use another seed or larger parts"
        )
    return LabelError(f"{text}, or leave the target out.", key=target.name)


def warn_of_classes(train: Manifest, val: Manifest | None, targets: Sequence[Target]) -> tuple[str, ...]:
    """Say before a training which classes its splits lack, or hardly have, and what that means.

    Returns:
        ``target/class`` of the classes that val lacks; a binary target is named alone.
    """
    _warn(train, targets, split="train")
    return () if val is None else _warn(val, targets, split="val")


def _warn(part: Manifest, targets: Sequence[Target], *, split: Split) -> tuple[str, ...]:
    lacking: list[str] = []
    for target in targets:
        counts = count_classes(part, target)
        absent = [one for one in counts if not one.is_judged]
        few = [one for one in counts if one.is_judged and min(one.positives, one.negatives) <= _FEW]
        lacking += [target.name if target.is_binary else f"{target.name}/{one.name}" for one in absent]
        if absent:
            _LOGGER.warning(
                "Target %r, %s split, a class without samples to tell it from the rest: %s. %s",
                target.name,
                split,
                ", ".join(map(str, absent)),
                _meaning(target, split=split),
            )
        if few:
            _LOGGER.warning(
                "Target %r, %s split, a class with %d samples or fewer: %s. What is %s so few is chance.",
                target.name,
                split,
                _FEW,
                ", ".join(map(str, few)),
                "learnt from" if split == "train" else "measured or chosen on",
            )
    return tuple(lacking)


def _meaning(target: Target, *, split: Split) -> str:
    if split == "train":
        return "It is not learnt: its probability means nothing."
    left_out = "Validation figures are means over the others, and its probability is not calibrated by itself"
    if target.is_exclusive:
        return f"{left_out}."
    return f"{left_out}; it gets no operating point: scores hold its probability without a decision."
