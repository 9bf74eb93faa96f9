"""Bands and threshold tables against scikit-learn, replicate by replicate, and against numpy."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn import metrics

from lepton_vision.evaluation.classes.cases import unsure_cases
from lepton_vision.evaluation.classes.curves import class_curves
from lepton_vision.evaluation.classes.thresholds import LARGEST_TABLE, threshold_table
from lepton_vision.evaluation.statistics.bands import curve_bands
from lepton_vision.evaluation.statistics.intervals import Bootstrap, draw_counts, patient_units
from lepton_vision.predictions.predictions import Predictions
from lepton_vision.types import Target


def sample(n: int, *, decimals: int = 12, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 2, n).astype(bool)
    return truth, np.round((rng.random(n) + 0.4 * truth) / 1.4, decimals), np.array([f"p{i // 3}" for i in range(n)])


@pytest.mark.parametrize("decimals", [1, 12])
def test_bands_are_percentiles_of_scikit_learns_curves(decimals: int) -> None:
    truth, prob, patients = sample(120, decimals=decimals)
    unit, units = patient_units(patients)
    bands = curve_bands(truth, prob, unit=unit, units=units, bootstrap=Bootstrap(100, 0.9, 3))
    assert bands is not None
    roc, pr = [], []
    for counts in np.concatenate(list(draw_counts(units, replicates=100, samples=120, seed=3))):
        weight = counts[unit]
        fpr, tpr, _ = metrics.roc_curve(truth, prob, sample_weight=weight, drop_intermediate=False)
        roc.append(np.interp(bands.grid, fpr, tpr))
        precision, recall, _ = metrics.precision_recall_curve(truth, prob, sample_weight=weight)
        # the highest threshold that reaches a recall; the last point of scikit-learn stands for no threshold
        there = [np.flatnonzero(recall[:-1] >= max(r, 1e-12) - 1e-12)[-1] for r in bands.grid]
        pr.append(precision[there])
    np.testing.assert_allclose(bands.sensitivity, np.quantile(roc, [0.05, 0.95], axis=0), atol=1e-9)
    np.testing.assert_allclose(bands.precision, np.quantile(pr, [0.05, 0.95], axis=0), atol=1e-9)


def test_bands_of_a_long_curve_hold_the_curve() -> None:
    truth, prob, patients = sample(6000)
    unit, units = patient_units(patients)
    bands = curve_bands(truth, prob, unit=unit, units=units, bootstrap=Bootstrap(200))
    fpr, tpr, _ = metrics.roc_curve(truth, prob)
    assert bands is not None
    on_grid = np.interp(bands.grid, fpr, tpr)
    assert (bands.sensitivity[0] <= on_grid + 1e-9).all()
    assert (on_grid <= bands.sensitivity[1] + 1e-9).all()
    assert 0.02 < np.ptp(bands.sensitivity, axis=0).max() < 0.1


def test_without_two_classes_or_two_patients_there_is_no_band() -> None:
    truth, prob, patients = sample(30)
    unit, units = patient_units(patients)
    assert curve_bands(np.ones(30, dtype=bool), prob, unit=unit, units=units, bootstrap=Bootstrap(100)) is None
    assert curve_bands(truth, prob, unit=np.zeros(30, dtype=np.intp), units=1, bootstrap=Bootstrap(100)) is None


@pytest.mark.parametrize("n", [0, 1, 90, 3000])
def test_a_threshold_table_counts_what_numpy_counts(n: int) -> None:
    truth, prob, _ = sample(n)
    table = threshold_table(truth, prob, also=(0.37, np.inf))
    assert 0.37 in table.threshold
    assert table.threshold.size <= LARGEST_TABLE + 2
    assert table.is_complete == (n <= LARGEST_TABLE)
    assert (np.diff(table.threshold) > 0).all()
    for t, tp, fp in zip(table.threshold, table.true_positives, table.false_positives, strict=True):
        assert tp == ((prob >= t) & truth).sum()
        assert fp == ((prob >= t) & ~truth).sum()
    assert table.true_positives[0] == truth.sum() == table.positives
    assert table.true_positives[-1] == table.false_positives[-1] == 0
    json.dumps(table.to_dict(), allow_nan=False)


def test_sensitivity_and_specificity_are_scikit_learns() -> None:
    truth, prob, _ = sample(60)
    curves = class_curves(truth, prob, class_name="x", threshold=0.5)
    k = int(np.flatnonzero(curves.thresholds.threshold == 0.5)[0])
    assert curves.thresholds.sensitivity[k] == pytest.approx(metrics.recall_score(truth, prob >= 0.5))
    assert curves.thresholds.specificity[k] == pytest.approx(metrics.recall_score(~truth, prob < 0.5))


def predictions(target: Target, truth: np.ndarray, prob: np.ndarray) -> Predictions:
    ids = np.array([f"i{k}" for k in range(len(truth))])
    return Predictions((target,), ids, ids, ids, {target.name: truth}, {target.name: prob})


def test_unsure_cases_are_those_nearest_to_the_threshold() -> None:
    target = Target("covid", "binary", ("no", "yes"))
    part = predictions(target, np.array([0, 1, 1, 0]), np.array([0.001, 0.1, 0.3, 0.02]))
    found = unsure_cases(part, target, thresholds=(0.03,), count=3)
    assert [case.image_id for case in found] == ["i3", "i1", "i2"]  # in logits: 0.42, 1.28, 2.63, 3.43
    assert (found[0].truth, found[0].class_name, found[0].y_prob) == ("no", "yes", 0.02)
    grade = Target("grade", "multiclass", ("a", "b", "c"))
    prob = np.array([[0.5, 0.3, 0.2], [0.1, 0.44, 0.46], [0.2, 0.38, 0.42]])
    found = unsure_cases(predictions(grade, np.array([0, 1, 2]), prob), grade, thresholds=())
    assert [case.image_id for case in found] == ["i1", "i2", "i0"]
    assert (found[1].truth, found[1].class_name, found[1].y_prob) == ("c", "c", 0.42)
    signs = Target("signs", "multilabel", ("a", "b"))
    part = predictions(signs, np.array([[0, np.nan], [1, 1]]), np.array([[0.1, 0.5], [0.9, 0.6]]))
    found = unsure_cases(part, signs, thresholds=(0.5, 0.5))
    assert [(case.image_id, case.class_name) for case in found] == [("i1", "b"), ("i0", "a"), ("i1", "a")]
