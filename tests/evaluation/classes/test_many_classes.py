"""Figures of very many classes are those of few, and scikit-learn's, in memory that does not grow with their square."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from sklearn import metrics

from lepton_vision.config.sections import EvaluationConfig
from lepton_vision.evaluation import evaluate
from lepton_vision.evaluation.classes.class_averages import ClassSamples
from lepton_vision.evaluation.classes.class_measures import MulticlassMeasures
from lepton_vision.evaluation.classes.external import compare_external
from lepton_vision.evaluation.classes.figures import validation_figures
from lepton_vision.evaluation.classes.many_classes import ManyClassMeasures, are_many
from lepton_vision.evaluation.statistics.intervals import Bootstrap, bootstrap_figures
from lepton_vision.predictions.operating_point import OperatingPoint
from lepton_vision.predictions.predictions import Predictions
from lepton_vision.types import Target


def guesses(classes: int, n: int, *, images: int = 1) -> Predictions:
    rng = np.random.default_rng(0)
    truth = np.concatenate([np.arange(classes), rng.integers(classes, size=n - classes)]).astype(float)
    scores = rng.normal(size=(n, classes))
    scores[np.arange(n), truth.astype(int)] += 2.0
    prob = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    target = Target("c", "multiclass", tuple(f"k{k}" for k in range(classes)))
    ids = np.array([f"i{k}" for k in range(n)])
    patients = np.array([f"p{k // images}" for k in range(n)])
    return Predictions((target,), ids, patients, ids, {"c": truth}, {"c": prob}, split="val")


@pytest.mark.parametrize("is_ordinal", [False, True])
@pytest.mark.parametrize("images", [1, 3])
def test_they_are_the_figures_of_few_classes_with_their_intervals(is_ordinal: bool, images: int) -> None:
    found = guesses(6, 120, images=images)
    unit = np.arange(120) // images
    classes = found.targets[0].classes
    samples = ClassSamples(found.y_true["c"], found.y_prob["c"], unit, int(unit.max()) + 1, classes)
    few, many = (kind(samples, is_ordinal=is_ordinal) for kind in (MulticlassMeasures, ManyClassMeasures))
    expected, seen = (bootstrap_figures(one, Bootstrap(100)) for one in (few, many))
    for name, figure in seen.items():
        assert figure.value == pytest.approx(expected[name].value, abs=1e-12), name
        if not many.no_interval(name):
            assert (figure.low, figure.high) == pytest.approx((expected[name].low, expected[name].high), abs=1e-9), name
    assert {"accuracy", "mcc", "f1_macro", "ppv_macro", "auroc", "npv_micro", "f1_weighted", "ppv_k3"} <= set(seen)
    (area, _) = many.analytic(0.95)["auroc"]
    assert (area.low, area.high) == pytest.approx(
        (few.analytic(0.95)["auroc"][0].low, few.analytic(0.95)["auroc"][0].high)
    )


def test_a_class_that_is_not_there_is_left_out_as_of_few() -> None:
    found = guesses(6, 120)
    truth = np.where(found.y_true["c"] == 4, 0, found.y_true["c"])
    samples = ClassSamples(truth, found.y_prob["c"], np.arange(120), 120, found.targets[0].classes)
    few, many = (kind(samples) for kind in (MulticlassMeasures, ManyClassMeasures))
    for name, is_over in few.averaged.items():
        np.testing.assert_array_equal(many.averaged[name], is_over, err_msg=name)
    ones = np.ones((1, 120))
    for name in ("balanced_accuracy", "ppv_macro", "f1_macro", "auroc", "specificity_macro"):
        assert many.values(ones)[name][0] == pytest.approx(few.values(ones)[name][0], abs=1e-12), name
        assert "5 of 6 classes" in many.caveat(name) or name in ("ppv_macro", "specificity_macro")


def test_many_classes_are_scikit_learns_and_take_little_memory() -> None:
    classes, n = 150, 450
    found = guesses(classes, n)
    truth, prob = found.y_true["c"], found.y_prob["c"]
    assert are_many(classes, n)
    tracemalloc.start()
    try:
        watched = validation_figures(found)
        result = evaluate(
            found, operating_point=OperatingPoint({"c": ()}, "stated"), config=EvaluationConfig(replicates=100)
        )
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 40e6, "a table of samples and pairs of classes alone would take twice that"
    figures = result.figures["c"]
    assert watched["val_auroc"] == pytest.approx(metrics.roc_auc_score(truth, prob, multi_class="ovr"))
    called = prob.argmax(axis=1)
    assert figures["auroc"].value == pytest.approx(watched["val_auroc"])
    assert figures["balanced_accuracy"].value == pytest.approx(metrics.balanced_accuracy_score(truth, called))
    assert figures["mcc"].value == pytest.approx(metrics.matthews_corrcoef(truth, called))
    assert figures["accuracy"].low < metrics.accuracy_score(truth, called) < figures["accuracy"].high
    assert figures["sensitivity_k7"].method == "wilson"
    assert len(result.curves["c"]) == 24
    assert len(result.analyses.calibration["c"]) == 24


def test_another_site_and_a_comparison_of_many_classes_show_the_first_ones() -> None:
    found, config = guesses(120, 400), EvaluationConfig(replicates=100)
    here, there = (found.select(np.arange(400) % 2 == k) for k in (0, 1))
    point = OperatingPoint({"c": ()}, "stated")
    site = compare_external(here, operating_point=point, config=config, reference=there)
    assert [one.class_name for one in site.recalibration["c"]] == list(found.targets[0].classes[:24])
    accuracy = site.shifts["c"]["accuracy"]
    called = [part.y_prob["c"].argmax(axis=1) == part.y_true["c"] for part in (here, there)]
    assert accuracy.difference.value == pytest.approx(called[0].mean() - called[1].mean())
    assert accuracy.difference.low < accuracy.difference.value < accuracy.difference.high
