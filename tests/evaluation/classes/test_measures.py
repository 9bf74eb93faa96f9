"""Every figure and every bootstrap replicate against scikit-learn."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from lepton_vision.config.sections import EvaluationConfig
from lepton_vision.evaluation import evaluate
from lepton_vision.evaluation.classes.figures import measures_of
from lepton_vision.evaluation.classes.measures import BinaryMeasures, Extent
from lepton_vision.evaluation.statistics.intervals import draw_counts, patient_units
from lepton_vision.evaluation.statistics.ranking import Ranking
from lepton_vision.predictions import Predictions
from lepton_vision.predictions.operating_point import OperatingPoint
from lepton_vision.types import Target

MULTILABEL = Target("signs", "multilabel", ("edema", "mass", "air"))

POINT = OperatingPoint({"sick": (0.4,), "signs": (0.3, 0.5, 0.6)}, "stated")
Make = Callable[..., Predictions]


def oracle(truth: np.ndarray, prob: np.ndarray, threshold: float) -> dict[str, float]:
    called = prob >= threshold
    positive, negative = metrics.class_likelihood_ratios(truth, called)
    return {
        "auroc": metrics.roc_auc_score(truth, prob),
        "partial_auroc": metrics.roc_auc_score(truth, prob, max_fpr=0.1),
        "mcc": metrics.matthews_corrcoef(truth, called),
        "lr_positive": positive,
        "lr_negative": negative,
        "average_precision": metrics.average_precision_score(truth, prob),
        "sensitivity": metrics.recall_score(truth, called),
        "specificity": metrics.recall_score(truth, called, pos_label=0),
        "ppv": metrics.precision_score(truth, called),
        "npv": metrics.precision_score(truth, called, pos_label=0),
        "accuracy": metrics.accuracy_score(truth, called),
        "f1": metrics.f1_score(truth, called),
        "balanced_accuracy": metrics.balanced_accuracy_score(truth, called),
        "brier": metrics.brier_score_loss(truth, prob),
        "log_loss": metrics.log_loss(truth, prob),
        "prevalence": float(truth.mean()),
    }


def hand_ece(truth: np.ndarray, prob: np.ndarray) -> float:
    """Expected calibration error by a loop over the bins."""
    edges = [-np.inf, *sorted(set(np.quantile(prob, np.arange(1, 10) / 10))), np.inf]
    total = 0.0
    for low, high in itertools.pairwise(edges):
        rows = (prob > low) & (prob <= high)
        if rows.any():
            total += rows.sum() * abs(truth[rows].mean() - prob[rows].mean())
    return total / truth.size


@pytest.mark.parametrize("seed", range(5))
def test_binary_figures_against_scikit_learn(random_predictions: Make, seed: int) -> None:
    predictions = random_predictions(seed=seed)
    figures = evaluate(predictions, operating_point=POINT).figures["sick"]
    known = ~np.isnan(predictions.y_true["sick"])
    truth, prob = predictions.y_true["sick"][known], predictions.y_prob["sick"][known]
    expected = oracle(truth, prob, 0.4) | {"ece": hand_ece(truth, prob)}
    assert set(expected) == set(Extent().names)
    assert set(figures) == {*expected, "debiased_ece", "chance_ece", "accuracy_at_half"}
    for name, value in expected.items():
        assert figures[name].value == pytest.approx(value, abs=1e-12), name
        assert figures[name].low < figures[name].value < figures[name].high or name == "ece", name
    assert figures["auroc"].n == known.sum()
    assert figures["sensitivity"].n == (truth == 1).sum()
    assert figures["ppv"].n == (prob >= 0.4).sum()


@pytest.mark.parametrize("seed", range(3))
def test_multiclass_figures_against_scikit_learn(random_predictions: Make, seed: int) -> None:
    predictions = random_predictions(seed=seed)
    figures = evaluate(predictions, operating_point=POINT).figures["organ"]
    known = ~np.isnan(predictions.y_true["organ"])
    truth, prob = predictions.y_true["organ"][known].astype(int), predictions.y_prob["organ"][known]
    called = prob.argmax(1)
    expected = {
        "auroc": metrics.roc_auc_score(truth, prob, multi_class="ovr"),
        "average_precision": metrics.average_precision_score(np.eye(3)[truth], prob, average="macro"),
        "accuracy": metrics.accuracy_score(truth, called),
        "balanced_accuracy": metrics.balanced_accuracy_score(truth, called),
        "f1_macro": metrics.f1_score(truth, called, average="macro"),
        "log_loss": metrics.log_loss(truth, prob),
        "brier": ((prob - np.eye(3)[truth]) ** 2).sum(1).mean(),
        "auroc_lung": metrics.roc_auc_score(truth == 1, prob[:, 1]),
        "average_precision_brain": metrics.average_precision_score(truth == 2, prob[:, 2]),
        "sensitivity_liver": metrics.recall_score(truth, called, average=None)[0],
        "ppv_liver": metrics.precision_score(truth, called, average=None)[0],
        "prevalence_liver": (truth == 0).mean(),
        "specificity_liver": metrics.recall_score(truth == 0, called == 0, pos_label=0),
        "npv_lung": metrics.precision_score(truth == 1, called == 1, pos_label=0),
        "f1_brain": metrics.f1_score(truth, called, average=None)[2],
        "mcc_lung": metrics.matthews_corrcoef(truth == 1, called == 1),
        "brier_lung": metrics.brier_score_loss(truth == 1, prob[:, 1]),
        "mcc": metrics.matthews_corrcoef(truth, called),
        "auroc_weighted": metrics.roc_auc_score(truth, prob, multi_class="ovr", average="weighted"),
        "auroc_micro": metrics.roc_auc_score(np.eye(3)[truth], prob, average="micro"),
        "average_precision_micro": metrics.average_precision_score(np.eye(3)[truth], prob, average="micro"),
        "average_precision_weighted": metrics.average_precision_score(np.eye(3)[truth], prob, average="weighted"),
        "ppv_macro": metrics.precision_score(truth, called, average="macro"),
        "ppv_weighted": metrics.precision_score(truth, called, average="weighted"),
        "sensitivity_micro": metrics.recall_score(truth, called, average="micro"),
        "sensitivity_weighted": metrics.recall_score(truth, called, average="weighted"),
        "f1_micro": metrics.f1_score(truth, called, average="micro"),
        "f1_weighted": metrics.f1_score(truth, called, average="weighted"),
    }
    for name, value in expected.items():
        assert figures[name].value == pytest.approx(value, abs=1e-12), name
    assert figures["sensitivity_liver"].n == (truth == 0).sum()


def test_multilabel_figures_are_binary_ones_and_their_mean(random_predictions: Make) -> None:
    predictions = random_predictions(seed=1)
    figures = evaluate(predictions, operating_point=POINT).figures["signs"]
    parts = {}
    for k, name in enumerate(("edema", "mass", "air")):
        known = ~np.isnan(predictions.y_true["signs"][:, k])
        truth, prob = predictions.y_true["signs"][known, k], predictions.y_prob["signs"][known, k]
        parts[name] = oracle(truth, prob, POINT.thresholds["signs"][k])
        for figure, value in parts[name].items():
            assert figures[f"{figure}_{name}"].value == pytest.approx(value, abs=1e-12)
        assert figures[f"auroc_{name}"].n == known.sum()
        assert figures[f"sensitivity_{name}"].n == (truth == 1).sum()
    for figure in ("auroc", "average_precision", "sensitivity", "npv", "log_loss"):
        assert figures[figure].value == pytest.approx(np.mean([part[figure] for part in parts.values()]), abs=1e-12)


@pytest.mark.filterwarnings("ignore:.*positive_likelihood_ratio")  # undefined there too: both must be NaN
@pytest.mark.parametrize("decimals", [1, 2, 12])
def test_every_replicate_equals_scikit_learn(decimals: int) -> None:
    rng = np.random.default_rng(decimals)
    n, units = 150, 40
    unit, truth = rng.integers(0, units, n), rng.integers(0, 2, n).astype(float)
    unit = np.unique(unit, return_inverse=True)[1]
    units = int(unit.max()) + 1
    prob = np.round((rng.random(n) + truth) / 2, decimals)
    measures = BinaryMeasures(truth, prob, unit=unit, units=units, threshold=0.5)
    counts = np.concatenate(list(draw_counts(units, replicates=60, samples=n, seed=3)))
    got, ranking = measures.values(counts), Ranking.of(truth > 0, prob, unit=unit)
    for r, count in enumerate(counts):
        weight = count[unit]
        rows = np.repeat(np.arange(n), weight.astype(int))  # the rows that were drawn, one by one
        expected = oracle(truth[rows], prob[rows], 0.5)
        for name, value in expected.items():
            assert got[name][r] == pytest.approx(value, abs=1e-12, nan_ok=True), name
        assert got["auroc"][r] == pytest.approx(metrics.roc_auc_score(truth, prob, sample_weight=weight), abs=1e-12)
        wide = ranking.figures(count[None], max_fpr=0.37).partial_auroc[0]
        assert wide == pytest.approx(metrics.roc_auc_score(truth[rows], prob[rows], max_fpr=0.37), abs=1e-12)
        assert got["average_precision"][r] == pytest.approx(
            metrics.average_precision_score(truth, prob, sample_weight=weight), abs=1e-12
        )


def test_every_multiclass_replicate_equals_scikit_learn(random_predictions: Make) -> None:
    predictions = random_predictions(n=120, unknown=0.0, patients=30)
    target = predictions.target("organ")
    measures = measures_of(predictions, target, thresholds=())
    unit, units = patient_units(predictions.patient_id)
    counts = np.concatenate(list(draw_counts(units, replicates=30, samples=120, seed=0)))
    got = measures.values(counts)
    for r, count in enumerate(counts):
        rows = np.repeat(np.arange(120), count[unit].astype(int))
        truth, prob = predictions.y_true["organ"][rows].astype(int), predictions.y_prob["organ"][rows]
        assert got["auroc"][r] == pytest.approx(metrics.roc_auc_score(truth, prob, multi_class="ovr"), abs=1e-12)
        assert got["f1_macro"][r] == pytest.approx(metrics.f1_score(truth, prob.argmax(1), average="macro"), abs=1e-12)
        assert got["log_loss"][r] == pytest.approx(metrics.log_loss(truth, prob), abs=1e-12)
        weighted = metrics.roc_auc_score(truth, prob, multi_class="ovr", average="weighted")
        assert got["auroc_weighted"][r] == pytest.approx(weighted, abs=1e-12)
        assert got["mcc"][r] == pytest.approx(metrics.matthews_corrcoef(truth, prob.argmax(1)), abs=1e-12)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 12)), min_size=2, max_size=40), st.integers(0, 2**16))
def test_auroc_does_not_change_under_a_monotone_transform(rows: list[tuple[bool, int]], seed: int) -> None:
    truth, score = np.array([r[0] for r in rows]), np.array([r[1] for r in rows], dtype=float)
    units = np.arange(len(rows))
    counts = np.random.default_rng(seed).integers(0, 3, (4, len(rows))).astype(float)
    before = Ranking.of(truth, score, unit=units).figures(counts)
    after = Ranking.of(truth, np.exp(score / 3) - 7, unit=units).figures(counts)
    np.testing.assert_array_equal(before[0], after[0])
    np.testing.assert_array_equal(before[1], after[1])
    reverse = Ranking.of(~truth, -score, unit=units).figures(counts)
    np.testing.assert_allclose(before[0], reverse[0], atol=1e-12)  # both turned round


def test_undefined_figures_say_why() -> None:
    one = BinaryMeasures(np.ones(3), np.array([0.1, 0.2, 0.3]), unit=np.arange(3), units=3, threshold=0.5)
    values = one.values(np.ones((1, 3)))
    undefined = {name for name, value in values.items() if np.isnan(value[0])}
    assert undefined == {
        *("auroc", "partial_auroc", "average_precision", "specificity", "ppv", "balanced_accuracy"),
        *("mcc", "lr_positive", "lr_negative"),
    }
    assert one.reason("auroc") == one.reason("lr_negative") == "no negative sample"
    assert one.reason("ppv") == "no sample reaches the threshold"
    zero = BinaryMeasures(np.zeros(2), np.array([0.6, 0.7]), unit=np.arange(2), units=2, threshold=0.5)
    assert np.isnan(zero.values(np.ones((1, 2)))["npv"][0])
    assert zero.reason("npv") == "every sample reaches the threshold"
    assert zero.reason("sensitivity") == "no positive sample"
    none = BinaryMeasures(np.zeros(0), np.zeros(0), unit=np.zeros(0, dtype=np.intp), units=0, threshold=0.5)
    assert all(np.isnan(value[0]) for value in none.values(np.ones((1, 0))).values())
    assert none.reason("auroc") == "no labelled sample"


@pytest.mark.parametrize("share", [0.01, 0.3])
def test_ppv_at_a_stated_prevalence_is_that_of_reweighted_samples(random_predictions: Make, share: float) -> None:
    predictions = random_predictions(unknown=0.0)
    config = EvaluationConfig(prevalence=share, replicates=100)
    figures = evaluate(predictions, operating_point=POINT, config=config).figures
    truth, prob = predictions.y_true["sick"], predictions.y_prob["sick"]
    weight = np.where(truth > 0, share / truth.mean(), (1 - share) / (1 - truth.mean()))
    for name, label in (("ppv_at_prevalence", 1), ("npv_at_prevalence", 0)):
        expected = metrics.precision_score(truth, prob >= 0.4, pos_label=label, sample_weight=weight)
        assert figures["sick"][name].value == pytest.approx(expected, abs=1e-12)
        assert figures["sick"][name].low < expected < figures["sick"][name].high
        assert f"{name}_mass" in figures["signs"]


def test_max_fpr_comes_from_the_configuration(random_predictions: Make) -> None:
    predictions = random_predictions(unknown=0.0)
    truth, prob = predictions.y_true["sick"], predictions.y_prob["sick"]
    result = evaluate(predictions, operating_point=POINT, config=EvaluationConfig(max_fpr=0.25, replicates=100))
    expected = metrics.roc_auc_score(truth, prob, max_fpr=0.25)
    assert result.figures["sick"]["partial_auroc"].value == pytest.approx(expected, abs=1e-12)
    assert result.provenance["max_fpr"] == 0.25


@pytest.mark.parametrize("average", ["micro", "weighted"])
def test_multilabel_means_over_classes_against_scikit_learn(random_predictions: Make, average: str) -> None:
    predictions = random_predictions(unknown=0.0)
    figures = evaluate(predictions, operating_point=POINT).figures["signs"]
    truth, prob = predictions.y_true["signs"], predictions.y_prob["signs"]
    called = prob >= np.array(POINT.thresholds["signs"])
    expected = {
        "auroc": metrics.roc_auc_score(truth, prob, average=average),
        "average_precision": metrics.average_precision_score(truth, prob, average=average),
        "sensitivity": metrics.recall_score(truth, called, average=average),
        "ppv": metrics.precision_score(truth, called, average=average),
        "f1": metrics.f1_score(truth, called, average=average),
    }
    for name, value in expected.items():
        assert figures[f"{name}_{average}"].value == pytest.approx(value, abs=1e-12), name


@pytest.mark.parametrize("is_called", [True, False])
def test_means_with_a_class_that_is_not_there_against_scikit_learn(is_called: bool) -> None:
    """Scikit-learn takes what is undefined for 0; here it is in no mean, unless a call makes it 0."""
    rng = np.random.default_rng(0)
    truth, prob = (rng.random((60, 3)) < 0.4).astype(float), rng.random((60, 3))
    truth[:, 2] = 0.0
    prob[:, 2] *= 1.0 if is_called else 0.2
    ids = np.array([f"i{k}" for k in range(60)])
    predictions = Predictions((MULTILABEL,), ids, ids, ids, {"signs": truth}, {"signs": prob})
    figures, called = evaluate(predictions, operating_point=POINT).figures["signs"], prob >= np.array([0.3, 0.5, 0.6])
    scores = {"sensitivity": metrics.recall_score, "ppv": metrics.precision_score, "f1": metrics.f1_score}
    for name, score in scores.items():
        total = 3 * score(truth, called, average="macro", zero_division=0.0)
        is_in = is_called and name != "sensitivity"
        assert figures[name].value == pytest.approx(total / (3 if is_in else 2), abs=1e-12), name
        assert ("mean of 2 of 3 classes" in figures[name].reason) == (not is_in)


def test_a_class_that_is_there_and_never_called_leaves_the_mean_of_the_ppv_undefined() -> None:
    truth, ids = np.array([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]), np.array(["a", "b"])
    prob = np.array([[0.9, 0.1, 0.1], [0.1, 0.9, 0.1]])
    predictions = Predictions((MULTILABEL,), ids, ids, ids, {"signs": truth}, {"signs": prob})
    figures = evaluate(predictions, operating_point=POINT).figures["signs"]
    assert np.isnan(figures["ppv"].value)
    assert figures["f1"].value == pytest.approx(2 / 3)


def test_ordinal_figures_against_scikit_learn(random_predictions: Make) -> None:
    first = random_predictions(unknown=0.05)
    grade = Target("grade", "ordinal", ("none", "mild", "severe"))
    truth, prob = first.y_true["organ"], first.y_prob["organ"]
    predictions = Predictions(
        (grade,), first.image_id, first.patient_id, first.series_id, {"grade": truth}, {"grade": prob}
    )
    result = evaluate(predictions, operating_point=OperatingPoint({"grade": ()}, "largest"))
    figures, known = result.figures["grade"], ~np.isnan(truth)
    called, true = prob.argmax(1)[known], truth[known]
    kappa = metrics.cohen_kappa_score(true, called, weights="quadratic")
    assert figures["kappa_quadratic"].value == pytest.approx(kappa, abs=1e-12)
    assert figures["kappa_quadratic"].low < kappa < figures["kappa_quadratic"].high
    assert figures["class_error"].value == pytest.approx(metrics.mean_absolute_error(true, called), abs=1e-12)
    assert figures["auroc"].value == pytest.approx(metrics.roc_auc_score(true, prob[known], multi_class="ovr"))
    assert result.confusion["grade"].shape == (3, 3)


def test_ratios_without_a_bound_are_undefined_and_say_why() -> None:
    truth, prob = np.array([0.0, 0.0, 1.0, 1.0]), np.array([0.1, 0.2, 0.8, 0.9])
    for threshold, name, word in ((0.5, "lr_positive", "no upper bound"), (0.0, "lr_negative", "called positive")):
        measures = BinaryMeasures(truth, prob, unit=np.arange(4), units=4, threshold=threshold)
        assert np.isnan(measures.values(np.ones((1, 4)))[name][0])
        assert word in measures.reason(name)
    assert measures.reason("mcc") == "every sample is called alike"
    assert metrics.matthews_corrcoef(truth, prob >= 0.0) == 0.0  # scikit-learn's convention; ours is unknown


def test_accuracy_at_one_half_stands_beside_that_at_the_point(random_predictions: Make) -> None:
    predictions = random_predictions(unknown=0.0)
    figures = evaluate(predictions, operating_point=POINT, config=EvaluationConfig(replicates=100)).figures
    truth, prob = predictions.y_true, predictions.y_prob
    found = figures["sick"]["accuracy_at_half"]
    assert found.value == pytest.approx(metrics.accuracy_score(truth["sick"], prob["sick"] >= 0.5))
    assert found.low < found.value < found.high
    expected = metrics.accuracy_score(truth["signs"][:, 0], prob["signs"][:, 0] >= 0.5)
    assert figures["signs"]["accuracy_at_half_edema"].value == pytest.approx(expected)
    assert "accuracy_at_half_mass" not in figures["signs"]  # 0.5 is its operating point
    assert "accuracy_at_half" not in figures["organ"]
