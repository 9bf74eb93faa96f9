"""External validation: differences with intervals of independent bootstraps, and gain from recalibration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, log_loss
from sklearn.model_selection import cross_val_predict

from lepton_vision.config.sections import EvaluationConfig
from lepton_vision.errors import EvaluationError
from lepton_vision.evaluation import evaluate
from lepton_vision.evaluation.classes.binary_views import binary_views
from lepton_vision.evaluation.classes.external import Site, compare_external, recalibrate
from lepton_vision.predictions import Predictions
from lepton_vision.predictions.operating_point import OperatingPoint
from lepton_vision.types import Target

Make = Callable[..., Predictions]
SICK = Target("sick", "binary", ("no", "yes"))
POINT = OperatingPoint({"sick": (0.5,)}, "stated")
FEW = EvaluationConfig(replicates=400)


def site(n: int = 500, *, seed: int = 0, noise: float = 1.0, shift: float = 0.0, name: str = "a") -> Predictions:
    """Probabilities that mean what they say where noise is 1 and shift 0."""
    rng = np.random.default_rng(seed)
    z = rng.normal(scale=2, size=n) - 0.5
    truth = (rng.random(n) < expit(shift + z / noise)).astype(float)
    ids = np.array([f"{name}{k}" for k in range(n)])
    return Predictions((SICK,), ids, ids, ids, {"sick": truth}, {"sick": expit(z)}, split="test")


def test_a_drop_is_found_with_its_interval() -> None:
    here, there = site(), site(seed=1, noise=3.0, name="b")
    found = compare_external(there, operating_point=POINT, config=FEW, reference=here)
    area = found.shifts["sick"]["auroc"]
    assert area.internal == evaluate(here, operating_point=POINT, config=FEW).figures["sick"]["auroc"]
    assert area.external == evaluate(there, operating_point=POINT, config=FEW).figures["sick"]["auroc"]
    assert area.difference.value == pytest.approx(area.external.value - area.internal.value)
    assert area.difference.high < -0.05
    # two independent samples: the variances add up
    widths = [one.high - one.low for one in (area.internal, area.external)]
    assert area.difference.high - area.difference.low == pytest.approx(np.hypot(*widths), rel=0.12)
    assert found.reference == "test split, n = 500"
    assert found.shifts["sick"]["sensitivity"].difference.n == (
        found.shifts["sick"]["sensitivity"].internal.n + found.shifts["sick"]["sensitivity"].external.n
    )


def test_the_two_bootstraps_are_independent() -> None:
    # Both tables have the sick first: the same draws would raise and lower both prevalences together.
    parts = []
    for name in "ab":
        ids = np.array([f"{name}{k:03}" for k in range(200)])
        truth, prob = (np.arange(200) < 60).astype(float), np.random.default_rng(ord(name)).random(200)
        parts.append(Predictions((SICK,), ids, ids, ids, {"sick": truth}, {"sick": prob}))
    shift = compare_external(parts[0], operating_point=POINT, config=FEW, reference=parts[1]).shifts["sick"]
    width = shift["prevalence"].difference.high - shift["prevalence"].difference.low
    assert width == pytest.approx(2 * 1.96 * np.sqrt(2 * 0.3 * 0.7 / 200), rel=0.15)


def test_the_same_population_differs_as_seldom_as_stated() -> None:
    config, outside = EvaluationConfig(replicates=200), 0
    for seed in range(60):
        pair = site(150, seed=2 * seed), site(150, seed=2 * seed + 1, name="b")
        shift = compare_external(pair[0], operating_point=POINT, config=config, reference=pair[1]).shifts["sick"]
        outside += not shift["auroc"].difference.low <= 0.0 <= shift["auroc"].difference.high
    assert outside <= 8  # 5 % of 60 is 3; above 8 with a chance of 0.3 %


def test_recalibration_is_fitted_on_other_patients() -> None:
    made = site(600, noise=2.5, shift=-1.0)
    (view,) = binary_views(made, SICK)
    after = recalibrate(view, seed=0)
    x, truth = logit(made.y_prob["sick"])[:, None], made.y_true["sick"]
    oracle = cross_val_predict(LogisticRegression(C=np.inf), x, truth, cv=5, method="predict_proba")[:, 1]
    assert brier_score_loss(truth, after) == pytest.approx(brier_score_loss(truth, oracle), abs=5e-3)
    through_all = LogisticRegression(C=np.inf).fit(x, truth).predict_proba(x)[:, 1]
    assert np.abs(after - through_all).max() < 0.05


def test_noise_gains_nothing_though_a_line_through_all_samples_would_seem_to() -> None:
    gains, seeming = [], []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        ids, prob = np.array([f"i{k}" for k in range(30)]), rng.random(30)
        truth = (rng.permutation(30) < 15).astype(float)
        (view,) = binary_views(Predictions((SICK,), ids, ids, ids, {"sick": truth}, {"sick": prob}), SICK)
        x = logit(prob)[:, None]
        in_sample = LogisticRegression(C=np.inf).fit(x, truth).predict_proba(x)[:, 1]
        gains.append(0.25 - brier_score_loss(truth, recalibrate(view, seed=seed)))
        seeming.append(0.25 - brier_score_loss(truth, in_sample))
    assert np.mean(seeming) > 0.002
    assert np.mean(gains) < -0.005


def test_the_images_of_a_patient_are_in_one_fold() -> None:
    made = site(100)
    twice = Predictions(
        (SICK,),
        np.array([f"c{k}" for k in range(200)]),
        np.repeat(made.patient_id, 2),
        np.repeat(made.patient_id, 2),
        {"sick": np.repeat(made.y_true["sick"], 2)},
        {"sick": np.repeat(made.y_prob["sick"], 2)},
    )
    (one,), (two,) = binary_views(made, SICK), binary_views(twice, SICK)
    np.testing.assert_allclose(recalibrate(two, seed=0)[::2], recalibrate(one, seed=0), atol=1e-6)


def test_the_gain_is_large_where_the_model_is_off_and_none_where_it_is_not() -> None:
    off = compare_external(site(800, noise=2.5, shift=-1.0), operating_point=POINT, config=FEW)
    (found,) = off.recalibration["sick"]
    made = site(800, noise=2.5, shift=-1.0)
    truth, prob = made.y_true["sick"], made.y_prob["sick"]
    assert found.figures["brier_before"].value == pytest.approx(brier_score_loss(truth, prob))
    assert found.figures["log_loss_before"].value == pytest.approx(log_loss(truth, prob))
    assert found.figures["observed"].value == pytest.approx(truth.mean())
    assert found.figures["expected"].value == pytest.approx(prob.mean())
    assert found.figures["brier_gain"].low > 0.01
    assert found.figures["log_loss_gain"].low > 0.01
    assert found.figures["in_the_large"].high < 0.0
    assert found.figures["slope"].high < 1.0
    assert off.reference is None
    assert off.shifts == {}
    good = compare_external(site(800, seed=6), operating_point=POINT, config=FEW).recalibration["sick"][0].figures
    assert abs(good["brier_gain"].value) < 0.003
    assert good["slope"].low < 1.0 < good["slope"].high


def test_where_no_line_can_be_fitted_it_says_so() -> None:
    ids = np.array(list("abcdef"))
    prob, truth = np.array([0.1, 0.2, 0.3, 0.7, 0.8, 0.9]), np.array([0.0, 0, 0, 1, 1, 1])
    made = Predictions((SICK,), ids, ids, ids, {"sick": truth}, {"sick": prob})
    (found,) = compare_external(made, operating_point=POINT, config=FEW).recalibration["sick"]
    assert "no line can be fitted" in found.figures["brier_after"].reason
    assert found.figures["brier_before"].value > 0


def test_every_kind_of_target_through_evaluate(random_predictions: Make) -> None:
    here = random_predictions(400, split="test", bundle_id="b1")
    there = random_predictions(300, seed=1, split="test", bundle_id="b1")
    point = OperatingPoint({"sick": (0.5,), "organ": (), "signs": (0.5, 0.5, 0.5)}, "stated")
    config = EvaluationConfig(replicates=100)
    result = evaluate(there, operating_point=point, config=config, site=Site(here))
    found = result.analyses.external
    assert found is not None
    assert {name: len(parts) for name, parts in found.recalibration.items()} == {"sick": 1, "organ": 3, "signs": 3}
    assert set(found.shifts["organ"]) == set(result.figures["organ"])
    difference = result.to_dict()["analyses"]["external"]["shifts"]["signs"]["auroc"]["difference"]
    assert difference["low"] < difference["value"] < difference["high"]
    assert evaluate(there, operating_point=point, config=config).analyses.external is None


def test_what_is_no_other_site_is_refused(random_predictions: Make) -> None:
    here = site()
    with pytest.raises(EvaluationError, match="500 samples stand in the reference"):
        compare_external(here, operating_point=POINT, config=FEW, reference=here)
    other = replace(site(seed=1, name="b"), bundle_id="1" * 16)
    with pytest.raises(EvaluationError, match="the same bundle"):
        compare_external(other, operating_point=POINT, config=FEW, reference=replace(here, bundle_id="2" * 16))
    with pytest.raises(EvaluationError, match="other targets: sick, organ, signs"):
        compare_external(here, operating_point=POINT, config=FEW, reference=random_predictions())
    same_names = site(seed=1)  # "0001" at both sites is no reason
    assert compare_external(same_names, operating_point=POINT, config=FEW, reference=here).reference is not None
