"""Reasons against a label column as a target: measurements, spellings, lists, uncertain labels."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from lepton_vision.types.words import UNCERTAIN_WORDS, folded

_MOST_NUMBERS: Final = 20  # different whole numbers that are taken for classes without being told
_MOST_WORDS: Final = 100
_FEW: Final = 10  # so many values are classes however few rows each has
_ROWS_EACH: Final = 3  # with more values, the mean number of rows below which they are ids, text or measurements
_LONGEST: Final = 100  # letters of a class
_DATE: Final = re.compile(r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}([ T].*)?|\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4}( .*)?")
_AGE: Final = re.compile(r"\d{3}[DWMY]")  # DICOM's AS
_SAME: Final[Mapping[str, str]] = {
    **dict.fromkeys(("true", "yes", "y", "1", "positive", "pos", "present", "ja", "oui", "si", "sí"), "1"),
    **dict.fromkeys(("false", "no", "n", "0", "negative", "neg", "absent", "nein", "non"), "0"),
}
_CODES: Final = frozenset(["-9", "-99", "-999", "-9999", "9", "88", "99", "888", "999", "9999"])


def not_classes(counts: Mapping[str, int]) -> str:
    """Reason why the values of a column cannot be classes; "" where they can be.

    Args:
        counts: rows by value, unknown ones left out.
    """
    values, rows = list(counts), sum(counts.values())
    numbers = [number for value in values if (number := _number(value)) is not None]
    if len(values) < 2:
        return ""
    if all(_AGE.fullmatch(value) for value in values):
        return f"{len(values)} different ages"
    if all(_DATE.fullmatch(value) for value in values):
        return f"{len(values)} different dates"
    if len(numbers) == len(values) and not all(number.is_integer() for number in numbers):
        return f"{len(values)} different numbers with decimals, as measurements have"
    if len(numbers) == len(values) > _MOST_NUMBERS:
        return f"{len(values)} different numbers, too many for classes (ages, counts, measurements?)"
    if len(values) > _FEW and rows < _ROWS_EACH * len(values):
        return f"{len(values)} different values in {rows} rows, too many for classes (ids, text, measurements?)"
    if len(values) > _MOST_WORDS:
        return f"{len(values)} different values, too many for classes"
    if max(map(len, values)) > _LONGEST:
        return f"text of up to {max(map(len, values))} letters, which is no class name"
    return ""


def likely_codes(labels: npt.NDArray[np.float32]) -> list[str]:
    """Values of a number that look like codes for unknown (-99, 999 …): far from all others, as a code is.

    Example:
        >>> likely_codes(np.float32([61, 58, 70, 66, 999, 63, 999, np.nan])), likely_codes(np.float32([9, 8, 7, 9]))
        (['999'], [])
    """
    known = labels[~np.isnan(labels)]
    codes = {code: float(code) for code in _CODES if (known == float(code)).any()}
    rest = known[~np.isin(known, list(codes.values()))]
    if not len(rest):
        return []
    low, high = float(rest.min()), float(rest.max())
    return sorted(code for code, value in codes.items() if not 2 * low - high <= value <= 2 * high - low)


def question(counts: Mapping[str, int]) -> str:
    """What must be asked about values that could be classes; "" where nothing must. Uncertain values are asked apart.

    Args:
        counts: rows by value, unknown ones left out.
    """
    alike = defaultdict(list)
    for value in counts:
        alike[spelling(value)].append(value)
    pairs = [names for names in alike.values() if len(names) > 1]
    if not pairs and len(counts) > 2 and all(value.lower() in _SAME for value in counts):
        pairs = [[v for v in counts if _SAME[v.lower()] == code] for code in ("0", "1")]
        pairs = [names for names in pairs if len(names) > 1]
    if pairs:
        shown = "; ".join(" and ".join(f"{name!r} ({counts[name]} rows)" for name in names) for names in pairs[:5])
        return f"holds classes that differ in spelling only: {shown}. Write each class in one way in the label table"
    separator = next((mark for mark in "|;,/+" if _are_lists(list(counts), mark)), "")
    if separator:
        return (
            f"holds several findings in one cell, between {separator!r}. Write one column of 0 and 1 for each finding "
            "in the label table, for a multilabel target"
        )
    others = sorted(set(counts) - {"0", "1"})
    if len(counts) == 3 and len(others) == 1 and _number(others[0]) is None:
        return (
            f"holds {others[0][:40]!r} in {counts[others[0]]} rows beside 0 and 1. Leave these cells blank in the "
            "label table where it means unknown"
        )
    codes = sorted(set(counts) & _CODES)
    if codes and len(set(counts) - set(codes)) == 2 and set(counts) - set(codes) == {"0", "1"}:
        return (
            f"holds {', '.join(codes)} beside 0 and 1, which looks like a code for unknown. Leave these cells blank in "
            "the label table where it is"
        )
    return ""


def uncertain_values(values: Sequence[str]) -> list[str]:
    """Values that look as if a reader could not decide; a lone "u" counts beside two others."""
    found = [value for value in values if folded(value) in UNCERTAIN_WORDS]
    return found or [value for value in values if folded(value) == "u" and len(values) == 3]


def is_number(text: str) -> bool:
    """Whether a text is a finite number; Python's "1_0" is none."""
    try:
        return abs(float(text)) < float("inf") and "_" not in text
    except ValueError:
        return False


def _number(text: str) -> float | None:
    """A number, also with a decimal comma or with commas between thousands; None for other text."""
    if is_number(text):
        return float(text)
    for plain in (re.sub(r",(?=\d{3}(?!\d))", "", text), text.replace(",", ".")):
        if is_number(plain):
            return float(plain)
    return None


def spelling(value: str) -> str:
    """Form shared by all spellings of one class: no case, white space, mark at the end, or format of a number."""
    text = unicodedata.normalize("NFKC", value)
    text = "".join(letter for letter in text if letter.isprintable()).casefold().strip(" .,;:!?'\"")
    text = re.sub(r"(?<=[^\W\d_])[\s_-]+(?=[^\W\d_])", " ", text)
    text = re.sub(r"(?<=[^\W\d_])[\s_-](?=\d)", "", text)  # "grade 1" and "grade1"
    number = text.replace(",", ".")
    return repr(float(number)) if is_number(number) else text


def _are_lists(values: Sequence[str], separator: str) -> bool:
    """Whether cells hold several findings: a part of one is a value; between ";" or "|", also a part of another."""
    parts = [{part.strip() for part in value.split(separator)} - {""} for value in values]
    others = [one for one in parts if len(one) == 1 or separator in "|;"]
    return any(len(one) > 1 and any(one & other for other in others if other is not one) for one in parts)
