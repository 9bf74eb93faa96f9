"""Many cases: means, medians and counts by hand, intervals over patients, bad input, bounded memory."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest
from scipy import stats

from lepton_vision.config.sections import EvaluationConfig
from lepton_vision.errors import EvaluationError
from lepton_vision.evaluation import MaskCase, evaluate_masks
from lepton_vision.evaluation.masks.measures import STATISTICS, MaskMeasures
from lepton_vision.evaluation.statistics.intervals import draw_counts
from lepton_vision.predictions.cells import Failure

STEP = (2.0, 1.0, 1.0)


def labels(**boxes: tuple[int, int]) -> np.ndarray:
    """(2, 4, 12) uint8: structure a (1) fills rows 0-1, b (2) rows 2-3, each from one column up to another."""
    result = np.zeros((2, 4, 12), dtype=np.uint8)
    for name, (first, last) in boxes.items():
        value, rows = {"a": (1, slice(0, 2)), "b": (2, slice(2, 4))}[name]
        result[:, rows, first:last] = value
    return result


# Structure a: Dice 1, 1/2, missed, false positive, absent. Structure b is right everywhere it stands.
CASES = [
    MaskCase("i0", labels(a=(0, 4), b=(0, 4)), labels(a=(0, 4), b=(0, 4)), STEP, "p"),
    MaskCase("i1", labels(a=(0, 4)), labels(a=(2, 6)), STEP, "p"),
    MaskCase("i2", labels(a=(0, 4)), labels(), STEP, "q"),
    MaskCase("i3", labels(), labels(a=(0, 2)), STEP, "r"),
    MaskCase("i4", labels(b=(0, 2)), labels(b=(0, 2)), STEP, "s"),
]
STRUCTURES = {"a": 1, "b": 2}


def test_figures_by_hand() -> None:
    found = evaluate_masks([*CASES, Failure("i5", "corrupt")], structures=STRUCTURES, lesions=["a"])
    a, b = found.figures["a"], found.figures["b"]
    assert (a["dice"].value, a["dice"].n) == ((1 + 0.5 + 0 + 0) / 4, 4)
    assert a["iou"].value == pytest.approx((1 + 1 / 3) / 4)
    assert (a["hd95_mm"].value, a["hd95_mm"].n) == ((0 + 2) / 2, 2)
    assert (a["sensitivity"].value, a["sensitivity"].n) == ((1 + 0.5 + 0) / 3, 3)
    assert (a["precision"].value, a["precision"].n) == ((1 + 0.5 + 0) / 3, 3)
    # 16 voxels of 2 mm³ in a full one, 8 in the false positive; errors 0, 0, -0.032, +0.016, 0
    assert a["volume_error_ml"].value == pytest.approx(-0.016 / 5)
    assert a["absolute_volume_error_ml"].value == pytest.approx(0.048 / 5)
    assert (a["missed_rate"].value, a["missed_rate"].n) == (1 / 3, 3)
    assert (a["false_positive_rate"].value, a["false_positive_rate"].n) == (1 / 2, 2)
    assert (a["lesion_sensitivity"].value, a["lesion_sensitivity"].n) == (2 / 3, 3)
    assert (a["lesion_precision"].value, a["lesion_precision"].n) == (2 / 3, 3)
    assert a["false_lesions_per_case"].value == 1 / 5
    assert found.statuses["a"] == {"present": 2, "missed": 1, "false_positive": 1, "absent": 1}
    assert found.undefined["a"]["hd95_mm"] == {
        "no predicted surface (missed)": 1,
        "no truth surface": 1,
        "absent in truth and prediction": 1,
    }
    assert found.undefined["a"]["dice"] == {"absent in truth and prediction": 1}
    assert (b["dice"].value, b["dice"].n, b["missed_rate"].value) == (1.0, 2, 0.0)
    assert "lesion_sensitivity" not in b
    assert (found.n, found.n_patients, len(found.failures)) == (5, 4, 1)


def test_ranking_and_table() -> None:
    found = evaluate_masks(CASES, structures=STRUCTURES)
    assert found.ranked["a"]._asdict() == {"best": "i0", "median": "i3", "worst": "i2"}  # 0 (i2), 0 (i3), 1/2, 1
    assert [row.image_id for row in found.cases if row.structure == "a"] == ["i0", "i1", "i2", "i3", "i4"]
    row = found.cases[2].to_dict()
    assert (row["image_id"], row["patient_id"], row["structure"], row["status"]) == ("i1", "p", "a", "present")
    assert row["hd95_mm"] == 2.0
    nothing = evaluate_masks(CASES[2:3], structures=STRUCTURES).ranked["b"]
    assert nothing == (None, None, None)


def test_several_values_may_be_one_structure() -> None:
    case = MaskCase("x", labels(a=(0, 4), b=(0, 4)), labels(a=(0, 4)), STEP, "p")  # 32 voxels against 16 of them
    found = evaluate_masks([case], structures={"whole": (1, 2), "b": 2})
    assert found.figures["whole"]["dice"].value == 2 * 16 / (32 + 16)
    assert found.statuses["b"]["missed"] == 1


def test_one_candidate_on_two_lesions_is_one_true_candidate() -> None:
    case = MaskCase("x", labels(a=(0, 2)) + labels(a=(4, 6)), labels(a=(0, 6)) + labels(a=(8, 9)), STEP, "p")
    figures = evaluate_masks([case], structures={"a": 1}, lesions=["a"]).figures["a"]
    assert (figures["lesion_sensitivity"].value, figures["lesion_sensitivity"].n) == (1.0, 2)
    assert (figures["lesion_precision"].value, figures["lesion_precision"].n) == (1 / 2, 2)


def test_plain_values_are_json_and_complete() -> None:
    found = evaluate_masks(CASES, structures=STRUCTURES, tolerance_mm=1.5)
    plain = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    dice = plain["structures"]["a"]["figures"]["dice"]
    assert {"value", "low", "high", "n"} <= set(dice)
    assert (dice["n_undefined"], dice["statistic"]) == (1, "mean")
    assert plain["structures"]["a"]["figures"]["hd95_mm"]["statistic"] == "median"
    assert plain["structures"]["a"]["cases"]["missed"] == 1
    assert plain["tolerance_mm"] == 1.5
    html = found._repr_html_()
    assert "2 present, 1 missed, 1 false_positive, 1 absent" in html
    assert set(found.figures["a"]) <= set(STATISTICS)


def test_a_figure_undefined_in_every_case_says_why() -> None:
    figure = evaluate_masks(CASES[2:4], structures=STRUCTURES).figures["a"]["hd95_mm"]
    assert np.isnan(figure.value)
    assert figure.reason == "no predicted surface (missed) (1 cases); no truth surface (1 cases)"
    assert figure.n == 0
    unknown = [MaskCase(c.image_id, c.truth, c.prediction, None, c.patient_id) for c in CASES]
    figures = evaluate_masks(unknown, structures=STRUCTURES).figures["a"]
    assert "pixel spacing unknown (4 cases)" in figures["surface_dice"].reason
    assert figures["dice"].value == 0.375


def random_cases(patients: int, images: int, *, seed: int = 0) -> list[MaskCase]:
    """The shift of the prediction belongs to the patient: the images of one patient are equally good."""
    rng, cases = np.random.default_rng(seed), []
    for patient in range(patients):
        shift = int(rng.integers(0, 6))
        for image in range(images):
            truth = labels(a=(0, 5))
            cases.append(MaskCase(f"{patient}-{image}", truth, np.roll(truth, shift, axis=2), STEP, f"p{patient}"))
    return cases


def test_images_of_one_patient_do_not_count_as_independent() -> None:
    cases = random_cases(30, 6)
    apart = [MaskCase(c.image_id, c.truth, c.prediction, c.spacing_mm, c.image_id) for c in cases]
    clustered, naive = (evaluate_masks(part, structures={"a": 1}).figures["a"] for part in (cases, apart))
    for name in ("dice", "surface_dice", "hd95_mm_mean"):
        assert clustered[name].value == pytest.approx(naive[name].value)
        ratio = (clustered[name].high - clustered[name].low) / (naive[name].high - naive[name].low)
        assert 1.9 < ratio < 3.1, name  # sqrt(6) = 2.4 for equal images
    assert clustered["hd95_mm"].high - clustered["hd95_mm"].low >= naive["hd95_mm"].high - naive["hd95_mm"].low


def test_an_unknown_patient_is_a_patient_of_its_own() -> None:
    cases = [MaskCase(c.image_id, c.truth, c.prediction, c.spacing_mm, "") for c in CASES]
    assert evaluate_masks(cases, structures=STRUCTURES).n_patients == 5


def test_replicates_are_those_of_a_plain_loop() -> None:
    cases = [*CASES, *random_cases(5, 2)]
    rows = [r.figures for r in evaluate_masks(cases, structures=STRUCTURES).cases if r.structure == "a"]
    unit = np.unique([c.patient_id for c in cases], return_inverse=True)[1]
    units = int(unit.max()) + 1
    counts = np.concatenate(list(draw_counts(units, replicates=60, samples=20, seed=3)))
    values = MaskMeasures(rows, unit=unit, units=units).values(counts)
    for number, count in enumerate(counts):
        taken = [row for row, k in zip(rows, unit, strict=True) for _ in range(int(count[k]))]
        dice = [row.dice for row in taken if row.dice == row.dice]
        hd95 = [row.hd95_mm for row in taken if row.hd95_mm == row.hd95_mm]
        assert values["dice"][number] == pytest.approx(stats.tmean(dice) if dice else np.nan, nan_ok=True)
        assert values["hd95_mm"][number] == pytest.approx(np.median(hd95) if hd95 else np.nan, nan_ok=True)


def test_the_interval_follows_the_configuration() -> None:
    cases = random_cases(12, 2)

    def interval(**keys: float) -> tuple[float, float]:
        config = EvaluationConfig.model_validate(keys)
        figure = evaluate_masks(cases, structures={"a": 1}, config=config).figures["a"]["dice"]
        return figure.low, figure.high

    wide, narrow = interval(confidence=0.99), interval(confidence=0.8)
    assert wide[0] < narrow[0] < narrow[1] < wide[1]
    assert interval(seed=1) == interval(seed=1) != interval(seed=2)


def test_no_miss_among_few_patients_is_no_proof() -> None:
    figure = evaluate_masks(random_cases(6, 3), structures={"a": 1}).figures["a"]["missed_rate"]
    assert figure.value == 0.0
    assert figure.high == pytest.approx(stats.binomtest(0, 6).proportion_ci(0.95, method="wilson").high)


def test_cases_are_dropped_one_by_one() -> None:
    """200 cases of 0.5 MB each way; a list of them would be 200 MB."""

    def stream() -> Iterator[MaskCase]:
        for number in range(200):
            truth = np.zeros((32, 128, 128), dtype=np.uint8)
            truth[4:8, 20:30, 20:30] = 1
            yield MaskCase(f"i{number}", truth, truth.copy(), STEP, f"p{number}")

    tracemalloc.start()
    try:
        evaluate_masks(stream(), structures={"a": 1}, config=EvaluationConfig(replicates=100))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 16e6


@pytest.mark.parametrize(
    ("cases", "options", "key"),
    [
        ([], {}, "cases"),
        ([Failure("a", "corrupt")], {}, "cases"),
        ([CASES[0], CASES[0]], {}, "image_id"),
        ([CASES[0], Failure("i0", "corrupt")], {}, "image_id"),
        ([MaskCase("", CASES[0].truth, CASES[0].prediction)], {}, "image_id"),
        (CASES, {"structures": {}}, "structures"),
        (CASES, {"structures": {"a": 0}}, "structures"),
        (CASES, {"structures": {"a": ()}}, "structures"),
        (CASES, {"structures": {"a": 1.5}}, "structures"),
        (CASES, {"structures": {"a": 1}}, "truth"),
        (CASES, {"lesions": ["aa"]}, "lesions"),
        (CASES, {"tolerance_mm": -1.0}, "tolerance_mm"),
        (CASES, {"min_iou": 2.0}, "min_iou"),
    ],
)
def test_bad_input_is_refused_by_name(cases: list[MaskCase], options: dict[str, object], key: str) -> None:
    with pytest.raises(EvaluationError) as caught:
        evaluate_masks(cases, **{"structures": STRUCTURES, **options})  # type: ignore[arg-type]
    assert caught.value.key == key


def test_an_unknown_value_is_shown_with_its_place() -> None:
    wrong = CASES[1].prediction.copy()
    wrong[0, 0, 0], wrong[0, 0, 1] = 7, 255
    with pytest.raises(
        EvaluationError, match=r"prediction of case 1 .*Expected: 0, 1, 2\. Received: 7, 255\."
    ) as caught:
        evaluate_masks([CASES[0], MaskCase("x", CASES[1].truth, wrong)], structures=STRUCTURES)
    assert (caught.value.row, caught.value.key) == (1, "prediction")


def test_real_numbers_are_no_mask() -> None:
    with pytest.raises(EvaluationError, match=r"Received: float32 in the prediction\."):
        MaskCase("a", CASES[0].truth, CASES[0].truth.astype(np.float32))
