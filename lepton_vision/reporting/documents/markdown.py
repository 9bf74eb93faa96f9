"""Escaping of text for Markdown, so that no class name or answer becomes markup."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence


def plain(text: str) -> str:
    """Return a text in one line, in which nothing is markup."""
    return re.sub(r"([\\`*_\[\]|#~])", r"\\\1", " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;"))


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a table of plain texts."""
    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    return lines + ["| " + " | ".join(plain(cell) for cell in row) + " |" for row in rows]
