"""Figures of one structure over many cases under many patient weightings at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from lepton_vision.evaluation.classes.measures import unit_sums
from lepton_vision.evaluation.masks.case import MaskFigures, Status
from lepton_vision.evaluation.statistics.ranking import IntArray, ratio
from lepton_vision.types import FloatArray

# How each figure sums up its cases; "pooled" divides sums over all cases.
STATISTICS: Mapping[str, str] = {
    "dice": "mean",
    "iou": "mean",
    "hd95_mm": "median",
    "hd95_mm_mean": "mean",
    "surface_dice": "mean",
    "surface_dice_area": "mean",
    "sensitivity": "mean",
    "precision": "mean",
    "volume_error_ml": "mean",
    "absolute_volume_error_ml": "mean",
    "missed_rate": "share of cases with the structure",
    "false_positive_rate": "share of cases without the structure",
    "lesion_sensitivity": "pooled",
    "lesion_precision": "pooled",
    "false_lesions_per_case": "mean",
}
_SOURCE = {"hd95_mm_mean": "hd95_mm", "absolute_volume_error_ml": "volume_error_ml"}
_MEANS = tuple(name for name in list(STATISTICS)[:10] if name != "hd95_mm")
_PROPORTIONS = ("missed_rate", "false_positive_rate", "lesion_sensitivity", "lesion_precision")
_EMPTY = {
    "missed_rate": "no case with the structure",
    "false_positive_rate": "no case without the structure",
    "lesion_sensitivity": "no lesion in the truth",
    "lesion_precision": "no predicted lesion",
}


class MaskMeasures:
    """Figures of one structure; a case that leaves a figure undefined is not in it.

    Args:
        rows: N cases; all with lesion counts, or none.
        unit: (N,) patient of each case, 0 … U-1.
        units: U.
    """

    def __init__(self, rows: Sequence[MaskFigures], *, unit: IntArray, units: int) -> None:
        self.units, self.n, self._rows, self._unit = units, len(rows), rows, unit
        values = {name: self._column(name) for name in _MEANS if name != "surface_dice_area" or self._has_area()}
        self._parts = {name: (np.nan_to_num(value), ~np.isnan(value) * 1.0) for name, value in values.items()}
        self._parts |= self._rates() | self._lesion_counts()
        self._sums = {name: unit_sums(np.column_stack(parts), unit, units=units) for name, parts in self._parts.items()}
        hd95 = self._column("hd95_mm")
        order = np.argsort(hd95, kind="stable")[: int((~np.isnan(hd95)).sum())]  # NaN is last
        self._sorted, self._sorted_unit = hd95[order], unit[order]

    def _has_area(self) -> bool:
        return any(row.surface_dice_area is not None for row in self._rows)

    def _column(self, name: str) -> FloatArray:
        value = np.array([getattr(row, _SOURCE.get(name, name)) for row in self._rows], dtype=np.float64)
        return np.abs(value) if name == "absolute_volume_error_ml" else value

    def _rates(self) -> dict[str, tuple[FloatArray, FloatArray]]:
        def marked(*statuses: Status) -> FloatArray:
            return np.array([row.status in statuses for row in self._rows], dtype=np.float64)

        return {
            "missed_rate": (marked("missed"), marked("missed", "present")),
            "false_positive_rate": (marked("false_positive"), marked("false_positive", "absent")),
        }

    def _lesion_counts(self) -> dict[str, tuple[FloatArray, FloatArray]]:
        counts = [row.lesions for row in self._rows if row.lesions is not None]
        if not counts:
            return {}
        lesions, found, candidates, false = np.array(counts, dtype=np.float64).T
        return {
            "lesion_sensitivity": (found, lesions),
            "lesion_precision": (candidates - false, candidates),
            "false_lesions_per_case": (false, np.ones(self.n)),
        }

    def values(self, counts: FloatArray) -> dict[str, FloatArray]:
        """Figures by name, (R,) each."""
        figures = {}
        for name in STATISTICS:
            if name in self._sums:
                part, whole = (counts @ self._sums[name]).T
                figures[name] = ratio(part, whole)
            elif name == "hd95_mm":
                figures[name] = self._medians(counts)
        return figures

    def _medians(self, counts: FloatArray) -> FloatArray:
        """Median of the sorted distances, each taken as often as its patient stands in the replicate."""
        result = np.full(len(counts), np.nan)
        if not self._sorted.size:
            return result
        cumulated = np.cumsum(counts.take(self._sorted_unit, axis=1), axis=1)
        total = cumulated[:, -1]
        is_any = total > 0
        for_half = [np.floor((total - 1) / 2), np.floor(total / 2)]  # the two middle ranks, from 0; equal where odd
        ranks = [(cumulated <= rank[:, None]).sum(axis=1) for rank in for_half]
        middle = [self._sorted[np.minimum(rank, self._sorted.size - 1)] for rank in ranks]
        result[is_any] = (middle[0][is_any] + middle[1][is_any]) / 2
        return result

    def size(self, name: str) -> int:
        """Cases (for pooled lesion figures: lesions or candidates) behind a figure."""
        return int(self._sorted.size if name == "hd95_mm" else self._parts[name][1].sum())

    def denominator_units(self, name: str) -> int | None:
        """Patients in the denominator of a proportion."""
        return int(np.unique(self._unit[self._parts[name][1] > 0]).size) if name in _PROPORTIONS else None

    def undefined(self, name: str) -> dict[str, int]:
        """Count the cases that leave a figure undefined, by reason; none for rates and lesion counts."""
        source = _SOURCE.get(name, name)
        return dict(Counter(row.reasons[source] for row in self._rows if source in row.reasons))

    def reason(self, name: str) -> str:
        """Why a figure is undefined in every case."""
        if name in _EMPTY:
            return _EMPTY[name]
        reasons = Counter(self.undefined(name)).most_common()
        return "; ".join(f"{reason} ({count} cases)" for reason, count in reasons) or "no case"
