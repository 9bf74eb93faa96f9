"""Warnings about labels lost between the label table and the images."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


_LOGGER = logging.getLogger(__name__)


def describe_lost_rows(lost: Sequence[int], *, rows: int, near: Mapping[str, int], key: str) -> str:
    """Tell rows of the label table that matched no file, without their values; "" where there are none.

    Args:
        lost: their numbers, from 0.
        rows: rows of the label table.
        near: by what would have to be the same, how many of them would then name a file.
        key: column that joins.
    """
    if not lost:
        return ""
    shown = ", ".join(map(str, lost[:5])) + (" …" if len(lost) > 5 else "")
    return (
        f"{len(lost)} of {rows} rows of the label table match no file by the column {key!r}, so their labels are lost "
        f"(counted from 0: {shown}).{near_miss_hint(near)}"
    )


def near_miss_hint(near: Mapping[str, int]) -> str:
    """End of a message about rows that match no file: what would have to be the same."""
    return "".join(f" But for {what}, {count} of them would." for what, count in near.items() if count)


def warn_of_lost_labels(frame: pd.DataFrame, unnamed: frozenset[str], *, notes: Sequence[str]) -> tuple[str, ...]:
    """Note usable images without a row in the label table, and tell all that was lost in the join."""
    images = frame.loc[frame["status"] == "ok", "image_id"]
    count = int(images.isin(unnamed).sum()) if unnamed else 0
    if count:
        note = f"{count} of {len(images)} usable images have no row in the label table; their labels are unknown."
        notes = (*notes, note)
    for note in notes:
        _LOGGER.warning("%s", note)
    return tuple(notes)
