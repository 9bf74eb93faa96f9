"""Agreement of label and mask, and the pointing game, against hand counts."""

from __future__ import annotations

import json

import numpy as np
import pytest

from lepton_vision.config.sections import EvaluationConfig
from lepton_vision.errors import EvaluationError
from lepton_vision.evaluation.masks.agreement import agree_heads
from lepton_vision.evaluation.masks.pointing import play_pointing_game

CONFIG = EvaluationConfig(replicates=400)

#                 P+M  P+M  P+M  P+E  N+M  N+E  N+E  N+E   unknown
PROBABILITY = np.array([0.9, 0.5, 0.7, 0.8, 0.2, 0.1, 0.4, 0.0, np.nan, 0.9])
PREDICTED = np.array([9.0, 3.0, 4.0, 2.0, 5.0, 0.0, 2.0, 0.0, 7.0, np.nan])
TRUE = np.array([9.0, 0.0, np.nan, 8.0, 0.0, 0.0, 6.0, 0.0, 1.0, 1.0])
PATIENTS = np.array(["a", "a", "b", "b", "c", "c", "d", "d", "e", "f"])


def test_the_cross_tables_and_shares_are_by_hand() -> None:
    found = agree_heads(
        PROBABILITY, PREDICTED, threshold=0.5, true_area=TRUE, patient_id=PATIENTS, min_area=2.0, config=CONFIG
    )
    assert dict(found.tables["predicted"]) == {
        "positive_mask": 3,
        "positive_empty": 1,  # 2.0 is not above min_area
        "negative_mask": 1,
        "negative_empty": 3,
    }
    assert dict(found.tables["true"]) == {
        "positive_mask": 2,
        "positive_empty": 1,
        "negative_mask": 1,
        "negative_empty": 3,
    }
    values = {name: (figure.value, figure.n) for name, figure in found.figures.items()}
    assert values == {
        "agreement": (6 / 8, 8),
        "mask_if_positive": (3 / 4, 4),
        "empty_if_negative": (3 / 4, 4),
        "true_agreement": (5 / 7, 7),  # one true area is unknown
        "true_mask_if_positive": (2 / 3, 3),
        "true_empty_if_negative": (3 / 4, 4),
    }
    assert (found.n, found.n_patients, found.n_unknown) == (8, 4, 2)
    json.dumps(found.to_dict(), allow_nan=False)
    assert "agreement" in found._repr_html_()


def test_the_interval_is_over_patients_not_over_cases() -> None:
    """Every case of a patient repeats: 8 cases of 4 patients are as good as 4, here by a bootstrap of its own."""
    right = np.array([1, 1, 0, 1])
    probability = np.repeat(np.where(right, 0.9, 0.1), 50)
    area, patients = np.ones(200), np.repeat(["a", "b", "c", "d"], 50)
    plain = CONFIG.model_copy(update={"interval": "percentile"})
    clustered = agree_heads(probability, area, threshold=0.5, patient_id=patients, config=plain).figures["agreement"]
    alone = agree_heads(probability, area, threshold=0.5, config=plain).figures["agreement"]
    rng = np.random.default_rng(5)
    drawn = np.quantile(right[rng.integers(4, size=(4000, 4))].mean(axis=1), [0.025, 0.975])
    assert (clustered.low, clustered.high) == tuple(drawn)  # quarters: 0.25 and 1
    assert alone.high - alone.low < 0.15 < clustered.high - clustered.low


def test_decisions_may_be_given_and_an_empty_side_says_why() -> None:
    found = agree_heads(np.array([1.0, 1.0]), np.array([0.0, 2.0]), threshold=0.5, config=CONFIG)
    assert found.figures["agreement"].value == 0.5
    assert found.figures["empty_if_negative"].reason == "no negative label"
    assert found.to_dict()["figures"]["empty_if_negative"]["value"] is None


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"probability": np.array([1.2, 0.0])}, r"in \[0, 1\]"),
        ({"predicted_area": np.array([1.0])}, r"Expected shape \(2,\). Received: \(1,\)"),
        ({"predicted_area": np.array([-1.0, 0.0])}, "0 or more"),
        ({"predicted_area": np.array([np.nan, np.nan])}, "2 cases, none with both"),
        ({"true_area": np.zeros(3)}, r"Received: \(3,\)"),
        ({"patient_id": np.array(["a"])}, r"Received: \(1,\)"),
        ({"threshold": 1.5}, "threshold from 0 to 1"),
        ({"threshold": np.nan}, "threshold from 0 to 1"),
        ({"min_area": -1.0}, "min_area of 0 or more"),
    ],
)
def test_what_cannot_be_compared_is_refused(changes: dict[str, object], match: str) -> None:
    values = {"probability": np.array([0.1, 0.9]), "predicted_area": np.zeros(2), "threshold": 0.5} | changes
    probability, area = values.pop("probability"), values.pop("predicted_area")
    with pytest.raises(EvaluationError, match=match):
        agree_heads(probability, area, **values)  # type: ignore[arg-type]


MASK = np.zeros((4, 5), np.bool_)
MASK[1, 1:3] = True


def hot(row: int, column: int) -> np.ndarray:
    heat = np.zeros((4, 5), np.float32)
    heat[row, column] = 1.0
    return heat


def test_hits_are_by_hand() -> None:
    tied = hot(1, 1) + hot(3, 4)  # one of two maxima is inside
    heats = [hot(1, 2), hot(1, 3), hot(3, 4), tied, np.zeros((4, 5)), hot(0, 0)]
    masks = [MASK] * 5 + [np.zeros_like(MASK)]
    found = play_pointing_game(heats, masks, tolerance_pixels=0, config=CONFIG)
    np.testing.assert_array_equal(found.hits, [1.0, 0.0, 0.0, 0.5, 2 / 20, np.nan])
    np.testing.assert_array_equal(found.chance, [*[2 / 20] * 5, np.nan])
    figures = {name: (figure.value, figure.n) for name, figure in found.figures.items()}
    assert figures["hit_rate"] == (pytest.approx(1.6 / 5), 5)
    assert figures["chance"] == (pytest.approx(0.1), 5)
    assert figures["gain"] == (pytest.approx(1.6 / 5 - 0.1), 5)
    assert (found.n, found.n_patients, found.n_empty, found.unit) == (5, 5, 1, "pixels")
    json.dumps(found.to_dict(), allow_nan=False)
    assert "1 without a mask" in found._repr_html_()


def test_the_tolerance_grows_the_mask_and_chance_with_it() -> None:
    # one pixel (Euclidean): the two of the mask, 2 above, 2 below, 1 left, 1 right
    found = play_pointing_game([hot(1, 3), hot(2, 3)], [MASK] * 2, tolerance_pixels=1, config=CONFIG)
    assert found.hits.tolist() == [1.0, 0.0]
    assert found.chance.tolist() == [8 / 20] * 2
    # 0.3 mm are three steps of 0.1 (0.30000000000000004) along the columns, and none of 1.0 along the rows
    found = play_pointing_game(
        [hot(1, 4)], [np.roll(MASK, -1, axis=1)], tolerance_mm=0.3, spacing_mm=(1.0, 0.1), config=CONFIG
    )
    assert (found.hits.tolist(), found.chance.tolist(), found.unit) == ([1.0], [5 / 20], "mm")
    found = play_pointing_game(
        [hot(0, 1)] * 2, [MASK] * 2, tolerance_mm=1, spacing_mm=[(1.0, 1.0), (1.1, 1.0)], config=CONFIG
    )
    assert found.hits.tolist() == [1.0, 0.0]


def test_the_interval_of_the_hits_is_over_patients() -> None:
    heats = [hot(1, 1)] * 30 + [hot(3, 3)] * 30
    patients = np.repeat(["a", "b"], 30)
    both = play_pointing_game(heats, [MASK] * 60, tolerance_pixels=0, patient_id=patients, config=CONFIG)
    assert (both.figures["hit_rate"].low, both.figures["hit_rate"].high) == (0.0, 1.0)
    each = play_pointing_game(heats, [MASK] * 60, tolerance_pixels=0, config=CONFIG)
    assert 0.3 < each.figures["hit_rate"].low < 0.5 < each.figures["hit_rate"].high < 0.7


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"tolerance_pixels": None}, "exactly one"),
        ({"tolerance_mm": 1.0}, "exactly one"),
        ({"spacing_mm": (1.0, 1.0)}, "one in pixels takes none"),
        ({"tolerance_pixels": None, "tolerance_mm": 1.0}, "needs spacing_mm"),
        ({"tolerance_pixels": -1.0}, "0 or more"),
        ({"masks": [MASK]}, "none for map 1"),
        ({"masks": [MASK] * 3}, "more masks"),
        ({"masks": [MASK, MASK[1:]]}, r"shape of its heat map, \(4, 5\)"),
        ({"masks": [MASK, MASK.astype(int)]}, "int64"),
        ({"masks": [MASK & False] * 2}, "2 cases, all empty"),
        ({"heat_maps": [hot(0, 0), np.full((4, 5), np.nan)]}, "must be finite"),
        ({"patient_id": np.array(["a"])}, r"Received: \(1,\)"),
        ({"tolerance_pixels": None, "tolerance_mm": 1.0, "spacing_mm": [(1.0, 1.0)]}, "none for map 1"),
    ],
)
def test_what_cannot_be_played_is_refused(changes: dict[str, object], match: str) -> None:
    values = {"heat_maps": [hot(0, 0)] * 2, "masks": [MASK] * 2, "tolerance_pixels": 0.0} | changes
    heats, masks = values.pop("heat_maps"), values.pop("masks")
    with pytest.raises(EvaluationError, match=match):
        play_pointing_game(heats, masks, config=CONFIG, **values)  # type: ignore[arg-type]
