"""Comparison of two models: differences and tests against loops and scipy, and refused inputs."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics

import lepton_vision as lv
from lepton_vision.config.sections import EvaluationConfig
from lepton_vision.errors import EvaluationError
from lepton_vision.evaluation import aggregate, compare, evaluate, fit_aggregation
from lepton_vision.evaluation.statistics.delong import auroc_covariance
from lepton_vision.evaluation.statistics.intervals import draw_counts, patient_units
from lepton_vision.evaluation.statistics.paired_tests import compare_draws, compare_proportions, holm
from lepton_vision.predictions import Predictions
from lepton_vision.predictions.operating_point import OperatingPoint
from lepton_vision.types import Target

Make = Callable[..., Predictions]
SICK = Target("sick", "binary", ("no", "yes"))
POINT = OperatingPoint({"sick": (0.4,), "signs": (0.3, 0.5, 0.6)}, "stated")
QUICK = EvaluationConfig(replicates=200)
PLAIN = EvaluationConfig(replicates=200, interval="percentile")


def other_model(first: Predictions, *, noise: float = 0.25, seed: int = 9) -> Predictions:
    """The same cases with other probabilities."""
    rng = np.random.default_rng(seed)
    prob = {}
    for target in first.targets:
        values = np.clip(first.y_prob[target.name] + rng.normal(0, noise, first.y_prob[target.name].shape), 0.01, 0.99)
        prob[target.name] = values / values.sum(axis=1, keepdims=True) if target.is_exclusive else values
    return replace(first, y_prob=prob)


def single(first: Predictions, *, patients: bool = True) -> Predictions:
    patient = first.patient_id if patients else first.image_id
    truth, prob = {"sick": first.y_true["sick"]}, {"sick": first.y_prob["sick"]}
    return Predictions((SICK,), first.image_id, patient, first.image_id, truth, prob)


def test_every_difference_is_b_less_a_whatever_the_order(random_predictions: Make) -> None:
    first = random_predictions()
    second = other_model(first)
    shuffled = second.select(np.random.default_rng(0).permutation(first.n))
    found = compare(first, shuffled, operating_point=POINT, config=QUICK)
    a, b = (evaluate(one, operating_point=POINT, config=QUICK).figures for one in (first, second))
    for target, figures in found.differences.items():
        for name, one in figures.items():
            assert (one.a, one.b) == pytest.approx((a[target][name].value, b[target][name].value), abs=1e-12)
            assert one.figure.value == pytest.approx(one.b - one.a, abs=1e-12)
            assert one.figure.low <= one.figure.value <= one.figure.high or name.startswith("ece")
    assert "prevalence" not in found.differences["sick"]
    assert found.n == evaluate(first, operating_point=POINT, config=QUICK).n


def test_the_interval_is_that_of_a_plain_paired_loop(random_predictions: Make) -> None:
    first = single(random_predictions(n=150, unknown=0.0, patients=50))
    second = other_model(first)
    one = compare(first, second, operating_point=POINT, config=PLAIN).differences["sick"]["average_precision"]
    unit, units = patient_units(first.patient_id)
    gaps = []
    for count in np.concatenate(list(draw_counts(units, replicates=200, samples=150, seed=0))):
        rows = np.repeat(np.arange(150), count[unit].astype(int))
        a, b = (
            metrics.average_precision_score(p.y_true["sick"][rows], p.y_prob["sick"][rows]) for p in (first, second)
        )
        gaps.append(b - a)
    assert (one.figure.low, one.figure.high) == pytest.approx(tuple(np.quantile(gaps, [0.025, 0.975])), abs=1e-12)
    assert one.test == "bootstrap"
    share = min(np.mean(np.array(gaps) <= 0), np.mean(np.array(gaps) >= 0))
    assert one.p_value == pytest.approx(min(1, 2 * (share * 200 + 1) / 201))


def test_pairing_narrows_the_interval(random_predictions: Make) -> None:
    first = single(random_predictions(n=600, unknown=0.0, patients=300))
    second = other_model(first, noise=0.05)
    one = compare(first, second, operating_point=POINT, config=QUICK).differences["sick"]["auroc"].figure
    alone = evaluate(first, operating_point=POINT, config=QUICK).figures["sick"]["auroc"]
    assert one.high - one.low < 0.6 * (alone.high - alone.low)


@pytest.mark.parametrize("patients", [True, False])
def test_auroc_is_tested_with_the_covariance_of_both_scores(random_predictions: Make, patients: bool) -> None:
    first = single(random_predictions(unknown=0.0), patients=patients)
    second = other_model(first)
    one = compare(first, second, operating_point=POINT, config=QUICK).differences["sick"]["auroc"]
    assert one.test == ("obuchowski" if patients else "delong")
    truth = first.y_true["sick"] > 0
    scores = np.column_stack([first.y_prob["sick"], second.y_prob["sick"]])
    found = auroc_covariance(truth, scores, unit=patient_units(first.patient_id)[0])  # itself tested against loops
    variance = found.covariance[0, 0] + found.covariance[1, 1] - 2 * found.covariance[0, 1]
    assert one.p_value == pytest.approx(2 * stats.norm.sf(abs(one.figure.value) / variance**0.5), rel=1e-9)
    (other,) = one.figure.others
    assert (other.low + other.high) / 2 == pytest.approx(one.figure.value)


def test_mcnemar_is_scipys_exact_test(random_predictions: Make) -> None:
    first = single(random_predictions(unknown=0.0), patients=False)
    second = other_model(first)
    found = compare(first, second, operating_point=POINT, config=QUICK).differences["sick"]
    truth = first.y_true["sick"]
    for name, rows in (("sensitivity", truth == 1), ("specificity", truth == 0), ("accuracy", truth >= 0)):
        right = [((p.y_prob["sick"] >= 0.4) == truth)[rows] for p in (first, second)]
        b, c = int((right[0] & ~right[1]).sum()), int((~right[0] & right[1]).sum())
        assert found[name].test == "mcnemar_exact"
        assert found[name].p_value == pytest.approx(stats.binomtest(b, b + c).pvalue)


def test_clustered_mcnemar_by_hand() -> None:
    """Sums of the differences by patient 2, 1, 0, -1: (3/4) * 2² / 6 = 0.5."""
    a = np.array([1, 1, 0, 1, 1, 0, 1, 0], dtype=bool)
    b = np.array([0, 0, 0, 0, 1, 0, 1, 1], dtype=bool)
    unit = np.array([0, 0, 0, 1, 1, 2, 2, 3])
    found = compare_proportions(a, b, unit=unit)
    assert found.method == "obuchowski_1998"
    assert found.p_value == pytest.approx(stats.chi2.sf(0.5, 1))
    ten_fold = compare_proportions(np.repeat(a, 10), np.repeat(b, 10), unit=np.repeat(unit, 10))
    assert ten_fold.p_value == pytest.approx(found.p_value)  # copies of the same images are no new evidence
    assert compare_proportions(a, a, unit=unit).p_value == 1.0
    assert np.isnan(compare_proportions(a[:0], a[:0], unit=unit[:0]).p_value)


def test_tests_hold_their_level_where_images_are_clustered() -> None:
    """Two models of the same quality, patients with a shared effect: clustered P below 0.05 in about 5 %."""
    rng = np.random.default_rng(4)
    rejected = {"clustered": 0, "naive": 0}
    for _ in range(400):
        unit = np.repeat(np.arange(60), 6)
        effect = rng.normal(0, 1.2, (60, 2))[unit]
        right = effect + rng.normal(size=(360, 2)) > -0.8
        rejected["clustered"] += compare_proportions(right[:, 0], right[:, 1], unit=unit).p_value < 0.05
        rejected["naive"] += compare_proportions(right[:, 0], right[:, 1], unit=np.arange(360)).p_value < 0.05
    assert 8 <= rejected["clustered"] <= 34  # binomial(400, 0.05), 99.9 %
    assert rejected["naive"] > 60


def test_holm_against_the_step_down_by_hand() -> None:
    p = {"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005, "e": float("nan")}
    adjusted = holm(p)
    assert adjusted["d"] == pytest.approx(0.02)
    assert adjusted["a"] == pytest.approx(0.03)
    assert adjusted["c"] == adjusted["b"] == pytest.approx(0.06)
    assert np.isnan(adjusted["e"])
    assert holm({"x": 0.8, "y": 0.9}) == {"x": 1.0, "y": 1.0}


def test_holm_is_over_the_endpoints_of_all_targets(random_predictions: Make) -> None:
    first = random_predictions()
    found = compare(first, other_model(first), operating_point=POINT, config=QUICK)
    raw = {(t, name): found.differences[t][name].p_value for t, names in found.endpoints.items() for name in names}
    assert len(raw) == 9
    smallest = min(raw, key=lambda key: raw[key])
    assert found.differences[smallest[0]][smallest[1]].p_adjusted == pytest.approx(min(1.0, 9 * raw[smallest]))
    assert np.isnan(found.differences["sick"]["brier"].p_adjusted)


def test_a_bootstrap_p_is_never_zero() -> None:
    assert compare_draws(np.full(99, 0.1)).p_value == pytest.approx(0.02)
    assert compare_draws(np.linspace(-1, 1, 101)).p_value == 1.0
    assert np.isnan(compare_draws(np.zeros(0)).p_value)


def test_non_inferiority_is_the_interval_against_the_margin(random_predictions: Make) -> None:
    first = single(random_predictions(unknown=0.0))
    second = other_model(first, noise=0.15)
    auroc = compare(first, second, operating_point=POINT, config=PLAIN).differences["sick"]["auroc"].figure
    assert auroc.low < 0
    for margin, expected in ((-auroc.low * 1.01, True), (-auroc.low * 0.99, False)):
        one = compare(first, second, operating_point=POINT, margin=margin, config=PLAIN).differences["sick"]
        assert one["auroc"].is_non_inferior is expected
        assert (one["auroc"].p_non_inferior < 0.03) is expected
        assert one["brier"].is_non_inferior is None
    brier = compare(first, second, operating_point=POINT, margin={"brier": 0.001}, config=PLAIN).differences["sick"]
    assert brier["brier"].figure.low > 0.001  # the second is worse: its error is larger
    assert brier["brier"].is_non_inferior is False
    assert brier["brier"].p_non_inferior > 0.97
    turned = compare(second, first, operating_point=POINT, margin={"brier": 0.001}, config=PLAIN).differences["sick"]
    assert turned["brier"].is_non_inferior is True
    assert turned["brier"].p_non_inferior < 0.03


def test_a_model_against_itself_differs_in_nothing(random_predictions: Make) -> None:
    first = random_predictions()
    found = compare(first, first, operating_point=POINT, config=QUICK)
    for figures in found.differences.values():
        for one in figures.values():
            assert one.figure.value == 0.0
            assert one.p_value == 1.0
            if one.figure.method == "tango":  # that no pair differs tells how often others may
                z = stats.norm.ppf(0.975) ** 2
                assert one.figure.high == pytest.approx(-one.figure.low)
                assert one.figure.high >= z / (one.figure.n + z) - 1e-9
            else:  # means over classes are as sure as their parts; others have no interval
                is_unknown = np.isnan([one.figure.low, one.figure.high])
                assert is_unknown.all() or one.figure.low < 0.0 < one.figure.high


def test_each_model_has_its_own_operating_point(random_predictions: Make) -> None:
    first = single(random_predictions(unknown=0.0))
    second_point = OperatingPoint({"sick": (0.7,)}, "stated")
    found = compare(first, first, operating_point=POINT, operating_point_b=second_point, config=QUICK)
    expected = evaluate(first, operating_point=second_point, config=QUICK).figures["sick"]["sensitivity"].value
    assert found.differences["sick"]["sensitivity"].b == expected < found.differences["sick"]["sensitivity"].a


def test_patients_as_units(random_predictions: Make) -> None:
    first = single(random_predictions(unknown=0.0))
    config = EvaluationConfig(replicates=200, unit="patient", aggregation="max")
    found = compare(first, other_model(first), operating_point=POINT, config=config)
    assert found.n == found.n_patients == len(set(first.patient_id))
    assert found.differences["sick"]["auroc"].test == "delong"


def test_plain_values_and_a_table(random_predictions: Make) -> None:
    first = random_predictions()
    found = lv.compare(first, other_model(first), operating_point=POINT, margin=0.02, config=QUICK)
    facts = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    one = facts["targets"]["sick"]["figures"]["auroc"]
    assert {"a", "b", "difference", "p_value", "p_adjusted", "margin", "is_non_inferior"} <= set(one)
    assert "b − a" in found._repr_html_()


def test_one_class_is_undefined_and_says_why(random_predictions: Make) -> None:
    first = single(random_predictions(unknown=0.0))
    first = first.select(first.y_true["sick"] == 0)
    one = compare(first, other_model(first), operating_point=POINT, config=QUICK).differences["sick"]["auroc"]
    assert np.isnan(one.figure.value)
    assert np.isnan(one.p_value)
    assert one.figure.reason == "no positive sample"


def _relabelled(first: Predictions) -> Predictions:
    truth = first.y_true["sick"].copy()
    truth[3] = 1 - truth[3]
    return replace(first, y_true={"sick": truth})


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda p: p.select(np.arange(p.n - 2)), "2 images only in the first, 0 only in the second"),
        (lambda p: replace(p, patient_id=np.roll(p.patient_id, 1)), "the patients differ"),
        (_relabelled, "the labels of 'sick' differ. Received: 1 such"),
        (lambda p: replace(p, split="val"), "Received: test and val"),
        (lambda p: replace(p, targets=(Target("sick", "binary", ("0", "1")),)), "same targets"),
    ],
)
def test_other_cases_are_refused(
    random_predictions: Make, change: Callable[[Predictions], Predictions], word: str
) -> None:
    first = replace(single(random_predictions(unknown=0.0)), split="test")
    with pytest.raises(EvaluationError, match=word):
        compare(first, change(first), operating_point=POINT, config=QUICK)


@pytest.mark.parametrize(
    ("keys", "word"),
    [
        ({"endpoints": ["aurok"]}, "'auroc'"),
        ({"margin": 0.0}, "above 0"),
        ({"margin": {"aurok": 0.1}}, "'auroc'"),
    ],
)
def test_endpoints_and_margins_are_checked(random_predictions: Make, keys: dict[str, object], word: str) -> None:
    first = single(random_predictions(unknown=0.0))
    with pytest.raises(EvaluationError, match=word):
        compare(first, first, operating_point=POINT, config=QUICK, **keys)  # type: ignore[arg-type]


def test_learnt_aggregation_of_each_model_is_its_own(random_predictions: Make) -> None:
    """Patients' probabilities of both models against those joined by hand with each model's own fit."""
    first = single(random_predictions(unknown=0.0))
    second = other_model(first, noise=0.4)
    val = single(random_predictions(unknown=0.0, seed=5))
    fits = fit_aggregation(val, unit="patient"), fit_aggregation(other_model(val, noise=0.4, seed=8), unit="patient")
    assert fits[0].weights != fits[1].weights
    config = EvaluationConfig(replicates=100, unit="patient", aggregation="learnt")
    found = compare(first, second, operating_point=POINT, config=config, aggregations=fits)
    one = found.differences["sick"]["auroc"]
    for area, predictions, fit in ((one.a, first, fits[0]), (one.b, second, fits[1])):
        cases = aggregate(predictions, unit="patient", method="learnt", learnt=fit)
        assert area == pytest.approx(metrics.roc_auc_score(cases.y_true["sick"], cases.y_prob["sick"]))
    assert found.n == found.n_patients
    assert found.provenance["aggregation"] == "learnt"
    with pytest.raises(EvaluationError, match="learnt aggregation needs a fit"):
        compare(first, second, operating_point=POINT, config=config)
