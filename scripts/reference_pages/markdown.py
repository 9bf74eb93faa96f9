"""Markdown out of docstrings and tables."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import Any

NOTE = "<!-- Made by scripts/reference.py from the code: change the code, then run it again. -->"
_CODE = re.compile(r"``(.+?)``|`([^`]+)`", re.DOTALL)


def page(title: str, *parts: str) -> str:
    """A page: its title, the note that it is made, and its parts with an empty line between them."""
    return "\n\n".join([f"# {title}", NOTE, *(part.strip("\n") for part in parts if part)]) + "\n"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; columns that are empty in all rows are left out."""
    body = [[str(cell) for cell in row] for row in rows]
    kept = [k for k in range(len(head)) if any(row[k] for row in body)]
    lines = [[head[k] for k in kept], ["---"] * len(kept), *([row[k] for k in kept] for row in body)]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def prose(text: str) -> str:
    """Text of a docstring as Markdown: what stands in backticks stays as it is, signs elsewhere are no markup."""
    shown, last = [], 0
    for found in _CODE.finditer(text):
        shown += [_plain(text[last : found.start()]), f"`{found[1] or found[2]}`"]
        last = found.end()
    return " ".join("".join([*shown, _plain(text[last:])]).split())


def _plain(text: str) -> str:
    text = re.sub(r"(?<!\w)(--[a-z][\w-]*)", r"`\1`", text)  # two hyphens would become a dash
    return re.sub(r"(<(?=[a-z/!])|\*(?=\S)|(?<!\w)_(?=\w))", r"\\\1", text)


def code(value: object) -> str:
    """A value in backticks; nothing where there is none."""
    return f"`{value}`" if str(value) else ""


def first_line(described: object) -> str:
    """First sentence of a docstring."""
    return (inspect.getdoc(described) or "").split("\n", 1)[0]


def attributes(described: type) -> list[tuple[str, str, str]]:
    """Name, type and description of each field of a dataclass, as ``Attributes`` of its docstring has them."""
    rows = []
    for one in fields(described):
        said = re.search(rf"^ *{one.name}: (.+(?:\n {{12,}}.+)*)", described.__doc__ or "", re.MULTILINE)
        if said is not None:
            rows.append((code(one.name), _type(one.type), prose(said[1])))
    return rows


_WORDS = {
    r"tuple\[(.+), \.\.\.\]": r"list of \1",
    r"Mapping\[str, (.+)\]": r"mapping to \1",
    r"Literal\['platt', 'isotonic'\]|\bstr\b|\bStatus\b|\bUnit\b": "text",
    r"\bfloat\b": "number",
    r"\bint\b": "whole number",
    r"\bFeatures\b": "array",
    r"PointFigures|Platt \| Isotonic": "mappings",
    r" \| None": " or null",
}


def _type(annotation: Any) -> str:
    """A type annotation in words, as JSON and tables have it."""
    words = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", str(annotation))
    for pattern, word in (*_WORDS.items(), *_WORDS.items()):  # twice, for what stands within
        words = re.sub(pattern, word, words)
    return words.replace("list of list of", "lists of").replace("list of whole number", "list of whole numbers")
