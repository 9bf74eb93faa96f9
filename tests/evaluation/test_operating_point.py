"""The operating point: what it promises on the samples it was chosen on, and where it must not be chosen."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_vision.errors import EvaluationError
from lepton_vision.evaluation import choose_operating_point, evaluate
from lepton_vision.inference import Predictions
from lepton_vision.types import OperatingPoint, Target

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


@pytest.mark.parametrize("value", [0.0, -1.0, 1.01, float("nan")])
def test_an_impossible_sensitivity_is_refused(value: float) -> None:
    with pytest.raises(EvaluationError, match="above 0"):
        choose_operating_point(binary([0, 1], [0.2, 0.6]), min_sensitivity=value)
