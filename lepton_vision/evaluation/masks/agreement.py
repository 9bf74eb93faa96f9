"""Agreement between the heads of a joint model: the label, and the mask of the structure that explains it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from lepton_vision.config.sections import EvaluationConfig
from lepton_vision.errors import EvaluationError
from lepton_vision.evaluation.classes.measures import unit_sums
from lepton_vision.evaluation.masks.surfaces import BoolArray
from lepton_vision.evaluation.statistics.intervals import Bootstrap, bootstrap_figures, patient_units
from lepton_vision.evaluation.statistics.ranking import IntArray, ratio
from lepton_vision.types import Figure, FloatArray, Result, Table, figures_table
from lepton_vision.types.figure import FigureSpec

CELLS = ("positive_mask", "positive_empty", "negative_mask", "negative_empty")
"""Cells of a cross table: what the label says, then what the mask says."""

AGREEMENT: tuple[FigureSpec, ...] = tuple(
    FigureSpec(name, title, meaning, kinds=(), group="agreement")
    for name, title, meaning in (
        ("agreement", "Label and mask agree", "Share of the cases: positive with a mask, or negative without one."),
        ("mask_if_positive", "A mask under a positive label", "Share of the cases called positive."),
        ("empty_if_negative", "No mask under a negative label", "Share of the cases called negative."),
        (
            "true_agreement",
            "Label and true mask agree",
            "The same against the truth: how often the label is correct.",
        ),
        ("true_mask_if_positive", "A true mask under a positive label", "Share of the cases called positive."),
        ("true_empty_if_negative", "No true mask under a negative label", "Share of the cases called negative."),
    )
)
_NO_CASE = {
    "agreement": "no case",
    "mask_if_positive": "no positive label",
    "empty_if_negative": "no negative label",
}


@dataclass(frozen=True, eq=False)
class HeadAgreement(Result):
    """Result of ``agree_heads``.

    Attributes:
        figures: ``agreement`` (share of the cases in which label and mask say the same), ``mask_if_positive``,
            ``empty_if_negative``; the same with ``true_`` before the name against the true mask.
        tables: "predicted" and, where true areas were given, "true": counts by ``CELLS``.
        n: cases with a label and a predicted mask.
        n_patients: patients among them.
        n_unknown: cases without a probability or without a predicted mask (NaN), in nothing above.
        threshold: from which probability on the label is positive.
        min_area: above which area a mask counts as there.
        confidence: of the intervals.
        provenance: method and number of the replicates, seed.
    """

    figures: Mapping[str, Figure]
    tables: Mapping[str, Mapping[str, int]]
    n: int
    n_patients: int
    n_unknown: int
    threshold: float
    min_area: float
    confidence: float = 0.95
    provenance: Mapping[str, Any] = field(default_factory=dict)
    _json = (
        *("n", "n_patients", "n_unknown", "threshold", "min_area", "confidence"),
        *("figures", "tables", "provenance"),
    )

    def _tables(self) -> tuple[Table, ...]:
        caption = f"Label and mask · {self.n} cases of {self.n_patients} patients · {self.confidence:.0%} intervals"
        return (figures_table(caption, self.figures),)


def agree_heads(
    probability: FloatArray,
    predicted_area: FloatArray,
    *,
    threshold: float,
    true_area: FloatArray | None = None,
    patient_id: npt.NDArray[np.str_] | None = None,
    min_area: float = 0.0,
    config: EvaluationConfig | None = None,
) -> HeadAgreement:
    """Compare the decision for a binary target with the mask of the structure that explains it.

    A positive label without a mask, or a mask under a negative label, is a contradiction that a reader of the results
    will see. Intervals come from a bootstrap that resamples patients (``intervals.bootstrap_figures``).

    Args:
        probability: (N,) float in [0, 1] of the positive class, or decisions 0 and 1; NaN is unknown.
        predicted_area: (N,) float, 0 or more, of the predicted mask in any unit (pixels, mm², ml); NaN where there is
            no mask. Unknown is not empty.
        threshold: of the operating point; positive means probability >= threshold.
        true_area: (N,) float in the same unit, of the true mask; NaN where it is unknown.
        patient_id: (N,) str, "" where unknown; None takes each case for a patient of its own.
        min_area: a mask is there where its area is above this.
        config: replicates, confidence and seed.

    Raises:
        EvaluationError: lengths that differ, a probability outside [0, 1], an area below 0, a threshold that is none,
            or no case in which both are known.

    Example:
        >>> found = agree_heads(np.array([0.9, 0.8, 0.1, 0.2]), np.array([12.0, 0.0, 0.0, 3.0]), threshold=0.5)
        >>> found.figures["agreement"].value, dict(found.tables["predicted"])["positive_empty"]
        (0.5, 1)
    """
    settings = config or EvaluationConfig()
    label, areas = _check_heads(probability, predicted_area, true_area, threshold=threshold, min_area=min_area)
    patients = np.full(label.size, "", np.str_) if patient_id is None else np.asarray(patient_id, np.str_)
    _check_length(patients, label.size, key="patient_id")
    is_known = ~np.isnan(label) & ~np.isnan(areas["predicted"])
    if not is_known.any():
        raise EvaluationError(
            f"Expected at least one case with a label and a mask. Received: {label.size} cases, none with both.",
            key="predicted_area",
        )
    unit, units = patient_units(patients[is_known])
    is_positive = label[is_known] >= threshold
    masks = {name: _known_masks(area[is_known], min_area=min_area) for name, area in areas.items()}
    measures = _AgreementMeasures(is_positive, masks, unit=unit, units=units)
    bootstrap = Bootstrap.of(settings)
    return HeadAgreement(
        figures=bootstrap_figures(measures, bootstrap),
        tables={name: _count_cells(is_positive, mask) for name, mask in masks.items()},
        n=int(is_known.sum()),
        n_patients=units,
        n_unknown=int((~is_known).sum()),
        threshold=threshold,
        min_area=min_area,
        confidence=settings.confidence,
        provenance=bootstrap_facts(settings),
    )


def _check_heads(
    probability: FloatArray,
    predicted_area: FloatArray,
    true_area: FloatArray | None,
    *,
    threshold: float,
    min_area: float,
) -> tuple[FloatArray, dict[str, FloatArray]]:
    label = np.asarray(probability, dtype=np.float64)
    areas = {"predicted": np.asarray(predicted_area, dtype=np.float64)}
    if true_area is not None:
        areas["true"] = np.asarray(true_area, dtype=np.float64)
    _check_length(label, label.size, key="probability")
    if ((label < 0.0) | (label > 1.0)).any():
        raise EvaluationError("A probability must lie in [0, 1]. Received: values outside.", key="probability")
    if not 0.0 <= threshold <= 1.0:
        raise EvaluationError(f"Expected a threshold from 0 to 1. Received: {threshold:g}.", key="threshold")
    if not (np.isfinite(min_area) and min_area >= 0.0):
        raise EvaluationError(f"Expected min_area of 0 or more. Received: {min_area:g}.", key="min_area")
    for name, area in areas.items():
        _check_length(area, label.size, key=f"{name}_area")
        if ((area < 0.0) | np.isinf(area)).any():
            raise EvaluationError("An area is a finite number of 0 or more. Received: others.", key=f"{name}_area")
    return label, areas


def _check_length(values: npt.NDArray[Any], n: int, *, key: str) -> None:
    if values.shape != (n,):
        raise EvaluationError(f"Expected shape ({n},). Received: {values.shape}.", key=key)


def _known_masks(area: FloatArray, *, min_area: float) -> FloatArray:
    """1 where a mask is there, 0 where it is empty, NaN where it is unknown."""
    return np.where(np.isnan(area), np.nan, (area > min_area).astype(np.float64))


def _count_cells(is_positive: BoolArray, mask: FloatArray) -> dict[str, int]:
    counts = (is_positive & (mask == 1), is_positive & (mask == 0), ~is_positive & (mask == 1),
              ~is_positive & (mask == 0))  # fmt: skip
    return {name: int(np.count_nonzero(found)) for name, found in zip(CELLS, counts, strict=True)}


class Shares:
    """Shares with a numerator and a denominator by case, for many weightings of the patients at once."""

    def __init__(
        self, parts: Mapping[str, tuple[FloatArray, FloatArray]], *, unit: IntArray, units: int, n: int
    ) -> None:
        self.units, self.n, self._parts, self._unit = units, n, parts, unit
        self._sums = {name: unit_sums(np.column_stack(part), unit, units=units) for name, part in parts.items()}

    def values(self, counts: FloatArray) -> dict[str, FloatArray]:
        """Figures by name, (R,) each."""
        return {name: ratio(*(counts @ sums).T) for name, sums in self._sums.items()}

    def size(self, name: str) -> int:
        """Cases in the denominator."""
        return int(self._parts[name][1].sum())

    def denominator_units(self, name: str) -> int | None:
        """Patients in the denominator."""
        return int(np.unique(self._unit[self._parts[name][1] > 0]).size)

    def reason(self, name: str) -> str:
        """Why there is no figure."""
        return _NO_CASE.get(name.removeprefix("true_"), "no case")


class _AgreementMeasures(Shares):
    def __init__(self, is_positive: BoolArray, masks: Mapping[str, FloatArray], *, unit: IntArray, units: int) -> None:
        parts = {}
        for table, mask in masks.items():
            prefix = "" if table == "predicted" else "true_"
            is_known = ~np.isnan(mask)
            is_same = (mask == 1) == is_positive
            for name, within in (
                ("agreement", is_known),
                ("mask_if_positive", is_known & is_positive),
                ("empty_if_negative", is_known & ~is_positive),
            ):
                parts[prefix + name] = ((is_same & within).astype(np.float64), within.astype(np.float64))
        super().__init__(parts, unit=unit, units=units, n=is_positive.size)


def bootstrap_facts(settings: EvaluationConfig) -> dict[str, Any]:
    """Return how the intervals were made, for a provenance."""
    return {
        "intervals": Bootstrap.of(settings).name,
        "replicates": settings.replicates,
        "seed": settings.seed,
    }
