"""Subgroups from table columns: text as categories, numbers with many values in tertiles."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from lepton_vision.errors import EvaluationError

MOST_NUMBERS = 8  # a numeric column with more different values is cut into thirds
MOST_GROUPS = 30


def group_values(values: Sequence[Any], *, column: str) -> npt.NDArray[np.str_]:
    """Name the subgroup of each sample; "" where the value is unknown (None, NaN, blank).

    Raises:
        EvaluationError: more than 30 different texts, as in a column of ids.

    Example:
        >>> group_values(["F", None, "M"], column="sex").tolist()
        ['F', '', 'M']
        >>> group_values([1, 2, 3, 4, 5, 6, 7, 8, 9], column="age").tolist()[::4]
        ['< 3.67', '3.67 to 6.33', '>= 6.33']
    """
    plain = [None if _is_unknown(value) else value for value in values]
    known = [value for value in plain if value is not None]
    are_numbers = all(isinstance(value, int | float | np.number) and not isinstance(value, bool) for value in known)
    if known and are_numbers and len(set(known)) > MOST_NUMBERS:
        return _thirds(np.array([np.nan if value is None else float(value) for value in plain]))
    names = np.array(["" if value is None else _text(value) for value in plain], dtype=np.str_)
    count = np.unique(names[names != ""]).size
    if count > MOST_GROUPS:
        raise EvaluationError(
            f"Expected at most {MOST_GROUPS} different values in the column {column!r}. Received: {count}. Choose a "
            "column of groups, or join its values first.",
            key=column,
        )
    return names


def _thirds(values: npt.NDArray[np.float64]) -> npt.NDArray[np.str_]:
    known = ~np.isnan(values)
    low, high = np.quantile(values[known], [1 / 3, 2 / 3])
    names = np.array([f"< {low:.3g}", f"{low:.3g} to {high:.3g}", f">= {high:.3g}"])
    which = np.searchsorted([low, high], values, side="right").clip(0, 2)
    return np.where(known, names[which], "")


def _is_unknown(value: Any) -> bool:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return True
    return str(value).strip() in ("", "<NA>", "nan")


def _text(value: Any) -> str:
    """1.0 and 1 are one group."""
    return f"{value:g}" if isinstance(value, float | np.floating) else str(value).strip()
