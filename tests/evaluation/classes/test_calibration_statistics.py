"""Calibration slope, intercept, reliability curve and Brier decomposition against scikit-learn and by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import expit, logit
from sklearn.calibration import calibration_curve
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss

from lepton_vision.evaluation import evaluate
from lepton_vision.evaluation.classes.binary_views import BinaryView
from lepton_vision.evaluation.classes.calibration_statistics import calibration_statistics
from lepton_vision.evaluation.statistics.intervals import Bootstrap
from lepton_vision.predictions import Predictions
from lepton_vision.predictions.operating_point import OperatingPoint

Make = Callable[..., Predictions]
FEW = Bootstrap(200)


def view(n: int, *, slope: float = 1.0, shift: float = 0.0, seed: int = 0) -> BinaryView:
    """The model says expit(z) where the truth is expit(shift + slope * z)."""
    rng = np.random.default_rng(seed)
    z = rng.normal(scale=1.5, size=n)
    return BinaryView("sick", rng.random(n) < expit(shift + slope * z), expit(z), np.arange(n), n)


@pytest.mark.parametrize("n", [300, 5000])  # below and above the number of groups
def test_slope_and_intercept_are_the_maxima_of_the_likelihood(n: int) -> None:
    asked = view(n, slope=0.6, shift=-0.5)
    found = calibration_statistics(asked, FEW).figures
    z, truth = logit(asked.prob), asked.is_positive
    oracle = LogisticRegression(C=np.inf, tol=1e-10).fit(z[:, None], truth)
    assert found["slope"].value == pytest.approx(oracle.coef_[0, 0], abs=1e-6 if n < 512 else 2e-3)
    root = brentq(lambda a: expit(a + z).sum() - truth.sum(), -10, 10)
    assert found["intercept"].value == pytest.approx(root, abs=1e-6 if n < 512 else 1e-3)
    assert found["observed_expected"].value == pytest.approx(truth.sum() / asked.prob.sum())


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    covered = {"slope": 0, "intercept": 0}
    for seed in range(60):
        found = calibration_statistics(view(300, seed=seed), FEW).figures
        covered["slope"] += found["slope"].low <= 1.0 <= found["slope"].high
        covered["intercept"] += found["intercept"].low <= 0.0 <= found["intercept"].high
    assert all(count >= 52 for count in covered.values())  # 95 % of 60 is 57; below 52 with a chance of 1 %
    wrong = calibration_statistics(view(4000, slope=0.6, shift=-0.5), FEW).figures
    assert wrong["slope"].low < 0.6 < wrong["slope"].high < 1.0
    assert wrong["intercept"].high < 0.0


def test_copies_of_an_image_make_no_interval_narrower() -> None:
    one = view(200)
    many = BinaryView("sick", *(np.repeat(values, 5) for values in (one.is_positive, one.prob, one.unit)), one.units)
    alone, copied = calibration_statistics(one, FEW), calibration_statistics(many, FEW)
    for name in ("slope", "intercept", "observed_expected"):
        assert copied.figures[name].low == pytest.approx(alone.figures[name].low, abs=1e-6)
        assert copied.figures[name].high == pytest.approx(alone.figures[name].high, abs=1e-6)
    assert copied.bins[3].observed.low == pytest.approx(alone.bins[3].observed.low)


def test_the_reliability_curve_is_that_of_scikit_learn() -> None:
    asked = view(1000)
    bins = calibration_statistics(asked, FEW).bins
    observed, predicted = calibration_curve(asked.is_positive, asked.prob, n_bins=10, strategy="quantile")
    np.testing.assert_allclose([one.predicted for one in bins], predicted)
    np.testing.assert_allclose([one.observed.value for one in bins], observed)
    assert sum(one.observed.n for one in bins) == 1000
    assert all(one.observed.low <= one.observed.value <= one.observed.high for one in bins)


def test_the_parts_of_the_brier_score_add_up() -> None:
    rng = np.random.default_rng(0)
    prob = rng.choice([0.1, 0.3, 0.6, 0.9], 400)  # as many values as bins: nothing is lost inside a bin
    truth = rng.random(400) < prob**2
    found = calibration_statistics(BinaryView("sick", truth, prob, np.arange(400), 400), FEW).figures
    parts = [found[f"brier_{name}"].value for name in ("reliability", "resolution", "uncertainty")]
    assert parts[0] - parts[1] + parts[2] == pytest.approx(brier_score_loss(truth, prob))
    assert parts[2] == pytest.approx(truth.mean() * (1 - truth.mean()))


def test_murphy_by_hand() -> None:
    # 4 forecasts of 0.25 (1 event), 4 of 0.75 (4 events): reliability (0 + 0.25²) / 2, base rate 5/8,
    # resolution ((1/4 - 5/8)² + (1 - 5/8)²) / 2
    prob = np.repeat([0.25, 0.75], 4)
    truth = np.array([1, 0, 0, 0, 1, 1, 1, 1], dtype=bool)
    found = calibration_statistics(BinaryView("sick", truth, prob, np.arange(8), 8), FEW).figures
    assert found["brier_reliability"].value == pytest.approx(0.03125)
    assert found["brier_resolution"].value == pytest.approx(0.140625)
    assert found["brier_uncertainty"].value == pytest.approx(15 / 64)
    assert found["ece"].value == pytest.approx(0.125)


def test_what_is_undefined_says_why() -> None:
    prob, unit = np.array([0.2, 0.3, 0.7, 0.8]), np.arange(4)
    separated = calibration_statistics(BinaryView("sick", prob > 0.5, prob, unit, 4), FEW).figures
    assert np.isnan(separated["slope"].value)
    assert "separate" in separated["slope"].reason
    alone = calibration_statistics(BinaryView("sick", prob > 0.0, prob, unit, 4), FEW).figures
    assert alone["intercept"].reason == "no negative sample"
    empty = calibration_statistics(BinaryView("sick", prob[:0] > 0, prob[:0], unit[:0], 0), FEW)
    assert empty.bins == ()
    assert empty.figures["slope"].reason == "no labelled sample"


def test_an_evaluation_holds_them_for_every_class(random_predictions: Make) -> None:
    predictions = random_predictions(split="test")
    point = OperatingPoint({"sick": (0.5,), "organ": (), "signs": (0.5, 0.5, 0.5)}, "stated")
    result = evaluate(predictions, operating_point=point)
    found = result.analyses.calibration
    assert found is not None
    assert [one.class_name for one in found["organ"]] == ["liver", "lung", "brain"]
    assert [one.class_name for one in found["sick"]] == ["yes"]
    assert found["sick"][0].figures["ece"].value == pytest.approx(result.figures["sick"]["ece"].value)
    assert found["signs"][2].n == result.figures["signs"]["auroc_air"].n
    plain = result.to_dict()["analyses"]
    assert plain["calibration"]["signs"][0]["figures"]["slope"] == found["signs"][0].figures["slope"].to_dict()
    assert plain["external"] is None
