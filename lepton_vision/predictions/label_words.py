"""Words of label cells as numbers, and what a message says of words that are none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from shlex import quote
from typing import Any

from lepton_vision.types import Target
from lepton_vision.types.words import is_unknown

TRUTH: dict[str, int] = {"true": 1, "false": 0}  # as pandas writes booleans


def words_of(target: Target) -> Mapping[str, int]:
    """Texts that are labels of a target, as numbers."""
    if target.is_value:
        return {}
    classes = {name: k for k, name in enumerate(target.classes)}
    return classes if target.is_exclusive else TRUTH | classes if target.is_binary else TRUTH


def label_of(value: str, words: Mapping[str, int]) -> str | int:
    """A number as it stands, a known word as its number; a class whose name is a number is meant by its index."""
    text = value.strip()
    is_number = text.replace(".", "", 1).isdigit()
    return text if is_number else words.get(text, words.get(text.lower(), text))


def expected_labels(target: Target | None, values: Sequence[Any]) -> str:
    """End of a message about text in a column: what it may hold, and how to name two words in it as classes."""
    if target is None or target.is_value:
        return "Numbers have a decimal point and no unit, and a cell is empty where unknown."
    texts = {str(value).strip() for value in values if value is not None and not is_unknown(str(value))}
    is_plain = all(text.strip("0123456789.") and not set(text) & set("+,:=") for text in texts)
    if target.is_exclusive or (target.is_binary and target.classes != ("0", "1")):
        numbers = "0 and 1" if target.is_binary else "a class index"
        return f"Labels are {numbers} or the name of a class: {', '.join(target.classes)}; empty where unknown."
    if not target.is_binary or len(texts) != 2 or not is_plain:
        return "Labels are 0 and 1, empty where unknown."
    name = "" if target.name == "y" else f"{target.name}:"
    ways = [quote(f"{name}kind=binary,classes={'+'.join(pair)}") for pair in (sorted(texts), sorted(texts)[::-1])]
    return f"If its words are the classes, name them, the negative one first: --target {ways[0]} or --target {ways[1]}."
