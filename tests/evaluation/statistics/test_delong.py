"""DeLong and Obuchowski against their definitions over all pairs, by loops that share no code with the package."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from lepton_vision.config.sections import EvaluationConfig
from lepton_vision.errors import EvaluationError
from lepton_vision.evaluation import evaluate
from lepton_vision.evaluation.statistics.delong import AurocSamples, auroc_covariance, auroc_interval, mean_auroc
from lepton_vision.predictions import Predictions
from lepton_vision.predictions.operating_point import OperatingPoint

Make = Callable[..., Predictions]
POINT = OperatingPoint({"sick": (0.4,), "signs": (0.3, 0.5, 0.6)}, "stated")


def study(seed: int, *, patients: int = 25, decimals: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, two scores with ties, and patients with one to four images."""
    rng = np.random.default_rng(seed)
    unit = np.repeat(np.arange(patients), rng.integers(1, 5, patients))
    effect = rng.normal(size=patients)[unit]
    truth = rng.random(unit.size) < 0.4
    scores = np.round(rng.normal(size=(unit.size, 2)) + truth[:, None] + effect[:, None], decimals)
    return truth, scores, unit


def pair(x: float, y: float) -> float:
    return 1.0 if x > y else 0.5 if x == y else 0.0


def components(truth: np.ndarray, score: np.ndarray) -> tuple[dict[int, float], dict[int, float]]:
    """V10 of each positive row and V01 of each negative row, eq. 3 and 4 of DeLong et al. 1988."""
    positives, negatives = np.flatnonzero(truth), np.flatnonzero(~truth)
    first = {i: sum(pair(score[i], score[j]) for j in negatives) / len(negatives) for i in positives}
    second = {j: sum(pair(score[i], score[j]) for i in positives) / len(positives) for j in negatives}
    return first, second


def hand_obuchowski(truth: np.ndarray, scores: np.ndarray, unit: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Obuchowski 1997, eq. 3 to 7, with loops over the clusters."""
    m, n, clusters = int(truth.sum()), int((~truth).sum()), sorted(set(unit))
    parts = [components(truth, scores[:, k]) for k in range(scores.shape[1])]
    auroc = np.array([sum(first.values()) / m for first, _ in parts])
    held = {c: np.flatnonzero(unit == c) for c in clusters}
    i10 = sum(bool(truth[held[c]].any()) for c in clusters)
    i01 = sum(bool((~truth[held[c]]).any()) for c in clusters)
    covariance = np.zeros((2, 2))
    for r in range(2):
        for s in range(2):
            s10 = s01 = s11 = s11_turned = 0.0
            for c in clusters:
                rows = held[c]
                a = [sum(parts[k][0][i] - auroc[k] for i in rows if truth[i]) for k in (r, s)]
                b = [sum(parts[k][1][i] - auroc[k] for i in rows if not truth[i]) for k in (r, s)]
                s10, s01 = s10 + a[0] * a[1], s01 + b[0] * b[1]
                s11, s11_turned = s11 + a[0] * b[1], s11_turned + b[0] * a[1]
            s10 *= i10 / ((i10 - 1) * m)
            s01 *= i01 / ((i01 - 1) * n)
            factor = len(clusters) / (len(clusters) - 1)
            covariance[r, s] = s10 / m + s01 / n + factor * (s11 + s11_turned) / (m * n)
    return auroc, covariance


@pytest.mark.parametrize("seed", range(6))
def test_clustered_covariance_against_loops(seed: int) -> None:
    truth, scores, unit = study(seed)
    auroc, covariance = hand_obuchowski(truth, scores, unit)
    found = auroc_covariance(truth, scores, unit=unit)
    np.testing.assert_allclose(found.auroc, auroc, atol=1e-13)
    np.testing.assert_allclose(found.covariance, covariance, atol=1e-14, rtol=1e-10)


@pytest.mark.parametrize("decimals", [0, 1, 8])
def test_delong_is_the_sample_covariance_of_the_components(decimals: int) -> None:
    truth, scores, _ = study(3, decimals=decimals)
    first, second = (
        np.array([list(components(truth, scores[:, k])[side].values()) for k in (0, 1)]) for side in (0, 1)
    )
    expected = np.cov(first) / truth.sum() + np.cov(second) / (~truth).sum()
    np.testing.assert_allclose(auroc_covariance(truth, scores).covariance, expected, rtol=1e-10)
    singles = auroc_covariance(truth, scores, unit=np.random.default_rng(0).permutation(truth.size))
    np.testing.assert_allclose(singles.covariance, expected, rtol=1e-10)


def test_the_clustered_interval_is_wider_where_patients_have_equal_images() -> None:
    rng = np.random.default_rng(0)
    truth, score = rng.random(60) < 0.4, rng.normal(size=60)
    score += truth
    unit = np.repeat(np.arange(60), 9)
    single = auroc_covariance(truth, score[:, None]).covariance[0, 0]
    copied = np.repeat(truth, 9), np.repeat(score, 9)[:, None]
    assert auroc_covariance(*copied, unit=unit).covariance[0, 0] == pytest.approx(single, rel=1e-10)
    assert auroc_covariance(*copied).covariance[0, 0] < single / 8


def test_interval_on_the_logit_scale() -> None:
    low, high = auroc_interval(0.9, 0.03**2)
    assert low < 0.9 < high < 1.0
    assert 0.9 - low > high - 0.9
    # delta method by hand: logit(0.9) = 2.1972, deviation 0.03 / 0.09
    assert (low, high) == pytest.approx(
        tuple(1 / (1 + np.exp(-(np.log(9) + s * 1.959964 / 3))) for s in (-1, 1)), abs=1e-6
    )
    assert np.isnan(auroc_interval(1.0, 0.0)).all()


def test_one_class_is_refused() -> None:
    with pytest.raises(EvaluationError, match="0 negative"):
        auroc_covariance(np.ones(3, dtype=bool), np.zeros((3, 1)))


def test_evaluation_carries_it_beside_the_bootstrap(random_predictions: Make) -> None:
    predictions = random_predictions(unknown=0.0, n=500, patients=150)
    figures = evaluate(predictions, operating_point=POINT, config=EvaluationConfig(replicates=2000)).figures
    for figure in (figures["sick"]["auroc"], figures["organ"]["auroc_lung"], figures["signs"]["auroc_mass"]):
        assert [one.method for one in figure.others] == ["obuchowski_logit_t", "obuchowski"]
        for other in figure.others:
            assert (other.low, other.high) == pytest.approx((figure.low, figure.high), abs=0.012)
    stored = figures["sick"]["auroc"].to_dict()["intervals"]
    assert stored == {one.method: [one.low, one.high] for one in figures["sick"]["auroc"].others}
    ids = predictions.image_id
    alone = Predictions(predictions.targets, ids, ids, ids, predictions.y_true, predictions.y_prob)
    found = evaluate(alone, operating_point=POINT).figures["sick"]["auroc"]
    assert [one.method for one in found.others] == ["delong_logit_t", "delong"]


@pytest.mark.parametrize("shift", [0.3, 2.5])
def test_plain_delong_is_the_estimate_and_its_standard_error(shift: float) -> None:
    rng = np.random.default_rng(3)
    truth = np.arange(40) < 15
    score = rng.normal(size=40) + shift * truth
    found = auroc_covariance(truth, score[:, None])
    named = {one.method: one for one in found.intervals(confidence=0.9, is_clustered=False)}
    first, second = ([*part.values()] for part in components(truth, score))
    error = (np.var(first, ddof=1) / 15 + np.var(second, ddof=1) / 25) ** 0.5
    area = roc_auc_score(truth, score)
    ends = area - stats.norm.ppf(0.95) * error, min(area + stats.norm.ppf(0.95) * error, 1.0)
    assert (named["delong"].low, named["delong"].high) == pytest.approx(ends, rel=1e-9)
    assert (named["delong_logit_t"].low, named["delong_logit_t"].high) == found.interval(confidence=0.9)
    assert not auroc_covariance(truth, truth[:, None].astype(float)).intervals(confidence=0.9, is_clustered=False)


def test_few_patients_widen_the_interval_by_students_t() -> None:
    truth, scores, unit = study(1, patients=12)
    found = auroc_covariance(truth, scores, unit=unit)
    held = [len(set(unit[rows])) for rows in (truth, ~truth)]
    assert found.units == min(held)
    error = found.covariance[1, 1] ** 0.5 / (found.auroc[1] * (1 - found.auroc[1]))
    center = np.log(found.auroc[1] / (1 - found.auroc[1]))
    ends = 1 / (1 + np.exp(-(center + np.array([-1, 1]) * stats.t.ppf(0.975, min(held) - 1) * error)))
    assert found.interval(1) == pytest.approx(tuple(ends), rel=1e-9)


@pytest.mark.parametrize("images", [1, 4])
def test_mean_of_several_areas_against_the_jackknife_of_scikit_learns(images: int) -> None:
    """Leaving out one patient at a time knows nothing of structural components (Efron and Tibshirani 1993, ch. 11)."""
    rng = np.random.default_rng(images)
    unit = np.repeat(np.arange(120), images)
    organ = (rng.random(120) * 3).astype(int)[unit] if images == 1 else rng.integers(0, 3, unit.size)
    logits = rng.normal(size=(unit.size, 3)) + 1.2 * np.eye(3)[organ] + rng.normal(size=(120, 3))[unit]
    prob = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    samples = [AurocSamples(organ == k, prob[:, k], unit) for k in range(3)]
    found = mean_auroc(samples, units=120)

    def area(rows: np.ndarray) -> float:
        return float(roc_auc_score(organ[rows], prob[rows], multi_class="ovr"))

    assert found.auroc[0] == pytest.approx(area(unit >= 0), abs=1e-12)
    left = np.array([area(unit != k) for k in range(120)])
    expected = 119 / 120 * ((left - left.mean()) ** 2).sum()
    assert found.covariance[0, 0] == pytest.approx(expected, rel=0.06)
    alone = [auroc_covariance(one.is_positive, one.score[:, None], unit=unit).covariance[0, 0] for one in samples]
    assert abs(found.covariance[0, 0] / (sum(alone) / 9) - 1) > 0.1  # not as if the areas were independent


def test_two_classes_have_the_mean_of_one_area() -> None:
    truth, scores, unit = study(2)
    halves = [AurocSamples(truth, scores[:, 0], unit), AurocSamples(~truth, -scores[:, 0], unit)]
    found, one = mean_auroc(halves, units=25), auroc_covariance(truth, scores[:, :1], unit=unit)
    assert found.auroc[0] == pytest.approx(one.auroc[0])
    assert found.covariance[0, 0] == pytest.approx(one.covariance[0, 0], rel=0.01)  # small-sample factors differ
    alone = np.arange(truth.size)
    halves = [AurocSamples(truth, scores[:, 0], alone), AurocSamples(~truth, -scores[:, 0], alone)]
    exact = mean_auroc(halves, units=truth.size).covariance[0, 0]
    assert exact == pytest.approx(auroc_covariance(truth, scores[:, :1]).covariance[0, 0], rel=1e-10)


def test_means_over_classes_carry_it(random_predictions: Make) -> None:
    predictions = random_predictions(unknown=0.1, n=500, patients=150)
    figures = evaluate(predictions, operating_point=POINT, config=EvaluationConfig(replicates=1000)).figures
    for name in ("auroc", "auroc_micro"):
        for figure in (figures["organ"][name], figures["signs"][name]):
            assert [one.method for one in figure.others] == ["obuchowski_logit_t", "obuchowski"]
            for other in figure.others:
                assert (other.low, other.high) == pytest.approx((figure.low, figure.high), abs=0.012), name
    assert [one.method for one in figures["signs"]["sensitivity_micro"].others] == ["wilson", "clopper_pearson"]
