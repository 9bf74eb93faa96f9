"""Lesions by hand count."""

from __future__ import annotations

import numpy as np
import pytest

from lepton_vision.errors import EvaluationError
from lepton_vision.evaluation.masks.lesions import LesionCounts, LesionScores, components, count_lesions, score_lesions


def grid(*rows: str) -> np.ndarray:
    return np.array([[cell != "." for cell in row] for row in rows])


def test_corners_connect_in_2d_and_3d() -> None:
    assert components(grid("#..", ".#.", "..#")).max() == 1
    corner = np.zeros((2, 2, 2), dtype=np.bool_)
    corner[0, 0, 0] = corner[1, 1, 1] = True
    assert components(corner).max() == 1
    apart = np.zeros((3, 3, 3), dtype=np.bool_)
    apart[0, 0, 0] = apart[2, 2, 2] = True
    assert components(apart).max() == 2


TRUTH = grid("##....##", "##....##", "........", "...##...")
CALLS = grid("####....", "........", "......#.", "...#....")


def test_any_shared_voxel_by_hand() -> None:
    """Lesions: top left (4), top right (4), bottom (2). Calls: a bar over the left one, a lone dot, half the bottom."""
    assert count_lesions(TRUTH, CALLS) == LesionCounts(lesions=3, found=2, candidates=3, false=1)


def test_an_iou_threshold_by_hand() -> None:
    """IoU: left 2 / (4 + 4 - 2) = 1/3, bottom 1 / (2 + 1 - 1) = 1/2."""
    assert count_lesions(TRUTH, CALLS, min_iou=1 / 3) == LesionCounts(3, 2, 3, 1)
    assert count_lesions(TRUTH, CALLS, min_iou=0.5) == LesionCounts(3, 1, 3, 2)
    assert count_lesions(TRUTH, CALLS, min_iou=0.51) == LesionCounts(3, 0, 3, 3)
    assert count_lesions(TRUTH, TRUTH, min_iou=1.0) == LesionCounts(3, 3, 3, 0)


def test_two_calls_on_one_lesion_and_one_call_on_two() -> None:
    one, two = grid("#####"), grid("#...#")
    assert count_lesions(one, two) == LesionCounts(lesions=1, found=1, candidates=2, false=0)
    assert count_lesions(two, one) == LesionCounts(lesions=2, found=2, candidates=1, false=0)


def test_nothing_on_either_side() -> None:
    nothing = np.zeros((4, 8), dtype=np.bool_)
    assert count_lesions(nothing, nothing) == LesionCounts(0, 0, 0, 0)
    assert count_lesions(TRUTH, nothing) == LesionCounts(3, 0, 0, 0)
    assert count_lesions(nothing, CALLS, min_iou=0.5) == LesionCounts(0, 0, 3, 3)


def test_scored_candidates_by_hand() -> None:
    probability = np.where(CALLS, 0.5, 0.0)
    probability[0, 3], probability[2, 6], probability[3, 3] = 0.9, 0.3, 0.6
    found = score_lesions(TRUTH, probability, image_id="a", patient_id="p")
    np.testing.assert_array_equal(found.lesion_scores, [0.9, np.nan, 0.6])  # the peak of the bar lies off the lesion
    np.testing.assert_array_equal(found.false_scores, [0.3])
    higher = score_lesions(TRUTH, probability, min_probability=0.55)
    np.testing.assert_array_equal(higher.lesion_scores, [np.nan, np.nan, 0.6])
    np.testing.assert_array_equal(higher.false_scores, [0.9])  # without its tail the bar no longer meets the lesion
    at_the_edge = score_lesions(TRUTH, np.where(CALLS, 0.5, 0.0), min_probability=0.5)  # 0.5 is within
    np.testing.assert_array_equal(at_the_edge.lesion_scores, [0.5, np.nan, 0.5])
    strict = score_lesions(TRUTH, probability, min_iou=0.5)
    np.testing.assert_array_equal(strict.lesion_scores, [np.nan, np.nan, 0.6])
    np.testing.assert_array_equal(np.sort(strict.false_scores), [0.3, 0.9])


def test_no_candidate_and_no_lesion_have_empty_scores() -> None:
    nothing = np.zeros((4, 8))
    assert np.isnan(score_lesions(TRUTH, nothing).lesion_scores).tolist() == [True] * 3
    assert score_lesions(TRUTH, nothing).false_scores.size == 0
    found = score_lesions(nothing > 0, np.where(CALLS, 0.5, 0.0))
    assert (found.lesion_scores.size, found.false_scores.tolist()) == (0, [0.5] * 3)


@pytest.mark.parametrize(
    ("probability", "options", "key"),
    [
        (np.full((4, 8), 1.5), {}, "probability"),
        (np.full((4, 8), np.nan), {}, "probability"),
        (np.zeros((4, 7)), {}, "probability"),
        (np.zeros((4, 8)), {"min_probability": 0.0}, "min_probability"),
        (np.zeros((4, 8)), {"min_iou": 1.5}, "min_iou"),
        (np.zeros((4, 8)), {"min_iou": float("nan")}, "min_iou"),
    ],
)
def test_bad_input_is_refused_by_name(probability: np.ndarray, options: dict[str, float], key: str) -> None:
    with pytest.raises(EvaluationError) as caught:
        score_lesions(TRUTH, probability, **options)
    assert caught.value.key == key


def test_infinite_scores_are_refused() -> None:
    with pytest.raises(EvaluationError, match="finite"):
        LesionScores("a", "p", np.array([0.5]), np.array([np.nan]))
    with pytest.raises(EvaluationError, match="finite"):
        LesionScores("a", "p", np.array([np.inf]), np.array([0.1]))
