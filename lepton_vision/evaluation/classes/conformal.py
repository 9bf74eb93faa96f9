"""Prediction sets with stated coverage for each class (Mondrian conformal prediction).

Vovk, Gammerman and Shafer, Algorithmic Learning in a Random World, 2005, ch. 4; Sadinle, Lei and Wasserman, JASA
114:223, 2019. The images of a patient are no independent draws, the patients are: the images that a patient has of a
class share one unit of weight (hierarchical conformal prediction, Lee, Barber and Willett, arXiv:2306.06342). With one
image for a patient it is the usual rule. What is promised: for a new patient with that class, drawn as those of
validation were, the mean share of the patient's images whose set holds it is at least what was stated, on average over
validation sets. Validation also chose the epoch and the calibration, which costs some of the promise: look at the
coverage on test.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from lepton_vision.errors import EvaluationError
from lepton_vision.evaluation.choices.operating_point import refuse_test
from lepton_vision.evaluation.classes.analyses import ConformalSets
from lepton_vision.evaluation.classes.binary_views import binary_views
from lepton_vision.evaluation.classes.measures import unit_sums
from lepton_vision.evaluation.statistics.conformal_quantile import conformal_quantile
from lepton_vision.evaluation.statistics.intervals import Bootstrap, bootstrap_figures, patient_units
from lepton_vision.evaluation.statistics.ranking import BoolArray, IntArray, ratio
from lepton_vision.evaluation.values.intervals import fit_interval
from lepton_vision.predictions.answer_sets import Rule, SetRule, answer_sets
from lepton_vision.predictions.predictions import Predictions
from lepton_vision.types import Figure, FloatArray, Target


def fit_set_rules(predictions: Predictions, *, coverage: float = 0.9) -> dict[str, tuple[Rule, ...]]:
    """Choose for each class the probability from which it is in the set, and how far the interval of a number reaches.

    Args:
        predictions: of the validation split, or of an unknown split.
        coverage: share of the samples of each class whose set is to hold it, or of all whose interval is.

    Returns:
        By target name, one rule for a binary or multiclass target or a number, K for a multilabel one.

    Raises:
        EvaluationError: predictions of the test split, or a coverage outside (0, 1).

    Example:
        >>> target, ids = Target("covid", "binary", ("no", "yes")), np.array([f"i{k}" for k in range(9)])
        >>> prob = np.arange(1, 10) / 10
        >>> predictions = Predictions((target,), ids, ids, ids, {"covid": np.ones(9)}, {"covid": prob}, split="val")
        >>> fit_set_rules(predictions, coverage=0.8)["covid"][0].thresholds  # the 8th largest of 9: ceil(10 * 0.8)
        (0.0, 0.2)
    """
    refuse_test(predictions, what="A rule for sets of answers")
    if not 0.0 < coverage < 1.0:
        raise EvaluationError(
            f"Expected a coverage above 0 and below 1. Received: {coverage:g}.", key="conformal_coverage"
        )
    return {target.name: _rules(predictions, target, coverage=coverage) for target in predictions.targets}


def _rules(predictions: Predictions, target: Target, *, coverage: float) -> tuple[Rule, ...]:
    if target.is_value:
        return (fit_interval(predictions, target, coverage=coverage),)
    return tuple(one.rule(coverage) for one in _answers_of(predictions, target))


def conformal_sets(
    predictions: Predictions, target: Target, *, rules: tuple[Rule, ...], bootstrap: Bootstrap
) -> tuple[ConformalSets, ...]:
    """Measure on another split what rules of validation give, with intervals over patients.

    Raises:
        EvaluationError: rules for other answers than the target has.
    """
    asked, given = _answers_of(predictions, target), [rule for rule in rules if isinstance(rule, SetRule)]
    if [rule.classes for rule in given] != [one.classes for one in asked]:
        raise EvaluationError(
            f"Expected set rules for the answers of {target.name!r}. Received: those of another target.",
            key=target.name,
        )
    return tuple(_measured(one, rule, bootstrap) for one, rule in zip(asked, given, strict=True))


class _Answers:
    """Samples with a known answer.

    Args:
        class_name: of a multilabel target, "" otherwise.
        classes: K answers.
        truth: (N,) index of the true one.
        prob: (N, K) float64.
        unit: (N,) patient.
        units: U.
    """

    def __init__(
        self,
        class_name: str,
        classes: tuple[str, ...],
        *,
        truth: IntArray,
        prob: FloatArray,
        unit: IntArray,
        units: int,
    ) -> None:
        self.class_name, self.classes, self.truth, self.prob = class_name, classes, truth, prob
        self.unit, self.units = unit, units

    def rule(self, coverage: float) -> SetRule:
        """Lowest probability of each class among the ``coverage`` of its patients, one unseen patient counted in."""
        thresholds, counts = [], []
        for k in range(len(self.classes)):
            rows = self.truth == k
            score, patients = conformal_quantile(-self.prob[rows, k], self.unit[rows], coverage=coverage)
            thresholds.append(0.0 if np.isnan(score) else -score)
            counts.append(patients)
        return SetRule(self.classes, coverage, tuple(thresholds), tuple(counts))


def _answers_of(predictions: Predictions, target: Target) -> tuple[_Answers, ...]:
    if target.is_exclusive:
        part = predictions.select(predictions.labelled(target))
        unit, units = patient_units(part.patient_id)
        truth = part.y_true[target.name].astype(np.intp)
        return (_Answers("", target.classes, truth=truth, prob=part.y_prob[target.name], unit=unit, units=units),)
    is_binary, found = target.is_binary, []
    for one in binary_views(predictions, target):
        prob = np.column_stack([1.0 - one.prob, one.prob])
        name, classes = ("", target.classes) if is_binary else (one.class_name, ("absent", "present"))
        truth = one.is_positive.astype(np.intp)
        found.append(_Answers(name, classes, truth=truth, prob=prob, unit=one.unit, units=one.units))
    return tuple(found)


def _measured(asked: _Answers, rule: SetRule, bootstrap: Bootstrap) -> ConformalSets:
    figures = bootstrap_figures(_Measures(asked, rule), bootstrap)
    return ConformalSets(
        class_name=asked.class_name,
        classes=rule.classes,
        stated=rule.stated,
        thresholds=rule.thresholds,
        n_validation=rule.n_patients,
        n=int(asked.truth.size),
        coverage=_coverage(figures, rule.classes),
        mean_size=figures["mean_size"],
        sizes=tuple(figures[f"size_{k}"] for k in range(len(rule.classes) + 1)),
    )


def _coverage(figures: Mapping[str, Figure], classes: tuple[str, ...]) -> dict[str, Figure]:
    return {name: figures[f"coverage_{k}"] for k, name in enumerate(classes)}


class _Measures:
    """``coverage_0`` … by class, ``mean_size``, ``size_0`` … ``size_K``."""

    def __init__(self, asked: _Answers, rule: SetRule) -> None:
        self.n, self.units, self._k = int(asked.truth.size), asked.units, len(rule.classes)
        sets = answer_sets(asked.prob, rule)
        self._is_class = asked.truth[:, None] == np.arange(self._k)
        self._unit = asked.unit
        of_class = unit_sums(self._is_class.astype(np.float64), asked.unit, units=asked.units)
        covered = unit_sums((self._is_class & sets).astype(np.float64), asked.unit, units=asked.units)
        self._covered, self._present = np.nan_to_num(ratio(covered, of_class)), (of_class > 0).astype(np.float64)
        size = sets.sum(axis=1)[:, None] == np.arange(self._k + 1)
        self._sizes = unit_sums(size.astype(np.float64), asked.unit, units=asked.units)

    def values(self, counts: FloatArray) -> dict[str, FloatArray]:
        """Figures by name, (R,) each."""
        coverage, sizes = ratio(counts @ self._covered, counts @ self._present), counts @ self._sizes
        n = sizes.sum(axis=1)
        figures = {f"coverage_{k}": coverage[:, k] for k in range(self._k)}
        figures["mean_size"] = ratio(sizes @ np.arange(self._k + 1.0), n)
        return figures | {f"size_{k}": ratio(sizes[:, k], n) for k in range(self._k + 1)}

    def size(self, name: str) -> int:
        """Samples of the class for its coverage, all labelled ones otherwise."""
        return int(self._of(name).sum())

    def denominator_units(self, name: str) -> int | None:
        """Patients in the denominator of a share."""
        return None if name == "mean_size" else int(np.unique(self._unit[self._of(name)]).size)

    def reason(self, name: str) -> str:
        """Why a figure is undefined."""
        return "no sample of this class" if name.startswith("coverage_") and self.n else "no labelled sample"

    def _of(self, name: str) -> BoolArray:
        kind, _, k = name.rpartition("_")
        return self._is_class[:, int(k)] if kind == "coverage" else np.ones(self.n, dtype=np.bool_)
