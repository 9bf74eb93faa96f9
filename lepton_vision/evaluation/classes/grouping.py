"""Subgroups from table columns, text as categories and numbers in tertiles; strata of patients with similar labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from lepton_vision.errors import EvaluationError
from lepton_vision.evaluation.statistics.ranking import IntArray
from lepton_vision.types import FloatArray

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


def strata_of(truth: FloatArray, unit: IntArray, *, units: int, least: int = 10) -> IntArray:
    """Number the patients' sets of labels: (U,) from 0.

    Sets with fewer than ``least`` patients are joined with those of as many labels.

    Args:
        truth: (N,) or (N, K) labels; NaN is unknown.
        unit: (N,) patient of each sample.
        units: U.
        least: patients of a set of its own.

    Example:
        >>> strata_of(np.array([0.0, 1.0, 1.0, 0.0]), np.array([0, 0, 1, 2]), units=3, least=1).tolist()
        [2, 0, 1]
    """
    columns = truth.reshape(len(truth), -1)
    has = [
        np.bincount(unit[one == value], minlength=units) > 0
        for one in columns.T
        for value in np.unique(one[~np.isnan(one)])
    ]
    sets, which, counts = np.unique(np.stack(has, axis=1), axis=0, return_inverse=True, return_counts=True)
    joined = np.where(counts < least, len(sets) + sets.sum(axis=1), np.arange(len(sets)))
    strata: IntArray = np.unique(joined[which], return_inverse=True)[1]
    return strata


def number_strata(truth: FloatArray, unit: IntArray, *, units: int, least: int = 10) -> IntArray:
    """Number groups of patients with similar numbers, by their mean: (U,) from 0.

    Args:
        truth: (N,) numbers, without NaN.
        unit: (N,) patient of each sample.
        units: U.
        least: patients of a group; there are ten groups at most.

    Example:
        >>> number_strata(np.array([3.0, 30.0, 4.0, 50.0]), np.array([0, 1, 0, 2]), units=3, least=1).tolist()
        [0, 1, 2]
    """
    mean = np.bincount(unit, truth, units) / np.bincount(unit, minlength=units)
    groups = min(max(units // least, 1), 10)
    edges = np.quantile(mean, np.arange(1, groups) / groups)
    strata: IntArray = np.unique(np.searchsorted(edges, mean, side="right"), return_inverse=True)[1]
    return strata


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
