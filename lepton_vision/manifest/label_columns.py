"""Conversion of label columns to class indices; unknown stays NaN and is never counted as negative."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from lepton_vision.errors import LabelError, nearest
from lepton_vision.manifest.label_problems import is_number, spelling
from lepton_vision.manifest.schema import FACT_COLUMNS, own_columns
from lepton_vision.types import UNKNOWN, Target, Uncertain
from lepton_vision.types.words import BLANKS, UNCERTAIN_WORDS, folded, is_unknown

# Words that say "finding absent". A column of two words where exactly one is here leaves no doubt about the positive.
NEGATIVE_WORDS: Final = frozenset(
    {"no", "none", "normal", "negative", "neg", "benign", "healthy", "control", "absent", "false", "noncovid"}
    | {"nein", "non", "nee", "nej", "negativ", "negatif", "négatif", "negativo", "gesund", "sain", "sano"}
)
DASHES: Final = frozenset("-–—")  # "negative" beside "+"
LABEL_NAMES: Final = ("label", "target", "y", "class")
_LARGEST: Final = float(np.finfo(np.float32).max)
# Words that leave "none" no meaning but "nothing written", as Python writes it.
_ABSENT: Final = frozenset({"no", "false", "0", "negative", "neg", "absent"})


def label_array(frame: pd.DataFrame, target: Target, *, label_columns: Sequence[str] = ()) -> npt.NDArray[np.float32]:
    """Labels of one target: (N,) float32 class indices, or values; (N, K) of 0/1 for multilabel; NaN unknown.

    Raises:
        LabelError: a column is missing, or a value is none of the classes, or no number.
    """
    missing = [column for column in target.columns if column not in frame.columns]
    if missing:
        own = own_columns(frame)
        raise LabelError(
            f"The manifest has no label column {missing[0]!r} for target {target.name!r}. "
            f"{nearest(missing[0], [*own, *FACT_COLUMNS], listed=label_columns or own)}",
            key=missing[0],
        )
    if target.mask_values:
        return _presence(frame["mask_values"], target)
    if not target.has_label_by_class and (lost := [name for name in target.classes if folded(name) in BLANKS]):
        raise LabelError(
            f"Target {target.name!r} has a class {lost[0]!r}, which label tables hold where a cell is missing. "
            "Give this class another name in the table and in the configuration.",
            key=target.name,
        )
    if target.is_value:
        return _numbers(frame[target.columns[0]], target=target)
    if target.has_label_by_class:
        parts = [_codes(frame[column], classes=("0", "1"), target=target) for column in target.columns]
        return np.stack(parts, axis=1) if len(frame) else np.empty((0, len(parts)), np.float32)
    return _codes(frame[target.columns[0]], classes=target.classes, target=target)


def _presence(values: pd.Series[Any], target: Target) -> npt.NDArray[np.float32]:
    """(N,) 1 where a mask holds one of the target's values, 0 where it is known to hold none, else NaN."""
    wanted = {str(value) for value in target.mask_values}
    unknown = str(UNKNOWN if target.mask_unknown == "auto" else target.mask_unknown)
    held: list[set[str]] = [set() if pd.isna(text) else set(str(text).split(",")) for text in values]
    found = [1.0 if wanted & one else 0.0 if one and unknown not in one else math.nan for one in held]
    return np.asarray(found, dtype=np.float32)


def _numbers(values: pd.Series[Any], *, target: Target) -> npt.NDArray[np.float32]:
    """(N,) values of a number; a blank and the words for the unknown are NaN."""
    positions, distinct = pd.factorize(values, use_na_sentinel=True)
    numbers = np.full(len(distinct) + 1, np.nan, dtype=np.float32)
    for place, value in enumerate(distinct):
        text = canonical(value)
        is_uncertain = target.uncertain == "unknown" and folded(text) in UNCERTAIN_WORDS and not is_number(text)
        if is_unknown(text) or is_uncertain:
            continue
        if not (is_number(text) and abs(float(text)) <= _LARGEST):
            row = int(np.flatnonzero(positions == place)[0])
            hint = " Write a decimal point." if is_number(text.replace(",", ".", 1)) else ""
            raise LabelError(
                f"Column {str(values.name)!r} holds {text[:40]!r} in row {row}, which is no number for target "
                f"{target.name!r}.{hint} Leave the cell blank where unknown.",
                row=row,
                key=str(values.name),
            )
        numbers[place] = float(text)
    return numbers[positions]


def _codes(values: pd.Series[Any], *, classes: Sequence[str], target: Target) -> npt.NDArray[np.float32]:
    """Map each distinct value once; rows then take the code of their value."""
    positions, distinct = pd.factorize(values, use_na_sentinel=True)
    codes = np.full(len(distinct) + 1, np.nan, dtype=np.float32)  # the last entry serves nulls (position -1)
    for place, value in enumerate(distinct):
        try:
            codes[place] = class_index(value, classes, uncertain=target.uncertain)
        except ValueError:
            row = int(np.flatnonzero(positions == place)[0])
            raise LabelError(
                f"Column {str(values.name)!r} holds {str(value)[:40]!r} in row {row}, which is no class of target "
                f"{target.name!r}. {_what_to_do(value, classes, target=target, rows=int((positions == place).sum()))}",
                row=row,
                key=str(values.name),
            ) from None
    return codes[positions]


def _what_to_do(value: Any, classes: Sequence[str], *, target: Target, rows: int) -> str:
    text = canonical(value)
    if folded(text) in UNCERTAIN_WORDS:
        choices = "unknown, positive or negative" if target.is_yes_no else "unknown"
        return (
            f"It looks like an uncertain label. Say what it counts as: add `uncertain: unknown` ({choices}) to the "
            "target in the configuration."
        )
    alike = [name for name in classes if _joined(name) == _joined(text)]
    if alike and rows > 1:
        return (
            f"{rows} rows hold it, and it differs from the class {alike[0]!r} in spelling only. Correct the class in "
            f"the configuration (to {text[:40]!r}) or the label table (to {alike[0]!r})."
        )
    return f"{_nearest_class(text[:40], classes)} Leave the cell blank where unknown."


def _joined(text: str) -> str:
    return spelling(text).replace(" ", "")


def _nearest_class(text: str, classes: Sequence[str]) -> str:
    """End of a message; a class that differs in case alone is nearest."""
    alike = [name for name in classes if name.lower() == text.strip().lower()]
    return nearest(alike[0] if alike else text, list(classes))


def class_index(value: Any, classes: Sequence[str], *, uncertain: Uncertain | None = None) -> float:
    """Index of one label value among the classes, NaN for the unknown: a blank, or a word of ``words.UNKNOWN_WORDS``.

    A class name wins; an integer counts as an index only where no class name is a number; "1.0" is "1";
    true and false serve two classes. "None" is unknown where the classes hold a plain negative ("no", 0) or numbers,
    which leave it no other meaning. What looks uncertain (-1, ``words.UNCERTAIN_WORDS``) counts as ``uncertain`` says.

    Raises:
        ValueError: the value is no class.
    """
    text = canonical(value)
    if text == "":
        return math.nan
    names = [canonical(name) for name in classes]
    if text in names:
        return float(names.index(text))
    if len(classes) == 2 and text.lower() in ("true", "false"):
        text = "1" if text.lower() == "true" else "0"
        if text in names:
            return float(names.index(text))
    is_any_numeric = any(is_number(name) for name in names)
    if not is_any_numeric and text.isdecimal() and int(text) < len(classes):
        return float(int(text))
    if is_unknown(text) or is_nothing(text, names):
        return math.nan
    if uncertain is not None and (folded(text) in UNCERTAIN_WORDS or folded(text) == "u"):
        return {"unknown": math.nan, "positive": 1.0, "negative": 0.0}[uncertain]
    raise ValueError(text)


def is_nothing(text: str, others: Sequence[str]) -> bool:
    """Whether "none" beside these values is how Python writes a null."""
    rest = [other for other in others if other != text]
    return folded(text) == "none" and (
        any(other.lower() in _ABSENT for other in rest) or (bool(rest) and all(map(is_number, rest)))
    )


def canonical(value: Any) -> str:
    """Text of a label value without surrounding space; a whole number has no decimal point."""
    if pd.isna(value):
        return ""
    text = str(value).strip()
    if is_number(text):
        number = float(text)
        return str(int(number)) if number.is_integer() and abs(number) < 2**53 else repr(number)
    return text


def is_negative_word(value: str) -> bool:
    """Whether a class name says that the finding is absent: a word of ``NEGATIVE_WORDS``, or "non…", "no …"."""
    if value.strip() in DASHES:
        return True
    word = value.strip().lower().replace("_", " ").replace("-", " ")
    return word.replace(" ", "") in NEGATIVE_WORDS or word.startswith(("non ", "no ", "not "))
