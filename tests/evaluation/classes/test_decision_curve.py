"""Net benefit against hand counts and a plain loop; bands over patients."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix

from lepton_vision.evaluation.classes.binary_views import BinaryView
from lepton_vision.evaluation.classes.decision_curve import decision_curve
from lepton_vision.evaluation.statistics.intervals import Bootstrap

FEW = Bootstrap(200)


def view(n: int = 500, seed: int = 0) -> BinaryView:
    rng = np.random.default_rng(seed)
    truth = rng.random(n) < 0.25
    prob = np.round(1 / (1 + np.exp(1.5 - rng.normal(size=n) - 2 * truth)), 2)  # many probabilities on a threshold
    return BinaryView("sick", truth, prob, np.arange(n), n)


def test_by_hand() -> None:
    # 10 patients, 3 sick. At t = 0.2 six are treated: 3 sick, 3 well: 3/10 - 3/10 * 0.25 = 0.225;
    # at t = 0.5 three are treated: 2 sick, 1 well: 2/10 - 1/10 = 0.1. Treating all: 3/10 - 7/10 * t / (1 - t).
    prob = np.array([0.9, 0.5, 0.25, 0.6, 0.3, 0.2, 0.1, 0.1, 0.05, 0.0])
    truth = np.arange(10) < 3
    curve = decision_curve(BinaryView("sick", truth, prob, np.arange(10), 10), FEW)
    assert curve.threshold[19] == 0.2
    assert curve.model.value[[19, 49]] == pytest.approx([0.225, 0.1])
    assert curve.treat_all.value[[19, 49]] == pytest.approx([0.3 - 0.175, -0.4])
    assert curve.gain.value[[19, 49]] == pytest.approx([0.1, 0.1])


def test_every_point_is_that_of_a_confusion_matrix() -> None:
    asked = view()
    curve = decision_curve(asked, FEW)
    for k, t in enumerate(curve.threshold):
        (_, fp), (_, tp) = confusion_matrix(asked.is_positive, asked.prob >= t)
        assert curve.model.value[k] == pytest.approx(tp / asked.n - fp / asked.n * t / (1 - t))


def test_below_the_lowest_probability_the_model_treats_all() -> None:
    asked = view()
    curve = decision_curve(BinaryView("sick", asked.is_positive, asked.prob.clip(0.1, 1), asked.unit, asked.units), FEW)
    np.testing.assert_allclose(curve.model.value[:9], curve.treat_all.value[:9])
    np.testing.assert_allclose(curve.gain.value[:9], 0.0, atol=1e-12)
    assert np.isnan([curve.gain.low[:9], curve.gain.high[:9]]).all()  # paired: no replicate moves it, so no band


def test_bands_hold_the_curve_and_widen_with_clusters() -> None:
    asked = view()
    alone = decision_curve(asked, FEW)
    has_band = np.isfinite(alone.model.low)
    assert has_band[:90].all()
    assert (alone.model.low <= alone.model.value + 1e-12)[has_band].all()
    assert (alone.model.high >= alone.model.value - 1e-12)[has_band].all()
    four = BinaryView("sick", *(np.tile(x, 4) for x in (asked.is_positive, asked.prob, asked.unit)), asked.units)
    clustered = decision_curve(four, FEW)
    np.testing.assert_allclose(clustered.model.low, alone.model.low)  # copies of a patient's image say nothing new
    independent = decision_curve(BinaryView("sick", four.is_positive, four.prob, np.arange(2000), 2000), FEW)
    width = independent.model.high[20] - independent.model.low[20]
    assert width < 0.7 * (alone.model.high[20] - alone.model.low[20])


def test_the_interval_covers_the_true_net_benefit() -> None:
    truth_value = _net_benefit(view(200_000, seed=99), 0.3)
    covered = 0
    for seed in range(60):
        curve = decision_curve(view(300, seed=seed), FEW)
        covered += curve.model.low[29] <= truth_value <= curve.model.high[29]
    assert covered >= 52  # 95 % of 60 is 57; below 52 with a chance of 1 %


def _net_benefit(asked: BinaryView, t: float) -> float:
    called = asked.prob >= t
    return float((called & asked.is_positive).mean() - (called & ~asked.is_positive).mean() * t / (1 - t))


def test_no_sample_gives_no_curve() -> None:
    empty = np.zeros(0)
    curve = decision_curve(BinaryView("sick", empty > 0, empty, empty.astype(int), 0), FEW)
    assert np.isnan(curve.model.value).all()
