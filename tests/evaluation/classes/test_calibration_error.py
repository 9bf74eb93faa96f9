"""Calibration errors against loops, the binomial distribution, simulation and scikit-learn's logistic regression."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import binom
from sklearn.linear_model import LogisticRegression

from lepton_vision.config.sections import EvaluationConfig
from lepton_vision.evaluation import evaluate
from lepton_vision.evaluation.classes.calibration_error import calibration_error, mean_error
from lepton_vision.evaluation.classes.curves import equal_mass_bins
from lepton_vision.evaluation.statistics.calibration_curve import Groups, curve_distances, spline
from lepton_vision.predictions import Predictions
from lepton_vision.predictions.operating_point import OperatingPoint
from lepton_vision.types import Figure, Target

Make = Callable[..., Predictions]


def study(n: int, seed: int, *, slope: float = 1.0, level: float = -0.8) -> tuple[np.ndarray, np.ndarray]:
    """Labels, and probabilities that are too sure by ``slope``."""
    rng = np.random.default_rng(seed)
    line = rng.normal(level, 1.3, n)
    return (rng.random(n) < expit(line)).astype(float), expit(slope * line)


def true_errors(slope: float, level: float = -0.8) -> dict[str, float]:
    """Of an endless study: distance from the true chance, and in ten bins of equal mass."""
    line = np.random.default_rng(1).normal(level, 1.3, 400_000)
    gap = expit(line) - expit(slope * line)
    which = equal_mass_bins(expit(slope * line))
    return {
        "ece": float(np.abs(np.bincount(which, gap)).sum() / gap.size),
        "ici": float(np.abs(gap).mean()),
        "e50": float(np.median(np.abs(gap))),
        "e90": float(np.quantile(np.abs(gap), 0.9)),
    }


def curve(truth: np.ndarray, prob: np.ndarray) -> dict[str, Figure]:
    line = np.log(prob / (1 - prob))
    order = np.argsort(line)
    return curve_distances(Groups(line[order], np.ones(line.size), truth[order]), confidence=0.95)


@pytest.mark.parametrize(("n", "level"), [(60, -0.8), (200, -4.0), (500, 1.0)])
def test_what_chance_gives_is_the_mean_of_simulated_labels(n: int, level: float) -> None:
    _, prob = study(n, 5, level=level)
    rng, which = np.random.default_rng(0), equal_mass_bins(prob)
    drawn = [np.abs(np.bincount(which, (rng.random(n) < prob) - prob)).sum() / n for _ in range(3000)]
    found = calibration_error(prob.round(), prob, unit=np.arange(n)).chance
    assert found == pytest.approx(np.mean(drawn), rel=0.015)


def test_chance_in_one_bin_is_the_mean_deviation_of_a_binomial() -> None:
    found = calibration_error(np.zeros(12), np.full(12, 0.3), unit=np.arange(12))
    hits = np.arange(13)
    assert found.chance == pytest.approx(float(binom.pmf(hits, 12, 0.3) @ np.abs(hits / 12 - 0.3)), rel=1e-12)
    assert found.value == pytest.approx(0.3)


def test_the_debiased_error_gives_the_counted_one_on_average() -> None:
    """Gaps around the shrunk ones, drawn with numpy, have the counted mean; scipy's folded normal is not asked."""
    truth, prob = study(300, 3, slope=1.6)
    found, which = calibration_error(truth, prob, unit=np.arange(300)), equal_mass_bins(prob)
    size = np.bincount(which)
    gap = np.bincount(which, truth - prob) / size
    spread = np.sqrt(
        [max((truth - prob)[which == b].var(ddof=1), (prob * (1 - prob))[which == b].mean()) for b in range(10)] / size
    )
    factor = found.debiased / found.value
    drawn = np.abs(factor * gap + spread * np.random.default_rng(0).normal(size=(40_000, 10))) @ size / 300
    assert 0.0 < factor < 1.0
    assert drawn.mean() == pytest.approx(found.value, rel=0.01)


@pytest.mark.parametrize(
    ("n", "slope", "level"), [(100, 1.0, -0.8), (366, 1.0, -3.0), (366, 1.5, -0.8), (1000, 3.0, -0.8)]
)
def test_the_interval_holds_the_true_error_and_the_debiased_one_is_near_it(n: int, slope: float, level: float) -> None:
    true = true_errors(slope, level)["ece"]
    found = [calibration_error(*study(n, seed, slope=slope, level=level), unit=np.arange(n)) for seed in range(200)]
    assert np.mean([one.low <= true <= one.high for one in found]) >= 0.93
    counted, debiased = (np.mean([getattr(one, name) for one in found]) - true for name in ("value", "debiased"))
    assert abs(debiased) <= 0.45 * abs(counted) + 0.002


@pytest.mark.parametrize(("n", "slope"), [(100, 1.0), (366, 1.5)])
def test_the_intervals_of_the_curve_hold_the_true_distances(n: int, slope: float) -> None:
    true, found = true_errors(slope), [curve(*study(n, seed, slope=slope)) for seed in range(100)]
    for name in ("ici", "e50", "e90"):
        assert np.mean([one[name].low <= true[name] <= one[name].high for one in found]) >= 0.93, name


def test_the_curve_finds_a_bent_truth() -> None:
    rng = np.random.default_rng(0)
    line = rng.normal(0.0, 1.2, 12_000)
    chance = expit(0.6 * line + 0.2 * line**2 - 0.5)
    found = curve((rng.random(line.size) < chance).astype(float), expit(line))
    gap = np.abs(chance - expit(line))
    for name, value in {"ici": gap.mean(), "e50": np.median(gap), "e90": np.quantile(gap, 0.9)}.items():
        assert found[name].value == pytest.approx(value, abs=0.02), name


def test_the_curve_is_the_logistic_regression_of_scikit_learn() -> None:
    truth, prob = study(700, 2, slope=1.4)
    line, order = np.log(prob / (1 - prob)), np.argsort(prob)
    design = spline(line[order], np.ones(700), knots=(0.05, 0.35, 0.65, 0.95))
    assert design is not None
    model = LogisticRegression(C=np.inf, tol=1e-12, max_iter=10_000, fit_intercept=False).fit(design, truth[order])
    gap = np.abs(model.predict_proba(design)[:, 1] - prob[order])
    found = curve(truth, prob)
    assert found["ici"].value == pytest.approx(gap.mean(), abs=1e-5)
    assert found["e90"].value == pytest.approx(np.quantile(gap, 0.9, method="inverted_cdf"), abs=1e-5)


def test_the_spline_is_cubic_between_and_straight_beyond_its_knots() -> None:
    x = np.linspace(-3, 3, 601)
    design = spline(x, np.ones(601), knots=(0.1, 0.5, 0.9))
    assert design is not None
    bent = design[:, 2]
    second = np.diff(bent, 2)
    assert np.allclose(second[:50], 0.0)
    assert np.allclose(second[-50:], 0.0, atol=1e-9)
    assert second[250:350].max() > 1e-5
    # Harrell's formula by hand at x = 1, knots -2.4, 0, 2.4
    value = (3.4**3 - 1.0**3 * 4.8 / 2.4) / 4.8**2
    assert bent[np.argmin(np.abs(x - 1.0))] == pytest.approx(value, rel=0.02)


def test_copies_of_an_image_make_no_interval_narrower() -> None:
    truth, prob = study(200, 1)
    once = calibration_error(truth, prob, unit=np.arange(200))
    copied = calibration_error(np.repeat(truth, 4), np.repeat(prob, 4), unit=np.repeat(np.arange(200), 4))
    assert (copied.low, copied.high, copied.chance) == pytest.approx((once.low, once.high, once.chance), rel=0.03)


def test_what_has_no_interval_says_so() -> None:
    sure = calibration_error(np.zeros(5), np.zeros(5), unit=np.arange(5))
    assert (sure.value, np.isnan(sure.low), "all probabilities" in sure.reason) == (0.0, True, True)
    alone = calibration_error(np.ones(3), np.zeros(3), unit=np.zeros(3, dtype=int))
    assert (alone.value, alone.reason) == (1.0, "no interval: one patient only")
    assert np.isnan(calibration_error(np.zeros(0), np.zeros(0), unit=np.zeros(0, dtype=int)).value)
    few = curve(np.array([1.0, 0, 0, 0, 0, 0]), np.linspace(0.2, 0.8, 6))["ici"]
    assert "too few for a curve" in few.reason


@pytest.mark.parametrize("kind", ["binary", "multiclass", "ordinal", "multilabel"])
def test_every_kind_has_them_in_figures_and_in_its_calibration(random_predictions: Make, kind: str) -> None:
    first = random_predictions(n=200)
    source = next(t for t in first.targets if t.kind == kind or (kind == "ordinal" and t.kind == "multiclass"))
    target = Target("x", kind, source.classes)
    part = Predictions(
        (target,), first.image_id, first.patient_id, first.series_id,
        {"x": first.y_true[source.name]}, {"x": first.y_prob[source.name]},
    )  # fmt: skip
    point = OperatingPoint({"x": () if target.is_exclusive else (0.5,) * target.outputs}, "stated")
    result = evaluate(part, operating_point=point, config=EvaluationConfig(replicates=100))
    found, by_class = result.figures["x"], result.analyses.calibration["x"]
    names = ("ece", "debiased_ece", "chance_ece")
    for k, one in enumerate(by_class):
        for name in names:
            key = name if kind == "binary" else f"{name}_{target.classes[k]}"
            assert found[key].to_dict() == one.figures[name].to_dict()
        assert one.figures["ici"].low <= one.figures["ici"].value <= one.figures["ici"].high
    for name in names:
        assert found[name].value == pytest.approx(np.mean([one.figures[name].value for one in by_class]))
    assert result.to_dict()["analyses"]["calibration"]["x"][0]["figures"]["e90"]["method"] == "curve_region"


def test_the_interval_of_a_mean_is_that_of_classes_that_err_alike() -> None:
    one = calibration_error(*study(100, 1), unit=np.arange(100))
    assert mean_error([one, one]) == one
