"""Intervals: Wilson against statsmodels' published figures, the bootstrap against a plain loop, coverage."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats
from scipy.stats import binomtest
from sklearn.metrics import average_precision_score, recall_score, roc_auc_score

from lepton_vision.config.sections import EvaluationConfig
from lepton_vision.evaluation import evaluate
from lepton_vision.evaluation.classes.measures import BinaryMeasures
from lepton_vision.evaluation.statistics.intervals import (
    Bootstrap,
    bca_interval,
    bootstrap_figures,
    clopper_pearson,
    draw_counts,
    effective_size,
    expanded_confidence,
    leave_out_counts,
    patient_units,
    spread_freedom,
    wilson,
)
from lepton_vision.predictions import Predictions
from lepton_vision.predictions.operating_point import OperatingPoint
from lepton_vision.types import Target

Make = Callable[..., Predictions]
SICK = Target("sick", "binary", ("no", "yes"))
POINT = OperatingPoint({"sick": (0.5,)}, "stated")


def single(truth: np.ndarray, prob: np.ndarray, patient: list[str]) -> Predictions:
    ids = np.array([f"i{k}" for k in range(len(truth))])
    return Predictions((SICK,), ids, np.array(patient), ids, {"sick": truth}, {"sick": prob})


@pytest.mark.parametrize("confidence", [0.9, 0.95])
@pytest.mark.parametrize(("k", "n"), [(0, 10), (1, 10), (8, 10), (10, 10), (263, 1000)])
def test_wilson_against_scipy(k: int, n: int, confidence: float) -> None:
    expected = binomtest(k, n).proportion_ci(confidence, method="wilson")
    low, high = wilson(k, n, confidence=confidence)
    assert float(low) == pytest.approx(expected.low, abs=1e-12)
    assert float(high) == pytest.approx(expected.high, abs=1e-12)


def test_wilson_of_nothing_is_unknown() -> None:
    assert np.isnan(wilson([0], [0])).all()


def test_unknown_patients_are_patients_of_their_own() -> None:
    unit, units = patient_units(np.array(["b", "", "a", "b", ""]))
    assert units == 4
    assert unit[0] == unit[3]
    assert len(set(unit[[0, 1, 2, 4]])) == 4


def test_draws_depend_on_the_seed_alone() -> None:
    at_once = np.concatenate(list(draw_counts(30, replicates=50, samples=1, seed=5)))
    in_parts = np.concatenate(list(draw_counts(30, replicates=50, samples=200_000, seed=5)))
    np.testing.assert_array_equal(at_once, in_parts)
    assert (at_once.sum(axis=1) == 30).all()
    other = np.concatenate(list(draw_counts(30, replicates=50, samples=1, seed=6)))
    assert not np.array_equal(at_once, other)


def test_the_interval_is_that_of_a_plain_loop(random_predictions: Make) -> None:
    predictions = random_predictions(n=200, unknown=0.0, patients=60)
    truth, prob = predictions.y_true["sick"], predictions.y_prob["sick"]
    unit, units = patient_units(predictions.patient_id)
    figure = bootstrap_figures(
        BinaryMeasures(truth, prob, unit=unit, units=units, threshold=0.5),
        Bootstrap(replicates=200, seed=9, method="percentile"),
    )["auroc"]
    areas = []
    for count in np.concatenate(list(draw_counts(units, replicates=200, samples=200, seed=9))):
        rows = [
            row
            for patient in range(units)
            for _ in range(int(count[patient]))
            for row in np.flatnonzero(unit == patient)
        ]
        areas.append(roc_auc_score(truth[rows], prob[rows]))
    assert (figure.low, figure.high) == pytest.approx(tuple(np.quantile(areas, [0.025, 0.975])), abs=1e-12)


def test_images_of_one_patient_do_not_count_as_independent() -> None:
    rng = np.random.default_rng(0)
    truth = np.repeat(rng.integers(0, 2, 60), 10).astype(float)
    prob = np.repeat(1 / (1 + np.exp(-rng.normal(size=60))), 10) * 0.5 + truth * 0.2
    by_patient = single(truth, prob, [f"p{k // 10}" for k in range(600)])
    by_image = single(truth, prob, [f"p{k}" for k in range(600)])
    clustered, naive = (evaluate(p, operating_point=POINT).figures["sick"] for p in (by_patient, by_image))
    for name in ("auroc", "sensitivity", "brier"):
        assert clustered[name].value == pytest.approx(naive[name].value, abs=1e-12)
        ratio = (clustered[name].high - clustered[name].low) / (naive[name].high - naive[name].low)
        assert 2.4 < ratio < 4.2, name  # sqrt(10) = 3.2 for equal images


@pytest.mark.slow
def test_coverage_of_the_clustered_interval() -> None:
    """Patients share a random effect; the interval of the prevalence-weighted accuracy must hold its level."""
    rng = np.random.default_rng(1)
    hits = {"patient": 0, "image": 0}
    for trial in range(200):
        effect = np.repeat(rng.normal(size=80), 5)
        prob = 1 / (1 + np.exp(-effect))
        truth = (rng.random(400) < 0.5).astype(float)
        patients = {"patient": [f"p{k // 5}" for k in range(400)], "image": [f"p{k}" for k in range(400)]}
        for key, patient in patients.items():
            unit, units = patient_units(np.array(patient))
            measures = BinaryMeasures(truth, prob, unit=unit, units=units, threshold=0.5)
            figure = bootstrap_figures(measures, Bootstrap(replicates=400, seed=trial))["npv"]
            hits[key] += figure.low <= 0.5 <= figure.high
    assert 0.90 <= hits["patient"] / 200 <= 0.99


def test_a_perfect_proportion_gets_wilsons_interval_over_patients() -> None:
    truth = np.array([0.0, 0.0, 1.0, 1.0, 1.0, 1.0])
    figures = evaluate(single(truth, truth * 0.8 + 0.1, ["a", "b", "c", "c", "d", "e"]), operating_point=POINT).figures[
        "sick"
    ]
    expected = binomtest(3, 3).proportion_ci(0.95, method="wilson")  # patients c, d, e
    assert figures["sensitivity"].value == 1.0
    assert figures["sensitivity"].low == pytest.approx(expected.low)
    assert figures["sensitivity"].high == 1.0
    assert "Wilson" in figures["sensitivity"].reason
    assert np.isnan(figures["auroc"].low)
    assert figures["auroc"].reason == "no interval: one class has 2 patients only"


def test_dropped_replicates_are_told() -> None:
    rng = np.random.default_rng(0)
    truth = np.zeros(30)
    truth[:2] = 1.0  # missing in (28/30)^30 = 13 % of the replicates
    prob = np.concatenate([[0.9, 0.1], rng.random(28)])
    figures = evaluate(single(truth, prob, [f"p{k}" for k in range(30)]), operating_point=POINT).figures
    assert figures["sick"]["sensitivity"].reason.startswith("interval from the 8")
    assert figures["sick"]["sensitivity"].low <= figures["sick"]["sensitivity"].value
    assert figures["sick"]["brier"].reason == ""


def test_one_patient_has_no_interval() -> None:
    figure = evaluate(single(np.array([0.0, 1.0]), np.array([0.2, 0.9]), ["a", "a"]), operating_point=POINT).figures[
        "sick"
    ]["auroc"]
    assert figure.value == 1.0
    assert np.isnan(figure.low)
    assert figure.reason == "no interval: one patient only"


def test_confidence_and_seed_come_from_the_configuration(random_predictions: Make) -> None:
    predictions = random_predictions(unknown=0.0).select(np.arange(150))
    point = OperatingPoint({"sick": (0.5,), "signs": (0.5,) * 3}, "stated")

    def interval(**keys: float) -> tuple[float, float]:
        config = EvaluationConfig.model_validate(keys)
        figure = evaluate(predictions, operating_point=point, config=config).figures["sick"]["auroc"]
        return figure.low, figure.high

    wide, narrow = interval(confidence=0.99), interval(confidence=0.8)
    assert wide[0] < narrow[0] < narrow[1] < wide[1]
    assert interval(seed=1) == interval(seed=1) != interval(seed=2)


@pytest.mark.parametrize("confidence", [0.9, 0.95])
@pytest.mark.parametrize(("k", "n"), [(0, 10), (1, 10), (8, 10), (10, 10), (263, 1000)])
def test_clopper_pearson_against_scipy(k: int, n: int, confidence: float) -> None:
    expected = binomtest(k, n).proportion_ci(confidence, method="exact")
    low, high = clopper_pearson(k, n, confidence=confidence)
    assert float(low) == pytest.approx(expected.low, abs=1e-10)
    assert float(high) == pytest.approx(expected.high, abs=1e-10)


def test_effective_size_of_equal_and_of_independent_images() -> None:
    rng = np.random.default_rng(0)
    hits = (rng.random(200) < 0.3).astype(float)
    assert effective_size(hits, np.ones(200)) == 200
    assert effective_size(hits * 5, np.full(200, 5.0)) == pytest.approx(200, rel=0.01)
    independent = rng.binomial(5, 0.3, 2000).astype(float)
    assert effective_size(independent, np.full(2000, 5.0)) == pytest.approx(10_000, rel=0.1)
    assert effective_size(np.array([3.0, 2.0, 0.0]), np.array([3.0, 2.0, 0.0])) == 2
    assert effective_size(np.zeros(0), np.zeros(0)) == 0


def test_proportions_carry_wilson_and_clopper_pearson(random_predictions: Make) -> None:
    first = random_predictions(unknown=0.0)
    truth, prob, ids = first.y_true["sick"], first.y_prob["sick"], list(first.image_id)
    alone, shared = (
        evaluate(single(truth, prob, p), operating_point=POINT).figures["sick"] for p in (ids, list(first.patient_id))
    )
    hits, n = int(((prob >= 0.5) & (truth == 1)).sum()), int((truth == 1).sum())
    for method, name in (("wilson", "wilson"), ("exact", "clopper_pearson")):
        expected = binomtest(hits, n).proportion_ci(0.95, method=method)
        found = {one.method: one for one in alone["sensitivity"].others}[name]
        assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-10)
    assert [one.method for one in shared["specificity"].others] == ["wilson", "clopper_pearson"]


def expanded(alone: np.ndarray, confidence: float = 0.95) -> float:
    """Hesterberg 2015, section 5.3: alpha' / 2 is the normal tail beyond sqrt(n / (n - 1)) t; the t has the degrees of
    freedom of the mean of the squared influences (their expectation squared, twice, over their variance)."""
    units, squares = alone.size, (alone - alone.mean()) ** 2
    freedom = float(np.clip(2 * squares.sum() ** 2 / (units * squares.var()), 1, units - 1))
    return 1 - 2 * float(stats.norm.sf((units / (units - 1)) ** 0.5 * stats.t.isf((1 - confidence) / 2, freedom)))


def test_bca_against_scipy() -> None:
    rng = np.random.default_rng(5)
    truth = np.concatenate([np.ones(30), np.zeros(50)])
    prob = np.round(np.clip(rng.beta(2, 2, 80) * 0.7 + 0.3 * truth, 0, 1), 2)
    measures = BinaryMeasures(truth, prob, unit=np.arange(80), units=80, threshold=0.5)
    bootstrap = Bootstrap(replicates=500, seed=2, method="bca")
    figures = bootstrap_figures(measures, bootstrap)
    counts = np.concatenate(list(draw_counts(80, replicates=500, samples=80, seed=2)))
    drawn = measures.values(counts)
    statistics = {
        "auroc": lambda rows: roc_auc_score(truth[rows], prob[rows]),
        "average_precision": lambda rows: average_precision_score(truth[rows], prob[rows]),
        "brier": lambda rows: np.mean((truth[rows] - prob[rows]) ** 2),
        "sensitivity": lambda rows: recall_score(truth[rows], prob[rows] >= 0.5),
    }
    for name, statistic in statistics.items():
        given = SimpleNamespace(bootstrap_distribution=drawn[name], confidence_interval=None, standard_error=None)
        expected = stats.bootstrap(
            (np.arange(80),),
            statistic,
            n_resamples=0,
            vectorized=False,
            method="BCa",
            confidence_level=expanded(measures.values(1.0 - np.eye(80))[name]),
            bootstrap_result=given,
        ).confidence_interval
        assert figures[name].method == "bca"
        assert (figures[name].low, figures[name].high) == pytest.approx(tuple(expected), abs=1e-12), name


def test_bca_leaves_out_patients_not_images() -> None:
    counts = np.concatenate(list(leave_out_counts(40, samples=100, seed=0)))
    np.testing.assert_array_equal(counts, 1.0 - np.eye(40))
    grouped = np.concatenate(list(leave_out_counts(5000, samples=1, seed=0)))
    assert grouped.shape == (400, 5000)
    np.testing.assert_array_equal((1.0 - grouped).sum(axis=0), 1.0)
    assert set((1.0 - grouped).sum(axis=1)) == {12.0, 13.0}


def test_leaving_out_groups_gives_the_same_interval() -> None:
    """3,000 patients left out one by one, with scipy's formula, against 400 groups of them."""
    rng = np.random.default_rng(0)
    truth = (rng.random(3000) < 0.05).astype(float)
    prob = 1 / (1 + np.exp(3 - 1.5 * truth - rng.normal(size=3000)))
    measures = BinaryMeasures(truth, prob, unit=np.arange(3000), units=3000, threshold=0.2)
    figures = bootstrap_figures(measures, Bootstrap(1000))
    drawn = measures.values(np.concatenate(list(draw_counts(3000, replicates=1000, samples=3000, seed=0))))
    alone = measures.values(1.0 - np.eye(3000))
    for name in ("auroc", "average_precision", "partial_auroc", "brier", "mcc", "sensitivity"):
        exact = bca_interval(figures[name].value, drawn[name], alone[name], confidence=expanded(alone[name]))
        width = figures[name].high - figures[name].low
        assert (figures[name].low, figures[name].high) == pytest.approx(exact, abs=0.03 * width), name


@pytest.mark.parametrize("images", [1, 6])
def test_bca_of_patients_against_scipy(images: int) -> None:
    """scipy resamples and leaves out patients, each with all rows; ours gets the same draws."""
    rng = np.random.default_rng(images)
    unit = np.repeat(np.arange(40), rng.integers(1, images + 1, 40))
    truth = (rng.random(unit.size) < np.where(rng.random(40) < 0.5, 0.8, 0.2)[unit]).astype(float)
    prob = np.clip(0.3 + 0.3 * truth + 0.1 * rng.normal(size=40)[unit] + 0.1 * rng.normal(size=unit.size), 0.01, 0.99)
    measures = BinaryMeasures(truth, prob, unit=unit, units=40, threshold=0.5)
    figures = bootstrap_figures(measures, Bootstrap(400, seed=7))
    counts = np.concatenate(list(draw_counts(40, replicates=400, samples=unit.size, seed=7)))

    def area(patients: np.ndarray) -> float:
        rows = np.concatenate([np.flatnonzero(unit == patient) for patient in patients])
        return round(float(roc_auc_score(truth[rows], prob[rows])), 13)  # equal areas are equal

    drawn = np.array([area(np.repeat(np.arange(40), one.astype(int))) for one in counts])
    given = SimpleNamespace(bootstrap_distribution=drawn, confidence_interval=None, standard_error=None)
    expected = stats.bootstrap(
        (np.arange(40),),
        area,
        n_resamples=0,
        vectorized=False,
        method="BCa",
        confidence_level=expanded(measures.values(1.0 - np.eye(40))["auroc"]),
        bootstrap_result=given,
    ).confidence_interval
    assert figures["auroc"].method == "bca"
    assert (figures["auroc"].low, figures["auroc"].high) == pytest.approx(tuple(expected), abs=1e-10)


def test_few_patients_of_a_normal_mean_get_nearly_students_interval() -> None:
    """Normal replicates without bias or skewness: the ends are those of the t interval."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=12)
    x = np.sort(x)
    x = (x - x[::-1]) / 2  # symmetric about 0, so no acceleration
    drawn = rng.normal(0, x.std() / 12**0.5, 400_000)
    jackknife = np.array([np.delete(x, k).mean() for k in range(12)])
    found = bca_interval(0.0, drawn, jackknife, confidence=expanded_confidence(0.95, 12))
    half = stats.t.isf(0.025, 11) * x.std(ddof=1) / 12**0.5
    assert found == pytest.approx((-half, half), rel=0.02)


def test_few_patients_with_the_finding_count_as_few() -> None:
    """Sensitivity among 200 patients of whom ten have the finding: the spread is known about as well as that of ten."""
    rng = np.random.default_rng(1)
    truth, prob = (np.arange(200) < 10).astype(float), rng.random(200)
    prob[:10] = np.linspace(0.1, 0.9, 10)
    measures = BinaryMeasures(truth, prob, unit=np.arange(200), units=200, threshold=0.45)
    alone = measures.values(1.0 - np.eye(200))
    assert 9 < spread_freedom(alone["sensitivity"], units=200) < 20
    assert spread_freedom(alone["specificity"], units=200) > 100
    assert spread_freedom(alone["prevalence"], units=200) < spread_freedom(alone["accuracy"], units=200) <= 199


def test_groups_of_patients_have_the_freedom_of_their_patients() -> None:
    alone = np.random.default_rng(0).exponential(size=40_000)
    grouped = alone.reshape(400, 100).sum(axis=1)
    expected = 2 * 40_000 / 8.0  # an exponential has kurtosis 9
    assert spread_freedom(alone, units=40_000) == pytest.approx(expected, rel=0.25)
    assert spread_freedom(grouped, units=40_000) > 1000  # one kurtosis of 400 sums is rough, and far from small
    assert spread_freedom(np.full(30, 0.5), units=30) == 29


def test_bca_is_the_default_and_withheld_where_a_figure_is_biased_rather_than_skewed() -> None:
    assert EvaluationConfig().interval == Bootstrap().method == "bca"
    drawn = np.random.default_rng(0).normal(1.0, 0.1, 1000)
    even = np.linspace(-1.0, 1.0, 30)
    assert bca_interval(1.0, drawn, even, confidence=0.95) is not None
    assert bca_interval(0.8, drawn, even, confidence=0.95) is None  # nearly all replicates lie above


def test_a_figure_of_one_patient_has_wilsons_interval_and_says_so() -> None:
    rng = np.random.default_rng(0)
    truth = np.zeros(30)
    truth[:2] = 1.0  # both of one patient: without it there is no sensitivity
    patients = ["p0", "p0", *(f"p{k}" for k in range(2, 30))]
    result = evaluate(single(truth, rng.random(30), patients), operating_point=POINT)
    figure = result.figures["sick"]["sensitivity"]
    assert (figure.method, figure.reason) == ("wilson", "Wilson interval over 1 patients")
    expected = binomtest(1, 2).proportion_ci(method="wilson")  # 0.5 of one patient is wider than 1 of 2
    assert figure.low < expected.low < expected.high < figure.high
    assert result.figures["sick"]["auroc"].reason == "no interval: one class has one patient only"
    assert np.isnan(result.figures["sick"]["auroc"].low)
    assert result.figures["sick"]["brier"].method == "bca"
    assert result.provenance["intervals"] == "BCa bootstrap over patients"


def test_two_patients_get_the_whole_range_of_the_replicates() -> None:
    truth, prob = np.array([0.0, 1.0, 0.0, 1.0]), np.array([0.2, 0.6, 0.7, 0.8])
    figure = evaluate(single(truth, prob, ["a", "a", "b", "b"]), operating_point=POINT).figures["sick"]["brier"]
    by_patient = [np.mean((truth - prob)[rows] ** 2) for rows in (slice(0, 2), slice(2, 4))]
    assert (figure.low, figure.high) == pytest.approx((min(by_patient), max(by_patient)))
