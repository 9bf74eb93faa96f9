"""Risk–coverage curves against plain loops over sorted decisions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from lepton_vision.evaluation.classes.abstention import RISKS, abstentions
from lepton_vision.evaluation.statistics.intervals import Bootstrap
from lepton_vision.predictions import Predictions
from lepton_vision.types import Target

Make = Callable[..., Predictions]
FEW = Bootstrap(200)
SICK = Target("sick", "binary", ("no", "yes"))


def binary(truth: np.ndarray, prob: np.ndarray) -> Predictions:
    ids = np.array([f"i{k}" for k in range(len(truth))])
    return Predictions((SICK,), ids, ids, ids, {"sick": truth}, {"sick": prob}, split="test")


def drawn(n: int = 400, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = (rng.random(n) < 0.4).astype(float)
    return truth, 1 / (1 + np.exp(1 - rng.normal(size=n) - 2 * truth))


@pytest.mark.parametrize("n", [400, 6000])  # below and above the number of blocks
def test_by_a_loop_over_the_sorted_decisions(n: int) -> None:
    truth, prob = drawn(n)
    order = np.argsort(-np.maximum(prob, 1 - prob))
    wrong, risks = 0, []
    for kept, k in enumerate(order, start=1):
        wrong += (prob[k] >= 0.5) != truth[k]
        risks.append(wrong / kept)
    (found,) = abstentions(binary(truth, prob), SICK, thresholds=(0.5,), bootstrap=FEW)
    exact = n < 1024
    assert found.aurc.value == pytest.approx(np.mean(risks), abs=1e-9 if exact else 2e-4)
    expected = [risks[n // 100 * k - 1] for k in range(1, 101)]
    np.testing.assert_allclose(found.risk.value, expected, atol=1e-9 if exact else 2e-3)
    for referral, allowed in zip(found.referrals, RISKS, strict=True):
        largest = max((kept for kept, risk in enumerate(risks, start=1) if risk <= allowed), default=0)
        assert referral.share.value == pytest.approx(1 - largest / n, abs=1e-9 if exact else 0.01)
    assert found.aurc.low < found.aurc.value < found.aurc.high


def test_equal_confidence_is_a_matter_of_chance() -> None:
    truth, prob = drawn(60)
    prob = np.round(prob, 1)
    rng, means = np.random.default_rng(0), []
    for _ in range(4000):
        shuffled = rng.permutation(60)
        order = shuffled[np.argsort(-np.abs(np.round(prob[shuffled] - 0.5, 6)), kind="stable")]
        means.append(np.mean(np.cumsum((prob[order] >= 0.5) != truth[order]) / np.arange(1, 61)))
    (found,) = abstentions(binary(truth, prob), SICK, thresholds=(0.5,), bootstrap=FEW)
    assert found.aurc.value == pytest.approx(np.mean(means), abs=4 * np.std(means) / np.sqrt(4000))


def test_the_doubtful_decisions_are_those_near_the_threshold() -> None:
    # At a threshold of 0.1 the log odds of 0.09 and 0.12 are the nearest; the wrong decision is the one at 0.12.
    prob, truth = np.array([0.001, 0.09, 0.12, 0.9]), np.array([0.0, 0.0, 0.0, 1.0])
    (found,) = abstentions(binary(truth, prob), SICK, thresholds=(0.1,), bootstrap=FEW)
    # order: 0.9, 0.001 (right), 0.12 (wrong, 0.20 away), 0.09 (0.12 away): risks 0, 0, 1/3, 1/4
    assert found.risk.value[[24, 49, 74, 99]] == pytest.approx([0, 0, 1 / 3, 1 / 4])
    assert found.referrals[0].share.value == pytest.approx(0.5)


def test_inside_a_tie_the_risk_rises_step_by_step() -> None:
    # 19 sure and right; then 4 equal ones of which 3 are wrong: on average 0.75 wrong each.
    # After 19 + i decisions 0.75 i / (19 + i): 0.0375, 0.0714, 0.102, 0.130. So 5 % keeps 20, and 10 % keeps 21 of 23.
    prob = np.array([0.99] * 19 + [0.6] * 4)
    truth = np.array([1.0] * 20 + [0.0] * 3)
    (found,) = abstentions(binary(truth, prob), SICK, thresholds=(0.5,), bootstrap=FEW)
    assert [one.share.value for one in found.referrals] == pytest.approx([4 / 23, 4 / 23, 3 / 23, 2 / 23])
    assert found.aurc.value == pytest.approx(sum(0.75 * i / (19 + i) for i in range(1, 5)) / 23)


def test_a_model_that_is_always_wrong_refers_everybody() -> None:
    truth, prob = np.array([0.0, 1.0, 0.0]), np.array([0.9, 0.2, 0.7])
    (found,) = abstentions(binary(truth, prob), SICK, thresholds=(0.5,), bootstrap=FEW)
    assert [one.share.value for one in found.referrals] == [1.0] * len(RISKS)
    assert found.aurc.value == 1.0


def test_patients_are_resampled(random_predictions: Make) -> None:
    truth, prob = drawn(200)
    copies = binary(np.repeat(truth, 3), np.repeat(prob, 3))
    patient = np.repeat(np.array([f"p{k:03}" for k in range(200)]), 3)
    clustered = Predictions((SICK,), copies.image_id, patient, patient, copies.y_true, copies.y_prob)
    (wide,) = abstentions(clustered, SICK, thresholds=(0.5,), bootstrap=FEW)
    (narrow,) = abstentions(copies, SICK, thresholds=(0.5,), bootstrap=FEW)
    assert wide.aurc.high - wide.aurc.low > 1.3 * (narrow.aurc.high - narrow.aurc.low)


def test_every_kind_of_target(random_predictions: Make) -> None:
    predictions = random_predictions()
    counts = {}
    for target in predictions.targets:
        found = abstentions(predictions, target, thresholds=(0.5,) * target.outputs, bootstrap=FEW)
        counts[target.name] = [(one.class_name, one.n) for one in found]
    known = ~np.isnan(predictions.y_true["organ"])
    assert counts["organ"] == [("", int(known.sum()))]
    assert [name for name, _ in counts["signs"]] == ["edema", "mass", "air"]
    (organ,) = abstentions(predictions, predictions.targets[1], thresholds=(), bootstrap=FEW)
    wrong = predictions.y_prob["organ"][known].argmax(1) != predictions.y_true["organ"][known]
    assert organ.risk.value[-1] == pytest.approx(wrong.mean())


def test_nothing_labelled() -> None:
    (found,) = abstentions(binary(np.array([np.nan]), np.array([0.3])), SICK, thresholds=(0.5,), bootstrap=FEW)
    assert found.aurc.reason == "no labelled sample"
    assert np.isnan(found.risk.value).all()
