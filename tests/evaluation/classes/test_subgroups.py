"""Subgroups: their figures are those of their samples, gaps are found where there are any and seldom where not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.stats import permutation_test
from sklearn.metrics import roc_auc_score

from lepton_vision.config.sections import EvaluationConfig
from lepton_vision.errors import EvaluationError
from lepton_vision.evaluation import evaluate
from lepton_vision.evaluation.choices.calibration import fit_calibrators
from lepton_vision.evaluation.classes.conformal import fit_set_rules
from lepton_vision.evaluation.classes.external import Site
from lepton_vision.evaluation.classes.grouping import group_values
from lepton_vision.evaluation.classes.subgroups import evaluate_subgroups, gap_test, simultaneous_interval
from lepton_vision.predictions import Predictions
from lepton_vision.predictions.calibration import apply_calibrator
from lepton_vision.predictions.operating_point import OperatingPoint
from lepton_vision.types import Target

Make = Callable[..., Predictions]
SICK = Target("sick", "binary", ("no", "yes"))
POINT = OperatingPoint({"sick": (0.5,)}, "stated")
FEW = EvaluationConfig(replicates=300)


def study(n: int = 400, *, seed: int = 0, loss: float = 0.0, images: int = 1) -> tuple[Predictions, list[str]]:
    """Half of the patients are M; their sick ones are seen ``loss`` less clearly."""
    rng = np.random.default_rng(seed)
    sex = np.array(["F", "M"])[np.arange(n) % 2]
    truth = (rng.random(n) < 0.4).astype(float)
    z = np.repeat(2 * truth - 1 - loss * truth * (sex == "M") + 0.8 * rng.normal(size=n), images)
    z = z + 0.3 * rng.normal(size=n * images)
    ids = np.array([f"i{k}" for k in range(n * images)])
    who = np.repeat(np.array([f"p{k:04}" for k in range(n)]), images)
    truth = np.repeat(truth, images)
    made = Predictions((SICK,), ids, who, who, {"sick": truth}, {"sick": 1 / (1 + np.exp(-z))}, split="test")
    return made, np.repeat(sex, images).tolist()


def test_the_figures_of_a_subgroup_are_those_of_its_samples() -> None:
    made, sex = study(images=3)
    (column,) = evaluate_subgroups(made, {"sex": sex}, operating_point=POINT, config=FEW)
    for one in column.subgroups:
        alone = evaluate(made.select(np.array(sex) == one.value), operating_point=POINT, config=FEW)
        assert one.figures["sick"] == alone.figures["sick"]
        assert (one.n, one.n_patients) == (alone.n, alone.n_patients) == (600, 200)
    rows = np.array(sex) == "M"
    area = roc_auc_score(made.y_true["sick"][rows], made.y_prob["sick"][rows])
    assert column.subgroups[1].figures["sick"]["auroc"].value == pytest.approx(area)
    assert column.warnings == ()


def test_a_planted_gap_is_found_and_named() -> None:
    made, sex = study(loss=1.5)
    (column,) = evaluate_subgroups(made, {"sex": sex}, operating_point=POINT, config=FEW)
    gaps = {gap.figure: gap for gap in column.gaps}
    assert (gaps["sensitivity"].highest, gaps["sensitivity"].lowest) == ("F", "M")
    found = {one.value: one.figures["sick"]["sensitivity"].value for one in column.subgroups}
    assert gaps["sensitivity"].difference.value == pytest.approx(found["F"] - found["M"])
    assert gaps["sensitivity"].difference.low > 0.1
    assert gaps["sensitivity"].p == pytest.approx(1 / 301)  # none of the 300 permutations reaches it
    assert gaps["sensitivity"].p_holm < 0.05
    assert gaps["specificity"].p > 0.05


def test_the_test_is_that_of_scipy() -> None:
    made, sex = study(120, seed=3, loss=0.4)
    config = EvaluationConfig(replicates=4000)
    (column,) = evaluate_subgroups(made, {"sex": sex}, operating_point=POINT, config=config)
    gap = next(one for one in column.gaps if one.figure == "sensitivity")
    truth, right, is_m = made.y_true["sick"], made.y_prob["sick"] >= 0.5, np.array(sex) == "M"

    right, is_m = right[truth == 1], is_m[truth == 1]  # dealt anew among the sick alone

    def difference(labels: np.ndarray) -> float:
        return abs(right[labels].mean() - right[~labels].mean())

    oracle = permutation_test(
        (is_m,), difference, permutation_type="pairings", n_resamples=4000, rng=0, alternative="greater"
    )
    assert gap.p == pytest.approx(oracle.pvalue, abs=0.035)


def uneven(seed: int, *, patients: tuple[int, int], shares: tuple[float, float]) -> tuple[Predictions, list[str]]:
    """Two subgroups of another prevalence whose scores are the same among the sick and among the healthy."""
    rng, group = np.random.default_rng(seed), np.repeat([0, 1], patients)
    truth = (rng.random(group.size) < np.array(shares)[group]).astype(float)
    prob = 1 / (1 + np.exp(0.84 - 1.68 * truth - rng.normal(size=group.size)))
    ids = np.array([f"i{k}" for k in range(group.size)])
    made = Predictions((SICK,), ids, ids, ids, {"sick": truth}, {"sick": prob}, split="test")
    return made, np.array(["F", "M"])[group].tolist()


def test_another_prevalence_is_no_gap_and_interval_and_test_agree() -> None:
    config, reached, disagree = EvaluationConfig(replicates=100, interval="percentile"), [], 0
    for seed in range(60):
        made, sex = uneven(seed, patients=(100, 100), shares=(0.05, 0.5))
        (column,) = evaluate_subgroups(made, {"sex": sex}, operating_point=POINT, config=config)
        assert column.subgroups[0].is_small  # about five sick among a hundred
        reached += [gap.p <= 0.05 for gap in column.gaps]
        disagree += sum((gap.p <= 0.05) != (gap.difference.low > 0) for gap in column.gaps)
    assert disagree == 0
    assert np.mean(reached) <= 0.065


def grouped(pairs: list[tuple[int, int, int]]) -> tuple[Predictions, list[str]]:
    """By subgroup: patients, sick ones, and hits among them; no false alarm."""
    truth = np.concatenate([np.arange(n) < sick for n, sick, _ in pairs]).astype(float)
    prob = np.concatenate([np.where(np.arange(n) < hits, 0.9, 0.1) for n, _, hits in pairs])
    ids = np.array([f"i{k}" for k in range(truth.size)])
    names = np.repeat([f"g{k}" for k in range(len(pairs))], [n for n, _, _ in pairs])
    return Predictions((SICK,), ids, ids, ids, {"sick": truth}, {"sick": prob}, split="test"), names.tolist()


@pytest.mark.parametrize(
    "pairs",
    [
        [(100, 5, 3), (100, 50, 45)],
        [(100, 6, 4), (100, 60, 55)],
        [(100, 5, 4), (100, 50, 50)],
        [(200, 8, 6), (200, 80, 76)],
    ],
)
def test_a_gap_that_fishers_test_leaves_to_chance_is_none(pairs: list[tuple[int, int, int]]) -> None:
    made, names = grouped(pairs)
    (column,) = evaluate_subgroups(made, {"site": names}, operating_point=POINT, config=FEW)
    gap = next(one for one in column.gaps if one.figure == "sensitivity")
    fisher = stats.fisher_exact([[hits, sick - hits] for _, sick, hits in pairs]).pvalue
    assert gap.p >= fisher - 0.05 > 0.03
    assert gap.difference.low < 0 < gap.difference.high
    assert [one.is_small for one in column.subgroups] == [True, False]
    assert any("Fewer than 10 patients of some class" in one for one in column.warnings)


def test_subgroups_without_a_miss_have_no_interval_without_width() -> None:
    made, names = grouped([(60, 30, 30), (60, 30, 30)])
    (column,) = evaluate_subgroups(made, {"site": names}, operating_point=POINT, config=FEW)
    for gap in column.gaps:
        assert gap.difference.value == 0.0
        assert gap.p == 1.0
        assert gap.difference.low < 0 < gap.difference.high or np.isnan(gap.difference.low)


def test_without_a_gap_it_is_seldom_significant() -> None:
    config = EvaluationConfig(replicates=100)
    smallest = []
    for seed in range(60):
        made, sex = study(150, seed=seed, images=2)
        (column,) = evaluate_subgroups(made, {"sex": sex}, operating_point=POINT, config=config)
        assert {gap.test for gap in column.gaps} == {"permutation"}
        smallest.append(min(gap.p_holm for gap in column.gaps))
    assert np.mean(np.array(smallest) < 0.05) <= 0.15  # 9 of 60; 5 % of 60 is 3, above 9 with a chance below 0.1 %


def test_patients_in_several_subgroups_are_tested_by_a_bootstrap() -> None:
    made, _ = study(150, images=2)
    view = ["PA", "AP"] * 150
    (column,) = evaluate_subgroups(made, {"view_position": view}, operating_point=POINT, config=FEW)
    assert {gap.test for gap in column.gaps} == {"bootstrap"}
    assert min(gap.p for gap in column.gaps) > 0.05
    assert any("several subgroups" in one for one in column.warnings)
    worse = made.y_prob["sick"].copy()
    worse[1::2] = np.where(made.y_true["sick"][1::2] > 0, worse[1::2] * 0.3, worse[1::2])
    planted = Predictions((SICK,), made.image_id, made.patient_id, made.series_id, made.y_true, {"sick": worse})
    (column,) = evaluate_subgroups(planted, {"view_position": view}, operating_point=POINT, config=FEW)
    gap = next(one for one in column.gaps if one.figure == "sensitivity")
    assert (gap.lowest, gap.p) == ("AP", pytest.approx(1 / 301))


def test_small_subgroups_are_named_and_not_tested() -> None:
    made, _ = study(100)
    site = ["A"] * 60 + ["B"] * 30 + ["C"] * 6 + [""] * 4
    (column,) = evaluate_subgroups(made, {"site": site}, operating_point=POINT, config=FEW)
    assert [(one.value, one.n_patients, one.is_small) for one in column.subgroups] == [
        ("A", 60, False),
        ("B", 30, True),  # eight sick ones
        ("C", 6, True),
    ]
    assert {gap.highest for gap in column.gaps} | {gap.lowest for gap in column.gaps} == {"A", "B"}
    assert column.n_unknown == 4
    assert column.warnings[0] == "Fewer than 20 patients, not tested: C (6)."
    assert column.warnings[1].startswith("Fewer than 10 patients of some class, read with care: B (")
    assert column.warnings[2].startswith("4 labelled samples have no value")
    stricter = EvaluationConfig(replicates=100, subgroup_min_patients=40)
    (column,) = evaluate_subgroups(made, {"site": site}, operating_point=POINT, config=stricter)
    assert column.gaps == ()
    assert "nothing to compare" in column.warnings[1]


def test_all_columns_are_corrected_together() -> None:
    made, sex = study(loss=0.5)
    other = np.random.default_rng(1).permutation(sex).tolist()
    columns = {"sex": sex, "site": other}
    both = evaluate_subgroups(made, columns, operating_point=POINT, config=FEW)
    gaps = [gap for column in both for gap in column.gaps]
    ordered = sorted(gap.p for gap in gaps)  # Holm by hand: the k-th smallest of m times m - k + 1, made to rise
    expected = np.maximum.accumulate([min(1.0, p * (len(gaps) - k)) for k, p in enumerate(ordered)])
    assert sorted(gap.p_holm for gap in gaps) == pytest.approx(expected)
    assert len(gaps) == 6


def test_the_interval_of_a_gap_knows_that_the_largest_was_picked() -> None:
    """Six equal groups: the widest gap's interval must hold 0 in 95 % of studies, that of one picked pair does not."""
    rng = np.random.default_rng(4)
    held, naive = 0, 0
    for _ in range(400):
        point = rng.normal(size=6)  # six independent estimates of one figure, standard error 1
        drawn = point + rng.normal(size=(500, 6))
        low, high = simultaneous_interval(point, drawn, confidence=0.95)
        held += low <= 0.0 <= high
        pair = np.argmax(point), np.argmin(point)
        naive += np.quantile(drawn[:, pair[0]] - drawn[:, pair[1]], 0.025) <= 0.0
    assert 0.92 <= held / 400 <= 0.98  # 95 % and three standard errors
    assert naive / 400 < 0.75


def test_the_factor_is_that_of_tukeys_range_and_of_one_normal_difference() -> None:
    rng = np.random.default_rng(0)
    for groups in (2, 5):
        point = np.linspace(0.5, 0.9, groups)
        low, high = simultaneous_interval(point, point + rng.normal(0, 0.01, (200_000, groups)), confidence=0.95)
        factor = stats.studentized_range.ppf(0.95, groups, np.inf) / 2**0.5
        assert (high - low) / 2 == pytest.approx(factor * 0.01 * 2**0.5, rel=0.01)
        assert (high + low) / 2 == pytest.approx(0.4)


def test_a_gap_that_most_replicates_lack_has_no_interval() -> None:
    drawn = np.full((100, 2), np.nan)
    drawn[:40] = 0.5
    assert np.isnan(simultaneous_interval(np.array([0.4, 0.6]), drawn, confidence=0.95)).all()


def test_every_kind_of_target(random_predictions: Make) -> None:
    made = random_predictions(600, patients=200, split="test")
    sex = [("F", "M")[int(name[1:]) % 2] for name in made.patient_id]
    point = OperatingPoint({"sick": (0.5,), "organ": (), "signs": (0.5, 0.5, 0.5)}, "stated")
    result = evaluate(made, operating_point=point, config=FEW, columns={"sex": pd.Series(sex)})
    found = result.analyses.subgroups
    assert found is not None
    assert {(gap.target, gap.figure) for gap in found[0].gaps} == {
        *(("sick", name) for name in ("auroc", "sensitivity", "specificity")),
        *(("signs", name) for name in ("auroc", "sensitivity", "specificity")),
        *(("organ", name) for name in ("auroc", "accuracy", "balanced_accuracy")),
    }
    plain = result.to_dict()["analyses"]["subgroups"][0]
    assert plain["subgroups"][0]["figures"]["organ"]["auroc"]["n"] == found[0].subgroups[0].figures["organ"]["auroc"].n


def test_values_become_groups() -> None:
    assert group_values([1.0, 2, np.nan, pd.NA, "  "], column="x").tolist() == ["1", "2", "", "", ""]
    assert group_values([True, False, None], column="x").tolist() == ["True", "False", ""]
    thirds = group_values([*range(90), None], column="age")
    assert np.unique(thirds, return_counts=True)[1].tolist() == [1, 30, 30, 30]
    assert thirds[[0, 45, 89, 90]].tolist() == ["< 29.7", "29.7 to 59.3", ">= 59.3", ""]


def test_what_is_refused() -> None:
    made, sex = study(40)
    with pytest.raises(EvaluationError, match="40 values of 'sex'") as caught:
        evaluate_subgroups(made, {"sex": sex[:3]}, operating_point=POINT)
    assert caught.value.key == "sex"
    with pytest.raises(EvaluationError, match="at most 30 different values"):
        evaluate_subgroups(made, {"patient": made.patient_id.tolist()}, operating_point=POINT)
    with pytest.raises(EvaluationError, match="no known value"):
        evaluate_subgroups(made, {"sex": [None] * 40}, operating_point=POINT)


def test_an_ordinal_target_has_every_analysis() -> None:
    rng, n = np.random.default_rng(0), 300
    grade = rng.integers(0, 4, n)
    share = np.exp(-0.5 * (np.arange(4) - (grade + rng.normal(scale=0.8, size=n))[:, None]) ** 2)
    share /= share.sum(axis=1, keepdims=True)
    target = Target("grade", "ordinal", ("0", "1", "2", "3"))
    ids = np.array([f"i{k}" for k in range(n)])
    made = Predictions((target,), ids, ids, ids, {"grade": grade.astype(float)}, {"grade": share})
    rules = fit_set_rules(made, coverage=0.8)
    point = OperatingPoint({"grade": ()}, "none needed")
    sex = ["F", "M"] * 150
    asked = {"columns": {"sex": sex}, "set_rules": rules, "site": Site()}
    found = evaluate(made, operating_point=point, config=FEW, **asked).analyses
    assert {gap.figure for gap in found.subgroups[0].gaps} == {"auroc", "accuracy", "kappa_quadratic"}
    assert len(found.conformal["grade"]) == len(found.abstention["grade"]) == 1
    assert found.conformal["grade"][0].coverage["2"].value == pytest.approx(0.8, abs=0.03)
    assert len(found.calibration["grade"]) == len(found.decision_curve["grade"]) == 4
    assert len(found.external.recalibration["grade"]) == 4
    calibrated = apply_calibrator(share, fit_calibrators(made, method="isotonic")["grade"], kind="ordinal")
    np.testing.assert_allclose(calibrated.sum(axis=1), 1.0)


@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
def test_the_interval_and_the_test_of_a_gap_agree_for_any_number_of_draws(confidence: float) -> None:
    """Replicates without a class are left out, so that P is a multiple of 1/61 or 1/399 as well as of 1/400."""
    rng, found = np.random.default_rng(0), set[bool]()
    for size in range(60, 130):
        spread, drawn = np.abs(rng.normal(size=size)), rng.normal(size=(size, 2)) * 1e-3
        for point in np.sort(spread)[-9:] + 1e-6:
            pair = np.array([point, 0.0])
            half, p = gap_test(pair, pair + drawn, spread, least=np.zeros(2), confidence=confidence)
            assert (p <= 1.0 - confidence + 1e-12) == (point - half > 0.0), (size, p)
            found.add(p <= 1.0 - confidence)
    assert found == {True, False}
