"""Prediction intervals of an operating point, by simulation of whole studies."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import beta, binom

from lepton_vision.evaluation import choose_operating_point
from lepton_vision.evaluation.statistics.expected import expected_at, predict_share
from lepton_vision.predictions import Predictions
from lepton_vision.predictions.operating_point import OperatingPoint
from lepton_vision.types import Target

SICK = Target("sick", "binary", ("no", "yes"))


def study(rng: np.random.Generator, positives: int, negatives: int) -> Predictions:
    truth = np.repeat([1.0, 0.0], [positives, negatives])
    prob = 1 / (1 + np.exp(-rng.normal(size=truth.size) - 2 * truth))
    ids = np.array([f"i{k}" for k in range(truth.size)])
    return Predictions((SICK,), ids, ids, ids, {"sick": truth}, {"sick": prob}, split="val")


def test_a_point_chosen_for_a_sensitivity_gives_new_cases_what_was_predicted() -> None:
    """Chosen on 40 to 80 positives, seen on 50 new ones: at least 93 % of the sensitivities lie inside."""
    rng, inside, specific = np.random.default_rng(0), [], []
    for k in range(400):
        point = choose_operating_point(study(rng, (40, 80)[k % 2], 120), min_sensitivity=(0.95, 0.8)[k // 2 % 2])
        (expected,) = expected_at(point, SICK, new={"yes": (50, 100)})
        new = study(rng, 50, 100)
        called, truth = new.y_prob["sick"] >= point.thresholds["sick"][0], new.y_true["sick"] > 0
        inside.append(expected.sensitivity[0] <= called[truth].mean() <= expected.sensitivity[1])
        specific.append(expected.specificity[0] <= (~called[~truth]).mean() <= expected.specificity[1])
    assert np.mean(inside) >= 0.93
    assert np.mean(specific) >= 0.93


def test_the_distribution_is_a_binomial_whose_chance_is_a_beta() -> None:
    chance = (np.arange(20_000) + 0.5) / 20_000
    shares = beta.ppf(chance, 57.5, 3.5)
    below = np.array([binom.cdf(k, 40, shares).mean() for k in range(41)])
    ends = int((below < 0.025).sum()), int((below < 0.975).sum())
    assert predict_share(57, 60, new=40) == pytest.approx((ends[0] / 40, ends[1] / 40))


def test_a_point_without_counts_predicts_nothing() -> None:
    assert expected_at(OperatingPoint({"sick": (0.5,)}, "stated"), SICK) == ()
