"""Temperatures: recovered where they are known, sane where the data say little, harmless to the ranking."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit, softmax
from sklearn.metrics import log_loss, roc_auc_score

from lepton_vision.errors import EvaluationError
from lepton_vision.evaluation.choices.calibration import BOUNDS, apply_temperature, fit_temperatures
from lepton_vision.predictions import Predictions
from lepton_vision.types import Target

Make = Callable[..., Predictions]
SICK = Target("sick", "binary", ("no", "yes"))
ORGAN = Target("organ", "multiclass", ("a", "b", "c"))
SIGNS = Target("signs", "multilabel", ("a", "b"))


def predictions(target: Target, truth: np.ndarray, prob: np.ndarray, split: str = "val") -> Predictions:
    ids = np.array([f"i{k}" for k in range(len(truth))])
    return Predictions((target,), ids, ids, ids, {target.name: truth}, {target.name: prob}, split=split)


@pytest.mark.parametrize("true_t", [0.5, 1.0, 2.5])
def test_a_known_temperature_is_recovered(true_t: float) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(scale=2, size=(20_000, 3))
    organ = (softmax(logits, axis=1).cumsum(1) > rng.random((20_000, 1))).argmax(1)
    sick = rng.random(20_000) < expit(logits[:, 0])
    signs = rng.random((20_000, 2)) < expit(logits[:, :2])
    signs = np.where(rng.random(signs.shape) < 0.5, np.nan, signs)
    # the model is too sure by true_t
    found = {
        **fit_temperatures(predictions(SICK, sick, expit(true_t * logits[:, 0]))),
        **fit_temperatures(predictions(ORGAN, organ, softmax(true_t * logits, axis=1))),
        **fit_temperatures(predictions(SIGNS, signs, expit(true_t * logits[:, :2]))),
    }
    assert found == pytest.approx({"sick": true_t, "organ": true_t, "signs": true_t}, rel=0.05)


def test_it_is_the_maximum_of_the_likelihood(random_predictions: Make) -> None:
    made = random_predictions(n=3000, split="val")
    known = ~np.isnan(made.y_true["sick"])
    truth, z = made.y_true["sick"][known], logit(made.y_prob["sick"][known].clip(1e-7, 1 - 1e-7))
    best = minimize_scalar(lambda t: log_loss(truth, expit(z / t)), bounds=BOUNDS, method="bounded").x
    assert fit_temperatures(made)["sick"] == pytest.approx(best, rel=0.01)


def test_little_or_perfect_data_stay_sane() -> None:
    truth, prob = np.array([0.0, 1.0]), np.array([0.4, 0.6])
    two = fit_temperatures(predictions(SICK, truth, prob))["sick"]
    assert 0.4 < two < 1.0  # two samples hardly move it
    many = fit_temperatures(predictions(SICK, np.tile(truth, 500), np.tile(prob, 500)))["sick"]
    assert BOUNDS[0] <= many < 0.4
    wrong = fit_temperatures(predictions(SICK, np.tile(1 - truth, 500), np.tile(prob, 500)))["sick"]
    assert 5 < wrong <= BOUNDS[1]
    sure = fit_temperatures(predictions(SICK, np.array([0.0, 1.0, 1.0]), np.array([0.0, 1.0, 0.0])))["sick"]
    assert np.isfinite(sure)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 1000), min_size=4, max_size=40), st.floats(0.1, 10.0), st.integers(0, 2**16))
def test_the_ranking_is_unchanged(values: list[int], temperature: float, seed: int) -> None:
    prob = np.array(values) / 1000
    truth = np.random.default_rng(seed).integers(0, 2, prob.size)
    truth[:2] = 0, 1
    scaled = apply_temperature(prob, temperature, kind="binary")
    order = np.argsort(prob, kind="stable")
    assert (np.diff(scaled[order]) >= 0).all()
    assert roc_auc_score(truth, scaled) == pytest.approx(roc_auc_score(truth, prob), abs=1e-2)
    if temperature >= 0.5:  # below, sure scores may round to the same number
        assert roc_auc_score(truth, scaled) == pytest.approx(roc_auc_score(truth, prob), abs=1e-12)


def test_apply_is_what_the_engine_does_to_logits() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(scale=3, size=(50, 4))
    np.testing.assert_allclose(
        apply_temperature(softmax(logits, axis=1), 1.7, kind="multiclass"), softmax(logits / 1.7, axis=1), atol=1e-12
    )
    np.testing.assert_allclose(
        apply_temperature(expit(logits), 0.6, kind="multilabel"), expit(logits / 0.6), atol=1e-12
    )
    edges = apply_temperature(np.array([0.0, 0.5, 1.0]), 3.0, kind="binary")
    assert edges.tolist() == [0.0, 0.5, 1.0]
    assert apply_temperature(np.array([[1.0, 0.0, 0.0]]), 2.0, kind="multiclass").tolist() == [[1.0, 0.0, 0.0]]
    with pytest.raises(EvaluationError, match="above 0"):
        apply_temperature(np.array([0.5]), 0.0, kind="binary")


def test_refusals() -> None:
    truth, prob = np.array([0.0, 1.0]), np.array([0.4, 0.6])
    with pytest.raises(EvaluationError, match="validation"):
        fit_temperatures(predictions(SICK, truth, prob, split="test"))
    with pytest.raises(EvaluationError, match="labelled samples"):
        fit_temperatures(predictions(SICK, np.full(2, np.nan), prob))


def test_a_class_that_is_missing_does_not_shape_the_temperature(caplog: pytest.LogCaptureFixture) -> None:
    signs, rng = Target("signs", "multilabel", ("a", "b")), np.random.default_rng(0)
    truth, prob = rng.integers(0, 2, (60, 2)).astype(np.float64), rng.uniform(0.05, 0.95, (60, 2))
    alone = fit_temperatures(predictions(SICK, truth[:, 0], prob[:, 0]))["sick"]
    truth[:, 1] = 0.0
    assert fit_temperatures(predictions(signs, truth, prob))["signs"] == pytest.approx(alone, abs=1e-9)
    assert fit_temperatures(predictions(SICK, np.ones(60), prob[:, 0])) == {"sick": 1.0}
    assert "'sick' are not calibrated" in caplog.text
