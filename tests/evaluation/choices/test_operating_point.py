"""Operating points: the promised figures on the samples of the choice, and refused splits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix, roc_curve

from lepton_vision.config import Config
from lepton_vision.errors import ConfigError, EvaluationError
from lepton_vision.evaluation import Criterion, choose_operating_point, evaluate
from lepton_vision.predictions import Predictions
from lepton_vision.predictions.operating_point import OperatingPoint
from lepton_vision.types import Target

SICK = Target("sick", "binary", ("no", "yes"))
Make = Callable[..., Predictions]


def binary(truth: list[float], prob: list[float], split: str | None = "val") -> Predictions:
    ids = np.array([f"i{k}" for k in range(len(prob))])
    return Predictions((SICK,), ids, ids, ids, {"sick": np.array(truth)}, {"sick": np.array(prob)}, split=split)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([0.0, 1.0, np.nan]), st.integers(0, 10)), min_size=2, max_size=50),
    st.sampled_from([0.01, 0.07, 0.5, 0.8, 0.95, 1.0]),
)
def test_it_is_the_highest_threshold_that_keeps_the_sensitivity(
    rows: list[tuple[float, int]], min_sensitivity: float
) -> None:
    rows = [*rows, (0.0, 3), (1.0, 4)]
    truth, prob = np.array([r[0] for r in rows]), np.array([r[1] for r in rows]) / 10
    point = choose_operating_point(binary(list(truth), list(prob)), min_sensitivity=min_sensitivity)
    (threshold,) = point.thresholds["sick"]
    assert 0.0 <= threshold <= 1.0
    assert (prob[truth == 1] >= threshold).mean() >= min_sensitivity
    for higher in prob[prob > threshold]:
        # A threshold above the lowest accepted score loses too much; at that score decisions are the same.
        same = ((prob >= higher) == (prob >= threshold))[~np.isnan(truth)].all()
        assert same or (prob[truth == 1] >= higher).mean() < min_sensitivity
    assert (point.chosen_on, point.n) == ("val", int((~np.isnan(truth)).sum()))


def test_it_lies_halfway_to_the_next_lower_score() -> None:
    point = choose_operating_point(binary([0, 0, 1, 1], [0.1, 0.25, 0.75, 0.8]))
    assert point.thresholds == {"sick": (0.5,)}
    assert point.criterion == "sensitivity >= 0.95"
    assert choose_operating_point(binary([1, 0], [0.5, 0.75])).thresholds == {"sick": (0.25,)}  # none is lower: 0
    assert choose_operating_point(binary([1, 0], [0.0, 0.75])).thresholds == {"sick": (0.0,)}


@pytest.mark.parametrize("lower", [0.3, float(np.nextafter(0.3, 1))])  # the mean rounds down for one, up for the other
def test_neighbouring_floats_stay_apart(lower: float) -> None:
    close = [lower, float(np.nextafter(lower, 1))]
    point = choose_operating_point(binary([0, 1], close))
    figures = evaluate(binary([0, 1], close), operating_point=point).figures["sick"]
    assert (figures["sensitivity"].value, figures["specificity"].value) == (1.0, 1.0)


def test_rounding_does_not_ask_for_one_positive_more() -> None:
    prob = [k / 128 for k in range(1, 101)]
    point = choose_operating_point(binary([1] * 100 + [0], [*prob, 0.0]), min_sensitivity=0.07)  # 0.07 * 100 > 7
    assert sum(p >= point.thresholds["sick"][0] for p in prob) == 7


def test_evaluation_on_the_same_samples_reaches_it(random_predictions: Make) -> None:
    predictions = random_predictions(split="val")
    point = choose_operating_point(predictions, min_sensitivity=0.9)
    assert point.thresholds["organ"] == ()
    assert len(point.thresholds["signs"]) == 3
    figures = evaluate(predictions, operating_point=point).figures
    assert figures["sick"]["sensitivity"].value >= 0.9
    assert all(figures["signs"][f"sensitivity_{name}"].value >= 0.9 for name in ("edema", "mass", "air"))
    assert OperatingPoint.from_dict(point.to_dict()) == point


def test_it_is_never_chosen_on_test() -> None:
    with pytest.raises(EvaluationError, match="validation") as caught:
        choose_operating_point(binary([0, 1], [0.2, 0.6], split="test"))
    assert caught.value.key == "split"
    assert choose_operating_point(binary([0, 1], [0.2, 0.6], split=None)).chosen_on is None


@pytest.mark.parametrize("truth", [[0, 0], [1, 1], [np.nan, np.nan], [1, np.nan]])
def test_one_class_is_refused(truth: list[float]) -> None:
    with pytest.raises(EvaluationError, match="both classes") as caught:
        choose_operating_point(binary(truth, [0.2, 0.6]))
    assert caught.value.key == "sick"


def test_a_class_without_a_point_leaves_the_others_usable(caplog: pytest.LogCaptureFixture) -> None:
    signs, grade = Target("signs", "multilabel", ("a", "b", "c")), Target("grade", "ordinal", ("1", "2"))
    ids = np.array(["p", "q", "r"])
    truth = {"signs": np.array([[0, 0, 1], [1, 0, np.nan], [1, 0, 1.0]]), "sick": np.ones(3), "grade": np.ones(3)}
    prob = {"signs": np.full((3, 3), 0.5), "sick": np.full(3, 0.5), "grade": np.full((3, 2), 0.5)}
    prob["signs"][:, 0] = (0.2, 0.6, 0.8)

    def choose(*targets: Target, **how: Any) -> OperatingPoint:
        return choose_operating_point(Predictions(targets, ids, ids, ids, truth, prob, split="val"), **how)

    point = choose(SICK, signs)
    assert point.thresholds["signs"][0] == pytest.approx(0.4)
    assert np.isnan([*point.thresholds["sick"], *point.thresholds["signs"][1:]]).all()
    assert [(one.n, one.positives) for one in point.figures["signs"]] == [(3, 2), (3, 0), (2, 2)]
    told = [message.split("'")[1] for message in caplog.messages]
    assert told == ["sick", "signs/b", "signs/c"]
    assert all(message.endswith("without a decision.") for message in caplog.messages)
    assert np.isnan(choose(SICK, grade).thresholds["sick"]).all()
    demanding = choose(signs, criterion=Criterion("cost", 1e-6))  # of which no class is worth a call
    assert demanding.thresholds["signs"][0] > 0
    truth["signs"][:, 0] = 0.0
    with pytest.raises(EvaluationError, match="both classes"):
        choose(signs)


@pytest.mark.parametrize("value", [0.0, -1.0, 1.01, float("nan")])
def test_an_impossible_sensitivity_is_refused(value: float) -> None:
    with pytest.raises(EvaluationError, match="above 0"):
        choose_operating_point(binary([0, 1], [0.2, 0.6]), min_sensitivity=value)


def brute(truth: np.ndarray, prob: np.ndarray) -> list[tuple[float, int, int, int, int]]:
    """Threshold and tn, fp, fn, tp at every score, descending, counted by scikit-learn."""
    scores = np.unique(prob)[::-1]
    return [(t, *(int(x) for x in confusion_matrix(truth, prob >= t, labels=[0, 1]).ravel())) for t in scores]


def noisy(seed: int = 0, n: int = 300) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = (rng.random(n) < 0.3).astype(float)
    return truth, np.round(1 / (1 + np.exp(-rng.normal(size=n) - 2 * truth + 1)), 2)


def called(truth: np.ndarray, prob: np.ndarray, criterion: Criterion) -> int:
    (threshold,) = choose_operating_point(binary(list(truth), list(prob)), criterion=criterion).thresholds["sick"]
    return int((prob >= threshold).sum())


@pytest.mark.parametrize("seed", range(5))
def test_specificity_and_ppv_take_the_lowest_threshold_that_keeps_them(seed: int) -> None:
    truth, prob = noisy(seed)
    rows = brute(truth, prob)
    wanted = [fp + tp for _, tn, fp, _, tp in rows if tn / (tn + fp) >= 0.9]
    assert called(truth, prob, Criterion("specificity", 0.9)) == max(wanted)
    wanted = [fp + tp for _, _, fp, _, tp in rows if tp / (tp + fp) >= 0.6]
    assert called(truth, prob, Criterion("ppv", 0.6)) == max(wanted)


@pytest.mark.parametrize("seed", range(5))
def test_youden_is_the_top_of_the_roc_curve_of_scikit_learn(seed: int) -> None:
    truth, prob = noisy(seed)
    fpr, tpr, thresholds = roc_curve(truth, prob, drop_intermediate=False)
    best = np.flatnonzero(tpr - fpr >= (tpr - fpr).max() - 1e-12)[-1]
    assert called(truth, prob, Criterion("youden")) == int((prob >= thresholds[best]).sum())


@pytest.mark.parametrize("ratio", [0.5, 1.0, 10.0])
def test_the_least_cost_is_found_at_the_stated_prevalence(ratio: float) -> None:
    truth, prob = noisy()
    costs = {fp + tp: ratio * 0.1 * fn / (fn + tp) + 0.9 * fp / (fp + tn) for _, tn, fp, fn, tp in brute(truth, prob)}
    count = called(truth, prob, Criterion("cost", ratio, prevalence=0.1))
    assert costs[count] == pytest.approx(min(costs.values()))
    assert called(truth, prob, Criterion("cost", 50.0, prevalence=0.1)) > called(truth, prob, Criterion("cost", 1.0))


def test_a_rare_disease_needs_a_higher_threshold_for_the_same_ppv() -> None:
    truth = np.array([0.0] * 100 + [1.0] * 100)
    prob = np.concatenate([np.full(80, 0.1), np.full(18, 0.5), np.full(2, 0.9), np.full(60, 0.9), np.full(40, 0.5)])
    # at 0.5: sensitivity 1, specificity 0.8; at 0.9: 0.6 and 0.98. With prevalence 0.05, by hand:
    # 0.05 / (0.05 + 0.95 * 0.2) = 0.208 and 0.03 / (0.03 + 0.95 * 0.02) = 0.612
    assert called(truth, prob, Criterion("ppv", 0.6)) == 120
    assert called(truth, prob, Criterion("ppv", 0.6, prevalence=0.05)) == 62
    with pytest.raises(EvaluationError, match=r"PPV >= 0\.7, prevalence 0\.05 on validation. Highest .*: 0\.612"):
        called(truth, prob, Criterion("ppv", 0.7, prevalence=0.05))


def test_what_cannot_be_fulfilled_is_told() -> None:
    truth, prob = [1.0, 0.0, 1.0, 0.0], [0.9, 0.9, 0.2, 0.1]  # the highest score is shared by both classes
    with pytest.raises(EvaluationError, match=r"specificity >= 0\.9 on validation.*0\.500"):
        choose_operating_point(binary(truth, prob), criterion=Criterion("specificity", 0.9))
    with pytest.raises(EvaluationError, match="cheaper to call nobody"):
        choose_operating_point(binary(truth, prob), criterion=Criterion("cost", 0.01))


def test_the_point_carries_what_it_gave_where_it_was_chosen(random_predictions: Make) -> None:
    predictions = random_predictions(split="val")
    point = choose_operating_point(predictions, criterion=Criterion("youden"))
    figures = evaluate(predictions, operating_point=point).figures
    (at,) = point.figures["sick"]
    for name in ("sensitivity", "specificity", "ppv", "npv"):
        assert getattr(at, name) == pytest.approx(figures["sick"][name].value)
    assert (at.n, at.positives) == (figures["sick"]["auroc"].n, figures["sick"]["sensitivity"].n)
    assert point.figures["signs"][1].ppv == pytest.approx(figures["signs"]["ppv_mass"].value)
    assert "organ" not in point.figures
    assert OperatingPoint.from_dict(point.to_dict()) == point
    older = {"thresholds": {"sick": [0.5]}, "criterion": "stated", "chosen_on": None, "n": 0}
    assert OperatingPoint.from_dict(older).figures == {}


def test_a_criterion_that_is_a_text_is_told_what_it_should_be(random_predictions: Make) -> None:
    with pytest.raises(EvaluationError, match=r"Expected Criterion\('youden'"):
        choose_operating_point(random_predictions(split="val"), criterion="youden")  # type: ignore[arg-type]


def test_a_configuration_names_the_criterion() -> None:
    config = Config().override("evaluation.criterion=cost", "evaluation.cost_ratio=20", "evaluation.prevalence=0.01")
    assert Criterion.of(config.evaluation) == Criterion("cost", 20.0, 0.01)
    assert Criterion.of(Config().evaluation) == Criterion("sensitivity", 0.95)
    assert Criterion.of(config.override("evaluation.criterion=youden").evaluation) == Criterion("youden")
    with pytest.raises(ConfigError, match="criterion"):
        Config().override("evaluation.criterion=f1")


@pytest.mark.parametrize(
    ("given", "key"),
    [
        (("specificity", 0.0), "min_specificity"),
        (("ppv", 1.2), "min_ppv"),
        (("cost", -1.0), "cost"),
        (("cost", float("nan")), "cost"),
        (("youden", 0.5), "youden"),
        (("youden", None, 0.1), "prevalence"),
        (("cost", 1.0, 1.0), "prevalence"),
        (("f1",), "criterion"),
    ],
)
def test_a_criterion_without_a_meaning_is_refused(given: tuple[Any, ...], key: str) -> None:
    with pytest.raises(EvaluationError) as caught:
        Criterion(*given)
    assert caught.value.key == key


def test_two_wishes_and_the_test_split_are_refused() -> None:
    with pytest.raises(EvaluationError, match="not both"):
        choose_operating_point(binary([0, 1], [0.2, 0.6]), min_sensitivity=0.9, criterion=Criterion("youden"))
    with pytest.raises(EvaluationError, match="validation"):
        choose_operating_point(binary([0, 1], [0.2, 0.6], split="test"), criterion=Criterion("youden"))
