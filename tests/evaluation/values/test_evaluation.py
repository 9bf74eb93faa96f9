"""Evaluation and comparison of numbers: alone, beside classes, by subgroup and site, with own figures, in training."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import mean_absolute_error, median_absolute_error, r2_score, roc_auc_score

from lepton_vision.config.sections import EvaluationConfig
from lepton_vision.errors import EvaluationError
from lepton_vision.evaluation import Evaluation, choose_operating_point, compare, evaluate
from lepton_vision.evaluation.classes.conformal import fit_set_rules
from lepton_vision.evaluation.classes.external import Site
from lepton_vision.evaluation.classes.figures import WATCHED, validation_figures, watched
from lepton_vision.predictions import Predictions
from lepton_vision.predictions.operating_point import OperatingPoint
from lepton_vision.types import OwnFigure, Target

AGE = Target("age", "regression", unit="years")
VOLUME = Target("volume", "regression", unit="ml")
SICK = Target("sick", "binary", ("no", "yes"))
FEW = EvaluationConfig(replicates=200)
BY_TARGET = {"age": (60.0, 12.0, 4.0), "volume": (3.0, 0.5, 0.2)}


def drawn(
    *targets: Target, patients: int = 80, seed: int = 0, split: str | None = "test", unknown: float = 0.1
) -> Predictions:
    rng = np.random.default_rng(seed)
    who = np.repeat(np.arange(patients), rng.integers(1, 4, patients))
    truth, said = {}, {}
    for target in targets:
        if target.is_value:
            mean, spread, error = BY_TARGET[target.name]
            truth[target.name] = rng.normal(mean, spread, patients)[who]
            said[target.name] = (
                truth[target.name] + rng.normal(0, error, patients)[who] + rng.normal(0, error, who.size)
            )
        else:
            truth[target.name] = rng.integers(0, 2, patients)[who].astype(float)
            said[target.name] = 1 / (1 + np.exp(-2 * truth[target.name] - rng.normal(-1, 1, who.size)))
        truth[target.name][rng.random(who.size) < unknown] = np.nan
    ids = np.array([f"{split}-{seed}-{k}" for k in range(who.size)])
    patient = np.array([f"{split}-{seed}-p{k}" for k in who])
    return Predictions(targets, ids, patient, patient, truth, said, split=split)


def evaluated(predictions: Predictions, **more: Any) -> Evaluation:
    point = OperatingPoint({t.name: (0.5,) if t.is_yes_no else () for t in predictions.targets}, "stated")
    return evaluate(predictions, operating_point=point, config=FEW, **more)


@pytest.mark.parametrize("targets", [(AGE,), (AGE, SICK), (SICK, AGE, VOLUME)])
def test_numbers_stand_alone_or_beside_classes(targets: tuple[Target, ...]) -> None:
    val, test = drawn(*targets, split="val", seed=1), drawn(*targets)
    found = evaluate(test, operating_point=choose_operating_point(val), config=FEW, set_rules=fit_set_rules(val))
    for target in targets:
        figures = found.figures[target.name]
        assert all(one.low < one.value < one.high for one in figures.values() if one.method == "bca")
        if not target.is_value:
            assert "auroc" in figures
            continue
        known = test.labelled(target)
        truth, said = test.y_true[target.name][known], test.y_prob[target.name][known]
        assert figures["mae"].value == pytest.approx(mean_absolute_error(truth, said))
        assert figures["r2"].value == pytest.approx(r2_score(truth, said))
        assert {one.method for one in figures.values()} == {"bca"}
        assert {one.n for one in figures.values()} == {int(known.sum())}
        np.testing.assert_array_equal(found.points[target.name].truth, truth)
        errors = [abs(case.y_prob - case.y_true) for case in found.worst[target.name]]
        assert errors == sorted(np.abs(truth - said), reverse=True)[:12]
        intervals = (found.analyses.intervals or {})[target.name]
        assert 0.7 < intervals.coverage.low < intervals.coverage.high <= 1.0
        assert (found.curves[target.name], found.unsure[target.name]) == ((), ())
        for analysis in (found.analyses.calibration, found.analyses.decision_curve, found.analyses.abstention):
            assert (analysis or {})[target.name] == ()
    plain = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert plain["targets"][AGE.name]["unit"] == "years"
    assert plain["analyses"]["intervals"]["age"]["stated"] == 0.9
    assert "age (regression, years)" in repr(found)
    assert ("operating point" in repr(found)) == (SICK in targets)


def test_a_number_needs_no_operating_point() -> None:
    assert evaluate(drawn(AGE), operating_point=OperatingPoint({}, "none"), config=FEW).figures["age"]["mae"].n


def test_the_labels_of_nobody_are_told() -> None:
    found = evaluated(drawn(AGE, unknown=1.0))
    assert {one.reason for one in found.figures["age"].values()} == {"no labelled sample"}
    assert found.n == 0


def test_a_bias_of_one_sex_is_found() -> None:
    made = drawn(AGE, patients=200, unknown=0.0)
    sex = np.where([int(name.rsplit("p", 1)[1]) % 2 for name in made.patient_id.tolist()], "m", "f")
    made.y_prob["age"][sex == "m"] += 4.0
    found = evaluated(made, columns={"sex": sex.tolist()})
    (column,) = found.analyses.subgroups or ()
    gaps = {gap.figure: gap for gap in column.gaps}
    assert set(gaps) == {"mae", "bias"}
    assert (gaps["bias"].highest, gaps["bias"].lowest) == ("m", "f")
    assert gaps["bias"].p_holm < 0.05 < gaps["mae"].p
    assert gaps["bias"].difference.low < 4.0 < gaps["bias"].difference.high
    here = made.select(sex == "f")
    expected = mean_absolute_error(here.y_true["age"], here.y_prob["age"])
    assert column.subgroups[0].figures["age"]["mae"].value == pytest.approx(expected)


def test_subgroups_that_say_nothing_differ_as_often_as_stated() -> None:
    p_values = []
    for seed in range(30):
        made = drawn(AGE, patients=60, seed=seed)
        group = [int(name.rsplit("p", 1)[1]) % 2 for name in made.patient_id.tolist()]
        (column,) = evaluated(made, columns={"half": group}).analyses.subgroups or ()
        p_values.append(next(gap.p for gap in column.gaps if gap.figure == "bias"))
    assert np.mean(np.array(p_values) <= 0.1) <= 0.1 + 3 * np.sqrt(0.1 * 0.9 / 30)


def test_another_site_is_compared_without_a_recalibration() -> None:
    here, there = drawn(AGE, SICK), drawn(AGE, SICK, seed=5)
    there.y_prob["age"][:] += 9.0
    found = evaluated(there, site=Site(here)).analyses.external
    assert found is not None
    assert found.shifts["age"]["bias"].difference.low > 5.0
    assert found.recalibration["age"] == ()
    assert found.recalibration["sick"]


def test_two_models_of_a_number() -> None:
    good = drawn(AGE, patients=120)
    rng = np.random.default_rng(9)
    worse = Predictions(
        good.targets,
        good.image_id,
        good.patient_id,
        good.series_id,
        good.y_true,
        {"age": good.y_prob["age"] + rng.normal(0, 8, good.n)},
        split="test",
    )
    found = compare(worse, good, operating_point=OperatingPoint({}, "none"), config=FEW, margin=1.0)
    figures = found.differences["age"]
    assert found.endpoints["age"] == ("mae", "rmse", "r2")
    known = good.labelled(AGE)
    truth = good.y_true["age"][known]
    maes = [mean_absolute_error(truth, one.y_prob["age"][known]) for one in (worse, good)]
    assert figures["mae"].figure.value == pytest.approx(maes[1] - maes[0])
    assert figures["mae"].figure.high < 0 < figures["r2"].figure.low
    assert figures["mae"].p_adjusted < 0.05
    assert (figures["mae"].is_non_inferior, figures["mae"].margin, figures["r2"].margin) == (True, 1.0, None)
    reverse = compare(good, worse, operating_point=OperatingPoint({}, "none"), config=FEW, margin={"r2": 0.05})
    assert reverse.differences["age"]["r2"].is_non_inferior is False
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["targets"]["age"]["unit"] == "years"
    assert "age (regression, years)" in repr(found)


def test_own_figures_of_a_number() -> None:
    made, many = drawn(AGE, SICK), {"median": OwnFigure(weighted_median, better="lower", kinds=("regression",))}
    figures = evaluated(made, figures=many).figures
    known = made.labelled(AGE)
    expected = median_absolute_error(made.y_true["age"][known], made.y_prob["age"][known])
    assert figures["age"]["median"].value == pytest.approx(expected, abs=0.3)
    assert figures["age"]["median"].low < figures["age"]["median"].high
    assert "median" not in figures["sick"]
    plain = evaluated(drawn(AGE), figures={"worst": lambda y, p, w: float(np.abs(y - p)[w > 0].max())})
    assert plain.figures["age"]["worst"].value == pytest.approx(abs(np.subtract(*case_of(plain))))
    with pytest.raises(EvaluationError, match="Mean absolute error"):
        evaluated(made, figures={"mae": weighted_median})


def weighted_median(y: np.ndarray, p: np.ndarray, w: np.ndarray) -> float:
    return float(np.median(np.repeat(np.abs(y - p), w.astype(int))))


def case_of(found: Evaluation) -> tuple[float, float]:
    return found.worst["age"][0].y_true, found.worst["age"][0].y_prob


def test_training_watches_numbers_as_means_over_them() -> None:
    made = drawn(AGE, VOLUME, SICK)
    known = {t.name: made.labelled(t) for t in made.targets}
    pairs = {name: (made.y_true[name][rows], made.y_prob[name][rows]) for name, rows in known.items()}
    found = validation_figures(made)
    numbers = [pairs["age"], pairs["volume"]]
    assert found["val_mae"] == pytest.approx(np.mean([mean_absolute_error(*one) for one in numbers]))
    assert found["val_r2"] == pytest.approx(np.mean([r2_score(*one) for one in numbers]))
    assert found["val_auroc"] == pytest.approx(roc_auc_score(*pairs["sick"]))
    losses = [1 - r2_score(*one) for one in numbers]
    of_sick = -np.mean(np.log(np.where(pairs["sick"][0] > 0, pairs["sick"][1], 1 - pairs["sick"][1])))
    assert found["val_loss"] == pytest.approx(np.mean([*losses, of_sick]))


def test_validation_gives_the_figures_that_its_targets_have() -> None:
    only = validation_figures(drawn(AGE))
    assert set(only) == {"val_loss", "val_mae", "val_r2"} == set(watched((AGE,)))
    assert set(watched((SICK,))) == {"val_auroc", "val_average_precision", "val_loss"}
    assert watched((SICK, AGE)) == WATCHED
    assert watched(()) == {}
    assert np.isnan(list(validation_figures(drawn(AGE, unknown=1.0)).values())).all()
