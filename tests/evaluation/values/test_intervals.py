"""Intervals of a number: the usual rule by hand, the promise by simulation, too few patients."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from lepton_vision.errors import EvaluationError
from lepton_vision.evaluation.classes.conformal import fit_set_rules
from lepton_vision.evaluation.statistics.intervals import Bootstrap
from lepton_vision.evaluation.values.intervals import value_intervals
from lepton_vision.predictions import Predictions
from lepton_vision.predictions.answer_sets import IntervalRule, SetRule, rule_from, value_interval
from lepton_vision.types import Target

AGE = Target("age", "regression", unit="years")


def predictions(
    truth: np.ndarray, value: np.ndarray, *, patient: np.ndarray | None = None, split: str = "val"
) -> Predictions:
    ids = np.array([f"i{k}" for k in range(len(truth))])
    who = ids if patient is None else patient
    return Predictions((AGE,), ids, who, who, {"age": truth}, {"age": value}, split=split)


def rule_of(made: Predictions, stated: float) -> IntervalRule:
    (rule,) = fit_set_rules(made, coverage=stated)["age"]
    assert isinstance(rule, IntervalRule)
    return rule


@pytest.mark.parametrize(("n", "stated"), [(9, 0.8), (19, 0.95), (50, 0.9), (101, 0.9)])
def test_with_one_image_for_a_patient_it_is_the_usual_rule(n: int, stated: float) -> None:
    rng = np.random.default_rng(n)
    truth, value = rng.normal(60, 10, n), rng.normal(60, 10, n)
    rule = rule_of(predictions(truth, value), stated)
    expected = sorted(abs(truth - value))[math.ceil(round((n + 1) * stated, 9)) - 1]  # Lei et al. 2018, algorithm 2
    assert (rule.stated, rule.half_width, rule.n_patients) == (stated, expected, n)


def test_too_few_patients_give_no_interval_and_say_so() -> None:
    eight = rule_of(predictions(np.arange(8.0), np.zeros(8)), 0.9)  # 8/9 < 0.9
    assert math.isnan(eight.half_width)
    assert np.isnan(value_interval(np.array([3.0]), eight)).all()
    later = predictions(np.arange(5.0), np.zeros(5), split="test")
    found = value_intervals(later, AGE, rules=(eight,), bootstrap=Bootstrap(100))
    assert found.coverage.reason == "validation has too few patients for this coverage"
    assert rule_of(predictions(np.arange(9.0), np.zeros(9)), 0.9).half_width == 8.0
    assert math.isnan(rule_of(predictions(np.full(9, np.nan), np.zeros(9)), 0.9).half_width)


def test_the_images_of_a_patient_share_one_vote() -> None:
    # patient a errs by 1 four times, b by 5, c by 8: weights 1/16 each, 1/4, 1/4; the unseen patient has the last one.
    truth, who = np.array([1.0, -1, 1, 1, 5, -8]), np.array(["a", "a", "a", "a", "b", "c"])
    for stated, half in ((0.25, 1.0), (0.5, 5.0), (0.75, 8.0)):
        assert rule_of(predictions(truth, np.zeros(6), patient=who), stated).half_width == half
    assert math.isnan(rule_of(predictions(truth, np.zeros(6), patient=who), 0.76).half_width)


@pytest.mark.parametrize("images", [1, 5])
def test_new_patients_are_covered_as_stated(images: int) -> None:
    rng = np.random.default_rng(0)

    def drawn(n: int, split: str) -> Predictions:
        error = rng.standard_t(4, size=(n, 1)) + 0.5 * rng.normal(size=(n, images))
        truth = np.repeat(rng.normal(60, 12, n), images)
        who = np.repeat(np.array([f"p{k:03}" for k in range(n)]), images)
        return predictions(truth, truth + error.ravel(), patient=who, split=split)

    covered = []
    for _ in range(150):
        rule = rule_of(drawn(60, "val"), 0.8)
        found = value_intervals(drawn(200, "test"), AGE, rules=(rule,), bootstrap=Bootstrap(100))
        covered.append(found.coverage.value)
    error = np.std(covered) / np.sqrt(len(covered))
    # promised: at least 0.8; at most 1 / (n + 1) above where no residuals are equal
    assert 0.8 - 3 * error < np.mean(covered) < 0.8 + 1 / 61 + 3 * error


def test_coverage_by_hand_counts_every_patient_once() -> None:
    truth, value = np.array([10.0, 10, 10, 10, 20, np.nan]), np.array([12.0, 13, 8, 12.5, 21, 3])
    who = np.array(["a", "a", "a", "a", "b", "c"])
    made = predictions(truth, value, patient=who, split="test")
    found = value_intervals(made, AGE, rules=(IntervalRule(0.9, 2.0, 40),), bootstrap=Bootstrap(200))
    assert found.coverage.value == 0.75  # a: two of four, ends counted in; b: one of one
    assert (found.n, found.coverage.n, found.n_validation, found.width) == (5, 5, 40, 4.0)


def test_rules_come_back_from_json_and_are_checked() -> None:
    for half in (2.5, 0.0, float("nan")):
        rule = IntervalRule(0.9, half, 60)
        back = rule_from(json.loads(json.dumps(rule.to_dict(), allow_nan=False)))
        assert isinstance(back, IntervalRule)
        assert (back.stated, back.n_patients) == (0.9, 60)
        np.testing.assert_equal(back.half_width, half)
    assert rule_from(SetRule(("no", "yes"), 0.9, (0.4, 0.2), (50, 40)).to_dict()).classes == ("no", "yes")
    for stated, half in ((1.0, 2.0), (0.9, -1.0), (0.9, float("inf"))):
        with pytest.raises(EvaluationError, match="half width"):
            IntervalRule(stated, half, 60)
    made = predictions(np.zeros(3), np.zeros(3), split="test")
    with pytest.raises(EvaluationError, match="the number 'age'"):
        value_intervals(made, AGE, rules=(SetRule(("a", "b"), 0.9, (0.1, 0.1), (9, 9)),), bootstrap=Bootstrap(100))
    with pytest.raises(EvaluationError, match="validation"):
        fit_set_rules(made)


def test_numbers_must_be_finite() -> None:
    for truth, value, match in (
        ([1.0, np.inf], [1.0, 2.0], "Labels of the regression target 'age' must be finite numbers"),
        ([1.0, 2.0], [1.0, -np.inf], "Values of 'age' must be finite.*-inf in row 1"),
        ([1.0, 2.0], [1.0, np.nan], "Every row needs a value of 'age'.*row 1"),
    ):
        with pytest.raises(EvaluationError, match=match):
            predictions(np.array(truth), np.array(value))
    assert predictions(np.array([-4.0, np.nan]), np.array([1e6, -3.5])).labelled(AGE).tolist() == [True, False]
