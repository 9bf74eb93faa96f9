"""Figures of one structure over many cases under many patient weightings at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lepton_vision.evaluation.classes.measures import unit_sums
from lepton_vision.evaluation.masks.case import MaskFigures, Status
from lepton_vision.evaluation.statistics.ranking import IntArray, ratio
from lepton_vision.types import FloatArray
from lepton_vision.types.figure import FigureSpec


@dataclass(frozen=True, slots=True)
class MaskFigure:
    """One figure of masks.

    Attributes:
        spec: what it is; of no kind of target.
        statistic: how it sums up its cases; "pooled" divides sums over all cases.
        source: figure of a case that it is made of, where that has another name.
        empty: of shares of cases and lesions, why it is undefined.
    """

    spec: FigureSpec
    statistic: str = "mean"
    source: str = ""
    empty: str = ""


_OVERLAP: dict[str, Any] = {"kinds": (), "group": "overlap"}
_SURFACE: dict[str, Any] = {"kinds": (), "group": "surfaces"}
_VOLUME: dict[str, Any] = {"kinds": (), "group": "volume", "scale": "number"}
_PRESENCE: dict[str, Any] = {"kinds": (), "group": "presence", "scale": "number", "better": "lower"}
_LESIONS: dict[str, Any] = {"kinds": (), "group": "lesions"}
_ERROR: dict[str, Any] = {"scale": "number", "better": "lower"}
MASK_FIGURES: tuple[MaskFigure, ...] = (
    MaskFigure(FigureSpec(
        "dice", "Dice", "Overlap of truth and prediction: twice the shared voxels over all voxels of both.", **_OVERLAP,
    )),
    MaskFigure(FigureSpec("iou", "IoU", "Shared voxels over the voxels of either mask (Jaccard).", **_OVERLAP)),
    MaskFigure(FigureSpec(
        "hd95_mm", "HD95 [mm]",
        "Distance that 95 % of the surface lies within; 0 is perfect. Larger direction, as in MONAI; MedPy pools both.",
        **_SURFACE | _ERROR,
    ), "median"),
    MaskFigure(FigureSpec(
        "hd95_mm_mean", "HD95, mean [mm]", "The same; one case far off weighs more here.", **_SURFACE | _ERROR,
    ), source="hd95_mm"),
    MaskFigure(FigureSpec(
        "surface_dice", "Surface Dice",
        "Share of both surfaces within the tolerance of each other: of voxels, as in MONAI; DeepMind's is of area.",
        **_SURFACE,
    )),
    MaskFigure(FigureSpec(
        "surface_dice_area", "Surface Dice by area",
        "Share of the area of both surfaces within the tolerance of each other: DeepMind's rule, within 0.01 of it.",
        **_SURFACE,
    )),
    MaskFigure(FigureSpec(
        "sensitivity", "Sensitivity (voxels)", "Share of the true voxels that are predicted.", **_OVERLAP,
    )),
    MaskFigure(FigureSpec(
        "precision", "Precision (voxels)", "Share of the predicted voxels that are true.", **_OVERLAP,
    )),
    MaskFigure(FigureSpec(
        "volume_error_ml", "Volume error [ml]", "Prediction minus truth; above 0 is too large.", "neither", **_VOLUME,
    )),
    MaskFigure(FigureSpec(
        "absolute_volume_error_ml", "Volume error, absolute [ml]", "Its size, whichever the direction.", "lower",
        **_VOLUME,
    ), source="volume_error_ml"),
    MaskFigure(FigureSpec(
        "missed_rate", "Missed cases", "Share of the cases with the structure where nothing was predicted; 0 is best.",
        **_PRESENCE,
    ), "share of cases with the structure", empty="no case with the structure"),
    MaskFigure(FigureSpec(
        "false_positive_rate", "False positive cases",
        "Share of the cases without the structure where some was predicted; 0 is best.", **_PRESENCE,
    ), "share of cases without the structure", empty="no case without the structure"),
    MaskFigure(FigureSpec(
        "lesion_sensitivity", "Lesion sensitivity", "Share of the true lesions that a predicted one hits.", **_LESIONS,
    ), "pooled", empty="no lesion in the truth"),
    MaskFigure(FigureSpec(
        "lesion_precision", "Lesion precision", "Share of the predicted lesions that hit a true one.", **_LESIONS,
    ), "pooled", empty="no predicted lesion"),
    MaskFigure(FigureSpec(
        "false_lesions_per_case", "False lesions per case", "Predicted lesions that hit none.", **_LESIONS | _ERROR,
    )),
)  # fmt: skip
MASK_SPECS: Mapping[str, FigureSpec] = {one.spec.name: one.spec for one in MASK_FIGURES}
STATISTICS: Mapping[str, str] = {one.spec.name: one.statistic for one in MASK_FIGURES}
_SOURCE = {one.spec.name: one.source for one in MASK_FIGURES if one.source}
_EMPTY = {one.spec.name: one.empty for one in MASK_FIGURES if one.empty}
_MEANS = tuple(k for k, spec in MASK_SPECS.items() if STATISTICS[k] == "mean" and spec.group != "lesions")


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
        return int(np.unique(self._unit[self._parts[name][1] > 0]).size) if name in _EMPTY else None

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
