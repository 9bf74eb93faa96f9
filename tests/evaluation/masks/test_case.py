"""One structure in one case: hand counts, the rules for empty masks, and properties."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import f1_score, jaccard_score, precision_score, recall_score

from lepton_vision.errors import EvaluationError
from lepton_vision.evaluation.masks.case import CASE_FIGURES, compare_masks

SHAPES = hnp.array_shapes(min_dims=2, max_dims=3, min_side=1, max_side=6)
PAIRS = SHAPES.flatmap(lambda shape: st.tuples(hnp.arrays(np.bool_, shape), hnp.arrays(np.bool_, shape)))
SPACING = (5.0, 2.0, 0.5)


def block(*rows: slice) -> np.ndarray:
    mask = np.zeros((4, 6, 8), dtype=np.bool_)
    mask[rows] = True
    return mask


def test_a_hand_count() -> None:
    truth = block(slice(1, 3), slice(1, 4), slice(2, 6))  # 2 * 3 * 4 = 24 voxels
    prediction = block(slice(1, 3), slice(1, 4), slice(3, 5))  # 2 * 3 * 2 = 12, all of them true
    found = compare_masks(truth, prediction, spacing_mm=SPACING, tolerance_mm=0.4)
    assert found.status == "present"
    assert (found.dice, found.iou, found.sensitivity, found.precision) == (24 / 36, 12 / 24, 0.5, 1.0)
    assert found.volume_truth_ml == pytest.approx(24 * 5.0 / 1000)  # voxels of 5 mm³
    assert found.volume_error_ml == pytest.approx(-12 * 5.0 / 1000)
    # every voxel is surface (2 slices thick): 12 of the truth at 0, 12 at one column = 0.5 mm; the prediction at 0
    assert found.hd95_mm == 0.5
    assert found.surface_dice == (12 + 12) / (24 + 12)
    assert compare_masks(truth, prediction, spacing_mm=SPACING, tolerance_mm=0.5).surface_dice == 1.0
    assert found.reasons == {}


@given(PAIRS)
@settings(deadline=None)
def test_overlap_is_that_of_scikit_learn(pair: tuple[np.ndarray, np.ndarray]) -> None:
    truth, prediction = pair
    found = compare_masks(truth, prediction)
    flat = truth.ravel(), prediction.ravel()
    scores = {"dice": f1_score, "sensitivity": recall_score, "precision": precision_score}
    expected = {name: score(*flat, zero_division=np.nan) for name, score in scores.items()}
    expected["iou"] = jaccard_score(*flat) if (truth | prediction).any() else math.nan  # it knows no NaN
    for name, value in expected.items():
        assert getattr(found, name) == pytest.approx(value, abs=1e-12, nan_ok=True), name


@given(PAIRS)
@settings(deadline=None)
def test_dice_is_symmetric_and_tied_to_iou(pair: tuple[np.ndarray, np.ndarray]) -> None:
    spacing = SPACING[-pair[0].ndim :]
    there, back = (compare_masks(*masks, spacing_mm=spacing) for masks in (pair, pair[::-1]))
    for name in ("dice", "iou", "hd95_mm", "surface_dice"):
        assert getattr(there, name) == pytest.approx(getattr(back, name), nan_ok=True)
    if not math.isnan(there.dice):
        assert there.iou == pytest.approx(there.dice / (2 - there.dice))
    assert there.sensitivity == pytest.approx(back.precision, nan_ok=True)


@given(PAIRS, st.integers(1, 3))
@settings(deadline=None)
def test_background_around_changes_nothing(pair: tuple[np.ndarray, np.ndarray], margin: int) -> None:
    spacing = SPACING[-pair[0].ndim :]
    padded = [np.pad(mask, margin) for mask in pair]
    assert repr(compare_masks(*pair, spacing_mm=spacing)) == repr(compare_masks(*padded, spacing_mm=spacing))


EMPTY, FULL = block(), block(slice(1, 2), slice(1, 3), slice(1, 5))
EMPTY[:] = False
NAN = math.nan
RULES = {
    # dice, iou, hd95, surface dice, sensitivity, precision, volumes [ml] of truth, prediction, error
    "missed": (FULL, EMPTY, (0, 0, NAN, 0, 0, NAN, 0.04, 0, -0.04), "no predicted surface (missed)"),
    "false_positive": (EMPTY, FULL, (0, 0, NAN, 0, NAN, 0, 0, 0.04, 0.04), "no truth surface"),
    "absent": (EMPTY, EMPTY, (NAN, NAN, NAN, NAN, NAN, NAN, 0, 0, 0), "absent in truth and prediction"),
}


@pytest.mark.parametrize("status", RULES)
def test_the_rules_for_empty_masks(status: str) -> None:
    truth, prediction, expected, reason = RULES[status]
    found = compare_masks(truth, prediction, spacing_mm=SPACING)
    assert found.status == status
    values = [getattr(found, name) for name in CASE_FIGURES]
    assert values == pytest.approx(expected, nan_ok=True)
    assert found.reasons["hd95_mm"] == reason
    undefined = {name for name, value in zip(CASE_FIGURES, expected, strict=True) if math.isnan(value)}
    assert set(found.reasons) == undefined  # a reason for each NaN, and for nothing else
    plain = found.to_dict()
    assert plain["hd95_mm"] is None
    assert reason in plain["reason"]


@pytest.mark.parametrize(("truth", "prediction"), [(FULL, FULL), (FULL, EMPTY), (EMPTY, FULL)])
def test_without_a_spacing_there_are_no_millimetres(truth: np.ndarray, prediction: np.ndarray) -> None:
    """Not even the 0 of a missed case: a mean over missed cases alone would say 0."""
    found = compare_masks(truth, prediction)
    for name in ("hd95_mm", "surface_dice", "volume_truth_ml", "volume_prediction_ml", "volume_error_ml"):
        assert math.isnan(getattr(found, name)), name
        assert found.reasons[name] == "pixel spacing unknown"
    assert not math.isnan(found.dice)


def test_a_slice_has_no_volume() -> None:
    found = compare_masks(FULL[1], FULL[1], spacing_mm=(2.0, 0.5))
    assert (found.dice, found.hd95_mm) == (1.0, 0.0)
    assert found.reasons == dict.fromkeys(CASE_FIGURES[6:], "no volume in 2-D")


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        ({"prediction": FULL[:3]}, "prediction"),
        ({"truth": FULL[0, 0], "prediction": FULL[0, 0]}, "truth"),
        ({"truth": FULL.astype(np.uint8)}, "mask"),
        ({"spacing_mm": (1.0, 1.0)}, "spacing_mm"),
        ({"spacing_mm": (1.0, 1.0, 0.0)}, "spacing_mm"),
        ({"spacing_mm": (1.0, 1.0, NAN)}, "spacing_mm"),
        ({"tolerance_mm": -1.0}, "tolerance_mm"),
        ({"tolerance_mm": NAN}, "tolerance_mm"),
    ],
)
def test_bad_input_is_refused_by_name(arguments: dict[str, object], key: str) -> None:
    given_arguments = {"truth": FULL, "prediction": FULL} | arguments
    with pytest.raises(EvaluationError, match=r"Expected|needs") as caught:
        compare_masks(given_arguments.pop("truth"), given_arguments.pop("prediction"), **given_arguments)
    assert caught.value.key == key
