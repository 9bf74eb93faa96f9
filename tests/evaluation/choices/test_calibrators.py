"""Platt's line and the isotonic one: scikit-learn's, fitted on validation, kept as plain numbers."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression

from lepton_vision.errors import EvaluationError
from lepton_vision.evaluation.choices.calibration import fit_calibrators
from lepton_vision.evaluation.statistics.logistic import fit_lines, fit_offsets
from lepton_vision.predictions import Predictions
from lepton_vision.predictions.calibration import Calibrator, Isotonic, Platt, apply_calibrator
from lepton_vision.types import Target

Make = Callable[..., Predictions]
SICK = Target("sick", "binary", ("no", "yes"))


def binary(truth: np.ndarray, prob: np.ndarray, split: str = "val") -> Predictions:
    ids = np.array([f"i{k}" for k in range(len(truth))])
    return Predictions((SICK,), ids, ids, ids, {"sick": truth}, {"sick": prob}, split=split)


class Logit(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A classifier of scikit-learn whose decision is the log odds of its only feature."""

    classes_ = np.array([0, 1])

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def fit(self, _x: np.ndarray, _y: np.ndarray) -> Logit:
        return self

    def decision_function(self, x: np.ndarray) -> np.ndarray:
        return np.log(x[:, 0] / (1 - x[:, 0]))

    def predict(self, x: np.ndarray) -> np.ndarray:
        return (x[:, 0] > 0.5).astype(int)


def overconfident(n: int = 800, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    z = rng.normal(size=n)
    return (rng.random(n) < 1 / (1 + np.exp(1 - 0.8 * z))).astype(float), 1 / (1 + np.exp(-3 * z))


@pytest.mark.parametrize(("method", "theirs"), [("platt", "sigmoid"), ("isotonic", "isotonic")])
def test_it_is_that_of_scikit_learn(method: str, theirs: str) -> None:
    truth, prob = overconfident()
    fresh = np.linspace(0.01, 0.99, 99)
    oracle = CalibratedClassifierCV(FrozenEstimator(Logit()), method=theirs, cv=2, ensemble=False)
    oracle.fit(prob[:, None], truth.astype(int))
    calibrator = fit_calibrators(binary(truth, prob), method=method)["sick"]  # type: ignore[arg-type]
    expected = oracle.predict_proba(fresh[:, None])[:, 1]
    if method == "platt":
        np.testing.assert_allclose(apply_calibrator(fresh, calibrator, kind="binary"), expected, atol=2e-4)
        return
    # they interpolate between log odds, we between probabilities: the same at the points themselves
    at = np.array(calibrator.maps[0].before)
    expected = oracle.predict_proba(at[:, None])[:, 1].clip(1 / 802, 801 / 802)
    np.testing.assert_allclose(apply_calibrator(at, calibrator, kind="binary"), expected, atol=1e-12)


def test_both_repair_an_overconfident_model(random_predictions: Make) -> None:
    truth, prob = overconfident(4000)
    later, later_prob = overconfident(4000, seed=1)
    before = np.mean((later_prob - later) ** 2)
    for method in ("platt", "isotonic"):
        calibrator = fit_calibrators(binary(truth, prob), method=method)["sick"]
        assert np.mean((apply_calibrator(later_prob, calibrator, kind="binary") - later) ** 2) < before - 0.05


def test_newton_finds_what_scikit_learn_finds_for_every_weighting() -> None:
    truth, prob = overconfident(200)
    x, weight = np.log(prob / (1 - prob)), np.random.default_rng(0).integers(0, 4, (5, 200)).astype(float)
    a, b = fit_lines(x, weight, weight * truth)
    for row in range(5):
        one = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000)
        one.fit(x[:, None], truth, sample_weight=weight[row])
        assert (a[row], b[row]) == pytest.approx((one.intercept_[0], one.coef_[0, 0]), abs=1e-5)
    offset = fit_offsets(x, weight, weight * truth)
    for row in range(5):  # the score equation: as many expected as observed
        assert (weight[row] / (1 + np.exp(-offset[row] - x))).sum() == pytest.approx((weight[row] * truth).sum())


def test_no_line_is_better_than_a_wrong_one() -> None:
    x = np.array([-1.0, -0.5, 0.5, 1.0])
    separated, one_class = np.array([[0.0, 0, 1, 1]]), np.array([[1.0, 1, 1, 1]])
    assert np.isnan(fit_lines(x, np.ones((1, 4)), separated)).all()
    assert np.isnan(fit_lines(x, np.ones((1, 4)), one_class)).all()
    assert np.isnan(fit_lines(np.ones(4), np.ones((1, 4)), np.array([[0.0, 1, 0, 1]]))).all()
    assert np.isnan(fit_offsets(x, np.ones((1, 4)), one_class)).all()
    far = fit_lines(50 * x, np.ones((1, 4)), np.array([[0.0, 1, 0, 1]]))  # the unit of x does not matter
    assert far[1][0] == pytest.approx(fit_lines(x, np.ones((1, 4)), np.array([[0.0, 1, 0, 1]]))[1][0] / 50)


def test_separated_and_contrary_classes_stay_sane() -> None:
    truth = np.array([0.0] * 20 + [1.0] * 20)
    (line,) = fit_calibrators(binary(truth, np.where(truth > 0, 0.9, 0.1)))["sick"].maps
    # Platt's labels: 21/22 and 1/22, reached exactly by two points: slope = logit(21/22) / logit(0.9)
    assert isinstance(line, Platt)
    assert line.slope == pytest.approx(np.log(21) / np.log(9))
    for method in ("platt", "isotonic"):
        level = fit_calibrators(binary(truth, np.where(truth > 0, 0.1, 0.9)), method=method)["sick"]
        assert np.ptp(apply_calibrator(np.array([0.1, 0.9]), level, kind="binary")) == pytest.approx(0)
        assert apply_calibrator(np.array([0.3]), level, kind="binary")[0] == pytest.approx(0.5)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), st.floats(0, 1)), min_size=2, max_size=40),
    st.sampled_from(["platt", "isotonic"]),
    st.lists(st.floats(0, 1), min_size=1, max_size=20),
)
def test_probabilities_stay_probabilities_and_in_order(
    rows: list[tuple[bool, float]], method: str, fresh: list[float]
) -> None:
    truth, prob = np.array([True, False, *(r[0] for r in rows)]), np.array([0.6, 0.5, *(r[1] for r in rows)])
    calibrator = fit_calibrators(binary(truth.astype(float), prob), method=method)["sick"]  # type: ignore[arg-type]
    again = Calibrator.from_dict(json.loads(json.dumps(calibrator.to_dict())))
    assert again == calibrator
    after = apply_calibrator(np.sort(fresh), again, kind="binary")
    assert ((after >= 0) & (after <= 1)).all()
    assert (np.diff(after) >= -1e-15).all()
    if method == "isotonic":
        assert after.min() >= 1 / (len(truth) + 2) - 1e-15
        assert after.max() <= 1 - 1 / (len(truth) + 2) + 1e-15


@pytest.mark.parametrize("line", [Platt(1.0, 0.5), Isotonic((0.2, 0.8), (0.1, 0.9))])
def test_what_is_no_number_stays_none(line: Platt | Isotonic) -> None:
    method = "platt" if isinstance(line, Platt) else "isotonic"
    after = apply_calibrator(np.array([np.nan, 0.0, 1.0]), Calibrator(method, (line,)), kind="binary")
    assert np.isnan(after).tolist() == [True, False, False]


@pytest.mark.parametrize("method", ["platt", "isotonic"])
def test_every_kind_of_target_has_its_maps(random_predictions: Make, method: str) -> None:
    predictions = random_predictions(split="val")
    found = fit_calibrators(predictions, method=method)  # type: ignore[arg-type]
    assert {name: len(one.maps) for name, one in found.items()} == {"sick": 1, "organ": 3, "signs": 3}
    for target in predictions.targets:
        after = apply_calibrator(predictions.y_prob[target.name], found[target.name], kind=target.kind)
        assert after.shape == predictions.y_prob[target.name].shape
        if target.kind == "multiclass":
            np.testing.assert_allclose(after.sum(axis=1), 1.0)


def test_it_is_fitted_on_validation_with_both_classes_alone() -> None:
    with pytest.raises(EvaluationError, match="validation"):
        fit_calibrators(binary(np.array([0.0, 1.0]), np.array([0.2, 0.6]), split="test"))
    with pytest.raises(EvaluationError, match=r"both classes.*2 positive and 0 negative.*temperature"):
        fit_calibrators(binary(np.array([1.0, 1.0, np.nan]), np.array([0.2, 0.6, 0.1])))
    with pytest.raises(EvaluationError, match="platt or isotonic"):
        fit_calibrators(binary(np.array([0.0, 1.0]), np.array([0.2, 0.6])), method="beta")  # type: ignore[arg-type]


@pytest.mark.parametrize("method", ["platt", "isotonic"])
def test_a_class_that_is_missing_keeps_its_probabilities(
    random_predictions: Callable[..., Predictions], method: str, caplog: pytest.LogCaptureFixture
) -> None:
    predictions = random_predictions(unknown=0.0)
    predictions.y_true["signs"][:, 1] = 0.0  # type: ignore[index]
    found = fit_calibrators(predictions, method=method)["signs"]  # type: ignore[arg-type]
    before = predictions.y_prob["signs"]
    after = apply_calibrator(before, found, kind="multilabel")
    np.testing.assert_allclose(after[:, 1], before[:, 1], atol=1e-6)
    assert np.abs(after[:, 0] - before[:, 0]).max() > 0.01
    assert "'signs/mass' are not calibrated" in caplog.text


@pytest.mark.parametrize(
    "make",
    [
        lambda: Platt(-1.0, 0.0),
        lambda: Platt(1.0, float("nan")),
        lambda: Isotonic((0.1, 0.1), (0.0, 1.0)),
        lambda: Isotonic((0.1, 0.2), (1.0, 0.0)),
        lambda: Isotonic((0.1, 0.2), (0.0, 1.5)),
        lambda: Isotonic((0.1,), (0.0, 1.0)),
        lambda: Isotonic((), ()),
        lambda: Calibrator("isotonic", (Platt(1.0, 0.0),)),
        lambda: Calibrator("beta", (Platt(1.0, 0.0),)),
    ],
)
def test_impossible_numbers_are_refused(make: Callable[[], object]) -> None:
    with pytest.raises(EvaluationError, match="Expected"):
        make()
