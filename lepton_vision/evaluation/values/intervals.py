"""Intervals of predicted numbers with stated coverage (split conformal prediction).

Lei, G'Sell, Rinaldo, Tibshirani and Wasserman, JASA 113:1094, 2018: absolute residuals of validation. The images of a
patient share one unit of weight, as for sets of classes (``classes.conformal``). What is promised: for a new patient,
drawn as those of validation were, the mean share of the patient's images whose interval holds the true value is at
least what was stated, on average over validation sets. The interval is equally wide everywhere: where the model errs
more for some patients than for others, it covers the former less.
"""

from __future__ import annotations

import numpy as np

from lepton_vision.errors import EvaluationError
from lepton_vision.evaluation.classes.analyses import ValueIntervals
from lepton_vision.evaluation.statistics.conformal_quantile import conformal_quantile
from lepton_vision.evaluation.statistics.intervals import Bootstrap, bootstrap_figures, patient_units
from lepton_vision.evaluation.statistics.ranking import BoolArray, IntArray
from lepton_vision.predictions.answer_sets import IntervalRule, Rule, value_interval
from lepton_vision.predictions.predictions import Predictions
from lepton_vision.types import FloatArray, Target


def fit_interval(predictions: Predictions, target: Target, *, coverage: float) -> IntervalRule:
    """Choose how far the interval of a number reaches, on validation."""
    part = predictions.select(predictions.labelled(target))
    residuals = np.abs(part.y_true[target.name] - part.y_prob[target.name])
    half_width, patients = conformal_quantile(residuals, patient_units(part.patient_id)[0], coverage=coverage)
    return IntervalRule(coverage, half_width, patients)


def value_intervals(
    predictions: Predictions, target: Target, *, rules: tuple[Rule, ...], bootstrap: Bootstrap
) -> ValueIntervals:
    """Measure on another split what the rule of validation gives, with an interval over patients.

    Raises:
        EvaluationError: a rule for something else than a number.
    """
    rule = rules[0] if len(rules) == 1 else None
    if not isinstance(rule, IntervalRule):
        raise EvaluationError(
            f"Expected one rule for the interval of the number {target.name!r}. Received: rules of another target.",
            key=target.name,
        )
    part = predictions.select(predictions.labelled(target))
    low, high = value_interval(part.y_prob[target.name], rule)
    truth = part.y_true[target.name]
    unit, units = patient_units(part.patient_id)
    has_end = not np.isnan(rule.half_width)
    coverage = _Coverage((low <= truth) & (truth <= high), unit, units=units, has_end=has_end)
    return ValueIntervals(
        stated=rule.stated,
        half_width=rule.half_width,
        n_validation=rule.n_patients,
        n=part.n,
        coverage=bootstrap_figures(coverage, bootstrap)["coverage"],
    )


class _Coverage:
    """``coverage``: mean over the patients of the share of their images whose interval holds the true value."""

    def __init__(self, is_held: BoolArray, unit: IntArray, *, units: int, has_end: bool) -> None:
        self.n, self.units, self._has_end = int(is_held.size), units, has_end
        images = np.bincount(unit, minlength=units)
        self._share = np.bincount(unit, weights=is_held, minlength=units) / images

    def values(self, counts: FloatArray) -> dict[str, FloatArray]:
        """The share, (R,)."""
        n = counts.sum(axis=1)
        blank = np.full(len(counts), np.nan)
        return {"coverage": counts @ self._share / n if self._has_end and self.n else blank}

    def size(self, name: str) -> int:
        """All labelled samples."""
        return self.n

    def denominator_units(self, name: str) -> int | None:
        """All patients."""
        return self.units

    def reason(self, name: str) -> str:
        """Why it is undefined."""
        return "no labelled sample" if self._has_end else "validation has too few patients for this coverage"
