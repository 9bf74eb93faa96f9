"""Label columns to class indices; unknown stays NaN and is never counted as negative."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from lepton_vision.config import nearest
from lepton_vision.errors import LabelError, ManifestError
from lepton_vision.types import Split, Target

if TYPE_CHECKING:
    from lepton_vision.manifest.table import Manifest

# Words that say "finding absent". A column of two words where exactly one is here leaves no doubt about the positive.
NEGATIVE_WORDS: Final = frozenset(
    {"no", "none", "normal", "negative", "neg", "benign", "healthy", "control", "absent", "false", "noncovid"}
)
LABEL_NAMES: Final = ("label", "target", "y", "class")


def label_array(frame: pd.DataFrame, target: Target) -> npt.NDArray[np.float32]:
    """Class indices of one target: (N,) float32 for binary and multiclass, (N, K) of 0/1 for multilabel; NaN unknown.

    Raises:
        LabelError: a column is missing, or a value is none of the classes.
    """
    missing = [column for column in target.columns if column not in frame.columns]
    if missing:
        raise LabelError(
            f"The manifest has no label column {missing[0]!r} for target {target.name!r}. "
            f"{nearest(missing[0], [str(name) for name in frame.columns])}",
            key=missing[0],
        )
    if target.mask_values:
        return _presence(frame["mask_values"], target)
    if target.kind == "multilabel":
        parts = [_codes(frame[column], classes=("0", "1"), target=target) for column in target.columns]
        return np.stack(parts, axis=1) if len(frame) else np.empty((0, len(parts)), np.float32)
    return _codes(frame[target.columns[0]], classes=target.classes, target=target)


def _presence(values: pd.Series[Any], target: Target) -> npt.NDArray[np.float32]:
    """(N,) 1 where a mask holds one of the target's values, 0 where it holds none, NaN where there is no mask."""
    wanted = {str(value) for value in target.mask_values}
    found = [math.nan if pd.isna(text) else float(bool(wanted & set(str(text).split(",")))) for text in values]
    return np.asarray(found, dtype=np.float32)


def _codes(values: pd.Series[Any], *, classes: Sequence[str], target: Target) -> npt.NDArray[np.float32]:
    """Map each distinct value once; rows then take the code of their value."""
    positions, distinct = pd.factorize(values, use_na_sentinel=True)
    codes = np.full(len(distinct) + 1, np.nan, dtype=np.float32)  # the last entry serves nulls (position -1)
    for place, value in enumerate(distinct):
        try:
            codes[place] = class_index(value, classes)
        except ValueError:
            row = int(np.flatnonzero(positions == place)[0])
            raise LabelError(
                f"Column {str(values.name)!r} holds {str(value)[:40]!r} in row {row}, which is no class of target "
                f"{target.name!r}. {_nearest_class(str(value)[:40], classes)} Leave the cell blank where unknown.",
                row=row,
                key=str(values.name),
            ) from None
    return codes[positions]


def _nearest_class(text: str, classes: Sequence[str]) -> str:
    """End of a message; a class that differs in case alone is nearest."""
    alike = [name for name in classes if name.lower() == text.strip().lower()]
    return nearest(alike[0] if alike else text, list(classes))


def class_index(value: Any, classes: Sequence[str]) -> float:
    """Index of one label value among the classes, NaN for a blank.

    A class name wins; an integer counts as an index only where no class name is a number; "1.0" is "1";
    true and false serve two classes.

    Raises:
        ValueError: the value is no class.
    """
    text = _canonical(value)
    if text == "":
        return math.nan
    names = [_canonical(name) for name in classes]
    if text in names:
        return float(names.index(text))
    if len(classes) == 2 and text.lower() in ("true", "false"):
        text = "1" if text.lower() == "true" else "0"
        if text in names:
            return float(names.index(text))
    is_any_numeric = any(_is_number(name) for name in names)
    if not is_any_numeric and text.isdecimal() and int(text) < len(classes):
        return float(int(text))
    raise ValueError(text)


def _canonical(value: Any) -> str:
    """Text of a label value without surrounding space; a whole number has no decimal point."""
    if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return ""
    text = str(value).strip()
    if _is_number(text):
        number = float(text)
        return str(int(number)) if number.is_integer() and abs(number) < 2**53 else repr(number)
    return text


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def infer_targets(manifest: Manifest) -> tuple[Target, ...]:
    """The one target that a manifest leaves no doubt about; otherwise an error that shows what to write.

    One label column (or the one of several that is named label, target, y or class): values 0 and 1 are a binary
    target; two words of which exactly one says "absent" (``NEGATIVE_WORDS``) too; three or more classes are
    multiclass, in sorted order.

    Raises:
        LabelError: no label column, several of them, one class only, or two words without a known negative.
    """
    column = _label_column(manifest)
    values = sorted({_canonical(value) for value in manifest.ok.frame[column].dropna().unique()} - {""}, key=_order)
    name = "".join(c if c.isalnum() and c.isascii() else "_" for c in column) or "label"
    named = None if name == column else column
    if len(values) < 2:
        raise LabelError(
            f"Column {column!r} holds {len(values)} class among the usable rows: {values}. Expected at least 2.",
            key=column,
        )
    if len(values) > 2:
        return (_multiclass(name, values, column=named),)
    if values == ["0", "1"]:
        return (Target(name, "binary", ("0", "1"), column=named),)
    negatives = [value for value in values if is_negative_word(value)]
    if len(negatives) != 1:
        raise LabelError(
            f"Column {column!r} holds {values[0]!r} and {values[1]!r}; which one is the finding is not known. "
            f"Write it in the configuration, negative class first:\n{_snippet(name, values, column=named)}",
            key=column,
        )
    positive = next(value for value in values if value != negatives[0])
    return (Target(name, "binary", (negatives[0], positive), column=named),)


def evident_targets(manifest: Manifest) -> tuple[Target, ...]:
    """What ``infer_targets`` finds; nothing where there is a doubt."""
    try:
        return infer_targets(manifest)
    except LabelError:
        return ()


def require_labels(part: Manifest, targets: Sequence[Target], *, split: Split) -> Manifest:
    """Refuse a part that cannot be learnt from or judged on: empty, unlabelled, or of one class only."""
    if len(part) == 0:
        raise ManifestError(
            f"Expected rows in the {split} split. Received: none. Run `split`, or give a split column.", key="split"
        )
    for target in targets:
        labels = part.labels(target)
        known = labels[~np.isnan(labels)]
        if known.size == 0:
            raise LabelError(f"Target {target.name!r} has no known label in the {split} split.", key=target.name)
        if target.kind != "multilabel" and np.unique(known).size < 2:
            raise LabelError(
                f"Target {target.name!r} has one class only in the {split} split ({known.size} labelled images). "
                "Expected at least two. Use another seed or larger parts.",
                key=target.name,
            )
    return part


def is_negative_word(value: str) -> bool:
    """Whether a class name says that the finding is absent: a word of ``NEGATIVE_WORDS``, or "non…", "no …"."""
    word = value.strip().lower().replace("_", " ").replace("-", " ")
    return word.replace(" ", "") in NEGATIVE_WORDS or word.startswith(("non ", "no ", "not "))


def _label_column(manifest: Manifest) -> str:
    columns = manifest.label_columns
    named = [column for column in columns if column.lower() in LABEL_NAMES]
    if len(columns) == 1:
        return columns[0]
    if len(named) == 1:
        return named[0]
    if not columns:
        raise LabelError(
            "The manifest has no label column. Scan with a label table (labels=…), or keep one folder for each class."
        )
    raise LabelError(
        f"The manifest has several label columns: {list(columns)[:12]}. Name what to predict in the configuration:\n"
        + _snippet("label", ["negative", "positive"], column=columns[0]),
        key="targets",
    )


def _multiclass(name: str, values: list[str], *, column: str | None) -> Target:
    if len(values) > 100:
        raise LabelError(
            f"Column {column or name!r} holds {len(values)} different values, too many for classes. "
            f"Name what to predict in the configuration:\n{_snippet('label', ['negative', 'positive'], column=None)}",
            key=column or name,
        )
    return Target(name, "multiclass", tuple(values), column=column)


def _order(value: str) -> tuple[int, float, str]:
    """Numbers by size, then words."""
    return (0, float(value), value) if _is_number(value) else (1, 0.0, value)


def _snippet(name: str, classes: list[str], *, column: str | None) -> str:
    """YAML of one binary target, ready to be copied."""
    lines = ["targets:", f"  - name: {name}", "    kind: binary", f"    classes: {classes}"]
    return "\n".join([*lines, *([f"    column: {column}"] if column else [])])
