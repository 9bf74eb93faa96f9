"""Consistency of the values found in masks with the structures of the configuration."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence

import pandas as pd

from lepton_vision.config import Config, SegmentationConfig
from lepton_vision.errors import LabelError, TrainingError
from lepton_vision.manifest.labels import require_rows
from lepton_vision.manifest.schema import objects
from lepton_vision.manifest.table import Manifest
from lepton_vision.types import SPLITS

Counts = Mapping[int, int]
"""How many masks hold a value, by value."""
_LOGGER = logging.getLogger(__name__)
_MOST_SHOWN = 12


def count_values(*parts: Manifest) -> Counts:
    """Number of masks of the usable rows that hold each value, by value; empty where there is no mask."""
    texts = Counter(str(text) for part in parts for text in part.ok.frame["mask_values"].dropna())
    counts: Counter[int] = Counter()
    for text, rows in texts.items():
        counts.update({int(value): rows for value in text.split(",")})
    return dict(sorted(counts.items()))


def absent_structures(counts: Counts, segmentation: SegmentationConfig) -> tuple[str, ...]:
    """Structures none of whose values was counted."""
    present = {segmentation.numbers.get(value) for value in counts}
    return tuple(name for number, name in enumerate(segmentation.names, start=1) if number not in present)


def check_mask_values(manifest: Manifest, segmentation: SegmentationConfig) -> None:
    """Refuse masks that hold a value of which nothing is stated, and rows without any mask.

    Raises:
        LabelError: with the first such row, the values found and the setting to write.
    """
    counts = count_values(manifest)
    if not counts:
        raise LabelError(
            f"Expected masks for {', '.join(segmentation.names)}. Received: a manifest without any. Scan with a label "
            "table that has a column 'mask'.",
            key="mask_path",
        )
    strange = tuple(value for value in counts if value not in segmentation.numbers)
    if strange:
        raise LabelError(
            f"Masks hold values of which nothing is stated, the first {strange[0]}. {found_in_words(counts)} "
            f"{stated_in_words(segmentation)} {_remedy(strange, segmentation)}",
            row=_first_row(manifest, strange),
            key="mask_values",
        )


def check_structures(train: Manifest, segmentation: SegmentationConfig) -> None:
    """Refuse to train where a structure stands in no mask: its Dice would be 0 to the end, without a word.

    Raises:
        ManifestError: no rows.
        LabelError: as ``check_mask_values``, or with the structure, the values found and the setting to write.
    """
    require_rows(train, split="train")
    check_mask_values(train, segmentation)
    counts = count_values(train)
    absent = absent_structures(counts, segmentation)
    if absent:
        raise LabelError(_absence(counts, segmentation, absent, split="train"), key="segmentation.structures")


def check_masks(manifest: Manifest, segmentation: SegmentationConfig | None) -> None:
    """Refuse masks that would be trained on in vain, and warn of structures that no mask of val or test holds.

    Raises:
        ManifestError: no rows of the train split.
        LabelError: as ``check_structures``; values are looked at in all splits.
    """
    if segmentation is None:
        return
    check_mask_values(manifest, segmentation)
    check_structures(manifest.subset("train"), segmentation)
    warn_of_masks(manifest, segmentation)


def check_monitor(val: Manifest, config: Config) -> None:
    """Refuse before a training a Dice that no mask of validation can give.

    Raises:
        TrainingError: ``train.monitor`` would be undefined after every epoch.
    """
    monitor, head = config.train.monitor, config.segmentation
    if config.train.keep == "last" or head is None or not monitor.startswith("val_dice"):
        return
    asked = [name for name in head.names if monitor in ("val_dice", f"val_dice_{name}")]
    if asked and set(asked) <= set(absent_structures(count_values(val), head)):
        raise TrainingError(
            f"train.monitor: {monitor} would be undefined after every epoch: no mask of the val split holds "
            f"{' or '.join(asked)}. Use another seed or larger parts, or set train.monitor or train.keep=last.",
            key="train.monitor",
        )


def check_truth(judged: Sequence[Manifest], segmentation: SegmentationConfig) -> None:
    """Warn of structures that no true mask holds; refuse where none is held and the only other value is unknown.

    Raises:
        LabelError: nothing could be judged: every mask is background or unknown.
    """
    counts = count_values(*judged)
    absent = absent_structures(counts, segmentation)
    if not absent:
        return
    text = _absence(counts, segmentation, absent, split="")
    if absent == segmentation.names and segmentation.unknown_value in counts:
        raise LabelError(text, key="segmentation.structures")
    _LOGGER.warning("%s", text)


def mask_faults(manifest: Manifest, segmentation: SegmentationConfig) -> dict[str, str]:
    """Faults of the masks of a manifest, in words, by split ("" for all rows); empty where all is well.

    Training stops at what is wrong with all rows or with "train".
    """
    if not count_values(manifest):
        return {}
    try:
        check_mask_values(manifest, segmentation)
    except LabelError as error:
        return {"": str(error)}
    splits = [split for split in SPLITS if (objects(manifest.frame["split"]) == split).any()]
    parts: dict[str, Counts] = {split: count_values(manifest.subset(split)) for split in splits}
    faults = {}
    for split, counts in (parts or {"": count_values(manifest)}).items():
        absent = absent_structures(counts, segmentation)
        if absent and counts:
            faults[split] = _absence(counts, segmentation, absent, split=split)
    return faults


def warn_of_masks(manifest: Manifest, segmentation: SegmentationConfig | None) -> None:
    """Log what ``mask_faults`` finds."""
    for fault in () if segmentation is None else mask_faults(manifest, segmentation).values():
        _LOGGER.warning("%s", fault)


def found_in_words(counts: Counts) -> str:
    """One sentence: which values stand in how many masks."""
    shown = ", ".join(f"{value} in {rows} masks" for value, rows in list(counts.items())[:_MOST_SHOWN])
    return f"Found: {shown}{', …' if len(counts) > _MOST_SHOWN else ''}."


def stated_in_words(segmentation: SegmentationConfig) -> str:
    """One sentence: what each value is said to be."""
    groups = [(*segmentation.structures.items(), ("background", (0, *segmentation.background)))]
    shown = [f"{'+'.join(map(str, values))} {name}" for group in groups for name, values in group]
    unknown = segmentation.unknown_value
    return f"Expected: {', '.join(shown)}{'' if unknown is None else f', {unknown} unknown'}."


def _absence(counts: Counts, segmentation: SegmentationConfig, absent: tuple[str, ...], *, split: str) -> str:
    """Message about structures that no mask holds."""
    where = f" of the {split} split" if split else ""
    text = (
        f"No mask{where} holds {' or '.join(repr(name) for name in absent)}. {found_in_words(counts)} "
        f"{stated_in_words(segmentation)}"
    )
    unknown = segmentation.unknown_value
    if unknown in counts:
        return f"{text} {unknown} counts as unknown: {_setting(absent[0], unknown)} if it is {absent[0]!r}."
    return f"{text} Correct segmentation.structures, leave the structure out, or add masks that show it."


def _remedy(strange: tuple[int, ...], segmentation: SegmentationConfig) -> str:
    if len(strange) > _MOST_SHOWN:
        return (
            "So many values are no labels: they come from a lossy or interpolated copy. Save the labels themselves, "
            "as PNG or NIfTI."
        )
    first = segmentation.names[0]
    shown = ", ".join(map(str, strange))
    return (
        f"Name them, as in {_setting('NAME', *strange)} or, if they are {first!r}, "
        f"{_setting(first, *segmentation.structures[first], *strange)}; "
        f"segmentation.background: [{shown}] makes them background, segmentation.unknown: {strange[0]} unknown."
    )


def _setting(name: str, *values: int | None) -> str:
    shown = str(values[0]) if len(values) == 1 else f"[{', '.join(map(str, values))}]"
    return f"write segmentation.structures: {{{name}: {shown}}}"


def _first_row(manifest: Manifest, values: tuple[int, ...]) -> int:
    texts: pd.Series[str] = manifest.ok.frame["mask_values"].dropna()
    wanted = {str(value) for value in values}
    return next(int(str(row)) for row, text in texts.items() if wanted & set(str(text).split(",")))
