"""Descriptions of the columns of tables."""

from __future__ import annotations

from typing import NamedTuple


class Column(NamedTuple):
    """Description of a column: its name, when a cell of it is filled, its unit, and its meaning.

    Parts of a name in angle brackets stand for names of targets, classes and structures.
    """

    name: str
    filled: str
    unit: str
    meaning: str
