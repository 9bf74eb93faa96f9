"""Curves against scikit-learn and against hand counts."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn import metrics

from lepton_vision.evaluation.classes.curves import LARGEST_CURVE, class_curves, equal_mass_bins


def sample(n: int, decimals: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 2, n).astype(bool)
    return truth, np.round((rng.random(n) + 0.5 * truth) / 1.5, decimals)


@pytest.mark.parametrize("decimals", [1, 2, 12])
def test_roc_is_scikit_learns(decimals: int) -> None:
    truth, prob = sample(150, decimals)
    roc = class_curves(truth, prob, class_name="x").roc
    assert roc is not None
    fpr, tpr, threshold = metrics.roc_curve(truth, prob, drop_intermediate=True)
    np.testing.assert_allclose(np.interp(fpr, roc.false_positive_rate, roc.sensitivity)[-1], 1.0)
    assert metrics.auc(roc.false_positive_rate, roc.sensitivity) == pytest.approx(
        metrics.roc_auc_score(truth, prob), abs=1e-12
    )
    assert set(roc.threshold) <= set(threshold)
    points = set(zip(fpr, tpr, strict=True))
    assert set(zip(roc.false_positive_rate, roc.sensitivity, strict=True)) <= points


@pytest.mark.parametrize("decimals", [1, 2, 12])
def test_steps_of_the_precision_recall_curve_hold_the_average_precision(decimals: int) -> None:
    truth, prob = sample(150, decimals)
    pr = class_curves(truth, prob, class_name="x").pr
    assert pr is not None
    area = float((np.diff(pr.recall) * pr.precision[1:]).sum())
    assert area == pytest.approx(metrics.average_precision_score(truth, prob), abs=1e-12)
    for recall, precision, threshold in zip(pr.recall[1:], pr.precision[1:], pr.threshold[1:], strict=True):
        called = prob >= threshold
        assert recall == pytest.approx(metrics.recall_score(truth, called))
        assert precision == pytest.approx(metrics.precision_score(truth, called))


def test_long_curves_are_thinned_and_keep_their_ends() -> None:
    truth, prob = sample(20_000, 12)
    curves = class_curves(truth, prob, class_name="x")
    assert curves.roc is not None
    assert curves.pr is not None
    for curve in (curves.roc.threshold, curves.pr.threshold):
        assert 200 < curve.size <= LARGEST_CURVE
    roc = (curves.roc.false_positive_rate, curves.roc.sensitivity)
    assert [values[[0, -1]].tolist() for values in roc] == [[0, 1], [0, 1]]
    assert metrics.auc(*roc) == pytest.approx(metrics.roc_auc_score(truth, prob), abs=1e-3)
    area = float((np.diff(curves.pr.recall) * curves.pr.precision[1:]).sum())
    assert area == pytest.approx(metrics.average_precision_score(truth, prob), abs=2e-3)


def test_reliability_bins_hold_every_sample_once() -> None:
    truth, prob = sample(237, 12)
    bins = class_curves(truth, prob, class_name="x").reliability
    assert len(bins) == 10
    assert sum(one.n for one in bins) == 237
    assert {one.n for one in bins} <= {23, 24}
    start = 0
    order = np.argsort(prob)
    for one in bins:
        rows = order[start : start + one.n]
        start += one.n
        assert one.predicted == pytest.approx(prob[rows].mean())
        assert one.observed == pytest.approx(truth[rows].mean())
        interval = binomtest(int(truth[rows].sum()), one.n).proportion_ci(method="wilson")
        assert (one.low, one.high) == pytest.approx((interval.low, interval.high))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 8), max_size=60))
def test_equal_probabilities_share_a_bin(values: list[int]) -> None:
    prob = np.array(values, dtype=float) / 8
    which = equal_mass_bins(prob)
    assert set(which) == set(range(len(set(which))))  # none is empty
    for value in set(values):
        assert len(set(which[prob == value / 8])) == 1
    order = np.argsort(prob, kind="stable")
    assert (np.diff(which[order]) >= 0).all()


def test_histogram_counts_by_truth() -> None:
    truth, prob = sample(300, 12)
    histogram = class_curves(truth, prob, class_name="x").histogram
    assert histogram.positives.sum() == truth.sum()
    assert histogram.negatives.sum() == (~truth).sum()
    assert histogram.positives[3] == ((prob >= 0.15) & (prob < 0.2) & truth).sum()


def test_one_class_has_no_roc_and_plain_values_are_json() -> None:
    curves = class_curves(np.zeros(4, dtype=bool), np.array([0.1, 0.2, 0.2, 1.0]), class_name="x")
    assert curves.roc is None
    assert curves.pr is None
    assert json.loads(json.dumps(curves.to_dict(), allow_nan=False))["roc"] is None
    truth, prob = sample(30, 2)
    plain = json.loads(json.dumps(class_curves(truth, prob, class_name="x").to_dict(), allow_nan=False))
    assert plain["roc"]["threshold"][0] is None  # infinite: nothing is called positive
    assert class_curves(np.zeros(0, dtype=bool), np.zeros(0), class_name="x").reliability == ()
