"""Conformal sets: the usual rule by hand, the promise by simulation, over patients with one and with many images."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import numpy as np
import pytest

from lepton_vision.errors import EvaluationError
from lepton_vision.evaluation import evaluate
from lepton_vision.evaluation.classes.conformal import conformal_sets, fit_set_rules
from lepton_vision.evaluation.statistics.intervals import Bootstrap
from lepton_vision.predictions import Predictions
from lepton_vision.predictions.answer_sets import SetRule
from lepton_vision.predictions.operating_point import OperatingPoint
from lepton_vision.types import Target

Make = Callable[..., Predictions]
FEW = Bootstrap(200)
SICK = Target("sick", "binary", ("no", "yes"))
ORGAN = Target("organ", "multiclass", ("a", "b", "c"))


def predictions(
    target: Target, truth: np.ndarray, prob: np.ndarray, *, patient: np.ndarray | None = None, split: str = "val"
) -> Predictions:
    ids = np.array([f"i{k}" for k in range(len(truth))])
    who = ids if patient is None else patient
    return Predictions((target,), ids, who, who, {target.name: truth}, {target.name: prob}, split=split)


def drawn(n: int, rng: np.random.Generator, *, images: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rare disease, overconfident model; the images of a patient share most of their error."""
    truth = (rng.random(n) < 0.2).astype(float)
    share = rng.normal(size=(n, 1))
    z = 2.5 * truth[:, None] - 1.5 + 0.95 * share + 0.3 * rng.normal(size=(n, images))
    patient = np.repeat(np.array([f"p{k:04}" for k in range(n)]), images)
    return np.repeat(truth, images), 1 / (1 + np.exp(-2 * z.ravel())), patient


@pytest.mark.parametrize(("n", "stated"), [(9, 0.8), (19, 0.95), (50, 0.9), (101, 0.9)])
def test_with_one_image_for_a_patient_it_is_the_usual_rule(n: int, stated: float) -> None:
    rng = np.random.default_rng(n)
    prob = rng.random(n)
    rule = fit_set_rules(predictions(SICK, np.ones(n), prob), coverage=stated)["sick"][0]
    score = np.sort(1 - prob)[math.ceil(round((n + 1) * stated, 9)) - 1]  # Vovk et al. 2005: the ⌈(n+1)(1-α)⌉-th score
    assert rule.thresholds == (0.0, pytest.approx(1 - score))
    assert rule.n_patients == (0, n)


def test_too_few_patients_leave_the_class_always_in() -> None:
    rule = fit_set_rules(predictions(SICK, np.ones(8), np.full(8, 0.9)), coverage=0.9)["sick"][0]
    assert rule.thresholds == (0.0, 0.0)  # 8/9 < 0.9
    nine = fit_set_rules(predictions(SICK, np.ones(9), np.full(9, 0.9)), coverage=0.9)["sick"][0]
    assert nine.thresholds == (0.0, 0.9)


def test_the_images_of_a_patient_share_one_vote() -> None:
    # patient a: 0.9 four times; b: 0.5; c: 0.2. Weights 1/16 each, 1/4, 1/4; the unseen patient has the last quarter.
    prob = np.array([0.9, 0.9, 0.9, 0.9, 0.5, 0.2])
    who = np.array(["a", "a", "a", "a", "b", "c"])
    for stated, threshold in ((0.25, 0.9), (0.5, 0.5), (0.75, 0.2), (0.76, 0.0)):
        rule = fit_set_rules(predictions(SICK, np.ones(6), prob, patient=who), coverage=stated)["sick"][0]
        assert rule.thresholds[1] == threshold


@pytest.mark.parametrize("images", [1, 6])
def test_each_class_is_covered_as_stated(images: int) -> None:
    rng = np.random.default_rng(0)
    covered: dict[str, list[float]] = {"no": [], "yes": []}
    for _ in range(150):
        truth, prob, patient = drawn(200, rng, images=images)
        rules = fit_set_rules(predictions(SICK, truth, prob, patient=patient), coverage=0.8)["sick"]
        truth, prob, patient = drawn(300, rng, images=images)
        later = predictions(SICK, truth, prob, patient=patient, split="test")
        (found,) = conformal_sets(later, SICK, rules=rules, bootstrap=Bootstrap(100))
        for name, figure in found.coverage.items():
            covered[name].append(figure.value)
    for name, values in covered.items():
        error = np.std(values) / np.sqrt(len(values))
        # promised: at least 0.8; at most 1 / (n + 1) above, n = 160 and 40 patients, where no scores are equal
        assert 0.8 - 3 * error < np.mean(values) < 0.8 + 1 / 35 + 3 * error, name


def test_one_rule_for_both_classes_would_miss_the_rare_one() -> None:
    rng = np.random.default_rng(1)
    truth, prob, _ = drawn(5000, rng)
    of_truth = np.where(truth > 0, prob, 1 - prob)
    pooled = np.sort(of_truth)[1000]  # marginal coverage of 0.8
    assert (of_truth[truth > 0] >= pooled).mean() < 0.75
    rules = fit_set_rules(predictions(SICK, truth, prob), coverage=0.8)["sick"]
    assert (prob[truth > 0] >= rules[0].thresholds[1]).mean() == pytest.approx(0.8, abs=0.01)


def test_sizes_and_coverage_by_hand() -> None:
    rule = SetRule(("a", "b", "c"), 0.9, (0.5, 0.3, 0.3), (20, 20, 20))
    prob = np.array([[0.6, 0.3, 0.1], [0.4, 0.3, 0.3], [0.45, 0.28, 0.27], [0.1, 0.8, 0.1]])
    made = predictions(ORGAN, np.array([0.0, 0, 1, 1]), prob, split="test")
    (found,) = conformal_sets(made, ORGAN, rules=(rule,), bootstrap=FEW)  # sets: ab, bc, none, b
    assert [one.value for one in found.sizes] == [0.25, 0.25, 0.5, 0.0]
    assert found.mean_size.value == 1.25
    assert {name: one.value for name, one in found.coverage.items() if name != "c"} == {"a": 0.5, "b": 0.5}
    assert found.coverage["c"].reason == "no sample of this class"
    assert (found.stated, found.n, found.n_validation) == (0.9, 4, (20, 20, 20))
    assert found.coverage["a"].n == 2


def test_a_patient_with_many_images_counts_once() -> None:
    prob = np.array([0.9, 0.1, 0.1, 0.1])
    made = predictions(SICK, np.ones(4), prob, patient=np.array(["a", "b", "b", "b"]), split="test")
    rule = SetRule(("no", "yes"), 0.9, (0.2, 0.5), (20, 20))
    (found,) = conformal_sets(made, SICK, rules=(rule,), bootstrap=FEW)
    assert found.coverage["yes"].value == 0.5
    assert found.sizes[1].value == 1.0  # no, yes, yes, yes: one answer each


def test_every_kind_of_target_through_evaluate(random_predictions: Make) -> None:
    rules = fit_set_rules(random_predictions(1500, patients=400, split="val"), coverage=0.8)
    assert [rule.classes for rule in rules["signs"]] == [("absent", "present")] * 3
    for several in rules.values():
        assert [SetRule.from_dict(json.loads(json.dumps(rule.to_dict()))) for rule in several] == list(several)
    later = random_predictions(1500, seed=1, patients=400, split="test")
    point = OperatingPoint({"sick": (0.5,), "organ": (), "signs": (0.5, 0.5, 0.5)}, "stated")
    found = evaluate(later, operating_point=point, set_rules=rules).analyses.conformal
    assert found is not None
    for parts in found.values():
        for one in parts:
            assert sum(figure.value for figure in one.sizes) == pytest.approx(1.0)
            assert all(abs(figure.value - 0.8) < 0.08 for figure in one.coverage.values())
            assert all(figure.low < figure.value < figure.high for figure in one.coverage.values())
    assert [one.class_name for one in found["signs"]] == ["edema", "mass", "air"]
    assert found["organ"][0].classes == ("liver", "lung", "brain")
    assert evaluate(later, operating_point=point).analyses.conformal is None


def test_what_is_refused(random_predictions: Make) -> None:
    with pytest.raises(EvaluationError, match="validation"):
        fit_set_rules(random_predictions(split="test"))
    with pytest.raises(EvaluationError, match="above 0 and below 1"):
        fit_set_rules(random_predictions(split="val"), coverage=1.0)
    made = predictions(SICK, np.array([0.0, 1.0]), np.array([0.2, 0.8]))
    with pytest.raises(EvaluationError, match="answers of 'sick'"):
        conformal_sets(made, SICK, rules=(SetRule(("a", "b"), 0.9, (0.1, 0.1), (9, 9)),), bootstrap=FEW)
    for thresholds, stated in (((0.1,), 0.9), ((0.1, 1.2), 0.9), ((0.1, float("nan")), 0.9), ((0.1, 0.2), 1.0)):
        with pytest.raises(EvaluationError, match="thresholds in"):
            SetRule(("no", "yes"), stated, thresholds, (9, 9))
