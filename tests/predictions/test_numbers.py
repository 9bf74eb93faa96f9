"""Predictions of numbers: files, names of other tools, stated targets, pairs, and what is told of them."""

from __future__ import annotations

import csv
import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lepton_vision.config.sections import EvaluationConfig
from lepton_vision.errors import EvaluationError
from lepton_vision.evaluation import aggregate, choose_operating_point, evaluate
from lepton_vision.evaluation.choices.calibration import fit_calibrators, fit_temperatures
from lepton_vision.predictions import Predictions
from lepton_vision.predictions.operating_point import OperatingPoint
from lepton_vision.predictions.paired_cases import align, load_pair
from lepton_vision.predictions.stated_targets import stated_targets
from lepton_vision.types import Target

AGE = Target("age", "regression", unit="years")
SICK = Target("sick", "binary", ("no", "yes"))
TRUTH, VALUE = np.array([61.5, -2.25, np.nan, 1e5]), np.array([60.0, 1 / 3, 44.0, -7.5])
IDS, WHO = np.array(["a", "b", "c", "d"]), np.array(["p", "p", "q", "r"])


def of_numbers(*targets: Target, split: str | None = "val") -> Predictions:
    truth = {"age": TRUTH, "sick": np.array([0.0, 1, 1, np.nan])}
    said = {"age": VALUE, "sick": np.array([0.1, 0.7, 0.6, 0.4])}
    names = [target.name for target in targets]
    kept = [{name: one[name] for name in names} for one in (truth, said)]
    return Predictions(targets, IDS, WHO, WHO, *kept, split=split)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize("targets", [(AGE,), (AGE, SICK)])
def test_what_is_saved_comes_back_bit_for_bit(tmp_path: Path, suffix: str, targets: tuple[Target, ...]) -> None:
    made = of_numbers(*targets)
    path = made.save(tmp_path / f"out{suffix}")
    back = Predictions.load(path)
    assert back.targets == targets
    np.testing.assert_array_equal(back.y_true["age"], TRUTH)
    np.testing.assert_array_equal(back.y_prob["age"], VALUE)
    table = pd.read_csv(path) if suffix == ".csv" else pd.read_parquet(path)
    end = "" if len(targets) == 1 else "_age"
    assert {f"y_true{end}", f"y_value{end}"} <= set(table)
    np.testing.assert_array_equal(table[f"y_value{end}"], VALUE)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_without_facts_the_columns_tell_that_it_is_a_number(tmp_path: Path, suffix: str) -> None:
    columns = {"image_id": IDS, "patient_id": WHO, "y_true": TRUTH, "y_value": VALUE}
    frame = pd.DataFrame(columns)
    path = tmp_path / f"theirs{suffix}"
    frame.to_csv(path, index=False) if suffix == ".csv" else frame.to_parquet(path)
    assert Predictions.load(path).targets == (Target("y", "regression"),)
    several = frame.rename(columns={"y_true": "y_true_age", "y_value": "y_value_age"})
    several["y_true_sick"], several["y_prob_sick"] = [0, 1, 1, 0], [0.1, 0.7, 0.6, 0.4]
    several.to_csv(tmp_path / "both.csv", index=False)
    found = Predictions.load(tmp_path / "both.csv")
    assert [(one.name, one.kind) for one in found.targets] == [("age", "regression"), ("sick", "binary")]
    np.testing.assert_array_equal(found.y_prob["age"], VALUE)


@pytest.mark.parametrize(
    ("truth", "value"),
    [
        ("y_true", "y_pred"),
        ("label", "prediction"),
        ("age", "predicted"),
        ("y_true_age", "age_value"),
        ("Reference", "Estimate"),
        ("y_true", "y_prob"),
        ("age", "age_pred"),
    ],
)
def test_names_of_other_tools_are_known_where_a_number_is_stated(tmp_path: Path, truth: str, value: str) -> None:
    path = tmp_path / "theirs.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(
            [["image_id", "patient_id", truth, value], ["a", "p", "61.5", "60"], ["b", "q", "", "-3.5"]]
        )
    targets = stated_targets(path, ["age:kind=regression,unit=years"])
    assert targets == (AGE,)
    found = Predictions.load(path, targets=targets)
    np.testing.assert_array_equal(found.y_true["age"], [61.5, np.nan])
    np.testing.assert_array_equal(found.y_prob["age"], [60.0, -3.5])


def test_a_number_that_is_not_stated_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "theirs.csv"
    path.write_text("image_id,patient_id,y_true,y_pred\na,p,61.5,60\n")
    with pytest.raises(EvaluationError, match="--target kind=regression"):
        Predictions.load(path)
    path.write_text("image_id,patient_id,y_true,y_prob\na,p,61.5,60\n")
    with pytest.raises(EvaluationError, match="state that it is a number"):
        Predictions.load(path)
    path.write_text("image_id,patient_id,y_true,y_value\na,p,true,60\n")
    with pytest.raises(EvaluationError, match=r"'y_true' needs numbers.*decimal point"):
        Predictions.load(path)


@pytest.mark.parametrize(
    ("stated", "match"),
    [
        ("kind=regression,classes=a+b", "has no classes"),
        ("kind=binary,unit=years", "unit is for a number"),
        ("kind=regresion", "Did you mean"),
    ],
)
def test_what_cannot_be_stated_is_refused(tmp_path: Path, stated: str, match: str) -> None:
    path = tmp_path / "theirs.csv"
    path.write_text("image_id,patient_id,y_true,y_prob\na,p,1,0.5\n")
    with pytest.raises(EvaluationError, match=match):
        stated_targets(path, [stated])


def test_two_tables_of_one_number_are_a_pair(tmp_path: Path) -> None:
    first, second = tmp_path / "first.csv", tmp_path / "second.csv"
    first.write_text("image_id,patient_id,y_true,y_pred\na,p,61.5,60\nb,q,40,42\n")
    second.write_text("image_id,prediction\nb,39\na,65\n")
    pair = load_pair((first, second), stated=["age:kind=regression,unit=years"])
    assert [one.targets for one in pair] == [(AGE,), (AGE,)]
    np.testing.assert_array_equal(align(*pair).y_prob["age"], [65.0, 39.0])
    np.testing.assert_array_equal(pair[1].y_true["age"], [40.0, 61.5])


def test_two_units_are_no_pair() -> None:
    months = of_numbers(Target("age", "regression", unit="months"))
    with pytest.raises(EvaluationError, match="in years and in months"):
        align(of_numbers(AGE), months)
    assert align(of_numbers(AGE), of_numbers(Target("age", "regression"))).n == 4


def test_the_images_of_a_patient_give_their_mean(caplog: pytest.LogCaptureFixture) -> None:
    truth = {"age": np.array([50.0, 50.0, 30.0, np.nan])}
    made = Predictions((AGE,), IDS, WHO, WHO, truth, {"age": np.array([40.0, 50.0, -3.0, 8.0])})
    cases = aggregate(made, unit="patient")
    assert cases.y_prob["age"].tolist() == [45.0, -3.0, 8.0]
    np.testing.assert_array_equal(cases.y_true["age"], [50.0, 30.0, np.nan])
    with caplog.at_level(logging.WARNING):
        assert aggregate(made, unit="patient", method="max").y_prob["age"].tolist() == [45.0, -3.0, 8.0]
    assert "Numbers are the mean of the images of a patient, not max: age." in caplog.text
    truth["age"][1] = 51.0
    with pytest.raises(EvaluationError, match="differ within a patient"):
        aggregate(made, unit="patient")


def test_nothing_is_calibrated_or_decided_of_a_number() -> None:
    only, both = of_numbers(AGE), of_numbers(AGE, SICK)
    assert choose_operating_point(only).thresholds == {"age": ()}
    assert fit_temperatures(only) == {}
    assert fit_calibrators(only) == {}
    assert choose_operating_point(both).thresholds["age"] == ()
    assert list(fit_temperatures(both)) == ["sick"]
    assert list(fit_calibrators(both)) == ["sick"]


def test_a_table_of_numbers_tells_their_mean_and_range() -> None:
    assert "mean 3.335e+04, -2.25 to 1e+05 years" in repr(of_numbers(AGE, SICK))
    assert "no 1, yes 2" in repr(of_numbers(AGE, SICK))


def test_cases_say_how_numbers_were_joined() -> None:
    config = EvaluationConfig(replicates=100, unit="patient", aggregation="max")
    ids = np.array([f"i{k}" for k in range(20)])
    who, age = np.repeat(np.array([f"p{k}" for k in range(10)]), 2), np.repeat(np.arange(10.0), 2)
    sick = np.repeat(np.arange(10) % 2, 2).astype(float)
    values = {"age": age + np.tile([0.0, 1.0], 10), "sick": np.linspace(0, 1, 20)}
    for targets, said in (((AGE,), "mean"), ((AGE, SICK), "max, numbers by their mean"), ((SICK,), "max")):
        made = Predictions(targets, ids, who, who, {"age": age, "sick": sick}, values)
        found = evaluate(made, operating_point=OperatingPoint({"sick": (0.5,)}, "stated"), config=config)
        assert found.provenance["aggregation"] == said
